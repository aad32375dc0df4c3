/* policy_stream.c - KV in host memory, attention on the device, read over the host link.
 *
 * Stands for FlexGen-like offloading (arXiv 2303.06865; read: a summary, and its options in
 * public scripts: KV on the CPU, attention on the GPU, the next layer copied while this computes).
 * From there: a decode's KV crosses the link once per token, layer by layer, beside the compute of
 * the sweep, so a sweep takes the longer of the two.
 *
 * Ours: the classes.  Latency-sensitive KV stays on the device; the newest best effort is copied
 * out when blocks are short, as with `paper`; then residents are rows of the sweep like the others,
 * oldest first, while both compute and link stay within the objective.
 *
 * Of the device it needs `stream`: common rows whose KV is read from, and appended to, an arena.
 * Without host_bytes_per_ns nobody leaves.  Reads: auto_free_pct, slo_use_pct. */
#include <math.h>

#include "common/sched/plan.h"

/* Gives residents rows; the time that the link needs for them. */
static double stream_residents(struct plan *p, double budget_ns)
{
    const struct sched_limits *l = p->limits;
    double link_ns = 0;

    if (!(l->host_bytes_per_ns > 0))
        return 0;
    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        double ns = s->n_kv * (double)l->kv_token_bytes / l->host_bytes_per_ns;
        struct latency_load load = p->d->load;

        if (p->rows_left == 0 || p->seqs_left == 0)
            break;
        price_add(&p->price, &load, s->n_kv, 1, true);
        bool fits = link_ns + ns <= budget_ns && price_ns(&p->price, &load) <= budget_ns;
        if (s->n_todo != 1 || (!fits && seq != p->starved[PLAN_RESIDENT]))
            break;
        if (plan_is_idle(p, seq) && plan_give(p, PLAN_RESIDENT, seq, 1))
            link_ns += ns;
    }
    return link_ns;
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns, link_ns;
    uint32_t reserve;

    plan_open(&p, state, d);
    budget_ns = plan_budget(&p);
    reserve = plan_share(&p, p.limits->params.auto_free_pct);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, budget_ns, UINT32_MAX);
    if (p.limits->host_bytes_per_ns > 0)
        plan_relieve(&p, reserve, UINT32_MAX);
    if (!state->be_starved && p.sums.n_waiting == 0)
        plan_copy_all_back(&p, 2 * reserve);
    plan_unstick(&p);
    plan_be_decodes(&p, budget_ns, UINT32_MAX);
    link_ns = stream_residents(&p, budget_ns);
    plan_be_chunks(&p, budget_ns, UINT32_MAX, 0);
    d->stream = p.n_picked[PLAN_RESIDENT] > 0;
    plan_close(&p, false);
    if (link_ns > (double)d->predicted_ns)
        d->predicted_ns = (uint64_t)link_ns;
}

const struct sched_policy policy_stream = {
    .name = "stream",
    .doc = "KV in host memory, attention on the device, read over the host link",
    .decide = decide};
