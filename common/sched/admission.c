#include "common/sched/admission.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/sched/admission_run.h"

enum {
    SWEEPS_MAX = 512,  /* of one run: a queue that long is late anyway */
    RETRY_SWEEPS = 256 /* of all runs that look for a time to come back */
};

/* So late may a request be that is admitted on the budget of misses. */
static const double overrun_most = 0.25;

/* ---- Memory ---------------------------------------------------------------------------------- */

static int init_runs(struct admission_scratch *s, uint32_t n_max)
{
    s->base = calloc(1, sizeof *s->base);
    s->trial = calloc(1, sizeof *s->trial);
    s->late = calloc(n_max, sizeof *s->late);
    if (s->base == NULL || s->trial == NULL || s->late == NULL)
        return -ENOMEM;
    int rc = admission_run_init(s->base, n_max);
    return rc == 0 ? admission_run_init(s->trial, n_max) : rc;
}

int admission_scratch_init(struct admission_scratch *s, uint32_t n_seqs,
                           const struct sched_limits *limits)
{
    memset(s, 0, sizeof *s);
    int rc = init_runs(s, n_seqs + 1);
    return rc == 0 ? sched_decision_init(&s->decision, n_seqs + 1, limits) : rc;
}

void admission_scratch_fini(struct admission_scratch *s)
{
    if (s->base != NULL)
        admission_run_fini(s->base);
    if (s->trial != NULL)
        admission_run_fini(s->trial);
    free(s->base);
    free(s->trial);
    free(s->late);
    sched_decision_fini(&s->decision);
    memset(s, 0, sizeof *s);
}

/* ---- Shares of tenants ----------------------------------------------------------------------- */

static bool shares(const struct admission_view *v)
{
    return v->fair->n > 1;
}

/* What is kept of `whole` for tenants other than the candidate's: their shares, less what each of
 * them has already (used, by tenant). */
static double kept_for_others(const struct admission_view *v, uint32_t tenant, double whole,
                              const double used[FAIR_TENANTS_MAX])
{
    uint32_t active = v->tenants_active | UINT32_C(1) << tenant;
    double weights = 0, kept = 0;

    for (uint32_t t = 0; t < v->fair->n; t++)
        weights += (active >> t & 1) != 0 ? v->fair->weight[t] : 0;
    for (uint32_t t = 0; t < v->fair->n; t++) {
        if (t != tenant && (active >> t & 1) != 0)
            kept += fmax(0, whole * v->fair->weight[t] / weights - used[t]);
    }
    return kept;
}

/* ---- Blocks and rows ------------------------------------------------------------------------- */

uint32_t admission_blocks(const struct sched_limits *limits, const struct sched_seq *s)
{
    return sched_blocks(limits, (uint64_t)s->n_kv + s->n_todo + s->n_rest);
}

static bool blocks_fit(const struct admission_view *v, const struct admission_run *r,
                       const struct sched_seq *candidate, struct admission_verdict *verdict)
{
    double used[FAIR_TENANTS_MAX] = {0};
    uint64_t n = admission_blocks(v->limits, candidate);

    for (uint32_t i = 0; i < r->n; i++) {
        if (r->seqs[i].place == SCHED_ELSEWHERE)
            continue;
        uint32_t blocks = admission_blocks(v->limits, &r->seqs[i]);
        n += blocks;
        used[shares(v) ? r->seqs[i].tenant : 0] += blocks;
    }
    verdict->needed = n;
    verdict->there = v->limits->n_blocks;
    verdict->reason = n > v->limits->n_blocks ? ADMISSION_BLOCKS : ADMISSION_FITS;
    if (verdict->reason == ADMISSION_FITS && shares(v)) {
        double kept = kept_for_others(v, candidate->tenant, v->limits->n_blocks, used);
        if ((double)n + kept > v->limits->n_blocks) {
            verdict->reason = ADMISSION_SHARE;
            verdict->there -= (uint64_t)kept;
        }
    }
    return verdict->reason == ADMISSION_FITS;
}

/* All of them decode in one sweep. */
static bool seats_fit(const struct admission_view *v, const struct admission_run *r,
                      struct admission_verdict *verdict)
{
    const struct sched_limits *l = v->limits;
    uint32_t most = l->rows_max < l->seqs_max ? l->rows_max : l->seqs_max;

    if (r->n_live < most)
        return true;
    verdict->reason = ADMISSION_SEATS;
    verdict->needed = r->n_live + 1;
    verdict->there = most;
    return false;
}

/* ---- Running ahead --------------------------------------------------------------------------- */

/* Until no prompt waits.  False: some never get there, for all that one can see. */
static bool run_prompts(struct admission_scratch *s, struct admission_run *r, uint32_t sweeps)
{
    for (uint32_t i = 0; r->n_prompts > 0; i++) {
        if (i == sweeps || !admission_run_sweep(r, &s->decision))
            return false;
        s->n_steps++;
    }
    return true;
}

static bool is_late(const struct admission_run *r, uint32_t i, double gap_ns)
{
    struct objective_verdict v = admission_run_judge(r, i, gap_ns);

    return !v.ttft_ok || !v.tpot_ok;
}

/* Is anybody late if gaps are that wide? */
static bool any_late(const struct admission_run *r, double gap_ns)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (is_late(r, i, gap_ns))
            return true;
    }
    return false;
}

/* To the end of every sequence.  Mostly all are in time even if gaps stayed as wide as they can
 * become: then that is the end.  Returns the gap that the live ones are to be judged by. */
static double run_out(struct admission_scratch *s, struct admission_run *r)
{
    if (!run_prompts(s, r, SWEEPS_MAX))
        return 0;
    double widest = admission_run_widest_gap_ns(r);
    if (!any_late(r, widest))
        return widest;
    while (r->n_live > 0)
        admission_run_jump(r);
    return 0;
}

/* How late, as a share of the objective. */
static double overrun(const struct admission_run *r, uint32_t i, double gap_ns)
{
    const struct objective o = admission_run_objective(r, i);
    const struct objective_past *past = &r->past[i];
    double first = (double)past->first_ns - (double)o.arrival_ns, mean = gap_ns;

    if (past->n_output == 0)
        return INFINITY;
    if (past->n_output >= 2)
        mean = fmax(mean, (double)(past->last_ns - past->first_ns) / (past->n_output - 1));
    double ttft = o.ttft_ns != 0 ? first / (double)o.ttft_ns - 1 : 0;
    double tpot = o.tpot_ns != 0 ? mean / (double)o.tpot_ns - 1 : 0;
    return fmax(0, fmax(ttft, tpot));
}

/* ---- The judgement --------------------------------------------------------------------------- */

/* Who is late without the candidate is not late because of it. */
static void find_late_anyway(struct admission_scratch *s, const struct admission_view *v)
{
    admission_run_load(s->base, v);
    double gap = run_out(s, s->base);
    for (uint32_t i = 0; i < s->base->n; i++)
        s->late[i] = is_late(s->base, i, gap);
}

static void count_late(struct admission_scratch *s, const struct admission_view *v, double gap_ns,
                       struct admission_verdict *verdict)
{
    const struct admission_run *r = s->trial;
    uint32_t own = r->n - 1;

    if (is_late(r, own, gap_ns)) {
        verdict->reason =
            admission_run_judge(r, own, gap_ns).ttft_ok ? ADMISSION_TPOT : ADMISSION_TTFT;
        verdict->n_late++;
        verdict->overrun = overrun(r, own, gap_ns);
    }
    for (uint32_t i = 0; i < own; i++) {
        if (is_late(r, i, gap_ns)) {
            find_late_anyway(s, v);
            break;
        }
    }
    for (uint32_t i = 0; i < own; i++) {
        if (s->late[i] || !is_late(r, i, gap_ns))
            continue;
        if (verdict->n_late++ == 0)
            verdict->reason = ADMISSION_OTHERS;
        verdict->overrun = fmax(verdict->overrun, overrun(r, i, gap_ns));
    }
}

/* Of the time to the first token: prompts of the others that wait use up what is kept for them. */
static bool leaves_shares(const struct admission_view *v, const struct admission_run *r,
                          const struct sched_seq *candidate)
{
    const struct sched_seq *own = &r->seqs[r->n - 1];
    const struct objective o = admission_run_objective(r, r->n - 1);
    double rows[FAIR_TENANTS_MAX] = {0}, rows_all = sched_todo(candidate), own_ttft;

    if (!shares(v) || o.ttft_ns == 0)
        return true;
    for (uint32_t i = 0; i < v->n_seqs; i++) {
        const struct sched_seq *s = &v->seqs[i];
        if (sched_is_decode(s))
            continue;
        rows[s->tenant] += sched_todo(s);
        rows_all += sched_todo(s);
    }
    double per_row = (double)(r->prompts_done_ns - v->now_ns) / fmax(rows_all, 1);
    for (uint32_t t = 0; t < v->fair->n; t++)
        rows[t] *= per_row;
    own_ttft = (double)r->past[r->n - 1].first_ns - (double)o.arrival_ns;
    return own_ttft + kept_for_others(v, own->tenant, (double)o.ttft_ns, rows) <= (double)o.ttft_ns;
}

/* Of the time between tokens: each decode uses its part of what the gap is above that of one. */
static bool leaves_gaps(const struct admission_view *v, const struct admission_run *r,
                        double gap_ns)
{
    const struct sched_seq *own = &r->seqs[r->n - 1];
    double used[FAIR_TENANTS_MAX] = {0}, tpot = (double)own->tpot_slo_ns;
    struct latency_load one = {0};

    if (!shares(v) || own->tpot_slo_ns == 0 || r->n_live < 2)
        return true;
    price_add(&r->price, &one, own->n_kv, 1, true);
    double alone = fmax(price_ns(&r->price, &one), v->be_ns);
    double each = fmax(0, gap_ns - alone) / r->n_live;
    for (uint32_t i = 0; i < r->n; i++)
        used[r->seqs[i].tenant] += r->seqs[i].place != SCHED_ELSEWHERE ? each : 0;
    return gap_ns + kept_for_others(v, own->tenant, fmax(0, tpot - alone), used) <= tpot;
}

static bool on_budget(const struct admission_view *v, const struct admission_verdict *verdict)
{
    return verdict->n_late <= v->misses_left && verdict->overrun <= overrun_most;
}

/* s->trial holds the others; the candidate joins them. */
static bool times_fit(const struct admission_view *v, const struct sched_seq *candidate,
                      struct admission_scratch *s, struct admission_verdict *verdict)
{
    uint32_t own = admission_run_add(s->trial, candidate);
    double gap = run_out(s, s->trial), widest = gap;
    uint64_t first = s->trial->past[own].first_ns;

    verdict->reason = ADMISSION_FITS;
    verdict->n_late = 0;
    verdict->overrun = 0;
    verdict->ttft_ns = first > candidate->arrival_ns ? first - candidate->arrival_ns : 0;
    memset(s->late, 0, s->trial->n * sizeof *s->late);
    if (any_late(s->trial, gap))
        count_late(s, v, gap, verdict);
    if (verdict->n_late > 0 && on_budget(v, verdict))
        verdict->reason = ADMISSION_FITS;
    if (verdict->reason == ADMISSION_FITS &&
        !(leaves_shares(v, s->trial, candidate) && leaves_gaps(v, s->trial, widest)))
        verdict->reason = ADMISSION_SHARE;
    if (verdict->reason != ADMISSION_FITS) {
        verdict->needed = verdict->ttft_ns;
        verdict->there =
            candidate->first_due_ns != 0 ? candidate->first_due_ns - candidate->arrival_ns : 0;
    }
    return verdict->reason == ADMISSION_FITS;
}

/* ---- When to come back ----------------------------------------------------------------------- */

/* Would it fit if it came at the base run's present? */
static bool fits_at(const struct admission_view *v, const struct sched_seq *candidate,
                    struct admission_scratch *s)
{
    struct sched_seq later = *candidate;
    struct admission_verdict verdict;

    if (!seats_fit(v, s->base, &verdict) || !blocks_fit(v, s->base, candidate, &verdict))
        return false;
    later.arrival_ns = s->base->now_ns;
    later.first_due_ns +=
        candidate->first_due_ns != 0 ? later.arrival_ns - candidate->arrival_ns : 0;
    admission_run_copy(s->trial, s->base);
    uint32_t own = admission_run_add(s->trial, &later);
    double gap = run_out(s, s->trial);
    return !is_late(s->trial, own, gap);
}

/* The others go on, and whenever some have got their first token or ended, in doubling steps, it is
 * tried again.  Nobody else is expected to come. */
static uint64_t retry_after(const struct admission_view *v, const struct sched_seq *candidate,
                            struct admission_scratch *s)
{
    uint32_t events = 0, next = 1, until = s->n_steps + RETRY_SWEEPS;
    struct admission_run *r = s->base;

    admission_run_load(r, v);
    while (r->n_live > 0 && s->n_steps < until) {
        uint32_t before = r->n_live + r->n_prompts;

        if (r->n_prompts == 0)
            admission_run_jump(r);
        else if (!admission_run_sweep(r, &s->decision))
            break;
        s->n_steps++;
        events += before - r->n_live - r->n_prompts;
        if (events < next && r->n_live > 0)
            continue;
        while (next <= events)
            next *= 2;
        if (fits_at(v, candidate, s))
            return r->now_ns - v->now_ns;
    }
    if (r->n_live > 0)
        return r->now_ns - v->now_ns; /* not found yet: at least so long */
    return fits_at(v, candidate, s) ? r->now_ns - v->now_ns : UINT64_MAX;
}

void admission_judge(const struct admission_view *view, const struct sched_seq *candidate,
                     struct admission_scratch *s, struct admission_verdict *verdict)
{
    invariant(candidate->place == SCHED_WAITING && candidate->latency_sensitive);
    *verdict = (struct admission_verdict){.reason = ADMISSION_FITS};
    s->n_steps = 0;
    admission_run_load(s->trial, view);
    if (seats_fit(view, s->trial, verdict) && blocks_fit(view, s->trial, candidate, verdict) &&
        view->latency != NULL)
        times_fit(view, candidate, s, verdict);
    if (verdict->reason == ADMISSION_FITS)
        return;
    if (view->latency != NULL)
        verdict->retry_after_ns = retry_after(view, candidate, s);
}
