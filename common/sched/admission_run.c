#include "common/sched/admission_run.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

/* 1/32 of the time to the first token is left over: predictions are good to about 2 %, and errors of
 * many sweeps cancel out.  (Simulated, 2 % noise: with 0, 3-5 % of the admitted were late by up to 6 %.) */
enum { TTFT_MARGIN = 32 };

/* Policies look at workers whether they have work for them or not. */
static const struct sched_worker no_workers[LATENCY_WORKERS_MAX];

/* ---- Memory ---------------------------------------------------------------------------------- */

int admission_run_init(struct admission_run *r, uint32_t n_max)
{
    memset(r, 0, sizeof *r);
    r->seqs = calloc(n_max, sizeof *r->seqs);
    r->past = calloc(n_max, sizeof *r->past);
    r->n_max = n_max;
    return r->seqs != NULL && r->past != NULL ? 0 : -ENOMEM;
}

void admission_run_fini(struct admission_run *r)
{
    free(r->seqs);
    free(r->past);
}

/* ---- Begin ----------------------------------------------------------------------------------- */

static bool is_live(const struct sched_seq *s)
{
    return s->place != SCHED_ELSEWHERE;
}

static uint32_t blocks_held(const struct admission_run *r, const struct sched_seq *s)
{
    return s->n_blocks * r->view->limits->n_groups;
}

static void count_in(struct admission_run *r, const struct sched_seq *s)
{
    uint32_t held = blocks_held(r, s);

    r->n_live++;
    r->n_prompts += !sched_is_decode(s);
    r->n_free -= held < r->n_free ? held : r->n_free; /* shared blocks are counted twice */
}

void admission_run_clear(struct admission_run *r, const struct admission_view *view)
{
    r->view = view;
    price_init(&r->price, view->latency);
    r->n = r->n_prompts = r->n_live = 0;
    r->n_free = view->limits->n_blocks;
    r->now_ns = r->prompts_done_ns = view->now_ns;
    r->fair = *view->fair;
}

void admission_run_load(struct admission_run *r, const struct admission_view *view)
{
    invariant(view->n_seqs <= r->n_max);
    admission_run_clear(r, view);
    r->n = view->n_seqs;
    memcpy(r->seqs, view->seqs, r->n * sizeof *r->seqs);
    memcpy(r->past, view->past, r->n * sizeof *r->past);
    for (uint32_t i = 0; i < r->n; i++)
        count_in(r, &r->seqs[i]);
}

void admission_run_copy(struct admission_run *r, const struct admission_run *from)
{
    struct sched_seq *seqs = r->seqs;
    struct objective_past *past = r->past;

    invariant(from->n <= r->n_max && r->n_max == from->n_max);
    *r = *from;
    r->seqs = seqs;
    r->past = past;
    memcpy(r->seqs, from->seqs, r->n * sizeof *r->seqs);
    memcpy(r->past, from->past, r->n * sizeof *r->past);
}

uint32_t admission_run_add(struct admission_run *r, const struct sched_seq *s)
{
    invariant(r->n < r->n_max);
    r->seqs[r->n] = *s;
    r->past[r->n] = (struct objective_past){0};
    count_in(r, s);
    return r->n++;
}

/* ---- Objectives ------------------------------------------------------------------------------ */

struct objective admission_run_objective(const struct admission_run *r, uint32_t i)
{
    const struct sched_seq *s = &r->seqs[i];

    return (struct objective){
        .deadlines = r->view->deadlines,
        .arrival_ns = s->arrival_ns,
        .ttft_ns = s->first_due_ns > s->arrival_ns ? s->first_due_ns - s->arrival_ns : 0,
        .tpot_ns = s->tpot_slo_ns};
}

struct objective admission_run_aim(const struct admission_run *r, uint32_t i)
{
    struct objective o = admission_run_objective(r, i);
    bool foreseen = r->past[i].first_ns == 0 || r->past[i].first_ns > r->view->now_ns;

    if (foreseen)
        o.ttft_ns -= o.ttft_ns / TTFT_MARGIN;
    return o;
}

/* n tokens from the present on, that far apart: those in between are in time if both ends are. */
static void take_tokens(const struct admission_run *r, uint32_t i, uint32_t n, double gap_ns,
                        struct objective_past *past)
{
    const struct objective o = admission_run_objective(r, i);

    if (n > 0)
        objective_take(&o, past, r->now_ns + (uint64_t)gap_ns);
    if (n < 2)
        return;
    past->n_output += n - 2;
    objective_take(&o, past, r->now_ns + (uint64_t)(gap_ns * n));
}

struct objective_past admission_run_past(const struct admission_run *r, uint32_t i, double gap_ns)
{
    struct objective_past past = r->past[i];

    if (!is_live(&r->seqs[i]))
        return past;
    if (sched_is_decode(&r->seqs[i]))
        take_tokens(r, i, r->seqs[i].n_rest, gap_ns, &past);
    else
        past.n_output = 0;
    return past;
}

/* ---- Going on -------------------------------------------------------------------------------- */

/* What policies that heed it leave best effort: a share of the tightest objective of the decodes. */
static double tightest_ns(const struct admission_run *r)
{
    uint32_t use = r->view->limits->params.slo_use_pct;
    double least = INFINITY;

    for (uint32_t i = 0; i < r->n; i++) {
        const struct sched_seq *s = &r->seqs[i];
        if (sched_is_decode(s) && s->tpot_slo_ns != 0)
            least = fmin(least, admission_span_ns(s, (double)r->now_ns));
    }
    return least * (use != 0 ? use : 100) / 100;
}

/* Best effort fills sweeps up, but makes none longer than those that it filled. */
static double with_best_effort(const struct admission_run *r, double ns, bool busy)
{
    const struct admission_view *v = r->view;
    double most = v->sweep_most_ns;

    if (v->policy->heeds_gaps)
        most = fmin(most, tightest_ns(r));
    return fmax(ns + v->be_least_ns, fmin(ns + (busy ? v->be_busy_ns : v->be_ns), most));
}

static void end(struct admission_run *r, struct sched_seq *s)
{
    r->n_free += blocks_held(r, s);
    s->n_blocks = 0;
    s->place = SCHED_ELSEWHERE;
    r->n_live--;
}

static void set_due(const struct admission_run *r, uint32_t i)
{
    struct sched_seq *s = &r->seqs[i];

    s->last_token_ns = r->past[i].last_ns;
    if (r->view->deadlines == OBJECTIVE_TOKEN) {
        const struct objective o = admission_run_objective(r, i);
        s->next_due_ns = objective_next_due(&o, &r->past[i]);
    }
}

/* Its next token is sampled at the run's present. */
static void sample(struct admission_run *r, uint32_t i, bool was_prompt)
{
    struct sched_seq *s = &r->seqs[i];

    take_tokens(r, i, 1, 0, &r->past[i]);
    s->n_todo = s->has_output = 1;
    set_due(r, i);
    if (was_prompt) {
        r->n_prompts--;
        r->prompts_done_ns = r->now_ns;
    }
    if (s->n_rest <= 1)
        end(r, s);
    else
        s->n_rest--;
}

static void give_rows(struct admission_run *r, uint32_t i, uint32_t n)
{
    struct sched_seq *s = &r->seqs[i];
    uint32_t from = sched_from(s), todo = sched_todo(s);
    uint32_t growth = sched_growth(r->view->limits, s, from + n);
    bool was_prompt = !sched_is_decode(s);

    r->n_free -= growth < r->n_free ? growth : r->n_free;
    s->n_blocks += growth / r->view->limits->n_groups;
    s->place = SCHED_DEVICE;
    s->n_kv = from + n;
    s->n_todo = todo - n;
    if (r->fair.n > 1)
        fair_share_charge(&r->fair, s->tenant, n);
    if (s->n_todo == 0)
        sample(r, i, was_prompt);
}

/* Will prompts wait when the sweep is over? */
static bool leaves_prompts(const struct admission_run *r, const struct sched_decision *d)
{
    uint32_t n_done = 0;

    for (uint32_t i = 0; i < d->n_seqs; i++) {
        const struct sched_seq *s = &r->seqs[d->rows[i].seq];
        n_done += !sched_is_decode(s) && d->rows[i].n_rows == sched_todo(s);
    }
    return n_done < r->n_prompts;
}

bool admission_run_sweep(struct admission_run *r, struct sched_decision *d)
{
    struct sched_state state = {.limits = r->view->limits,
                                .latency = r->view->latency,
                                .now_ns = r->now_ns,
                                .seqs = r->seqs,
                                .n_seqs = r->n,
                                .workers = no_workers,
                                .n_free_blocks = r->n_free};

    fair_share_rank(&r->fair, r->seqs, r->n);
    r->view->policy->decide(&state, d);
    if (d->n_seqs == 0)
        return false;
    r->now_ns += (uint64_t)with_best_effort(r, (double)d->predicted_ns, leaves_prompts(r, d));
    for (uint32_t i = 0; i < d->n_seqs; i++)
        give_rows(r, d->rows[i].seq, d->rows[i].n_rows);
    return true;
}

/* Mean gap while every live one makes n tokens: attention grows with the context by a line. */
static double gap_ns(const struct admission_run *r, uint32_t n)
{
    struct latency_load load = {0};

    for (uint32_t i = 0; i < r->n; i++) {
        const struct sched_seq *s = &r->seqs[i];
        if (is_live(s))
            price_add(&r->price, &load, s->n_kv + (n < s->n_rest ? n : s->n_rest) / 2, 1, true);
    }
    return with_best_effort(r, price_ns(&r->price, &load), false);
}

double admission_run_widest_gap_ns(const struct admission_run *r)
{
    struct latency_load load = {0};

    for (uint32_t i = 0; i < r->n; i++) {
        const struct sched_seq *s = &r->seqs[i];
        if (is_live(s))
            price_add(&r->price, &load, s->n_kv + s->n_todo - 1 + s->n_rest, 1, true);
    }
    return with_best_effort(r, price_ns(&r->price, &load), false);
}

void admission_run_jump(struct admission_run *r)
{
    uint32_t n = UINT32_MAX;

    invariant(r->n_prompts == 0);
    for (uint32_t i = 0; i < r->n; i++) {
        if (is_live(&r->seqs[i]) && r->seqs[i].n_rest < n)
            n = r->seqs[i].n_rest;
    }
    if (n == UINT32_MAX)
        return;
    n = n > 0 ? n : 1;
    double gap = gap_ns(r, n);
    for (uint32_t i = 0; i < r->n; i++) {
        struct sched_seq *s = &r->seqs[i];
        if (!is_live(s))
            continue;
        take_tokens(r, i, n, gap, &r->past[i]);
        s->n_kv += n;
        s->n_rest -= n < s->n_rest ? n : s->n_rest;
        set_due(r, i);
        if (s->n_rest == 0)
            end(r, s);
    }
    r->now_ns += (uint64_t)(gap * n);
}
