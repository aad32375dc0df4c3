/* policy_harvest.c - the device alone, filled with best effort up to what the latency model allows.
 *
 * Stands for ConServe (arXiv 2410.01228) and HyGen (arXiv 2501.14808); read: their
 * abstracts and summaries of both; no code.  From there: latency-sensitive work first;
 * then best-effort decodes and prompts while the predicted iteration stays within the objective;
 * best-effort KV is copied to host memory as it is made (ConServe's incremental checkpoints), so
 * that preempting costs next to nothing, and is brought back, the oldest first and before new
 * prompts begin.  HyGen finds the share of the objective offline, which is slo_use_pct here.
 *
 * Not expressed: preemption inside an iteration, at layer safepoints; a sweep is bounded by
 * sweep_max_ns instead.  HyGen's order by shared prefixes: prompts are taken by age.
 *
 * Arenas serve as swap space, nobody decodes there: all on the device have a reservation, their full
 * blocks are copied as they fill, and one that must yield at once goes on from the last of these.  Where
 * the device copies blocks by itself (the simulated one) nothing is reserved: only the link's time counts.
 * Reads: auto_free_pct, slo_use_pct. */
#include "common/sched/plan.h"

/* Blocks that must stay free when the resident comes back: none for the only one, for nothing else
 * would ever come free. */
static uint32_t room_beside(const struct plan *p, uint32_t reserve)
{
    bool alone = p->sums.n_be_device + p->sums.n_leaving + p->sums.n_returning == 0;

    return alone ? 0 : reserve;
}

/* The oldest come back as soon as there is room, however lately they left: their blocks are in host
 * memory already.  Is nobody left? */
static bool resume(struct plan *p, uint32_t reserve)
{
    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        uint64_t need = sched_growth(p->limits, s, s->n_kv + s->n_todo);

        if (need + room_beside(p, reserve) > p->n_free || !plan_move_in(p, seq))
            return false;
    }
    return true;
}

/* Checkpoints make a move cheap: as many as it takes.  Without swap space they are dropped. */
static void preempt(struct plan *p, uint32_t reserve)
{
    while (p->n_free + p->sums.leaving_blocks < reserve && p->copies_left > 0) {
        uint32_t newest = plan_newest_decode(p);
        if (newest == SCHED_NONE)
            break;
        plan_move_out(p, newest);
    }
    plan_unstick(p);
}

/* Whoever computes on the device, as far as there is swap space. */
static void keep_in_host_memory(struct plan *p)
{
    static const enum plan_group groups[] = {PLAN_BE_DECODE, PLAN_BE_PREFILL};

    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        for (uint32_t i = 0; i < p->n_picked[groups[g]]; i++)
            plan_reserve(p, p->scratch->picked[groups[g]][i].seq);
    }
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns;
    uint32_t keep;

    plan_open(&p, state, d);
    budget_ns = plan_budget(&p);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, budget_ns, UINT32_MAX);
    keep = plan_share(&p, p.limits->params.auto_free_pct);
    preempt(&p, keep + (state->be_stuck ? p.limits->n_groups : 0));
    if (d->n_out > 0 || d->n_yield > 0 || state->be_stuck || !resume(&p, keep))
        keep = UINT32_MAX; /* preempted ones go on before anybody begins */
    plan_be_decodes(&p, budget_ns, UINT32_MAX);
    plan_be_chunks(&p, budget_ns, UINT32_MAX, keep);
    d->checkpoint = p.limits->n_workers > 0;
    if (!p.limits->checkpoints)
        keep_in_host_memory(&p);
    plan_close(&p, false);
}

const struct sched_policy policy_harvest = {
    .name = "harvest",
    .doc = "device only, best effort fills what the latency model leaves, KV swapped to host",
    .decide = decide,
    .heeds_gaps = true};
