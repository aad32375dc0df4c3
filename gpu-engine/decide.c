#include "gpu-engine/decide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/ending.h"
#include "gpu-engine/foresight.h"
#include "gpu-engine/kv.h"

/* Prefixes are looked up for so many waiting sequences, the next ones to begin: it costs a hash of
 * their prompts. */
enum { SHARE_LOOKS = 4 };

/* Handed to the CPU-only engine in one sweep, at most. */
enum { ELSEWHERE_MAX = 64 };

/* ---- What does not change -------------------------------------------------------------------- */

static void set_limits(struct engine *e)
{
    const struct omni_config *c = e->config;
    struct sched_limits *l = &e->decide.limits;
    struct device_caps caps;
    uint64_t token_bytes = 0;

    for (uint32_t layer = 0; layer < e->geometry.n_layers; layer++)
        token_bytes += geometry_layer_token_bytes(&e->geometry, layer);
    e->ops->caps(e->device, &caps);
    *l = (struct sched_limits){
        .block_tokens = e->geometry.block_tokens,
        .n_groups = e->geometry.n_groups,
        .rows_max = e->rows_max,
        .seqs_max = e->seqs_max,
        .chunk_max = c->engine_chunk_tokens,
        .returned_max = e->returned_max,
        .copies_max = ENGINE_COPIES_MAX,
        .n_blocks = e->pool.n_blocks,
        .kv_token_bytes = token_bytes,
        .n_workers = e->exchange->n_workers,
        .two_batch = caps.two_batch != 0,
        .checkpoints = caps.checkpoints != 0,
        .host_bytes_per_ns = caps.host_bytes_per_ns,
        .tpot_slo_ns = c->slo_tpot_ms * NS_PER_MS,
        .sweep_max_ns = c->slo_tpot_ms * NS_PER_MS,
        .be_starved_ns = c->slo_be_starved_ms * NS_PER_MS,
        .be_settle_ns = c->slo_be_settle_ms * NS_PER_MS,
        .params = {.offload = (enum sched_offload)c->engine_offload,
                   .auto_free_pct = c->engine_auto_free_pct,
                   .slo_use_pct = c->slo_use_pct,
                   .headroom_pct = c->engine_headroom_pct,
                   .token_budget = c->engine_token_budget},
    };
    sched_without_parse(c->engine_without, &l->params.without, NULL); /* checked at start */
    /* The decision's list is as long as its sequences; `room` counts from sweep to sweep. */
    l->elsewhere_max = e->elsewhere.room != NULL ? ELSEWHERE_MAX : 0;
    e->decide.waits = caps.waits != 0;
    e->decide.checkpoints = caps.checkpoints != 0;
    e->decide.adjusts = caps.adjusts != 0;
}

static const struct sched_policy *configured_policy(const struct omni_config *c)
{
    static const char *const names[] = {
        "group",   "omni", "paper",    "ls-first", /* as config_table.h */
        "harvest", "sync", "headroom", "stream"};

    invariant(c->engine_policy < sizeof names / sizeof *names);
    return sched_policy_find(names[c->engine_policy], NULL);
}

/* What the policy cannot do without here, or NULL. */
static const char *lacks(const struct engine *e, const struct sched_policy *policy)
{
    bool sync = strcmp(policy->name, "sync") == 0;
    struct device_caps caps;

    e->ops->caps(e->device, &caps);
    if (sync && !(caps.half_batches && caps.waits))
        return "the device cannot alternate two half batches and wait for their jobs";
    if (sync && e->latency.head.n == 0)
        return "it deals by predicted times, and engine.profile = off";
    if (strcmp(policy->name, "headroom") == 0 && e->elsewhere.room == NULL)
        return "there is no CPU-only engine beside this one to take what does not fit";
    if (strcmp(policy->name, "stream") == 0 && !(caps.host_bytes_per_ns > 0))
        return "the device does not read KV from host memory";
    return NULL;
}

int decide_check(const struct engine *e, struct error *err)
{
    const struct sched_policy *policy = configured_policy(e->config);
    const char *lack = lacks(e, policy), *known;
    uint32_t without;

    if (sched_without_parse(e->config->engine_without, &without, &known) != 0)
        return error_set(err, -EINVAL, "engine.without = %s: known are %s",
                         e->config->engine_without, known);
    if (lack == NULL)
        return 0;
    return error_set(err, -ENOTSUP, "engine.policy = %s on engine.device = %s: %s", policy->name,
                     e->ops->name, lack);
}

int decide_init(struct engine *e)
{
    struct engine_decide *d = &e->decide;

    set_limits(e);
    d->policy = configured_policy(e->config);
    d->seqs = calloc(e->sequences.n, sizeof *d->seqs);
    d->order = calloc(e->sequences.n, sizeof *d->order);
    if (d->seqs == NULL || d->order == NULL)
        return -ENOMEM;
    return sched_decision_init(&d->decision, e->sequences.n, &d->limits);
}

void decide_fini(struct engine *e)
{
    free(e->decide.seqs);
    free(e->decide.order);
    sched_decision_fini(&e->decide.decision);
}

/* ---- What is held ---------------------------------------------------------------------------- */

/* Fills order with the live sequences, oldest first; returns their number.  The table is nearly in
 * order from sweep to sweep, so that insertion is cheap. */
static uint32_t sort_by_age(struct engine *e, uint32_t *order)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->sequences.n; i++) {
        const struct sequence *s = &e->sequences.all[i];
        enum sequence_state state = s->state;
        uint32_t at = n;

        if (state < SEQUENCE_WAITING || state == SEQUENCE_ENDED)
            continue;
        for (; at > 0 && e->sequences.all[order[at - 1]].order > s->order; at--)
            order[at] = order[at - 1];
        order[at] = i;
        n++;
    }
    return n;
}

static enum sched_place place_of(const struct sequence *s)
{
    enum sequence_state state = s->state;

    switch (state) {
    case SEQUENCE_COMPUTING:
        return SCHED_DEVICE;
    case SEQUENCE_COPY_OUT:
        return SCHED_LEAVING;
    case SEQUENCE_RESIDENT:
        return SCHED_ARENA;
    case SEQUENCE_COPY_IN:
        return SCHED_RETURNING;
    default:
        return SCHED_WAITING;
    }
}

static uint64_t own_or(uint64_t own_ns, uint32_t default_ms)
{
    return own_ns != 0 ? own_ns : default_ms * NS_PER_MS;
}

static void set_times(const struct engine *e, const struct sequence *s, struct sched_seq *out)
{
    const struct omni_config *c = e->config;

    out->arrival_ns = s->arrival_ns;
    out->last_token_ns = s->last_token_ns;
    out->last_run_ns = s->last_run_ns != 0 ? s->last_run_ns : s->arrival_ns;
    out->last_move_ns = s->last_move_ns;
    if (!s->latency_sensitive)
        return;
    out->first_due_ns = s->arrival_ns + own_or(s->ttft_slo_ns, c->slo_ttft_ms);
    out->tpot_slo_ns = own_or(s->tpot_slo_ns, c->slo_tpot_ms);
    if (c->slo_deadlines == CONFIG_DEADLINES_TOKEN && s->first_token_ns != 0) {
        const struct objective o = admission_objective(e, s);
        const struct objective_past past = admission_past(s);
        out->next_due_ns = objective_next_due(&o, &past);
    }
}

static void describe(struct engine *e, const struct sequence *s, uint32_t *n_looks,
                     struct sched_seq *out)
{
    enum sched_place place = place_of(s);

    *out = (struct sched_seq){.id = sequence_idx(&e->sequences, s),
                              .class_idx = (uint16_t)s->class_idx,
                              .tenant = (uint16_t)s->tenant,
                              .place = (uint8_t)place,
                              .latency_sensitive = s->latency_sensitive,
                              .in_slot = s->in_slot,
                              .has_output = sequence_n_output(s) > 0,
                              .n_kv = s->n_kv,
                              .n_todo = sequence_n_todo(s),
                              .n_rest = s->max_tokens - sequence_n_output(s),
                              .n_blocks = s->n_blocks,
                              .n_freed = kv_n_freed(e, s),
                              .reserved = s->slot != SEQUENCE_NONE,
                              .in_copy = s->copy != SEQUENCE_COPY_NONE,
                              .worker = s->slot != SEQUENCE_NONE ? s->worker : s->preferred_worker};
    if (place == SCHED_WAITING && (*n_looks)++ < SHARE_LOOKS)
        out->n_shared = kv_shareable(e, s);
    set_times(e, s, out);
}

static void describe_workers(struct engine *e)
{
    for (uint32_t w = 0; w < e->exchange->n_workers; w++)
        e->decide.workers[w] = (struct sched_worker){
            .usable = e->exchange->ops->peer(e->exchange, w) == EXCHANGE_PEER_ALIVE,
            .n_free_blocks = e->workers[w].pool.n_free,
            .n_blocks = e->workers[w].pool.n_blocks,
            .n_free_slots = e->workers[w].n_free_slots,
            .n_resident = e->workers[w].n_resident};
}

/* Dropped for somebody who could not wait, and grown beyond the device since: it can only be
 * computed again there. */
static bool is_hopeless(const struct engine *e, const struct sequence *s)
{
    return s->state == SEQUENCE_WAITING && engine_is_best_effort(s) &&
           geometry_blocks_for(&e->geometry, s->n_tokens + 1) * e->geometry.n_groups >
               e->pool.n_blocks;
}

static uint32_t describe_sequences(struct engine *e)
{
    struct engine_decide *d = &e->decide;
    uint32_t n_live = sort_by_age(e, d->order), n = 0, n_looks = 0;

    d->n_live = n_live;
    for (uint32_t i = 0; i < n_live; i++) {
        struct sequence *s = &e->sequences.all[d->order[i]];

        if (s->held_back)
            continue;
        if (is_hopeless(e, s))
            ending_fail(e, s, ERROR_NO_CAPACITY,
                        "its KV was dropped and has outgrown the device, where it would be "
                        "computed again",
                        true);
        else
            describe(e, s, &n_looks, &d->seqs[n++]);
    }
    return n;
}

void decide_sweep(struct engine *e)
{
    struct engine_decide *d = &e->decide;
    struct sched_state state = {.limits = &d->limits,
                                .latency = e->latency.head.n > 0 ? &e->latency : NULL,
                                .now_ns = e->ops->now(e->device),
                                .seqs = d->seqs,
                                .workers = d->workers,
                                .n_free_blocks = e->pool.n_free,
                                .n_copies = e->n_copies,
                                .returned_rows = e->returned_rows,
                                .sure_share = foresight_sure_share(e),
                                .be_starved = d->decision.be_starved,
                                .be_stuck = d->decision.be_stuck};

    if (e->elsewhere.room != NULL) {
        uint32_t room = e->elsewhere.room(e->elsewhere.arg);
        d->limits.elsewhere_max = room < ELSEWHERE_MAX ? room : ELSEWHERE_MAX;
    }
    describe_workers(e);
    state.n_seqs = describe_sequences(e);
    state.n_free_blocks = e->pool.n_free;
    admission_rank(e, d->seqs, state.n_seqs);
    d->policy->decide(&state, &d->decision);
    admission_charge(e);
#ifndef NDEBUG
    const char *broken = sched_check(&state, &d->decision);
    invariant(broken == NULL);
#endif
}
