/* DESIGN
 *
 * attention_block.c computes a block of rows over tiles; here jobs are cut into units that threads
 * take from a shared cursor.
 *
 * Unit of work: a block, over all its spans.  Where there are too few blocks for the threads (one
 * long decode), a unit is one span of a block: partial results go to slots, and the thread that
 * finishes a block's last span merges them, in ascending order.  Both ways do the same arithmetic
 * in the same order.
 *
 *   G1 (split_run): acq_rel decrement of a block's count of open spans; the last one sees the
 *   slots that the others wrote before theirs. */
#include "common/compute/attention.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/compute/attention_block.h"
#include "common/compute/kernels.h"

enum {
    SPLIT_BLOCKS_PER_THREAD = 8, /* fewer than so many blocks a thread are spread by spans */
    SPLIT_SLOTS_PER_THREAD = 64, /* room for partial results, in units of SPLIT_ROWS rows */
    SPLIT_ROWS = 16,
    WIDTH_MAX = 1024, /* geometry's bound on a head */
};

struct attn_scratch {
    const struct kernels *kernels;
    uint32_t n_threads;
    uint32_t dk_max, dv_max;
    size_t n_slot_floats;
    float *slots;
    float *memory; /* everything, one allocation */
    _Atomic uint32_t open_spans[SPLIT_BLOCKS_PER_THREAD * TEAM_THREADS_MAX];
    struct attn_room room[];
};

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

static void block_run(const struct kernels *kernels, const struct attn_block *b,
                      struct attn_room *room)
{
    uint32_t n_spans = attn_block_last(b) / ATTN_SPAN_TOKENS + 1;
    struct attn_accum span = attn_accum_at(room->span, b->n_rows, b->layer->dv);
    struct attn_accum total = attn_accum_at(room->total, b->n_rows, b->layer->dv);

    attn_block_begin(kernels, b, room, 0);
    attn_block_span(kernels, b, room, &total, 0, n_spans == 1);
    for (uint32_t i = 1; i < n_spans; i++) {
        attn_block_span(kernels, b, room, &span, i, i + 1 == n_spans);
        attn_accum_merge(kernels, &total, &span, b->n_rows);
    }
    attn_block_finish(kernels, b, &total);
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

static struct attn_block job_block(const struct attn_job *job, const struct cut *c, uint32_t i)
{
    uint32_t r0 = i % c->blocks_per_head * ATTN_ROWS;
    uint32_t left = c->n_rows - r0;

    return (struct attn_block){.job = job,
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

static struct attn_accum slot_at(const struct run *run, const struct attn_block *b, uint32_t unit)
{
    return attn_accum_at(run->scratch->slots + unit * run->slot_floats, b->n_rows, b->layer->dv);
}

/* Merges the block's slots, first_unit on, and writes its output. */
static void split_finish(const struct run *run, const struct attn_block *b, uint32_t first_unit,
                         uint32_t n_spans)
{
    const struct kernels *kernels = run->scratch->kernels;
    struct attn_accum total = slot_at(run, b, first_unit);

    for (uint32_t i = 1; i < n_spans; i++) {
        struct attn_accum span = slot_at(run, b, first_unit + i);

        attn_accum_merge(kernels, &total, &span, b->n_rows);
    }
    attn_block_finish(kernels, b, &total);
}

/* block_idx counts blocks over all jobs, unit likewise. */
static void split_run(const struct run *run, const struct attn_block *b, struct attn_room *room,
                      uint32_t block_idx, uint32_t unit, uint32_t span, uint32_t n_spans)
{
    struct attn_scratch *s = run->scratch;
    struct attn_accum a = slot_at(run, b, unit);

    attn_block_begin(s->kernels, b, room, span * ATTN_SPAN_TOKENS);
    attn_block_span(s->kernels, b, room, &a, span, true);
    if (atomic_fetch_sub_explicit(&s->open_spans[block_idx], 1, memory_order_acq_rel) == 1) /* G1 */
        split_finish(run, b, unit - span, n_spans);
}

/* A thread's place in the list of jobs: the cursor only grows, so it walks the list once. */
struct walk {
    struct run *run;
    uint32_t job;
    uint32_t first_unit, first_block; /* of that job */
};

/* Moves on to the job that has the unit.  False: there is none. */
static bool walk_to(struct walk *w, uint32_t unit, struct cut *c)
{
    for (; w->job < w->run->n_jobs; w->job++) {
        uint32_t n_units;

        *c = job_cut(&w->run->jobs[w->job]);
        n_units = c->n_blocks * (w->run->split ? c->n_spans : 1);
        if (unit - w->first_unit < n_units)
            return true;
        w->first_unit += n_units;
        w->first_block += c->n_blocks;
    }
    return false;
}

/* The unit that the cursor stands at is the one this thread takes next, unless another does. */
static void look_beyond(void *ctx, struct attn_tile *tile)
{
    struct walk w = *(struct walk *)ctx;
    uint32_t unit = atomic_load_explicit(&w.run->next, memory_order_relaxed);
    struct cut c;

    if (!walk_to(&w, unit, &c))
        return;
    uint32_t i = unit - w.first_unit, per_block = w.run->split ? c.n_spans : 1;
    struct attn_block b = job_block(&w.run->jobs[w.job], &c, i / per_block);

    attn_block_look_ahead(&b, tile, w.run->split ? i % per_block * ATTN_SPAN_TOKENS : 0);
}

static void run_thread(void *ctx, uint32_t thread_idx)
{
    struct run *run = ctx;
    struct attn_room *room = &run->scratch->room[thread_idx];
    struct walk w = {.run = run};

    room->beyond = look_beyond;
    room->beyond_ctx = &w;
    for (;;) {
        uint32_t unit = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
        struct cut c;

        if (!walk_to(&w, unit, &c))
            break;
        uint32_t i = unit - w.first_unit, per_block = run->split ? c.n_spans : 1;
        struct attn_block b = job_block(&run->jobs[w.job], &c, i / per_block);

        if (run->split)
            split_run(run, &b, room, w.first_block + i / per_block, unit, i % per_block, c.n_spans);
        else
            block_run(run->scratch->kernels, &b, room);
    }
    room->beyond = NULL; /* w ends here */
}

/* Decides whether spans are spread over threads, and prepares the counts of open spans. */
static void run_plan(struct run *run, uint32_t n_threads)
{
    struct attn_scratch *s = run->scratch;
    uint32_t n_blocks = 0, rows_max = 0, dv_max = 0, enough = SPLIT_BLOCKS_PER_THREAD * n_threads;
    uint64_t n_units = 0;

    for (uint32_t i = 0; i < run->n_jobs && n_blocks < enough; i++) {
        struct cut c = job_cut(&run->jobs[i]);

        n_blocks += c.n_blocks;
        n_units += (uint64_t)c.n_blocks * c.n_spans;
        rows_max = c.n_rows > rows_max ? c.n_rows : rows_max;
        dv_max = run->jobs[i].kv.layer->dv > dv_max ? run->jobs[i].kv.layer->dv : dv_max;
    }
    if (n_threads == 1 || n_blocks >= enough || n_units == n_blocks)
        return;
    run->slot_floats = attn_accum_floats(rows_max < ATTN_ROWS ? rows_max : ATTN_ROWS, dv_max);
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
        invariant(jobs[i].kv.block_tokens % KV_TILE_TOKENS == 0);
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
    uint32_t ldk = round_up(s->dk_max, 16);
    size_t at = 0;

    for (uint32_t i = 0; i < s->n_threads; i++) {
        s->room[i].q = carve(memory, &at, (size_t)ATTN_ROWS * ldk);
        s->room[i].s = carve(memory, &at, (size_t)ATTN_ROWS * ATTN_TILE);
        s->room[i].span = carve(memory, &at, attn_accum_floats(ATTN_ROWS, s->dv_max));
        s->room[i].total = carve(memory, &at, attn_accum_floats(ATTN_ROWS, s->dv_max));
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
        s->n_slot_floats =
            n_threads * SPLIT_SLOTS_PER_THREAD * attn_accum_floats(SPLIT_ROWS, dv_max);
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
