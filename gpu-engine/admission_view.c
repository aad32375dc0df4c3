/* The engine thread's side: what it holds of the first class, told to the control thread. */
#include <math.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/sched/price.h"
#include "gpu-engine/decide.h"
#include "gpu-engine/engine.h"

/* What best effort added to a sweep is forgotten within some hundred of them. */
static const double be_fades = 0.99, be_rises = 1.02;

/* ---- Sequences ------------------------------------------------------------------------------- */

struct objective_past admission_past(const struct sequence *s)
{
    return (struct objective_past){.first_ns = s->first_token_ns,
                                   .last_ns = s->last_token_ns,
                                   .n_output = sequence_n_output(s),
                                   .token_late = s->token_late};
}

/* The latency-sensitive ones that live, oldest first; decide has just sorted all. */
static uint32_t gather(struct engine *e)
{
    struct admission *a = &e->admission;
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->decide.n_live; i++) {
        const struct sequence *s = &e->sequences.all[e->decide.order[i]];
        if (s->latency_sensitive && s->state != SEQUENCE_ENDED)
            a->order[n++] = e->decide.order[i];
    }
    return n;
}

/* As it will be when the sweep in flight has ended, at that time. */
static void describe(const struct engine *e, const struct sequence *s, uint64_t end_ns,
                     struct sched_seq *out, struct objective_past *past)
{
    const struct objective o = admission_objective(e, s);
    uint32_t n_kv = s->n_kv + s->n_swept, made;
    bool sampled = s->n_swept > 0 && n_kv == s->n_tokens;

    *past = admission_past(s);
    if (sampled)
        objective_take(&o, past, end_ns);
    made = past->n_output;
    uint32_t predicted =
        lengths_predict(&e->admission.lengths, made, s->max_tokens, e->config->slo_output_pct);
    *out = (struct sched_seq){.id = sequence_idx(&e->sequences, s),
                              .tenant = (uint16_t)s->tenant,
                              .place = s->state == SEQUENCE_WAITING ? SCHED_WAITING : SCHED_DEVICE,
                              .latency_sensitive = 1,
                              .has_output = made > 0,
                              .n_kv = n_kv,
                              .n_todo = s->n_tokens + sampled - n_kv,
                              .n_rest = predicted > made ? predicted - made : 1,
                              .n_blocks = s->n_blocks,
                              .worker = SCHED_NONE,
                              .arrival_ns = s->arrival_ns,
                              .first_due_ns = o.arrival_ns + o.ttft_ns,
                              .tpot_slo_ns = o.tpot_ns,
                              .last_token_ns = past->last_ns};
    if (o.deadlines == OBJECTIVE_TOKEN && made > 0)
        out->next_due_ns = objective_next_due(&o, past);
}

/* ---- Best effort ----------------------------------------------------------------------------- */

/* Latency-sensitive rows of the sweep: what they would have cost without the others, and how long it
 * may be for them, of which policies use a share. */
struct ls_part {
    double ns, budget_ns;
};

static struct ls_part look_at_ls(const struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    const struct sched_limits *l = &e->decide.limits;
    struct latency_load load = {0};
    struct ls_part part;
    struct price price;
    double now = (double)e->ops->now(e->device), tightest = INFINITY;

    price_init(&price, &e->latency);
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        const struct sched_seq *s = &e->decide.seqs[d->rows[i].seq];
        uint32_t n = d->rows[i].n_rows;
        if (!s->latency_sensitive)
            continue;
        price_add(&price, &load, sched_from(s), n, n == sched_todo(s));
        if (sched_is_decode(s) && s->tpot_slo_ns != 0)
            tightest = fmin(tightest, admission_span_ns(s, now));
    }
    part.ns = price_ns(&price, &load);
    part.budget_ns =
        isfinite(tightest) ? tightest * l->params.slo_use_pct / 100 : (double)l->sweep_max_ns;
    return part;
}

/* Latency-sensitive prompts that the sweep does not finish. */
static bool leaves_prompts(const struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    uint32_t n = 0, n_done = 0;

    for (uint32_t i = 0; i < e->decide.n_live; i++) {
        const struct sequence *s = &e->sequences.all[e->decide.order[i]];
        n += s->latency_sensitive && sequence_n_output(s) == 0;
    }
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        const struct sched_seq *s = &e->decide.seqs[d->rows[i].seq];
        n_done += s->latency_sensitive && !s->has_output && d->rows[i].n_rows == sched_todo(s);
    }
    return n_done < n;
}

/* The whole sweep, what it waits for included. */
static double predicted_ns(const struct engine *e)
{
    return e->batch.predicted.total_ns + e->batch.predicted_wait_ns;
}

/* Best effort that would starve gets rows even in a sweep that is full: beyond the budget, with policies
 * that heed it; with others what it got in the fullest of the last sweeps. */
static void note_best_effort(struct engine *e)
{
    struct admission *a = &e->admission;
    const struct ls_part ls = look_at_ls(e);
    double total = predicted_ns(e), be = fmax(0, total - ls.ns), forced = 0;

    if (e->decide.policy->heeds_gaps)
        forced = fmax(0, total - fmax(ls.ns, ls.budget_ns));
    a->be_ns = fmax(be, a->be_ns * be_fades);
    if (leaves_prompts(e))
        a->be_busy_ns = fmax(be, a->be_busy_ns * be_fades);
    a->be_least_ns = fmin(be, fmax(a->be_least_ns * be_rises, NS_PER_US));
    a->be_forced_ns = fmax(forced, a->be_forced_ns * be_fades);
    a->sweep_most_ns = fmax(total, a->sweep_most_ns * be_fades);
}

/* ---- Publishing ------------------------------------------------------------------------------ */

void admission_publish(struct engine *e)
{
    struct admission *a = &e->admission;
    struct admission_snapshot *s = &a->snapshots[a->turn.back];
    uint64_t now = e->ops->now(e->device);

    s->priced = e->latency.head.n > 0;
    if (s->priced) {
        if (e->in_flight)
            note_best_effort(e);
        s->latency = e->latency;
    }
    s->n_arrived = a->n_arrived;
    s->free_at_ns = s->priced && e->in_flight ? now + (uint64_t)predicted_ns(e) : 0;
    s->be_ns = a->be_ns;
    s->be_busy_ns = fmin(a->be_ns, a->be_busy_ns);
    s->sweep_most_ns = a->sweep_most_ns;
    s->be_least_ns = fmax(a->be_least_ns, a->be_forced_ns);
    s->lengths = a->lengths;
    s->window = a->window;
    s->fair = a->fair;
    s->n_seqs = gather(e);
    s->n_on_budget = 0;
    for (uint32_t i = 0; i < s->n_seqs; i++) {
        const struct sequence *q = &e->sequences.all[a->order[i]];
        s->n_on_budget += q->on_budget;
        describe(e, q, s->free_at_ns > now ? s->free_at_ns : now, &s->seqs[i], &s->past[i]);
    }
    triple_publish(&a->turn);
}

/* ---- Outcomes -------------------------------------------------------------------------------- */

static bool has_outcome(enum finish_reason reason)
{
    return reason == FINISH_STOP || reason == FINISH_LENGTH || reason == FINISH_ERROR;
}

void admission_take_outcome(struct engine *e, const struct sequence *s, enum finish_reason reason)
{
    struct admission *a = &e->admission;
    const struct objective o = admission_objective(e, s);
    const struct objective_past past = admission_past(s);
    struct objective_verdict v = objective_judge(&o, &past);

    if (!has_outcome(reason))
        return;
    bool failed = reason == FINISH_ERROR || s->outgrown;
    bool missed = failed || !v.ttft_ok || !v.tpot_ok;
    if (reason != FINISH_ERROR)
        lengths_add(&a->lengths, past.n_output);
    objective_window_add(&a->window, missed);
    engine_count(e, missed ? ENGINE_STAT_LS_MISSED : ENGINE_STAT_LS_MET, 1);
    engine_count(e, ENGINE_STAT_LS_MISSED_TTFT, !v.ttft_ok);
    engine_count(e, ENGINE_STAT_LS_MISSED_TPOT, !v.tpot_ok);
    stats_set(&e->stats, ENGINE_STAT_LS_MISSES_LEFT,
              objective_window_left(&a->window, 0, e->config->slo_ls_target_pct));
}

/* ---- Tenants --------------------------------------------------------------------------------- */

void admission_rank(struct engine *e, struct sched_seq *seqs, uint32_t n_seqs)
{
    struct fair_share *f = &e->admission.fair;
    uint32_t wanting = 0;

    if (f->n < 2)
        return;
    for (uint32_t i = 0; i < n_seqs; i++)
        wanting |= seqs[i].latency_sensitive ? UINT32_C(1) << seqs[i].tenant : 0;
    fair_share_advance(f, wanting);
    fair_share_rank(f, seqs, n_seqs);
}

void admission_charge(struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;
    struct fair_share *f = &e->admission.fair;

    for (uint32_t i = 0; f->n > 1 && i < d->n_seqs; i++) {
        const struct sched_seq *s = &e->decide.seqs[d->rows[i].seq];
        if (s->latency_sensitive)
            fair_share_charge(f, s->tenant, d->rows[i].n_rows);
    }
}
