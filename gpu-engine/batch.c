#include "gpu-engine/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
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
    e->order = calloc(e->sequences.n, sizeof *e->order);
    if (b->seqs == NULL || b->members == NULL || b->enters == NULL || b->picks == NULL ||
        b->arrivals == NULL || e->order == NULL)
        return -ENOMEM;
    for (uint32_t l = 0; l < e->geometry.n_layers; l++)
        b->picks[l] = (struct device_pick){.p_max = (uint16_t)e->returned_max};
    return 0;
}

void batch_fini(struct engine *e)
{
    free(e->batch.seqs);
    free(e->batch.members);
    free(e->batch.enters);
    free(e->batch.picks);
    free(e->batch.arrivals);
    free(e->order);
}

/* ---- Order ----------------------------------------------------------------------------------- */

/* Fills e->order with the live sequences, oldest first; returns their number. */
static uint32_t sort_by_age(struct engine *e)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->sequences.n; i++) {
        const struct sequence *s = &e->sequences.all[i];
        uint32_t at = n;

        if (s->state < SEQUENCE_WAITING || s->state == SEQUENCE_ENDED)
            continue;
        for (; at > 0 && e->sequences.all[e->order[at - 1]].order > s->order; at--)
            e->order[at] = e->order[at - 1];
        e->order[at] = i;
        n++;
    }
    return n;
}

/* ---- Common rows ----------------------------------------------------------------------------- */

static bool is_decode(const struct sequence *s)
{
    return s->state == SEQUENCE_COMPUTING && sequence_n_todo(s) == 1 && sequence_n_output(s) > 0;
}

static bool wants_prefill(const struct sequence *s)
{
    return s->state == SEQUENCE_WAITING || (s->state == SEQUENCE_COMPUTING && !is_decode(s));
}

static void add_rows(struct engine *e, struct sequence *s, uint32_t n)
{
    struct engine_batch *b = &e->batch;

    b->seqs[b->n_seqs] = (struct device_seq){.n_rows = n,
                                             .pos = s->n_kv,
                                             .tokens = s->tokens + s->n_kv,
                                             .tables = s->blocks,
                                             .table_stride = e->table_max,
                                             .sample = s->n_kv + n == s->n_tokens,
                                             .class_idx = (uint16_t)s->class_idx,
                                             .sampling = s->sampling};
    b->members[b->n_seqs++] = sequence_idx(&e->sequences, s);
    b->n_rows += n;
    if (n == 1)
        latency_load_add_decode(&e->latency, &b->load, s->n_kv + 1, s->n_kv + n == s->n_tokens);
    else
        latency_load_add_chunk(&e->latency, &b->load, s->n_kv, n, s->n_kv + n == s->n_tokens);
    s->n_swept = n;
}

static uint32_t room(const struct engine *e)
{
    return e->batch.n_seqs < e->seqs_max ? e->rows_max - e->batch.n_rows : 0;
}

/* Latency-sensitive rows get their blocks whatever best effort holds. */
static bool grow_ls(struct engine *e, struct sequence *s, uint32_t n_tokens)
{
    while (kv_grow(e, s, n_tokens) != 0) {
        if (!placement_yield(e, s))
            return false; /* copies under way hold the rest; they end soon */
    }
    return true;
}

static bool grow_be(struct engine *e, struct sequence *s, uint32_t n_tokens)
{
    if (kv_grow(e, s, n_tokens) == 0)
        return true;
    e->be_stuck = true;
    return false;
}

static void add_decodes(struct engine *e, uint32_t n, bool latency_sensitive)
{
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *s = &e->sequences.all[e->order[i]];

        if (s->latency_sensitive != latency_sensitive || !is_decode(s) || room(e) == 0)
            continue;
        if (latency_sensitive ? grow_ls(e, s, s->n_tokens) : grow_be(e, s, s->n_tokens))
            add_rows(e, s, 1);
    }
}

/* A waiting sequence begins to compute.  Best effort takes the blocks of its whole prompt, and of
 * the first output token, at once: a prefill that has begun never gets stuck. */
static bool begin(struct engine *e, struct sequence *s)
{
    bool ok;

    if (engine_is_best_effort(s) && kv_growth(e, s, s->n_tokens + 1) > e->pool.n_blocks) {
        ending_fail(
            e, s, ERROR_NO_CAPACITY,
            "its KV was dropped and has outgrown the device, where it would be computed again",
            true);
        return false;
    }
    kv_share_prefix(e, s);
    ok = s->latency_sensitive ? grow_ls(e, s, s->n_kv + 1) : kv_grow(e, s, s->n_tokens + 1) == 0;
    if (!ok) {
        kv_release(e, s);
        s->n_kv = 0;
        return false;
    }
    engine_count(e, ENGINE_STAT_SHARED_BLOCKS, s->n_sealed * e->geometry.n_groups);
    sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
    return true;
}

static void add_chunk(struct engine *e, struct sequence *s, uint32_t *budget)
{
    uint32_t n = sequence_n_todo(s);

    n = n < *budget ? n : *budget;
    n = n < room(e) ? n : room(e);
    if (n == 0 || (s->latency_sensitive && !grow_ls(e, s, s->n_kv + n)))
        return;
    add_rows(e, s, n);
    *budget -= n;
}

static void add_chunks(struct engine *e, uint32_t n, bool latency_sensitive, uint32_t *budget)
{
    for (uint32_t i = 0; i<n && * budget> 0; i++) {
        struct sequence *s = &e->sequences.all[e->order[i]];

        if (s->latency_sensitive != latency_sensitive || !wants_prefill(s))
            continue;
        if (s->state == SEQUENCE_WAITING && !begin(e, s)) {
            e->be_starved = e->be_starved || !latency_sensitive;
            break; /* in order of arrival: a long prompt is not passed over for ever */
        }
        add_chunk(e, s, budget);
    }
}

/* ---- Offloaded rows -------------------------------------------------------------------------- */

static bool may_enter(struct engine *e, const struct sequence *s)
{
    return s->state == SEQUENCE_RESIDENT && !s->in_slot &&
           e->exchange->ops->peer(e->exchange, s->worker) == EXCHANGE_PEER_ALIVE;
}

static void add_enters(struct engine *e, uint32_t n)
{
    struct engine_batch *b = &e->batch;

    for (uint32_t i = 0; i < n && b->n_enter < e->returned_max; i++) {
        struct sequence *s = &e->sequences.all[e->order[i]];

        if (!may_enter(e, s))
            continue;
        invariant(sequence_n_todo(s) == 1);
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
    }
}

/* ---- The sweep ------------------------------------------------------------------------------- */

bool batch_build(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    uint32_t budget = e->config->engine_chunk_tokens;

    b->n_seqs = b->n_rows = b->n_enter = 0;
    memset(&b->load, 0, sizeof b->load);
    e->be_starved = e->be_stuck = false;
    uint32_t n = sort_by_age(e);
    add_decodes(e, n, true);
    add_chunks(e, n, true, &budget);
    add_chunks(e, n, false, &budget);
    if (placement_decodes_on_device(e))
        add_decodes(e, n, false);
    add_enters(e, n);
    uint32_t n_back = e->ops->n_returned(e->device, &b->offloaded);
    return b->n_rows > 0 || b->n_enter > 0 || n_back > 0;
}

void batch_submit(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    struct device_sweep sweep = {.seq = e->sweep + 1,
                                 .batch = {{.n_seqs = b->n_seqs, .seqs = b->seqs}},
                                 .enter = b->enters,
                                 .n_enter = b->n_enter,
                                 .leave = e->leaves,
                                 .n_leave = e->n_leaves,
                                 .pick = b->picks,
                                 .arrival_ns = b->arrivals};

    foresight_predict(e);
    int rc = e->ops->submit(e->device, &sweep);
    invariant(rc == 0); /* one sweep in flight, within the bounds given at open */
    e->sweep++;
    e->n_leaves = 0;
    e->in_flight = true;
}
