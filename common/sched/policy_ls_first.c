/* policy_ls_first.c - chunked prefill with a fixed token budget, latency-sensitive work first.
 *
 * Stands for Sarathi-Serve (OSDI 2024; read:
 * sarathi/core/scheduler/sarathi_scheduler.py).  From there: each iteration takes all decodes, then
 * goes on with prompts that have begun, then begins new ones, until a fixed number of tokens is
 * reached; prompts get the blocks of their whole length when they begin; when a decode cannot grow,
 * the last that arrived is preempted and computed again later.  No KV leaves the device.
 *
 * Ours: the classes.  Latency-sensitive decodes and chunks take from the token budget first, best
 * effort gets what is left.  The budget is tuned to the objective, as there by hand: token_budget,
 * or where that is 0 the largest chunk that slo_use_pct of the TPOT objective has time for, behind
 * the longest prompt and beside decodes that read all KV; one number for each class's prompts, since
 * one for long best-effort prompts alone would keep short latency-sensitive ones waiting.  Best effort
 * stays within the objective too: a number of tokens says nothing of what its decodes read, and
 * sweeps beyond the objective leave no latency-sensitive request that could be admitted.
 *
 * Reads: token_budget, slo_use_pct. */
#include "common/sched/plan.h"

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns;
    uint32_t left;

    plan_open(&p, state, d);
    budget_ns = plan_budget(&p);
    left = plan_ls_by_tokens(&p);
    plan_preempt_for_decodes(&p);
    plan_be_decodes(&p, budget_ns, left);
    left -= p.n_picked[PLAN_BE_DECODE];
    plan_be_chunks(&p, budget_ns, left, 0);
    plan_close(&p, false);
}

const struct sched_policy policy_ls_first = {
    .name = "ls-first",
    .doc = "device only, fixed token budget, latency-sensitive first, recomputes what it preempts",
    .decide = decide,
    .heeds_gaps = true};
