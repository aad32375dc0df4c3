/* DESIGN
 *
 * A row is one query head of one query.  The rows of a job that share a KV head (query-major) are
 * cut into blocks of up to ATTN_ROWS; a block walks the KV tiles it sees, in ascending order:
 *
 *   tile: K, V -> floats in scratch (once per block); scores of all rows; per row mask, online
 *         softmax (m, l and o rescaled when the maximum grows); o += weights * V
 *   span: starts with empty (m, l, o); at its end merged into the row's total
 *
 * A row takes part in a tile only if it sees a token of it, and its weighted sum stops at its own
 * last token, so rows in a block do not disturb each other and what lies behind is never touched.
 *
 * Unit of work: a block, over all its spans.  Where there are too few blocks for the threads (one
 * long decode), a unit is one span of a block: partial results go to slots, and the thread that
 * finishes a block's last span merges them, in ascending order.  Both ways do the same arithmetic
 * in the same order.
 *
 *   G1 (unit_finish): acq_rel decrement of a block's count of open spans; the last one sees the
 *   slots that the others wrote before theirs. */
#include "common/compute/attention.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/compute/kernels.h"

enum {
    ATTN_ROWS = 48, /* a multiple of rows_tile; q, o and one KV tile of width 128 fit 64 KiB */
    TILE = KV_TILE_TOKENS,
    LOAD_STEP = 4,               /* tokens */
    SPLIT_SLOTS_PER_THREAD = 64, /* room for partial results, in units of SPLIT_ROWS rows */
    SPLIT_ROWS = 16,
    WIDTH_MAX = 1024, /* geometry's bound on a head */
};

/* Online softmax state of a block's rows: o[r] / l[r] is the attention so far. */
struct accum {
    float *m, *l; /* [ATTN_ROWS]; nothing seen yet: -infinity, 0 */
    float *o;     /* [ATTN_ROWS][ldo] */
    uint32_t ldo; /* dv rounded up to 32 */
};

/* One thread's working memory. */
struct room {
    float *q; /* [ATTN_ROWS][ldk], zero-filled from dk to ldk */
    float *k; /* [TILE][ldk] */
    float *v; /* [TILE][ldo] */
    float *s; /* [ATTN_ROWS][TILE] scores, then weights */
    float *span, *total;
    uint32_t seen[ATTN_ROWS]; /* tokens 0..seen-1 of the tile concern the row; 0: not at all */
};

struct attn_scratch {
    const struct kernels *kernels;
    uint32_t n_threads;
    uint32_t dk_max, dv_max;
    size_t n_slot_floats;
    float *slots;
    float *memory; /* everything, one allocation */
    _Atomic uint32_t open_spans[2 * TEAM_THREADS_MAX];
    struct room room[];
};

/* Rows r0..r0+n_rows-1 of a job at one KV head. */
struct block {
    const struct attn_job *job;
    const struct kv_layer *layer;
    uint32_t head;  /* KV head */
    uint32_t group; /* query heads per KV head */
    uint32_t r0, n_rows;
};

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

static size_t accum_floats(uint32_t n_rows, uint32_t dv)
{
    return (size_t)n_rows * (2 + round_up(dv, 32));
}

static struct accum accum_at(float *memory, uint32_t n_rows, uint32_t dv)
{
    return (struct accum){.m = memory,
                          .l = memory + n_rows,
                          .o = memory + 2 * (size_t)n_rows,
                          .ldo = round_up(dv, 32)};
}

static void accum_clear(struct accum *a, uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        a->m[r] = -INFINITY;
        a->l[r] = 0.0f;
    }
    memset(a->o, 0, (size_t)n_rows * a->ldo * sizeof(float));
}

/* to := to and then from.  An empty side leaves the other as it is. */
static void accum_merge(const struct kernels *kernels, struct accum *to, const struct accum *from,
                        uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        float *o = to->o + (size_t)r * to->ldo;
        const float *p = from->o + (size_t)r * from->ldo;
        float max = to->m[r] > from->m[r] ? to->m[r] : from->m[r];
        float a, b;

        if (from->l[r] == 0.0f && from->m[r] == -INFINITY)
            continue;
        if (to->l[r] == 0.0f && to->m[r] == -INFINITY) {
            to->m[r] = from->m[r];
            to->l[r] = from->l[r];
            memcpy(o, p, to->ldo * sizeof(float));
            continue;
        }
        a = kernels->exp1(to->m[r] - max);
        b = kernels->exp1(from->m[r] - max);
        kernels->blend(o, a, p, b, to->ldo);
        to->l[r] = to->l[r] * a + from->l[r] * b;
        to->m[r] = max;
    }
}

static uint32_t row_pos(const struct block *b, uint32_t r)
{
    return b->job->pos + (b->r0 + r) / b->group;
}

static bool sees(const struct kv_layer *l, uint32_t pos, uint32_t t)
{
    if (t > pos)
        return false;
    return l->window == 0 || pos - t < l->window || t < l->n_sinks;
}

/* Does a query at pos see any token of the tile that starts at t0? */
static bool sees_tile(const struct kv_layer *l, uint32_t pos, uint32_t t0)
{
    return t0 <= pos && (sees(l, pos, t0) || sees(l, pos, pos - t0 < TILE ? pos : t0 + TILE - 1));
}

/* Fills room->seen; returns how many tokens of the tile any row needs. */
static uint32_t tile_extent(const struct block *b, struct room *room, uint32_t t0)
{
    uint32_t n = 0;

    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t pos = row_pos(b, r);

        room->seen[r] = 0;
        if (sees_tile(b->layer, pos, t0))
            room->seen[r] = pos - t0 < TILE ? pos - t0 + 1 : TILE;
        n = room->seen[r] > n ? room->seen[r] : n;
    }
    return n;
}

/* Asks for n bytes ahead of their use, into the second cache (the first is full of this tile).
 * Assembler, because GCC 12 takes a function of prefetch builtins for one without effect and drops
 * the call. */
static void prefetch(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64)
        __asm__ volatile("prefetcht1 %0" : : "m"(p[i]));
}

/* One stream (K or V) of a tile: where it lies now, and where the next tile's lies, if any. */
struct stream {
    const uint8_t *at, *next;
    const float *scales;
    uint32_t stride, width;
};

static struct stream tile_stream(const struct block *b, uint32_t t0, bool values)
{
    const struct kv_view *kv = &b->job->kv;
    const struct kv_layer *l = b->layer;
    const uint8_t *block = kv_view_block(kv, t0);
    uint32_t t = t0 % kv->block_tokens, next = t0 + TILE;
    size_t off = values ? l->v_off + (size_t)b->head * l->v_head_stride
                        : l->k_off + (size_t)b->head * l->k_head_stride;
    size_t scale_off = sizeof(float) * ((size_t)b->head * kv->block_tokens + t);
    struct stream s = {.stride = values ? l->v_token_stride : l->k_token_stride,
                       .width = values ? l->dv : l->dk};

    s.at = block + off + (size_t)t * s.stride;
    s.scales = (const float *)(const void *)(block + scale_off +
                                             (values ? l->v_scale_off : l->k_scale_off));
    if (next <= row_pos(b, b->n_rows - 1))
        s.next = kv_view_block(kv, next) + off + (size_t)(next % kv->block_tokens) * s.stride;
    return s;
}

/* Tokens t..t+n-1 of a stream to floats, asking for the same part of the next tile meanwhile. */
static void stream_load(const struct kernels *kernels, uint32_t type, const struct stream *s,
                        uint32_t t, uint32_t n, float *dst, uint32_t ld)
{
    size_t off = (size_t)t * s->stride;

    if (s->next != NULL)
        prefetch(s->next + off, (size_t)n * s->stride);
    kernels->kv_load((enum kv_type)type, s->at + off, s->stride, s->scales + t, n, s->width,
                     dst + (size_t)t * ld, ld);
}

/* K and V in small steps in turn, so that the requests for the next tile are spread. */
static void tile_load(const struct kernels *kernels, const struct block *b, struct room *room,
                      uint32_t t0, uint32_t n)
{
    struct stream k = tile_stream(b, t0, false), v = tile_stream(b, t0, true);

    for (uint32_t t = 0; t < n; t += LOAD_STEP) {
        uint32_t step = n - t < LOAD_STEP ? n - t : LOAD_STEP;

        stream_load(kernels, b->job->kv.type, &k, t, step, room->k, round_up(k.width, 16));
        stream_load(kernels, b->job->kv.type, &v, t, step, room->v, round_up(v.width, 32));
    }
}

static void mask_row(const struct kv_layer *l, uint32_t pos, uint32_t t0, float *s)
{
    if (t0 + TILE - 1 <= pos && (l->window == 0 || pos - t0 < l->window))
        return; /* all seen */
    for (uint32_t t = 0; t < TILE; t++)
        if (!sees(l, pos, t0 + t))
            s[t] = -INFINITY;
}

/* o += weights * V, for runs of rows that stop at the same token. */
static void tile_values(const struct kernels *kernels, const struct block *b,
                        const struct room *room, struct accum *a)
{
    for (uint32_t r = 0, end; r < b->n_rows; r = end) {
        for (end = r + 1; end < b->n_rows && end - r < kernels->rows_tile; end++)
            if (room->seen[end] != room->seen[r])
                break;
        for (uint32_t c = 0; room->seen[r] > 0 && c < a->ldo; c += 32)
            kernels->tile(end - r, room->v + c, a->ldo, room->seen[r], room->s + r * TILE, TILE,
                          a->o + (size_t)r * a->ldo + c, a->ldo);
    }
}

static void tile_run(const struct kernels *kernels, const struct block *b, struct room *room,
                     struct accum *a, uint32_t t0)
{
    const struct kv_layer *l = b->layer;
    uint32_t ldk = round_up(l->dk, 16), n = tile_extent(b, room, t0);

    if (n == 0)
        return;
    tile_load(kernels, b, room, t0, n);
    kernels->scores(room->q, ldk, b->n_rows, room->k, ldk, ldk, n, l->scale, l->softcap, room->s);
    for (uint32_t r = 0; r < b->n_rows; r++) {
        float *s = room->s + r * TILE;
        float alpha;

        if (room->seen[r] == 0)
            continue;
        mask_row(l, row_pos(b, r), t0, s);
        alpha = kernels->softmax_step(s, &a->m[r], &a->l[r]);
        if (alpha != 1.0f)
            kernels->blend(a->o + (size_t)r * a->ldo, alpha, NULL, 0.0f, a->ldo);
    }
    tile_values(kernels, b, room, a);
}

/* The block's rows over the tokens of one span, from scratch. */
static void span_run(const struct kernels *kernels, const struct block *b, struct room *room,
                     struct accum *a, uint32_t span)
{
    uint32_t last = row_pos(b, b->n_rows - 1);
    uint32_t t0 = span * ATTN_SPAN_TOKENS;

    accum_clear(a, b->n_rows);
    for (uint32_t i = 0; i < ATTN_SPAN_TOKENS / TILE && t0 <= last; i++, t0 += TILE)
        tile_run(kernels, b, room, a, t0);
}

static void block_load_q(const struct block *b, struct room *room)
{
    uint32_t dk = b->layer->dk, ldk = round_up(dk, 16);

    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t query = (b->r0 + r) / b->group, h = (b->r0 + r) % b->group;
        const float *q = b->job->q + query * b->job->ldq + ((size_t)b->head * b->group + h) * dk;
        float *dst = room->q + (size_t)r * ldk;

        memcpy(dst, q, dk * sizeof *q);
        memset(dst + dk, 0, (ldk - dk) * sizeof *q);
    }
}

static void block_finish(const struct kernels *kernels, const struct block *b,
                         const struct accum *a)
{
    uint32_t dv = b->layer->dv;

    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t query = (b->r0 + r) / b->group, h = (b->r0 + r) % b->group;
        float *out = b->job->out + query * b->job->ldo + ((size_t)b->head * b->group + h) * dv;

        kernels->divide(out, a->o + (size_t)r * a->ldo, a->l[r], dv);
    }
}

static void block_run(const struct kernels *kernels, const struct block *b, struct room *room)
{
    uint32_t n_spans = row_pos(b, b->n_rows - 1) / ATTN_SPAN_TOKENS + 1;
    struct accum span = accum_at(room->span, ATTN_ROWS, b->layer->dv);
    struct accum total = accum_at(room->total, ATTN_ROWS, b->layer->dv);

    block_load_q(b, room);
    accum_clear(&total, b->n_rows);
    for (uint32_t i = 0; i < n_spans; i++) {
        span_run(kernels, b, room, &span, i);
        accum_merge(kernels, &total, &span, b->n_rows);
    }
    block_finish(kernels, b, &total);
}

/* How a job is cut into units. */
struct cut {
    uint32_t group;           /* query heads per KV head */
    uint32_t n_rows;          /* rows per KV head */
    uint32_t blocks_per_head; /* blocks of up to ATTN_ROWS rows */
    uint32_t n_blocks;        /* over all KV heads */
    uint32_t n_spans;
};

static struct cut job_cut(const struct attn_job *job)
{
    const struct kv_layer *l = job->kv.layer;
    struct cut c = {.group = (uint32_t)l->n_heads / l->n_kv_heads};

    if (job->n_q == 0)
        return c;
    c.n_rows = job->n_q * c.group;
    c.blocks_per_head = (c.n_rows - 1) / ATTN_ROWS + 1;
    c.n_blocks = c.blocks_per_head * l->n_kv_heads;
    c.n_spans = (job->pos + job->n_q - 1) / ATTN_SPAN_TOKENS + 1;
    return c;
}

static struct block job_block(const struct attn_job *job, const struct cut *c, uint32_t i)
{
    uint32_t r0 = i % c->blocks_per_head * ATTN_ROWS;
    uint32_t left = c->n_rows - r0;

    return (struct block){.job = job,
                          .layer = job->kv.layer,
                          .head = i / c->blocks_per_head,
                          .group = c->group,
                          .r0 = r0,
                          .n_rows = left < ATTN_ROWS ? left : ATTN_ROWS};
}

struct run {
    struct attn_scratch *scratch;
    const struct attn_job *jobs;
    uint32_t n_jobs;
    bool split;         /* a unit is a span of a block, not a block */
    size_t slot_floats; /* per unit, when split */
    _Alignas(64) _Atomic uint32_t next;
};

static struct accum slot_at(const struct run *run, const struct block *b, uint32_t unit)
{
    return accum_at(run->scratch->slots + unit * run->slot_floats, b->n_rows, b->layer->dv);
}

/* Merges the block's slots, first_unit on, and writes its output. */
static void split_finish(const struct run *run, const struct block *b, uint32_t first_unit,
                         uint32_t n_spans)
{
    const struct kernels *kernels = run->scratch->kernels;
    struct accum total = slot_at(run, b, first_unit);

    for (uint32_t i = 1; i < n_spans; i++) {
        struct accum span = slot_at(run, b, first_unit + i);

        accum_merge(kernels, &total, &span, b->n_rows);
    }
    block_finish(kernels, b, &total);
}

/* block_idx counts blocks over all jobs, unit likewise. */
static void split_run(const struct run *run, const struct block *b, struct room *room,
                      uint32_t block_idx, uint32_t unit, uint32_t span, uint32_t n_spans)
{
    struct attn_scratch *s = run->scratch;
    struct accum a = slot_at(run, b, unit);

    block_load_q(b, room);
    span_run(s->kernels, b, room, &a, span);
    if (atomic_fetch_sub_explicit(&s->open_spans[block_idx], 1, memory_order_acq_rel) == 1) /* G1 */
        split_finish(run, b, unit - span, n_spans);
}

/* The cursor only grows, so each thread walks the list of jobs once. */
static void run_thread(void *ctx, uint32_t thread_idx)
{
    struct run *run = ctx;
    struct room *room = &run->scratch->room[thread_idx];
    uint32_t first_unit = 0, first_block = 0; /* of the current job */

    for (uint32_t i = 0; i < run->n_jobs;) {
        struct cut c = job_cut(&run->jobs[i]);
        uint32_t per_block = run->split ? c.n_spans : 1;
        uint32_t unit = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);

        while (unit - first_unit >= c.n_blocks * per_block) {
            first_unit += c.n_blocks * per_block;
            first_block += c.n_blocks;
            if (++i == run->n_jobs)
                return;
            c = job_cut(&run->jobs[i]);
            per_block = run->split ? c.n_spans : 1;
        }
        uint32_t block_idx = (unit - first_unit) / per_block;
        struct block b = job_block(&run->jobs[i], &c, block_idx);

        if (run->split)
            split_run(run, &b, room, first_block + block_idx, unit, (unit - first_unit) % per_block,
                      c.n_spans);
        else
            block_run(run->scratch->kernels, &b, room);
    }
}

/* Decides whether spans are spread over threads, and prepares the counts of open spans. */
static void run_plan(struct run *run, uint32_t n_threads)
{
    struct attn_scratch *s = run->scratch;
    uint32_t n_blocks = 0, rows_max = 0, dv_max = 0;
    uint64_t n_units = 0;

    for (uint32_t i = 0; i < run->n_jobs && n_blocks < 2 * n_threads; i++) {
        struct cut c = job_cut(&run->jobs[i]);

        n_blocks += c.n_blocks;
        n_units += (uint64_t)c.n_blocks * c.n_spans;
        rows_max = c.n_rows > rows_max ? c.n_rows : rows_max;
        dv_max = run->jobs[i].kv.layer->dv > dv_max ? run->jobs[i].kv.layer->dv : dv_max;
    }
    if (n_threads == 1 || n_blocks >= 2 * n_threads || n_units == n_blocks)
        return;
    run->slot_floats = accum_floats(rows_max < ATTN_ROWS ? rows_max : ATTN_ROWS, dv_max);
    run->split = n_units * run->slot_floats <= s->n_slot_floats;
    for (uint32_t i = 0, at = 0; run->split && i < run->n_jobs; i++) {
        struct cut c = job_cut(&run->jobs[i]);

        for (uint32_t j = 0; j < c.n_blocks; j++) /* published by team_run */
            atomic_store_explicit(&s->open_spans[at++], c.n_spans, memory_order_relaxed);
    }
}

void attn_run(struct team *team, struct attn_scratch *s, const struct attn_job *jobs,
              uint32_t n_jobs)
{
    struct run run = {.scratch = s, .jobs = jobs, .n_jobs = n_jobs};

    invariant(team_n_threads(team) <= s->n_threads);
    for (uint32_t i = 0; i < n_jobs; i++) {
        const struct kv_layer *l = jobs[i].kv.layer;

        invariant(l->dk <= s->dk_max && l->dv <= s->dv_max);
        invariant(jobs[i].kv.block_tokens % TILE == 0);
        invariant(jobs[i].n_q <= UINT32_MAX / l->n_heads);
        invariant(jobs[i].n_q == 0 ||
                  (jobs[i].pos + jobs[i].n_q - 1) / jobs[i].kv.block_tokens < jobs[i].kv.n_blocks);
    }
    run_plan(&run, team_n_threads(team));
    team_run(team, run_thread, &run);
}

/* Hands out the next n floats, 64-byte aligned; p NULL: only counts. */
static float *carve(float *memory, size_t *at, size_t n)
{
    float *p = memory == NULL ? NULL : memory + *at;

    *at += (n + 15) / 16 * 16;
    return p;
}

/* Lays the working memory out from `memory` on; returns its size in floats. */
static size_t scratch_layout(struct attn_scratch *s, float *memory)
{
    uint32_t ldk = round_up(s->dk_max, 16), ldo = round_up(s->dv_max, 32);
    size_t at = 0;

    for (uint32_t i = 0; i < s->n_threads; i++) {
        s->room[i].q = carve(memory, &at, (size_t)ATTN_ROWS * ldk);
        s->room[i].k = carve(memory, &at, (size_t)TILE * ldk);
        s->room[i].v = carve(memory, &at, (size_t)TILE * ldo);
        s->room[i].s = carve(memory, &at, ATTN_ROWS * TILE);
        s->room[i].span = carve(memory, &at, accum_floats(ATTN_ROWS, s->dv_max));
        s->room[i].total = carve(memory, &at, accum_floats(ATTN_ROWS, s->dv_max));
    }
    s->slots = carve(memory, &at, s->n_slot_floats);
    return at;
}

int attn_scratch_create(struct attn_scratch **out, enum isa isa, uint32_t n_threads,
                        uint32_t dk_max, uint32_t dv_max)
{
    struct attn_scratch *s;
    size_t bytes;

    *out = NULL;
    if (isa >= ISA_COUNT || n_threads == 0 || n_threads > TEAM_THREADS_MAX || dk_max == 0 ||
        dv_max == 0 || dk_max > WIDTH_MAX || dv_max > WIDTH_MAX)
        return -EINVAL;
    s = calloc(1, sizeof *s + n_threads * sizeof s->room[0]);
    if (s == NULL)
        return -ENOMEM;
    s->kernels = kernels_of(isa);
    s->n_threads = n_threads;
    s->dk_max = dk_max;
    s->dv_max = dv_max;
    if (n_threads > 1)
        s->n_slot_floats = n_threads * SPLIT_SLOTS_PER_THREAD * accum_floats(SPLIT_ROWS, dv_max);
    bytes = scratch_layout(s, NULL) * sizeof(float);
    s->memory = aligned_alloc(64, bytes);
    if (s->memory == NULL) {
        free(s);
        return -ENOMEM;
    }
    memset(s->memory, 0, bytes);
    scratch_layout(s, s->memory);
    *out = s;
    return 0;
}

void attn_scratch_destroy(struct attn_scratch *s)
{
    if (s != NULL)
        free(s->memory);
    free(s);
}
