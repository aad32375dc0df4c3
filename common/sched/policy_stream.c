/* policy_stream.c - KV in host memory, attention on the device, read over the host link.
 *
 * Stands for FlexGen-like offloading (arXiv 2303.06865; read: a summary, and its options in
 * public scripts: KV on the CPU, attention on the GPU, the next layer copied while this computes).
 * From there: a decode's KV crosses the link once per token, layer by layer, beside the compute of
 * the sweep, so a sweep takes the longer of the two; what has been computed is decoded to its end
 * before more is begun.
 *
 * Ours: the classes.  Latency-sensitive KV stays on the device; the newest best effort is copied
 * out when blocks are short, as with `paper`; then residents are rows of the sweep like the others,
 * oldest first, while the link is done when the compute is.  A sweep that waits for the link gives
 * no token more in its time, and latency-sensitive requests live longer by it and hold their blocks
 * as much longer.  For the same reason nobody leaves for a prompt to begin while residents alone keep
 * the link busy.
 *
 * Of the device it needs `stream`: common rows whose KV is read from, and appended to, an arena.
 * Without host_bytes_per_ns nobody leaves.  Reads: auto_free_pct, slo_use_pct. */
#include <math.h>

#include "common/sched/plan.h"

static double link_ns(const struct plan *p, uint64_t n_tokens)
{
    return (double)n_tokens * (double)p->limits->kv_token_bytes / p->limits->host_bytes_per_ns;
}

static bool has_begun_prompts(const struct plan *p)
{
    for (uint32_t seq = plan_next(p, PLAN_BE_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_BE_PREFILL, seq)) {
        if (p->seqs[seq].place != SCHED_WAITING)
            return true;
    }
    return false;
}

/* How long the sweep computes, beside which the link is free: prompts will fill it. */
static double beside_ns(const struct plan *p, double budget_ns)
{
    return has_begun_prompts(p) ? budget_ns : fmin(budget_ns, price_ns(&p->price, &p->d->load));
}

/* Gives residents rows; the time that the link needs for them.  The first may make the sweep longer:
 * one long context would stay behind for ever. */
static double stream_residents(struct plan *p, double budget_ns)
{
    double beside = beside_ns(p, budget_ns), sum = 0;

    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        double ns = link_ns(p, s->n_kv), most = sum > 0 ? beside : budget_ns;
        struct latency_load load = p->d->load;

        if (p->rows_left == 0 || p->seqs_left == 0)
            break;
        price_add(&p->price, &load, s->n_kv, 1, true);
        bool fits = sum + ns <= most && price_ns(&p->price, &load) <= budget_ns;
        if (s->n_todo != 1 || (!fits && seq != p->starved[PLAN_RESIDENT]))
            break;
        if (plan_is_idle(p, seq) && plan_give(p, PLAN_RESIDENT, seq, 1))
            sum += ns;
    }
    return sum;
}

/* Would more residents only wait for the link? */
static bool link_is_full(const struct plan *p, double budget_ns)
{
    uint64_t n = 0;

    for (uint32_t w = 0; w < p->limits->n_workers; w++)
        n += p->sums.resident_tokens[w];
    return p->n_picked[PLAN_RESIDENT] > 0 && link_ns(p, n) > budget_ns;
}

/* Prompts that have begun, and others: into all blocks while the link has time for who leaves them,
 * then into what would stay free beside the reserve.  Nobody leaves to make room for more than that. */
static void give_chunks(struct plan *p, double budget_ns, uint32_t reserve)
{
    bool full = p->limits->host_bytes_per_ns > 0 && link_is_full(p, budget_ns);

    plan_be_chunks(p, budget_ns, UINT32_MAX, full ? 2 * reserve : 0);
    p->d->be_starved = p->d->be_starved && !full;
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns, streamed_ns = 0;
    uint32_t reserve;
    bool streams;

    plan_open(&p, state, d);
    streams = p.limits->host_bytes_per_ns > 0;
    budget_ns = plan_budget(&p);
    reserve = plan_share(&p, p.limits->params.auto_free_pct);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, budget_ns, UINT32_MAX);
    if (streams)
        plan_relieve(&p, reserve, UINT32_MAX);
    if (!state->be_starved && p.sums.n_waiting == 0)
        plan_copy_all_back(&p, 2 * reserve);
    plan_unstick(&p);
    plan_be_decodes(&p, budget_ns, UINT32_MAX);
    if (streams)
        streamed_ns = stream_residents(&p, budget_ns);
    give_chunks(&p, budget_ns, reserve);
    d->stream = p.n_picked[PLAN_RESIDENT] > 0;
    plan_close(&p, false);
    if (streamed_ns > (double)d->predicted_ns)
        d->predicted_ns = (uint64_t)streamed_ns;
}

const struct sched_policy policy_stream = {
    .name = "stream",
    .doc = "KV in host memory, attention on the device, read over the host link",
    .decide = decide,
    .heeds_gaps = true};
