/* policy_paper.c - piggybacking as published.
 *
 * Stands for "Serving Hybrid LLM Loads with SLO Guarantees Using CPU-GPU Attention Piggybacking"
 * (arXiv 2603.12831); read: notes on its mechanism and its latency model; no code is
 * public.  From there: rows in the order
 * latency-sensitive decodes, latency-sensitive chunks, best-effort chunks, best-effort decodes; a
 * chunk is the largest that keeps f_PA + f_DA + f_D within the TPOT objective; best effort decodes
 * on the device until it no longer fits, then the newest is copied out and its attention runs on
 * CPUs; best effort gets what is left of the objective after a reserve for results that are expected; results are merged first in first out, in a later iteration than the one that posted them,
 * never waited for; how many is decided greedily, lowest layer first, until the objective's time is
 * used up; copying back is delayed until all layers of a token are there.
 *
 * Ours, where the notes leave it open and the other way was measured to be weak: time goes to
 * best-effort decodes before chunks (rows keep the published order), or an endless queue of prompts
 * leaves decodes none; and a prompt begins only where auto_free_pct of the blocks stay free, or
 * decodes that grow drop it again as soon as no arena can take it.
 *
 * Of the device it needs ride = false and p_total.  Reads: auto_free_pct, slo_use_pct. */
#include <math.h>

#include "common/sched/plan.h"

/* Rows that can be merged over all layers in the time that is left.  One row at one layer costs
 * what the dense time grows by, on average up to the bound. */
static uint32_t piggyback_rows(const struct plan *p, double budget_ns)
{
    struct latency_load none = p->d->load, full = none;
    double n_layers = p->price.m != NULL ? p->price.m->n_layers : 0;

    if (isinf(budget_ns) || n_layers < 1 || p->limits->returned_max == 0)
        return UINT32_MAX;
    price_set_returned(&p->price, &none, 0);
    price_set_returned(&p->price, &full, p->limits->returned_max);
    double left = budget_ns - price_ns(&p->price, &none);
    double all = price_ns(&p->price, &full) - price_ns(&p->price, &none);
    double rows = p->limits->returned_max * n_layers;
    if (left >= all)
        return UINT32_MAX;
    return (uint32_t)fmax(1, floor(rows * left / all));
}

/* Rows that come back in a sweep: of each that is in an arena one, at one layer, as fast as the
 * workers read.  They are counted before best effort is dealt the rest of the time. */
static void reserve_for_results(struct plan *p, double budget_ns)
{
    double n = 0, n_layers = p->price.m != NULL ? p->price.m->n_layers : 0;

    for (uint32_t w = 0; w < p->limits->n_workers && n_layers > 0; w++) {
        const struct sched_worker *k = &p->workers[w];
        if (!k->usable || k->n_resident == 0)
            continue;
        double bytes = (double)p->sums.resident_tokens[w] / k->n_resident *
                       (double)p->limits->kv_token_bytes / n_layers;
        n += fmin(k->n_resident, budget_ns / latency_job_ns(p->price.m, w, bytes));
    }
    if (n > 0)
        price_set_returned(&p->price, &p->d->load, fmin(n / n_layers, p->limits->returned_max));
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns;
    uint32_t reserve;

    plan_open(&p, state, d);
    budget_ns = plan_budget(&p);
    reserve = plan_share(&p, p.limits->params.auto_free_pct);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, budget_ns, UINT32_MAX);
    plan_relieve(&p, reserve, UINT32_MAX);
    if (!state->be_starved && p.sums.n_waiting == 0)
        plan_copy_all_back(&p, 2 * reserve);
    plan_unstick(&p);
    reserve_for_results(&p, budget_ns);
    plan_be_decodes(&p, budget_ns, UINT32_MAX);
    plan_be_chunks(&p, budget_ns, UINT32_MAX, reserve);
    plan_enters(&p, UINT32_MAX);
    d->p_max = p.limits->returned_max;
    d->p_total = piggyback_rows(&p, budget_ns);
    plan_close(&p, false);
}

const struct sched_policy policy_paper = {
    .name = "paper",
    .doc = "piggybacking as published: later iterations, first in first out, no waiting",
    .decide = decide,
    .heeds_gaps = true};
