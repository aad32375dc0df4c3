/* The control thread's side: questions. */
#include "gpu-engine/admission.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/engine.h"

enum {
    RETRY_UNKNOWN_MS = 500, /* where nothing is priced: a chat's tail */
    RETRY_MIN_MS = 10,
    RETRY_MAX_MS = 60000,
};

/* A tenant that asked within this time is active: shares are kept for it. */
static const uint64_t active_ns = 60 * NS_PER_S;

/* ---- Memory ---------------------------------------------------------------------------------- */

static int init_snapshot(struct admission_snapshot *s, uint32_t n_seqs)
{
    s->seqs = calloc((size_t)n_seqs * 2, sizeof *s->seqs);
    s->past = calloc((size_t)n_seqs * 2, sizeof *s->past);
    return s->seqs != NULL && s->past != NULL ? 0 : -ENOMEM;
}

int admission_init(struct admission *a, const struct engine *e, const struct admission_limits *l)
{
    uint32_t n = e->sequences.n;
    struct error err;

    memset(a, 0, sizeof *a);
    triple_init(&a->turn);
    a->limits = *l;
    int rc = config_tenants(e->config, &a->tenants, &err);
    invariant(rc == 0); /* config_check has looked at it */
    fair_share_init(&a->fair, a->tenants.n, a->tenants.weights);
    for (uint32_t i = 0; i < TRIPLE_BUFFERS && rc == 0; i++) {
        a->snapshots[i].fair = a->fair;
        rc = init_snapshot(&a->snapshots[i], n);
    }
    a->pending = calloc(n, sizeof *a->pending);
    a->order = calloc(n, sizeof *a->order);
    if (rc == 0)
        rc = admission_scratch_init(&a->scratch, 2 * n, &e->decide.limits);
    return a->pending != NULL && a->order != NULL ? rc : -ENOMEM;
}

void admission_fini(struct admission *a)
{
    for (uint32_t i = 0; i < TRIPLE_BUFFERS; i++) {
        free(a->snapshots[i].seqs);
        free(a->snapshots[i].past);
    }
    free(a->pending);
    free(a->order);
    admission_scratch_fini(&a->scratch);
}

/* ---- What is known --------------------------------------------------------------------------- */

static struct objective objective_of(const struct omni_config *c, uint64_t arrival_ns,
                                     uint64_t ttft_ns, uint64_t tpot_ns)
{
    return (struct objective){.deadlines = (enum objective_deadlines)c->slo_deadlines,
                              .arrival_ns = arrival_ns,
                              .ttft_ns = ttft_ns != 0 ? ttft_ns : c->slo_ttft_ms * NS_PER_MS,
                              .tpot_ns = tpot_ns != 0 ? tpot_ns : c->slo_tpot_ms * NS_PER_MS};
}

struct objective admission_objective(const struct engine *e, const struct sequence *s)
{
    return objective_of(e->config, s->arrival_ns, s->ttft_slo_ns, s->tpot_slo_ns);
}

/* The newest snapshot, and what was admitted since behind its sequences; returns their number. */
static uint32_t gather(struct admission *a, struct admission_snapshot **out)
{
    struct admission_snapshot *s = &a->snapshots[triple_take(&a->turn)];
    uint32_t n = s->n_seqs, n_left = 0;

    for (uint32_t i = 0; i < a->n_pending; i++) {
        if (a->pending[i].order <= s->n_arrived)
            continue;
        a->pending[n_left] = a->pending[i];
        s->seqs[n] = a->pending[n_left++].seq;
        s->past[n++] = (struct objective_past){0};
    }
    a->n_pending = n_left;
    *out = s;
    return n;
}

static uint32_t misses_left(const struct admission *a, const struct admission_snapshot *s,
                            uint32_t n_seqs, uint32_t target_pct)
{
    uint32_t left = objective_window_left(&s->window, n_seqs, target_pct);
    uint32_t taken = s->n_on_budget;

    for (uint32_t i = 0; i < a->n_pending; i++)
        taken += a->pending[i].on_budget;
    return left > taken ? left - taken : 0;
}

static uint32_t active_tenants(const struct admission *a, uint64_t now_ns)
{
    uint32_t active = 0;

    for (uint32_t t = 0; t < a->fair.n; t++) {
        if (a->asked_ns[t] != 0 && a->asked_ns[t] + active_ns > now_ns)
            active |= UINT32_C(1) << t;
    }
    return active;
}

static struct sched_seq waiting(const struct objective *o, uint32_t tenant, uint32_t n_prompt,
                                uint32_t n_predicted)
{
    return (struct sched_seq){.tenant = (uint16_t)tenant,
                              .place = SCHED_WAITING,
                              .latency_sensitive = 1,
                              .n_todo = n_prompt,
                              .n_rest = n_predicted,
                              .worker = SCHED_NONE,
                              .arrival_ns = o->arrival_ns,
                              .first_due_ns = o->arrival_ns + o->ttft_ns,
                              .tpot_slo_ns = o->tpot_ns};
}

static uint64_t ns_of(bool has, double ms)
{
    return has ? (uint64_t)(ms * 1e6) : 0;
}

static struct sched_seq candidate_of(const struct engine *e, const struct message_submit *m,
                                     const struct admission_answer *answer)
{
    const struct objective o =
        objective_of(e->config, m->arrival_ns, ns_of(m->has_ttft_slo_ms, m->ttft_slo_ms),
                     ns_of(m->has_tpot_slo_ms, m->tpot_slo_ms));

    return waiting(&o, answer->tenant, m->tokens.n, answer->n_predicted);
}

/* ---- Answers --------------------------------------------------------------------------------- */

static uint64_t blocks_for(const struct admission *a, uint64_t n_tokens)
{
    uint64_t bt = a->limits.block_tokens;

    return (n_tokens + bt - 1) / bt * a->limits.n_groups;
}

static void refuse(struct admission_answer *answer, enum error_code code, uint32_t retry_after_ms,
                   const char *what, uint64_t needed, uint64_t limit)
{
    answer->accepted = false;
    answer->code = code;
    answer->retry_after_ms = retry_after_ms;
    snprintf(answer->message, sizeof answer->message, "%s: %llu needed, %llu there", what,
             (unsigned long long)needed, (unsigned long long)limit);
}

/* Whole milliseconds, upwards. */
static uint32_t retry_ms(uint64_t ns)
{
    if (ns == 0)
        return RETRY_UNKNOWN_MS;
    if (ns >= RETRY_MAX_MS * NS_PER_MS)
        return RETRY_MAX_MS;
    uint32_t ms = (uint32_t)((ns + NS_PER_MS - 1) / NS_PER_MS);
    return ms > RETRY_MIN_MS ? ms : RETRY_MIN_MS;
}

static void refuse_as(const struct admission_verdict *v, struct admission_answer *answer)
{
    static const char *const what[ADMISSION_REASONS] = {
        [ADMISSION_BLOCKS] = "KV blocks for this request beside the admitted ones",
        [ADMISSION_SEATS] = "rows of a sweep",
        [ADMISSION_TTFT] = "ms to the first token would exceed its objective",
        [ADMISSION_TPOT] = "time between its tokens would exceed the objective; ms to the first",
        [ADMISSION_OTHERS] = "admitted requests would miss their objectives; ms to its first token",
        [ADMISSION_SHARE] = "the tenant has its share, others' shares are kept"};
    bool times =
        v->reason != ADMISSION_BLOCKS && v->reason != ADMISSION_SEATS && v->needed > NS_PER_MS;
    uint64_t unit = times ? NS_PER_MS : 1;

    refuse(answer, ERROR_OVERLOADED, retry_ms(v->retry_after_ns), what[v->reason], v->needed / unit,
           v->there / unit);
    if (v->retry_after_ns != UINT64_MAX)
        return;
    /* Not even on an empty engine. */
    answer->code = ERROR_NO_CAPACITY;
    answer->retry_after_ms = 0;
}

static void fill_view(struct engine *e, struct admission_snapshot *s, uint32_t n_seqs,
                      struct admission_view *view)
{
    const struct omni_config *c = e->config;
    struct admission *a = &e->admission;
    uint64_t now = e->ops->now(e->device);

    *view = (struct admission_view){.policy = e->decide.policy,
                                    .limits = &e->decide.limits,
                                    .latency = s->priced ? &s->latency : NULL,
                                    .deadlines = (enum objective_deadlines)c->slo_deadlines,
                                    .now_ns = s->free_at_ns > now ? s->free_at_ns : now,
                                    .be_ns = s->be_ns,
                                    .be_busy_ns = s->be_busy_ns,
                                    .sweep_most_ns = s->sweep_most_ns,
                                    .be_least_ns = s->be_least_ns,
                                    .seqs = s->seqs,
                                    .past = s->past,
                                    .n_seqs = n_seqs,
                                    .fair = &s->fair,
                                    .tenants_active = active_tenants(a, now),
                                    .misses_left = misses_left(a, s, n_seqs, c->slo_ls_target_pct)};
}

static void decide_ls(struct engine *e, const struct message_submit *m,
                      struct admission_answer *answer)
{
    struct admission *a = &e->admission;
    struct admission_snapshot *s;
    struct admission_view view;
    struct admission_verdict verdict;
    uint32_t n = gather(a, &s);

    answer->tenant =
        config_tenant_find(&a->tenants, m->tenant.data, m->has_tenant ? m->tenant.n : 0);
    answer->n_predicted = lengths_predict(&s->lengths, 0, m->max_tokens, e->config->slo_output_pct);
    if (!e->config->slo_admission)
        return;
    fill_view(e, s, n, &view);
    const struct sched_seq candidate = candidate_of(e, m, answer);
    a->asked_ns[answer->tenant] = e->ops->now(e->device) + 1; /* 0: never */
    admission_judge(&view, &candidate, &a->scratch, &verdict);
    answer->on_budget = verdict.n_late > 0;
    if (verdict.reason != ADMISSION_FITS)
        refuse_as(&verdict, answer);
}

/* The most blocks that a best-effort request may come to need. */
static uint64_t be_limit(const struct admission_limits *l)
{
    if (l->must_offload)
        return l->arena_blocks;
    return l->arena_blocks > l->device_blocks ? l->arena_blocks : l->device_blocks;
}

/* What can never succeed.  True: it is answered. */
static bool decide_by_size(const struct admission *a, bool latency_sensitive, uint32_t n_prompt,
                           uint32_t max_output, struct admission_answer *answer)
{
    uint64_t n_tokens = (uint64_t)n_prompt + max_output;
    uint64_t prompt = blocks_for(a, (uint64_t)n_prompt + 1), whole = blocks_for(a, n_tokens);

    if (n_prompt == 0)
        refuse(answer, ERROR_BAD_REQUEST, 0, "prompt tokens", 1, 0);
    else if (n_tokens > a->limits.context_max)
        refuse(answer, ERROR_TOO_LONG, 0, "tokens of prompt and output", n_tokens,
               a->limits.context_max);
    else if (prompt > a->limits.device_blocks ||
             (latency_sensitive && whole > a->limits.device_blocks))
        refuse(answer, ERROR_NO_CAPACITY, 0, "device KV blocks", latency_sensitive ? whole : prompt,
               a->limits.device_blocks);
    else if (!latency_sensitive && whole > be_limit(&a->limits))
        refuse(answer, ERROR_NO_CAPACITY, 0, "KV blocks", whole, be_limit(&a->limits));
    return !answer->accepted;
}

void admission_decide(struct engine *e, const struct message_submit *m,
                      struct admission_answer *answer)
{
    bool latency_sensitive = m->class_index == 0;
    uint64_t start = clock_now_ns();

    *answer = (struct admission_answer){.accepted = true};
    if (decide_by_size(&e->admission, latency_sensitive, m->tokens.n, m->max_tokens, answer) ||
        !latency_sensitive)
        return;
    decide_ls(e, m, answer);
    stats_set(&e->stats, ENGINE_STAT_ADMIT_US, (clock_now_ns() - start) / NS_PER_US);
    engine_count(e, ENGINE_STAT_LS_OFFERED, 1);
    engine_count(e, ENGINE_STAT_LS_REFUSED, !answer->accepted);
    engine_count(e, ENGINE_STAT_LS_ON_BUDGET, answer->accepted && answer->on_budget);
}

void admission_promise(struct engine *e, const struct sequence *s)
{
    struct admission *a = &e->admission;
    const struct objective o = admission_objective(e, s);
    struct admission_snapshot *snapshot;

    if (!s->latency_sensitive)
        return;
    if (a->n_pending == e->sequences.n)
        gather(a, &snapshot); /* forgets those that have been seen since */
    invariant(a->n_pending < e->sequences.n);
    a->pending[a->n_pending++] =
        (struct admission_pending){.order = s->order,
                                   .on_budget = s->on_budget,
                                   .seq = waiting(&o, s->tenant, s->n_prompt, s->n_predicted)};
}

uint64_t admission_promised(struct engine *e)
{
    struct admission_snapshot *s;
    uint32_t n = gather(&e->admission, &s);
    uint64_t blocks = 0;

    for (uint32_t i = 0; i < n; i++)
        blocks += admission_blocks(&e->decide.limits, &s->seqs[i]);
    return blocks;
}
