/* policy_headroom.c - a fixed share of KV kept for the latency-sensitive, best effort beside it.
 *
 * Stands for Llumnix (OSDI 2024) as the piggybacking paper's evaluation uses it; read: a
 * review of Llumnix ("virtual usage": a high-priority request counts more than it uses, which keeps
 * headroom for it on its instance) and notes on how that evaluation used it; no code.  From there:
 * best effort is admitted to the device while that leaves headroom_pct of the KV memory free; its
 * decodes are in every batch like any other, without a look at time; what is not admitted goes to a
 * CPU-only engine for good; when memory runs out the newest is preempted and computed again.
 * Batches are vLLM's with chunked prompts, by a fixed number of tokens.
 *
 * Not expressed: live migration between device instances, since a group has one.
 * Of the group it needs a CPU-only engine (elsewhere_max; 0 = none, best effort waits).
 * Reads: headroom_pct, token_budget, slo_use_pct. */
#include <math.h>

#include "common/sched/plan.h"

static void hand_over(struct plan *p)
{
    uint32_t room = p->limits->elsewhere_max;

    room -= room < p->sums.n_elsewhere ? room : p->sums.n_elsewhere;
    if (!p->d->be_starved)
        return;
    for (uint32_t seq = plan_next(p, PLAN_BE_PREFILL, SCHED_NONE); seq != SCHED_NONE && room > 0;
         seq = plan_next(p, PLAN_BE_PREFILL, seq)) {
        if (p->seqs[seq].place == SCHED_WAITING && plan_hand_over(p, seq))
            room--;
    }
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    uint32_t left;

    plan_open(&p, state, d);
    left = plan_ls_by_tokens(&p);
    plan_preempt_for_decodes(&p);
    plan_be_decodes(&p, INFINITY, UINT32_MAX);
    left -= left < p.n_picked[PLAN_BE_DECODE] ? left : p.n_picked[PLAN_BE_DECODE];
    plan_be_chunks(&p, INFINITY, left, plan_share(&p, p.limits->params.headroom_pct));
    hand_over(&p);
    plan_close(&p, false);
}

const struct sched_policy policy_headroom = {
    .name = "headroom",
    .doc = "a share of KV kept for the latency-sensitive; overflow to a CPU-only engine",
    .decide = decide};
