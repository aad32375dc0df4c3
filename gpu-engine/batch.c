#include "gpu-engine/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/decide.h"
#include "gpu-engine/ending.h"
#include "gpu-engine/foresight.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/placement.h"

int batch_init(struct engine *e)
{
    struct engine_batch *b = &e->batch;

    b->seqs = calloc(e->seqs_max, sizeof *b->seqs);
    b->members = calloc(e->seqs_max, sizeof *b->members);
    b->enters = calloc(e->returned_max, sizeof *b->enters);
    b->picks = calloc(e->geometry.n_layers, sizeof *b->picks);
    b->arrivals = calloc(e->geometry.n_layers, sizeof *b->arrivals);
    b->arrivals_b = calloc(e->geometry.n_layers, sizeof *b->arrivals_b);
    b->pace = calloc(e->exchange->n_workers + 1, sizeof *b->pace);
    if (b->seqs == NULL || b->members == NULL || b->enters == NULL || b->picks == NULL ||
        b->arrivals == NULL || b->arrivals_b == NULL || b->pace == NULL)
        return -ENOMEM;
    return 0;
}

void batch_fini(struct engine *e)
{
    free(e->batch.seqs);
    free(e->batch.members);
    free(e->batch.enters);
    free(e->batch.picks);
    free(e->batch.arrivals);
    free(e->batch.arrivals_b);
    free(e->batch.pace);
}

/* ---- Common rows ----------------------------------------------------------------------------- */

static void add_rows(struct engine *e, struct sequence *s, uint32_t n)
{
    struct engine_batch *b = &e->batch;
    bool batch_b = b->n_seqs >= e->decide.decision.n_seqs_a;
    struct latency_load *load = batch_b ? &b->load_b : &b->load;

    b->seqs[b->n_seqs] = (struct device_seq){.n_rows = n,
                                             .pos = s->n_kv,
                                             .tokens = s->tokens + s->n_kv,
                                             .tables = s->blocks,
                                             .table_stride = e->table_max,
                                             .sample = s->n_kv + n == s->n_tokens,
                                             .class_idx = (uint16_t)s->class_idx,
                                             .in_host = s->state == SEQUENCE_RESIDENT,
                                             .sampling = s->sampling};
    b->members[b->n_seqs++] = sequence_idx(&e->sequences, s);
    b->n_rows += n;
    if (n == 1)
        latency_load_add_decode(&e->latency, load, s->n_kv + 1, s->n_kv + n == s->n_tokens);
    else
        latency_load_add_chunk(&e->latency, load, s->n_kv, n, s->n_kv + n == s->n_tokens);
    s->n_swept = n;
}

static void grow(struct engine *e, struct sequence *s, uint32_t n_tokens)
{
    int rc = kv_grow(e, s, n_tokens);

    invariant(rc == 0); /* the policy has counted the blocks */
}

/* A sequence without KV takes its blocks: best effort those of its whole prompt and of its first
 * output token at once, so that a prefill that has begun never gets stuck. */
static void begin(struct engine *e, struct sequence *s, uint32_t n)
{
    grow(e, s, engine_is_best_effort(s) ? s->n_tokens + 1 : s->n_kv + n);
    engine_count(e, ENGINE_STAT_SHARED_BLOCKS, (uint64_t)s->n_sealed * e->geometry.n_groups);
    sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
}

static void carry_rows(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    uint64_t now = e->ops->now(e->device);

    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct sequence *s = decide_sequence(e, d->rows[i].seq);
        uint32_t n = d->rows[i].n_rows;

        if (s->state == SEQUENCE_WAITING)
            begin(e, s, n);
        else if (s->state != SEQUENCE_RESIDENT) /* a streamed one's arena blocks were promised */
            grow(e, s, s->n_kv + n);
        add_rows(e, s, n);
        s->last_run_ns = now;
    }
}

/* ---- Moves ----------------------------------------------------------------------------------- */

static void share_prefixes(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;

    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct sequence *s = decide_sequence(e, d->rows[i].seq);

        if (s->state == SEQUENCE_WAITING)
            kv_share_prefix(e, s, e->decide.seqs[d->rows[i].seq].n_shared);
    }
}

/* Blocks that the row's sequence takes from the free ones. */
static uint32_t growth_of(struct engine *e, const struct sched_rows *rows)
{
    const struct sequence *s = decide_sequence(e, rows->seq);
    uint32_t holds = s->n_kv + rows->n_rows;

    if (s->state == SEQUENCE_RESIDENT)
        return 0;
    if (s->state == SEQUENCE_WAITING && engine_is_best_effort(s))
        holds = s->n_tokens + 1;
    uint32_t n = geometry_blocks_for(&e->geometry, holds);
    return n > s->n_blocks ? (n - s->n_blocks) * e->geometry.n_groups : 0;
}

/* The last of the rows whose prompt begins and shares blocks: best effort's, else any.  n_seqs: none. */
static uint32_t last_sharer(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    uint32_t found = d->n_seqs;

    for (uint32_t i = d->n_seqs; i-- > 0;) {
        const struct sequence *s = decide_sequence(e, d->rows[i].seq);

        if (s->state != SEQUENCE_WAITING || s->n_kv == 0)
            continue;
        if (engine_is_best_effort(s))
            return i;
        found = found == d->n_seqs ? i : found;
    }
    return found;
}

static void take_row_out(struct engine *e, uint32_t i)
{
    struct sched_decision *d = &e->decide.decision;
    struct sequence *s = decide_sequence(e, d->rows[i].seq);

    kv_release(e, s);
    s->n_kv = 0;
    d->n_rows -= d->rows[i].n_rows;
    d->n_seqs_a -= i < d->n_seqs_a;
    d->n_seqs--;
    memmove(&d->rows[i], &d->rows[i + 1], (d->n_seqs - i) * sizeof *d->rows);
}

/* A policy counts the blocks of who yields as free, but what a prompt that begins in the same sweep
 * shares with it stays taken.  Where that makes blocks too few such prompts wait for the next sweep, to
 * share nothing then. */
static void keep_what_fits(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;

    if (d->n_yield == 0)
        return;
    for (;;) {
        uint64_t takes = 0;

        for (uint32_t i = 0; i < d->n_seqs; i++)
            takes += growth_of(e, &d->rows[i]);
        uint32_t sharer = last_sharer(e);
        if (takes <= e->pool.n_free || sharer == d->n_seqs)
            return;
        take_row_out(e, sharer);
    }
}

static void carry_moves(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;

    for (uint32_t i = 0; i < d->n_yield; i++)
        placement_drop(e, decide_sequence(e, d->yield[i]));
    for (uint32_t i = 0; i < d->n_in; i++)
        placement_copy_in(e, decide_sequence(e, d->in[i]));
    for (uint32_t i = 0; i < d->n_out; i++)
        placement_copy_out(e, decide_sequence(e, d->out[i].seq), d->out[i].worker);
    for (uint32_t i = 0; i < d->n_place; i++)
        placement_reserve(e, decide_sequence(e, d->place[i].seq), d->place[i].worker);
    for (uint32_t i = 0; i < d->n_elsewhere; i++)
        ending_hand_over(e, decide_sequence(e, d->elsewhere[i]));
}

/* ---- Offloaded rows -------------------------------------------------------------------------- */

static void carry_enters(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    struct engine_batch *b = &e->batch;
    uint64_t now = e->ops->now(e->device);

    for (uint32_t i = 0; i < d->n_enter; i++) {
        struct sequence *s = decide_sequence(e, d->enter[i]);

        invariant(sequence_n_todo(s) == 1 && !s->in_slot);
        b->enters[b->n_enter++] =
            (struct device_enter){.slot = s->slot,
                                  .n_q = 1,
                                  .tokens = {s->tokens[s->n_kv]},
                                  .pos = s->n_kv,
                                  .seq_idx = s->ref.idx,
                                  .seq_generation = s->ref.gen,
                                  .arena_groups = (UINT32_C(1) << e->geometry.n_groups) - 1,
                                  .class_idx = (uint16_t)s->class_idx,
                                  .sampling = s->sampling};
        s->in_slot = true;
        s->last_run_ns = now;
    }
}

static void set_picks(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    uint32_t p_max = d->p_max < e->returned_max ? d->p_max : e->returned_max;
    uint64_t wait_ns = e->decide.waits && d->want > 0 ? d->wait_ns : 0;
    const struct device_pick pick = {
        .p_max = (uint16_t)p_max,
        .want = (uint16_t)(d->want < UINT16_MAX ? d->want : UINT16_MAX),
        .wait_ns = (uint32_t)(wait_ns < UINT32_MAX ? wait_ns : UINT32_MAX)};

    for (uint32_t l = 0; l < e->geometry.n_layers; l++)
        e->batch.picks[l] = pick;
    e->batch.wait_total_ns = wait_ns;
}

/* ---- The sweep ------------------------------------------------------------------------------- */

bool batch_build(struct engine *e)
{
    struct engine_batch *b = &e->batch;

    b->n_seqs = b->n_rows = b->n_enter = 0;
    memset(&b->load, 0, sizeof b->load);
    memset(&b->load_b, 0, sizeof b->load_b);
    share_prefixes(e);
    carry_moves(e);
    keep_what_fits(e);
    carry_rows(e);
    carry_enters(e);
    set_picks(e);
    uint32_t n_back = e->ops->n_returned(e->device, &b->offloaded);
    if (e->decide.decision.p_max == 0 || e->decide.decision.p_total == 0)
        n_back = 0; /* they could not be merged */
    return b->n_rows > 0 || b->n_enter > 0 || n_back > 0;
}

void batch_submit(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    const struct sched_decision *d = &e->decide.decision;
    struct device_sweep sweep = {
        .seq = e->sweep + 1,
        .batch = {{.n_seqs = d->n_seqs_a, .seqs = b->seqs},
                  {.n_seqs = b->n_seqs - d->n_seqs_a, .seqs = b->seqs + d->n_seqs_a}},
        .enter = b->enters,
        .n_enter = b->n_enter,
        .n_enter_b = d->n_enter_b,
        .leave = e->leaves,
        .n_leave = e->n_leaves,
        .pick = b->picks,
        .arrival_ns = b->arrivals,
        .arrival_b_ns = b->arrivals_b,
        .pace = b->pace,
        .no_riding = !d->ride,
        .p_total = d->p_total,
        .wait_total_ns = b->wait_total_ns,
        .checkpoint = d->checkpoint && e->decide.checkpoints};

    foresight_predict(e);
    int rc = e->ops->submit(e->device, &sweep);
    invariant(rc == 0); /* one sweep in flight, within the bounds given at open */
    e->sweep++;
    e->n_leaves = 0;
    e->in_flight = true;
}
