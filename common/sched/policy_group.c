/* policy_group.c - offloading by a fixed rule, without looking at time.
 *
 * What the engine did before it had a latency model; it needs no profile.
 *
 *   never   best effort stays on the device; when its blocks run out the newest is dropped.
 *   always  best effort leaves for an arena as soon as its prefill is done, and decodes there only.
 *   auto    on the device while auto_free_pct of its blocks are free and nobody waits for blocks;
 *           else the newest goes out, one at a time.  The oldest comes back when nobody waits and
 *           twice that share stays free after it.
 *
 * Latency-sensitive rows are decided before moves, so that a copy that begins never holds what they
 * need; who yields does not begin again in the same sweep.
 *
 * Whether somebody waited for blocks is known from the decision before (be_starved, be_stuck).
 * Reads: offload, auto_free_pct. */
#include <math.h>

#include "common/sched/plan.h"

static void fill_device(struct plan *p)
{
    if (!p->state->be_starved && p->sums.n_waiting == 0)
        plan_copy_back(p, 2 * plan_share(p, p->limits->params.auto_free_pct));
}

static void place(struct plan *p)
{
    if (p->limits->n_workers == 0)
        return;
    switch (p->limits->params.offload) {
    case SCHED_OFFLOAD_NEVER:
        break;
    case SCHED_OFFLOAD_ALWAYS:
        plan_send_decodes_out(p);
        break;
    case SCHED_OFFLOAD_AUTO:
        plan_relieve(p, plan_share(p, p->limits->params.auto_free_pct), 1);
        fill_device(p);
        break;
    }
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;

    plan_open(&p, state, d);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, INFINITY, UINT32_MAX);
    place(&p);
    plan_unstick(&p);
    plan_be_chunks(&p, INFINITY, UINT32_MAX, 0);
    if (p.limits->params.offload != SCHED_OFFLOAD_ALWAYS)
        plan_be_decodes(&p, INFINITY, UINT32_MAX);
    plan_enters(&p, UINT32_MAX);
    d->p_max = p.limits->returned_max;
    d->ride = true;
    plan_close(&p, false);
}

const struct sched_policy policy_group = {
    .name = "group", .doc = "offload by a fixed share of free blocks; no prices", .decide = decide};
