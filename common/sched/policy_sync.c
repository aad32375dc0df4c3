/* policy_sync.c - two half batches that take turns, the device waits for the CPU.
 *
 * Stands for NEO (MLSys 2025; read: swiftllm/server/scheduler.py in a public
 * copy).  From there: device decodes and prompts form batch 0; decodes whose KV is in host memory
 * are dealt one by one, to the batch whose device time has more room left over its CPU time,
 *
 *   remains[j] = dense[1 - j] + prefill attention[j] + decode attention[j] - CPU attention[j]
 *
 * one that makes either negative is skipped, and every longer one after it; then requests per time
 * of that pipeline are held against the device alone, and the better is run.  Layers are
 * synchronous: a batch's projection waits for its CPU attention.  The last that arrived moves out
 * when blocks run out; the first in host memory comes back below 95 % of the device's blocks.
 *
 * Ours: the classes (latency-sensitive first, never moved), chunks instead of whole prompts, the
 * objective as a bound on what is dealt.  Left out: its step that takes prompts back out of the
 * batch when the CPU would idle, since a chunk is sized by the objective.
 *
 * Of the device it needs two batches, and to wait for all jobs.  With one batch offloaded decodes
 * go with it, and hide behind nothing but its attention.  Reads: slo_use_pct. */
#include <math.h>

#include "common/sched/plan.h"

struct half {
    double dense_ns, attention_ns, cpu_ns;
    uint32_t n; /* requests */
    uint32_t n_dealt;
};

struct pipeline {
    struct half half[2];
    double rows; /* common rows, all in half 0 */
};

static double dense_ns(const struct plan *p, double rows)
{
    struct latency_load load = {.n_rows = (uint32_t)rows};

    return rows > 0 ? price_ns(&p->price, &load) : 0;
}

static double remains(const struct pipeline *pl, int j)
{
    return pl->half[1 - j].dense_ns + pl->half[j].attention_ns - pl->half[j].cpu_ns;
}

static double pipeline_ns(const struct pipeline *pl)
{
    return pl->half[0].dense_ns + pl->half[0].attention_ns + pl->half[1].dense_ns;
}

static void start(struct pipeline *pl, const struct plan *p)
{
    const struct latency_load *load = &p->d->load;

    *pl = (struct pipeline){.rows = load->n_rows};
    pl->half[0].attention_ns = price_attention_ns(&p->price, load);
    pl->half[0].dense_ns = price_ns(&p->price, load) - pl->half[0].attention_ns;
    for (enum plan_group g = 0; g < PLAN_GROUPS; g++)
        pl->half[0].n += p->n_picked[g];
}

/* CPU time of all layers of one token; workers share the jobs. */
static double cpu_ns(const struct plan *p, const struct sched_seq *s)
{
    double layers = p->price.m->n_layers, bytes = s->n_kv * (double)p->limits->kv_token_bytes;
    uint32_t n_usable = 0;

    for (uint32_t w = 0; w < p->limits->n_workers; w++)
        n_usable += p->workers[w].usable;
    return layers * latency_job_ns(p->price.m, s->worker, bytes / layers) / n_usable;
}

static void deal_to(struct pipeline *pl, const struct plan *p, int j, double ns)
{
    struct half *h = &pl->half[j];

    h->cpu_ns += ns;
    h->n++;
    h->n_dealt++;
    h->dense_ns = dense_ns(p, h->n_dealt + (j == 0 ? pl->rows : 0));
}

/* Entries of half 0, then of half 1.  Half 1 is collected behind and turned to its place. */
static void deal(struct plan *p, struct pipeline *best, double budget_ns)
{
    uint32_t later[512], n_later = 0, skipped_length = UINT32_MAX;
    int j = p->limits->two_batch ? 1 : 0;

    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE);
         seq != SCHED_NONE && p->d->n_enter + n_later < p->limits->returned_max && n_later < 512;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        struct pipeline with = *best;
        bool must = seq == p->starved[PLAN_RESIDENT];

        if (!plan_is_idle(p, seq) || (s->n_kv >= skipped_length && !must))
            continue;
        deal_to(&with, p, j, cpu_ns(p, s));
        bool fits = pipeline_ns(&with) <= budget_ns;
        if (p->limits->two_batch)
            fits = fits && fmin(remains(&with, 0), remains(&with, 1)) >= 0;
        if (!fits && !must) {
            skipped_length = s->n_kv;
            continue;
        }
        *best = with;
        if (j == 1)
            later[n_later++] = seq;
        else
            plan_enter(p, seq);
        j = p->limits->two_batch && remains(best, 1) > remains(best, 0);
    }
    for (uint32_t i = 0; i < n_later; i++)
        p->d->n_enter_b += plan_enter(p, later[i]);
}

/* What chunks leave for half 1 to begin at all. */
static double second_read_ns(const struct plan *p)
{
    return p->sums.n[PLAN_RESIDENT] > 0 && p->limits->two_batch ? dense_ns(p, 1) : 0;
}

static void offload(struct plan *p, double budget_ns)
{
    struct sched_decision *d = p->d;
    struct pipeline alone, both;

    /* Also where nobody enters: a row whose worker was late has not come through yet. */
    d->p_max = p->limits->returned_max;
    d->ride = true;
    d->want = UINT32_MAX;
    d->wait_ns = UINT64_MAX;
    start(&alone, p);
    both = alone;
    if (p->price.m == NULL || p->sums.n[PLAN_RESIDENT] == 0)
        return;
    deal(p, &both, budget_ns);
    double alone_ns = pipeline_ns(&alone), both_ns = pipeline_ns(&both);
    bool starved = p->starved[PLAN_RESIDENT] != SCHED_NONE;
    double both_n = both.half[0].n + both.half[1].n;
    if (!starved && alone_ns > 0 && both_n / both_ns <= alone.half[0].n / alone_ns)
        plan_forget_enters(p);
}

/* The last go out until all others can grow.  Below 95 % of the blocks after it, and nobody moves
 * out: the first come back. */
static void swap(struct plan *p)
{
    plan_relieve(p, plan_decode_growth(p), UINT32_MAX);
    if (p->sums.n_leaving == 0 && !p->state->be_starved)
        plan_copy_all_back(p, plan_share(p, 5));
    plan_unstick(p);
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct plan p;
    double budget_ns;

    plan_open(&p, state, d);
    price_set_returned(&p.price, &d->load, 0); /* dealt here instead */
    budget_ns = plan_budget(&p);
    plan_ls_decodes(&p);
    plan_ls_chunks(&p, budget_ns, UINT32_MAX);
    swap(&p);
    plan_be_decodes(&p, budget_ns, UINT32_MAX);
    plan_be_chunks(&p, budget_ns - second_read_ns(&p), UINT32_MAX, 0);
    offload(&p, budget_ns);
    plan_close(&p, false);
}

const struct sched_policy policy_sync = {
    .name = "sync",
    .doc = "two half batches that take turns; the device waits for the CPU",
    .decide = decide};
