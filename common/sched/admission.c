#include "common/sched/admission.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/sched/admission_run.h"

enum {
    SWEEPS_MAX = 512,  /* of one run: a queue that long is late anyway */
    RETRY_SWEEPS = 128 /* of all runs that look for a time to come back */
};

/* Lateness of who has missed a token's own deadline: it is not told by how much. */
#define TOKEN_LATE 0.01

/* So late may a request be that is admitted on the budget of misses. */
static const double overrun_most = 0.25;

/* ---- Memory ---------------------------------------------------------------------------------- */

static int init_runs(struct admission_scratch *s, uint32_t n_max)
{
    s->base = calloc(1, sizeof *s->base);
    s->trial = calloc(1, sizeof *s->trial);
    s->before = calloc(n_max, sizeof *s->before);
    if (s->base == NULL || s->trial == NULL || s->before == NULL)
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
    free(s->before);
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

double admission_span_ns(const struct sched_seq *s, double now_ns)
{
    return s->next_due_ns != 0 ? fmax(0, (double)s->next_due_ns - now_ns) : (double)s->tpot_slo_ns;
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
    const struct objective aim = admission_run_aim(r, i);
    const struct objective_past past = admission_run_past(r, i, gap_ns);
    struct objective_verdict v = objective_judge(&aim, &past);

    return !v.ttft_ok || !v.tpot_ok;
}

/* How late, as a share of the objective; negative: as early. */
static double lateness(const struct admission_run *r, uint32_t i, double gap_ns)
{
    const struct objective o = admission_run_objective(r, i);
    const struct objective_past past = admission_run_past(r, i, gap_ns);
    double late = -1, mean;

    if (past.n_output == 0)
        return INFINITY;
    if (o.ttft_ns != 0)
        late = ((double)past.first_ns - (double)o.arrival_ns) / (double)o.ttft_ns - 1;
    if (past.token_late)
        late = fmax(late, TOKEN_LATE);
    if (o.tpot_ns == 0 || past.n_output < 2 || o.deadlines == OBJECTIVE_TOKEN)
        return late;
    mean = (double)(past.last_ns - past.first_ns) / (past.n_output - 1);
    return fmax(late, mean / (double)o.tpot_ns - 1);
}

/* Is anybody late if gaps are that wide, who was not late before? */
static bool any_late(const struct admission_scratch *s, const struct admission_run *r,
                     double gap_ns)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (s->before[i] <= 0 && is_late(r, i, gap_ns))
            return true;
    }
    return false;
}

/* Those whose first token came late: nothing can be done about that.  Of the others one does not know
 * yet. */
static void note_late_already(struct admission_scratch *s, const struct admission_run *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        const struct objective o = admission_run_objective(r, i);
        bool late = r->past[i].n_output > 0 && !objective_judge(&o, &r->past[i]).ttft_ok;
        s->before[i] = late ? INFINITY : -INFINITY;
    }
}

/* To the end of every sequence.  Mostly all are in time even if gaps stayed as wide as they can
 * become: then that is the end.  Returns the gap that the live ones are to be judged by. */
static double run_out(struct admission_scratch *s, struct admission_run *r)
{
    if (!run_prompts(s, r, SWEEPS_MAX))
        return 0;
    double widest = admission_run_widest_gap_ns(r);
    if (!any_late(s, r, widest))
        return widest;
    while (r->n_live > 0)
        admission_run_jump(r);
    return 0;
}

/* ---- The judgement --------------------------------------------------------------------------- */

/* Who is late without the candidate is not late because of it. */
static void look_without(struct admission_scratch *s, const struct admission_view *v)
{
    admission_run_load(s->base, v);
    double gap = run_out(s, s->base);
    for (uint32_t i = 0; i < s->base->n; i++)
        s->before[i] = lateness(s->base, i, gap);
}

static bool is_made_late(const struct admission_scratch *s, uint32_t i, double gap_ns)
{
    return s->before[i] <= 0 && is_late(s->trial, i, gap_ns) &&
           lateness(s->trial, i, gap_ns) > s->before[i];
}

static void count_own(const struct admission_run *r, double gap_ns,
                      struct admission_verdict *verdict)
{
    uint32_t own = r->n - 1;
    const struct objective aim = admission_run_aim(r, own);
    const struct objective_past past = admission_run_past(r, own, gap_ns);

    if (!is_late(r, own, gap_ns))
        return;
    verdict->reason = objective_judge(&aim, &past).ttft_ok ? ADMISSION_TPOT : ADMISSION_TTFT;
    verdict->n_late = 1;
    verdict->overrun = fmax(0, lateness(r, own, gap_ns));
}

static void count_others(struct admission_scratch *s, const struct admission_view *v, double gap_ns,
                         struct admission_verdict *verdict)
{
    uint32_t n = s->trial->n - 1, i = 0;

    while (i < n && !(s->before[i] <= 0 && is_late(s->trial, i, gap_ns)))
        i++;
    if (i == n)
        return;
    look_without(s, v);
    for (i = 0; i < n; i++) {
        if (!is_made_late(s, i, gap_ns))
            continue;
        if (verdict->n_late++ == 0)
            verdict->reason = ADMISSION_OTHERS;
        verdict->overrun = fmax(verdict->overrun, lateness(s->trial, i, gap_ns));
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

    note_late_already(s, s->trial);
    double gap = run_out(s, s->trial);
    uint64_t first = s->trial->past[own].first_ns;

    verdict->reason = ADMISSION_FITS;
    verdict->n_late = 0;
    verdict->overrun = 0;
    verdict->ttft_ns = first > candidate->arrival_ns ? first - candidate->arrival_ns : 0;
    count_own(s->trial, gap, verdict);
    count_others(s, v, gap, verdict);
    if (verdict->n_late > 0 && on_budget(v, verdict))
        verdict->reason = ADMISSION_FITS;
    if (verdict->reason == ADMISSION_FITS &&
        !(leaves_shares(v, s->trial, candidate) && leaves_gaps(v, s->trial, gap)))
        verdict->reason = ADMISSION_SHARE;
    if (verdict->reason != ADMISSION_FITS) {
        verdict->needed = verdict->ttft_ns;
        verdict->there =
            candidate->first_due_ns != 0 ? candidate->first_due_ns - candidate->arrival_ns : 0;
    }
    return verdict->reason == ADMISSION_FITS;
}

/* ---- When to come back ----------------------------------------------------------------------- */

/* How long to wait before it is worth while to try again: until the next one ends. */
#define UNTIL_NEXT_END UINT64_MAX

/* Nanoseconds by which the first token of who is late comes too late; nothing to be gained by a
 * little waiting where gaps are too wide. */
static uint64_t late_by(const struct admission_run *r, uint32_t i)
{
    const struct objective aim = admission_run_aim(r, i);
    uint64_t due = aim.arrival_ns + aim.ttft_ns, first = r->past[i].first_ns;

    return aim.ttft_ns != 0 && first > due ? first - due : UNTIL_NEXT_END;
}

/* If it came at the base run's present: 0, it fits; else it is worth trying again so much later.  For
 * whoever comes later by what it is late would find that much of the queue gone.  What happens
 * without it is known (before). */
static uint64_t short_by(const struct admission_view *v, const struct sched_seq *candidate,
                         struct admission_scratch *s)
{
    struct sched_seq later = *candidate;
    struct admission_verdict verdict;
    uint64_t most = 0;

    if (!seats_fit(v, s->base, &verdict) || !blocks_fit(v, s->base, candidate, &verdict))
        return UNTIL_NEXT_END;
    later.arrival_ns = s->base->now_ns;
    later.first_due_ns +=
        candidate->first_due_ns != 0 ? later.arrival_ns - candidate->arrival_ns : 0;
    admission_run_copy(s->trial, s->base);
    uint32_t own = admission_run_add(s->trial, &later);
    s->before[own] = -INFINITY;
    double gap = run_out(s, s->trial);
    for (uint32_t i = 0; i <= own; i++) {
        uint64_t ns = is_made_late(s, i, gap) ? late_by(s->trial, i) : 0;
        most = ns > most ? ns : most;
    }
    return most;
}

static bool fits_alone(const struct admission_view *v, const struct sched_seq *candidate,
                       struct admission_scratch *s)
{
    admission_run_clear(s->base, v);
    return short_by(v, candidate, s) == 0;
}

/* The others go on, and it is tried again where that may help; nobody else is expected to come. */
static uint64_t retry_after(const struct admission_view *v, const struct sched_seq *candidate,
                            struct admission_scratch *s, bool *found)
{
    uint32_t until = s->n_steps + RETRY_SWEEPS;
    struct admission_run *r = s->base;
    uint64_t wanted;

    *found = !fits_alone(v, candidate, s);
    if (*found)
        return UINT64_MAX;
    look_without(s, v);
    admission_run_load(r, v);
    wanted = short_by(v, candidate, s);
    wanted += wanted != UNTIL_NEXT_END ? r->now_ns : 0;
    while (r->n_live > 0 && s->n_steps < until) {
        uint32_t n_live = r->n_live;

        if (r->n_prompts == 0)
            admission_run_jump(r);
        else if (!admission_run_sweep(r, &s->decision))
            break;
        s->n_steps++;
        if (wanted == UNTIL_NEXT_END ? r->n_live == n_live : r->now_ns < wanted)
            continue;
        uint64_t ns = short_by(v, candidate, s);
        *found = ns == 0;
        if (*found)
            break;
        wanted = ns == UNTIL_NEXT_END ? ns : r->now_ns + ns;
    }
    return r->now_ns > v->now_ns ? r->now_ns - v->now_ns : 1;
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
        verdict->retry_after_ns = retry_after(view, candidate, s, &verdict->retry_found);
}
