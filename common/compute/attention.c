/* DESIGN
 *
 * attention_block.c computes a block of rows over tiles, attention_cut.c cuts jobs into pieces;
 * here threads take them from a shared cursor.
 *
 * Unit of work: a piece, over all its spans.  Where there are too few pieces for the threads (one
 * long decode), a unit is one span of a piece: partial results go to slots, one per job and span,
 * and the thread that finishes a piece's last unit merges them.  A row's spans are computed alike
 * and merged in ascending order whichever way its job took, so that the bits are the same.
 *
 *   G1 (split_run): acq_rel decrement of a piece's count of open units; the last one sees the
 *   slots that the others wrote before theirs. */
#include "common/compute/attention.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/base/round.h"
#include "common/compute/attention_block.h"
#include "common/compute/attention_cut.h"
#include "common/compute/kernels.h"

enum {
    SPLIT_PIECES_PER_THREAD = 8, /* fewer than so many pieces a thread are spread by spans */
    SPLIT_UNITS_PER_THREAD = 4,  /* and by KV heads, if there are still fewer units */
    SPLIT_ROWS = 16384,          /* room for partial results: 128 spans of 128 query heads */
};

struct attn_scratch {
    const struct kernels *kernels;
    uint32_t n_threads;
    uint32_t dk_max, dv_max;
    size_t n_slot_floats;
    float *slots;
    float *memory; /* everything, one allocation */
    _Atomic uint32_t open_units[SPLIT_PIECES_PER_THREAD * TEAM_THREADS_MAX];
    struct attn_room room[];
};

struct run {
    struct attn_scratch *scratch;
    const struct attn_job *jobs;
    uint32_t n_jobs;
    uint32_t heads_max; /* KV heads of a piece */
    bool split;         /* a unit is a span of a piece, not a piece */
    size_t slot_floats; /* per slot, when split */
    _Alignas(64) _Atomic uint32_t next;
};

static struct attn_cut cut_from(const struct run *run, uint32_t job)
{
    return attn_cut_at(&run->jobs[job], run->n_jobs - job, run->heads_max);
}

/* ---- A unit ---------------------------------------------------------------------------------- */

/* Adds what all jobs' rows found in a span, `from`, to one job's own accumulators. */
static void spread(const struct kernels *kernels, const struct attn_block *b,
                   const struct attn_accum *from, const struct attn_accum *to, uint32_t job)
{
    uint32_t n = b->n_rows / b->n_jobs;

    for (uint32_t h = 0; h < b->n_heads; h++) {
        struct attn_accum part = attn_accum_from(from, h * b->n_rows + job * n);
        struct attn_accum own = attn_accum_from(to, h * n);

        attn_accum_merge(kernels, &own, &part, n);
    }
}

/* A job's rows over its spans from `first` on, added to what is in *total, and its output. */
static void job_run(const struct kernels *kernels, const struct attn_block *b,
                    struct attn_room *room, const struct attn_accum *total, uint32_t first)
{
    uint32_t n_rows = b->n_rows * b->n_heads, n_spans = attn_block_last(b) / ATTN_SPAN_TOKENS + 1;
    struct attn_accum span = attn_accum_at(room->span, n_rows, b->layer->dv);

    attn_block_begin(kernels, b, room, attn_min(first, n_spans - 1) * ATTN_SPAN_TOKENS);
    for (uint32_t i = first; i < n_spans; i++) {
        attn_block_span(kernels, b, room, &span, i, i + 1 == n_spans);
        attn_accum_merge(kernels, total, &span, n_rows);
    }
    attn_block_finish(kernels, b, total);
}

static void piece_run(const struct kernels *kernels, const struct attn_block *b,
                      struct attn_room *room, uint32_t n_shared)
{
    uint32_t n_rows = b->n_rows * b->n_heads, per_job = n_rows / b->n_jobs;
    struct attn_accum span = attn_accum_at(room->span, n_rows, b->layer->dv);
    struct attn_accum total = attn_accum_at(room->total, n_rows, b->layer->dv);

    attn_accum_clear(&total, n_rows);
    if (n_shared > 0)
        attn_block_begin(kernels, b, room, 0);
    for (uint32_t i = 0; i < n_shared; i++) {
        attn_block_span(kernels, b, room, &span, i, i + 1 == n_shared);
        for (uint32_t j = 0; j < b->n_jobs; j++) {
            struct attn_accum own = attn_accum_from(&total, j * per_job);

            spread(kernels, b, &span, &own, j);
        }
    }
    for (uint32_t j = 0; j < b->n_jobs; j++) {
        struct attn_block own = attn_piece_of_job(b, j);
        struct attn_accum rows = attn_accum_from(&total, j * per_job);

        job_run(kernels, &own, room, &rows, n_shared);
    }
}

/* ---- Spans apart ----------------------------------------------------------------------------- */

/* A piece of a run that is split. */
struct place {
    struct attn_block block;
    struct attn_cut cut;
    uint32_t piece, slot; /* piece counts over all bundles; slot: the piece's first */
};

static struct attn_accum slot_at(const struct run *run, const struct place *p, uint32_t slot)
{
    const struct attn_block *b = &p->block;

    return attn_accum_at(run->scratch->slots + (p->slot + slot) * run->slot_floats,
                         b->n_rows / b->n_jobs * b->n_heads, b->layer->dv);
}

/* Merges a job's slots, `first` on, and writes its output. */
static void split_finish(const struct run *run, const struct place *p)
{
    const struct kernels *kernels = run->scratch->kernels;
    uint32_t slot = 0;

    for (uint32_t j = 0; j < p->block.n_jobs; j++) {
        struct attn_block own = attn_piece_of_job(&p->block, j);
        struct attn_accum total = slot_at(run, p, slot++);

        for (uint32_t i = 1; i < attn_job_spans(own.jobs); i++) {
            struct attn_accum span = slot_at(run, p, slot++);

            attn_accum_merge(kernels, &total, &span, own.n_rows * own.n_heads);
        }
        attn_block_finish(kernels, &own, &total);
    }
}

/* The bundle's rows over a span that all jobs share. */
static void split_shared(const struct run *run, const struct place *p, struct attn_room *room,
                         uint32_t span)
{
    const struct attn_block *b = &p->block;
    const struct kernels *kernels = run->scratch->kernels;
    struct attn_accum all = attn_accum_at(room->span, b->n_rows * b->n_heads, b->layer->dv);

    attn_block_begin(kernels, b, room, span * ATTN_SPAN_TOKENS);
    attn_block_span(kernels, b, room, &all, span, true);
    for (uint32_t j = 0, slot = span; j < b->n_jobs; slot += attn_job_spans(&b->jobs[j]), j++) {
        struct attn_accum own = slot_at(run, p, slot);

        attn_accum_clear(&own, b->n_rows / b->n_jobs * b->n_heads);
        spread(kernels, b, &all, &own, j);
    }
}

/* One job's rows over a span of its own; unit counts from the first job's on. */
static void split_own(const struct run *run, const struct place *p, struct attn_room *room,
                      uint32_t unit)
{
    const struct kernels *kernels = run->scratch->kernels;
    uint32_t job = 0, slot = 0, n_shared = p->cut.n_shared;

    while (unit >= attn_job_spans(&p->block.jobs[job]) - n_shared) {
        unit -= attn_job_spans(&p->block.jobs[job]) - n_shared;
        slot += attn_job_spans(&p->block.jobs[job++]);
    }
    struct attn_block own = attn_piece_of_job(&p->block, job);
    struct attn_accum a = slot_at(run, p, slot + n_shared + unit);

    attn_block_begin(kernels, &own, room, (n_shared + unit) * ATTN_SPAN_TOKENS);
    attn_block_span(kernels, &own, room, &a, n_shared + unit, true);
}

static void split_run(const struct run *run, const struct place *p, struct attn_room *room,
                      uint32_t unit)
{
    _Atomic uint32_t *open = &run->scratch->open_units[p->piece];

    if (unit < p->cut.n_shared)
        split_shared(run, p, room, unit);
    else
        split_own(run, p, room, unit - p->cut.n_shared);
    if (atomic_fetch_sub_explicit(open, 1, memory_order_acq_rel) == 1) /* G1 */
        split_finish(run, p);
}

/* ---- Threads --------------------------------------------------------------------------------- */

/* A thread's place in the list of bundles: the cursor only grows, so it walks the list once. */
struct walk {
    struct run *run;
    uint32_t job;
    uint32_t first_unit, first_piece, first_slot; /* of that bundle */
    struct attn_cut cut;
    bool cut_known; /* of that bundle */
};

/* Moves on to the bundle that has the unit.  False: there is none. */
static bool walk_to(struct walk *w, uint32_t unit)
{
    while (w->job < w->run->n_jobs) {
        uint32_t n_units;

        if (!w->cut_known)
            w->cut = cut_from(w->run, w->job);
        w->cut_known = true;
        n_units = w->cut.n_pieces * (w->run->split ? w->cut.n_units : 1);
        if (unit - w->first_unit < n_units)
            return true;
        w->first_unit += n_units;
        w->first_piece += w->cut.n_pieces;
        w->first_slot += w->cut.n_pieces * w->cut.n_slots;
        w->job += w->cut.n_jobs;
        w->cut_known = false;
    }
    return false;
}

static struct place walk_place(const struct walk *w, uint32_t unit)
{
    uint32_t piece = (unit - w->first_unit) / (w->run->split ? w->cut.n_units : 1);

    return (struct place){.block = attn_piece_at(&w->run->jobs[w->job], &w->cut, piece),
                          .cut = w->cut,
                          .piece = w->first_piece + piece,
                          .slot = w->first_slot + piece * w->cut.n_slots};
}

/* A thread, and the unit that it looked at when it last looked beyond its own. */
struct outlook {
    struct walk walk;
    struct place place; /* of that unit */
    uint32_t unit, span;
    bool known, there;
};

/* The unit that the cursor stands at is the one this thread takes next, unless another does. */
static void look_beyond(void *ctx, struct attn_tile *tile, uint32_t n)
{
    struct outlook *o = ctx;
    uint32_t unit = atomic_load_explicit(&o->walk.run->next, memory_order_relaxed);

    if (!o->known || unit != o->unit) {
        struct walk w = o->walk;

        o->known = true;
        o->unit = unit;
        o->there = walk_to(&w, unit);
        if (o->there)
            o->place = walk_place(&w, unit);
        o->span = o->there && w.run->split ? (unit - w.first_unit) % w.cut.n_units : 0;
    }
    if (o->there)
        attn_block_look_ahead(&o->place.block, tile, o->span * ATTN_SPAN_TOKENS, n);
}

static void run_thread(void *ctx, uint32_t thread_idx)
{
    struct run *run = ctx;
    struct attn_room *room = &run->scratch->room[thread_idx];
    struct outlook o = {.walk = {.run = run}};
    struct walk *w = &o.walk;

    room->beyond = look_beyond;
    room->beyond_ctx = &o;
    for (;;) {
        uint32_t unit = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);

        if (!walk_to(w, unit))
            break;
        struct place p = walk_place(w, unit);

        if (run->split)
            split_run(run, &p, room, (unit - w->first_unit) % w->cut.n_units);
        else
            piece_run(run->scratch->kernels, &p.block, room, w->cut.n_shared);
    }
    room->beyond = NULL; /* o ends here */
    if (run->scratch->kernels->attn_end != NULL)
        run->scratch->kernels->attn_end();
}

/* What a run comes to, with its present heads_max. */
struct sums {
    uint32_t n_pieces;
    uint64_t n_units, n_slots; /* when split */
    size_t slot_floats;
};

/* Stops counting at `enough` pieces. */
static struct sums run_sums(const struct run *run, uint32_t enough)
{
    struct sums sums = {.n_pieces = 0};
    uint32_t n_jobs = 1;

    for (uint32_t i = 0; i < run->n_jobs && sums.n_pieces < enough; i += n_jobs) {
        struct attn_cut c = cut_from(run, i);
        uint32_t rows = attn_min(c.n_rows, ATTN_ROWS) / c.n_jobs * c.n_heads;
        size_t floats = attn_accum_floats(rows, run->jobs[i].kv.layer->dv);

        n_jobs = c.n_jobs;
        sums.n_pieces += c.n_pieces;
        sums.n_units += (uint64_t)c.n_pieces * c.n_units;
        sums.n_slots += (uint64_t)c.n_pieces * c.n_slots;
        sums.slot_floats = floats > sums.slot_floats ? floats : sums.slot_floats;
    }
    sums.slot_floats = (sums.slot_floats + 15) / 16 * 16;
    return sums;
}

/* The counts of open units, of a run that is split. */
static void open_units(const struct run *run)
{
    uint32_t at = 0, n_jobs;

    for (uint32_t i = 0; i < run->n_jobs; i += n_jobs) {
        struct attn_cut c = cut_from(run, i);

        n_jobs = c.n_jobs;
        for (uint32_t j = 0; j < c.n_pieces; j++) /* published by team_run */
            atomic_store_explicit(&run->scratch->open_units[at++], c.n_units, memory_order_relaxed);
    }
}

/* Decides how many KV heads a piece has, and whether its spans are spread over threads. */
static void run_plan(struct run *run, uint32_t n_threads)
{
    uint32_t enough = SPLIT_PIECES_PER_THREAD * n_threads;
    struct sums sums;

    run->heads_max = ATTN_ROWS; /* a piece never has more */
    if (n_threads == 1)
        return;
    sums = run_sums(run, enough);
    while (run->heads_max > 1 && sums.n_units < SPLIT_UNITS_PER_THREAD * n_threads) {
        run->heads_max /= 2;
        sums = run_sums(run, enough);
    }
    if (sums.n_pieces >= enough || sums.n_units == sums.n_pieces)
        return;
    run->slot_floats = sums.slot_floats;
    run->split = sums.n_slots * run->slot_floats <= run->scratch->n_slot_floats;
    if (run->split)
        open_units(run);
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
    uint32_t ldk = round_up_u32(s->dk_max, 16);
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
        dv_max == 0 || dk_max > KV_WIDTH_MAX || dv_max > KV_WIDTH_MAX)
        return -EINVAL;
    s = calloc(1, sizeof *s + n_threads * sizeof s->room[0]);
    if (s == NULL)
        return -ENOMEM;
    s->kernels = kernels_of(isa);
    s->n_threads = n_threads;
    s->dk_max = dk_max;
    s->dv_max = dv_max;
    if (n_threads > 1)
        s->n_slot_floats = attn_accum_floats(SPLIT_ROWS, dv_max);
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
