/* policy_omni.c - ours: at each sweep the way to serve best effort that is worth most per time.
 *
 * DESIGN.  Latency-sensitive rows first: all decodes, then as many prompt rows as the tightest TPOT
 * objective leaves.  Best effort gets the rest, less what returned rows will take: its decodes on
 * the device, then chunks.  None of it may push a waiting latency-sensitive prompt past its due
 * time.
 *
 * Worth.  Everything is counted in best-effort tokens:
 *
 *   riders = sum over workers of min((window - latency) / job time, residents / 2)
 *   worth  = device decodes + min(worker rate x time, riders + residents / layers)
 *            + prompt rows x output / input x scarcity
 *
 * and what is worth most per time is taken: of chunk sizes, and of one batch or two.  Scarcity of
 * prompts is 1 while more of them could decode: while the device has room, or the arenas are less
 * than half full; from there it falls to 0 when they are full.  So prompts are computed as fast as
 * decodes use them up, and in rows that cost little time.
 *
 * Two batches.  Alternating decodes (A) and chunks (B) on the device reads the weights twice, and
 * makes B's time the window in which A's offloaded rows ride along.  Waiting at a layer for jobs is
 * worth it only where the workers' rate exceeds the worth per time; never beyond the slack.
 *
 * Placement.  A decode on the device makes a token in every sweep and costs the time of its
 * attention; at a worker it makes what one more resident adds.  Best effort decodes on the device
 * while there is room and that is worth more; the newest leaves for a worker when free blocks fall
 * below what latency-sensitive growth needs (auto_free_pct) plus one waiting prompt: that staging
 * place is what feeds the workers.  Where a prompt that begins is meant for a worker it has its place
 * there from the start, and is copied while it is computed.  Where more are resident than workers can
 * use, so that another prompt's output would not pay for its computing, no prompt begins, nothing is
 * staged, and the oldest residents come back as room is there: then this is `harvest`.  Nobody moves
 * again within be_settle_ns, and no place is preferred that is not PLACE_MARGIN better.
 *
 * Prompts with time.  A latency-sensitive prompt that would take the whole budget is made smaller by
 * what decodes and returned rows cost, as long as all that wait are in time twice over.
 *
 * offload: `always` gives best effort no decode on the device, where only its prompts run; `never`
 * sends nobody out, and residents that are there go on or come back.
 *
 * Reads: offload, auto_free_pct, slo_use_pct, without (see enum sched_without). */
#include <math.h>

#include "common/sched/policy_omni.h"

/* Standard deviations of the number of latency-sensitive requests that fit on the device: nearer to
 * full than so many, best effort yields time. */
#define LS_SPREADS 4
/* Share of the budget that best-effort decodes may keep from prompts which have time. */
#define DECODE_SHARE 0.25

/* ---- Time for best effort -------------------------------------------------------------------- */

/* How much longer this sweep may take so that no waiting latency-sensitive prompt misses its due
 * time, if prompts go on at this sweep's pace. */
static double ttft_slack_ns(const struct omni *o)
{
    const struct plan *p = &o->p;
    double sweep_ns = price_ns(&p->price, &p->d->load), slack = INFINITY, rows_after = 0, pace;
    uint32_t n_given = 0, at = 0;

    for (uint32_t i = 0; i < p->n_picked[PLAN_LS_PREFILL]; i++)
        n_given += p->scratch->picked[PLAN_LS_PREFILL][i].n_rows;
    pace = n_given > 0 ? sweep_ns / n_given : 0;
    for (uint32_t seq = plan_next(p, PLAN_LS_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_PREFILL, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        rows_after += sched_todo(s);
        if (!plan_is_idle(p, seq)) /* picked in the order of the list */
            rows_after -= p->scratch->picked[PLAN_LS_PREFILL][at++].n_rows;
        if (s->first_due_ns == 0)
            continue;
        double left =
            s->first_due_ns > p->state->now_ns ? (double)(s->first_due_ns - p->state->now_ns) : 0;
        slack = fmin(slack, left - sweep_ns - rows_after * pace);
    }
    return fmax(0, slack);
}

/* Share of the budget that latency-sensitive requests leave to best effort.  They hold blocks for as
 * long as they run, and are refused when all are promised: the nearer that is, the less may a sweep
 * be lengthened, whatever the objective would bear.  Near is a matter of chance: of n that fit on
 * average, sqrt(n) more come by now and then. */
static double time_share(const struct omni *o)
{
    const struct plan *p = &o->p;
    double n = p->sums.n[PLAN_LS_DECODE] + p->sums.n[PLAN_LS_PREFILL];
    double promised = (double)p->sums.ls_promise / fmax(1, p->limits->n_blocks);
    double n_most = promised > 0 ? n / promised : 1;

    if (n < 1)
        return 1; /* nobody holds anything, whatever would fit */
    return fmin(1, fmax(0, 1 - promised) * sqrt(fmax(1, n_most)) / LS_SPREADS);
}

/* Time that best effort may fill. */
static double best_effort_budget_ns(const struct omni *o)
{
    double ls_ns = price_ns(&o->p.price, &o->p.d->load);

    if (isinf(o->budget_ns))
        return ls_ns + ttft_slack_ns(o);
    return fmin(fmin(o->budget_ns, ls_ns + ttft_slack_ns(o)),
                fmax(time_share(o) * o->budget_ns, ls_ns));
}

/* Output that a prompt's token makes possible.  Of prompts alone: what decodes have made already
 * and still will says nothing of what the next prompt costs and brings. */
static double output_per_row(const struct omni *o)
{
    const struct plan_sums *sums = &o->p.sums;

    return sums->prompt_in > 0
               ? o->prompt_worth * (double)sums->prompt_out / (double)sums->prompt_in
               : 0;
}

/* ---- One batch or two ------------------------------------------------------------------------ */

static void add_group(const struct plan *p, enum plan_group group, struct latency_load *load)
{
    for (uint32_t i = 0; i < p->n_picked[group]; i++) {
        const struct sched_rows *r = &p->scratch->picked[group][i];
        const struct sched_seq *s = &p->seqs[r->seq];
        price_add(&p->price, load, sched_from(s), r->n_rows, r->n_rows == sched_todo(s));
    }
}

struct way {
    double sweep_ns, window_ns, per_ns;
};

/* decode_worth: of a decode on the device; 1 where chunks are given already. */
static void set_worth(const struct omni *o, struct way *w, double decode_worth, uint32_t n_rows)
{
    double tokens = decode_worth * o->p.n_picked[PLAN_BE_DECODE] +
                    omni_worker_tokens(o, w->sweep_ns, w->window_ns) + n_rows * output_per_row(o);

    w->per_ns = w->sweep_ns > 0 ? tokens / w->sweep_ns : 0;
}

static struct way as_one_batch(const struct omni *o, const struct latency_load *load)
{
    return (struct way){.sweep_ns = price_ns(&o->p.price, load),
                        .window_ns = price_attention_ns(&o->p.price, load) / o->n_layers};
}

/* Decodes (A), which returned rows join, and chunks (B) take turns. */
static struct way as_two_batches(const struct omni *o, const struct latency_load *chunks)
{
    const struct plan *p = &o->p;
    struct latency_load a = o->decodes;
    double b_ns = price_ns(&p->price, chunks);
    struct way w = {.window_ns = (b_ns + price_attention_ns(&p->price, &a)) / o->n_layers};

    price_set_returned(
        &p->price, &a,
        fmin(omni_worker_tokens(o, o->best_effort_ns, w.window_ns), p->limits->returned_max));
    w.sweep_ns = price_two_ns(&p->price, &a, chunks);
    return w;
}

static bool may_be_two(const struct omni *o)
{
    const struct plan *p = &o->p;

    return p->limits->two_batch && p->price.m != NULL && o->n_residents > 0 &&
           !omni_is_without(o, SCHED_WITHOUT_TWO_BATCH);
}

/* The better of the two ways; `split` if that is two batches. */
static struct way best_way(const struct omni *o, const struct latency_load *all,
                           const struct latency_load *chunks, double decode_worth, uint32_t n_rows,
                           bool *split)
{
    struct way one = as_one_batch(o, all), two;

    *split = false;
    set_worth(o, &one, decode_worth, n_rows);
    if (!may_be_two(o) || chunks->n_rows == 0 || o->decodes.n_rows == 0)
        return one;
    two = as_two_batches(o, chunks);
    set_worth(o, &two, decode_worth, n_rows);
    *split = two.sweep_ns <= o->budget_ns && two.per_ns > one.per_ns;
    return *split ? two : one;
}

static double worth_with_chunk(const void *of, const struct latency_load *all,
                               const struct latency_load *chunks, uint32_t n)
{
    const struct omni *o = of;
    bool split;

    return best_way(o, all, chunks, o->decode_worth, n, &split).per_ns;
}

/* ---- Best-effort rows ------------------------------------------------------------------------ */

static void give_chunks(struct omni *o)
{
    struct plan *p = &o->p;
    uint32_t keep = omni_blocks_to_leave(o);
    struct plan_worth worth = {.per_ns = worth_with_chunk, .of = o, .two_batch = may_be_two(o)};

    add_group(p, PLAN_LS_PREFILL, &worth.prompts);
    o->decodes = (struct latency_load){.n_rows = 0};
    add_group(p, PLAN_LS_DECODE, &o->decodes);
    add_group(p, PLAN_BE_DECODE, &o->decodes);
    if (omni_is_without(o, SCHED_WITHOUT_STAIRS))
        plan_be_chunks(p, o->best_effort_ns, UINT32_MAX, keep);
    else
        plan_be_chunks_by_stairs(p, o->best_effort_ns, keep, &worth);
}

/* Decodes first: their prompts are paid for.  Where they leave no time for prompts although workers
 * are idle, judge sends them there. */
static void give_best_effort(struct omni *o)
{
    /* A starved prompt's few rows come first, so that nothing is filled up that they would burst.
     */
    if (plan_is_forced(&o->p, PLAN_BE_PREFILL, o->p.starved[PLAN_BE_PREFILL]))
        plan_be_chunks(&o->p, 0, o->p.limits->block_tokens, o->reserve);
    plan_be_decodes(&o->p, o->best_effort_ns, UINT32_MAX);
    give_chunks(o);
}

/* ---- Returned rows --------------------------------------------------------------------------- */

/* Most returned rows per layer beside the load within the budget; one in any case, or workers would
 * stand still. */
static uint32_t returned_within(const struct omni *o, struct latency_load load, double budget_ns)
{
    const struct plan *p = &o->p;
    uint32_t low = p->limits->returned_max > 0, high = p->limits->returned_max;

    if (isinf(budget_ns) || load.n_rows == 0)
        return high;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;

        price_set_returned(&p->price, &load, mid);
        if (price_ns(&p->price, &load) <= budget_ns)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* At most half of the residents at once: rows that bunch at one layer make workers idle, then
 * queue. */
static void enter(struct omni *o)
{
    uint32_t most = o->p.d->p_max;

    if (!omni_is_without(o, SCHED_WITHOUT_SPREAD) && o->n_residents / 2 + 1 < most)
        most = o->n_residents / 2 + 1;
    plan_enters(&o->p, most);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

/* What the slack buys: so many rows could stay together through all layers, each waited for. */
static void fund_waiting(struct omni *o, const struct way *w)
{
    struct sched_decision *d = o->p.d;
    /* Nobody to hurry for: a sweep at most doubles. */
    double slack = fmin(o->best_effort_ns - w->sweep_ns, w->sweep_ns);

    if (omni_is_without(o, SCHED_WITHOUT_WAITING) || omni_is_without(o, SCHED_WITHOUT_RIDING) ||
        !(o->job_ns > 0) || !(slack > 0) || o->rate <= w->per_ns || o->n_residents == 0)
        return;
    double rows = floor((slack + w->window_ns * o->n_layers) / (o->n_layers * o->job_ns));
    d->want = (uint32_t)fmin(rows, fmin(d->p_max, o->n_residents));
    d->wait_ns = d->want > 0 ? (uint64_t)slack : 0;
}

static uint32_t rows_picked(const struct plan *p, enum plan_group group)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_picked[group]; i++)
        n += p->scratch->picked[group][i].n_rows;
    return n;
}

static void close(struct omni *o)
{
    struct plan *p = &o->p;
    struct latency_load chunks = {.n_rows = 0};
    bool split;

    add_group(p, PLAN_LS_PREFILL, &chunks);
    add_group(p, PLAN_BE_PREFILL, &chunks);
    struct way w = best_way(o, &p->d->load, &chunks, 1, rows_picked(p, PLAN_BE_PREFILL), &split);
    p->d->p_max = split
                      ? returned_within(o, o->decodes, o->budget_ns - price_ns(&p->price, &chunks))
                      : returned_within(o, p->d->load, o->budget_ns);
    enter(o);
    fund_waiting(o, &w);
    price_set_returned(&p->price, &p->d->load, o->returned); /* predicted: what they do return */
    plan_close(p, split);
}

/* ---- Latency-sensitive prompts --------------------------------------------------------------- */

/* May they take a sweep less than all of its time?  Only if all that wait would be computed in half
 * of the time that each has left, at the slower pace. */
static bool prompts_have_time(const struct omni *o)
{
    const struct plan *p = &o->p;
    double rows = 0, slow_ns = omni_row_ns(o) / (1 - DECODE_SHARE);

    for (uint32_t seq = plan_next(p, PLAN_LS_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_PREFILL, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        double left = (double)s->first_due_ns - (double)p->state->now_ns;

        rows += sched_todo(s);
        if (s->first_due_ns != 0 && rows * slow_ns > left / 2)
            return false;
    }
    return true;
}

/* What best effort would add to the sweep without prompts: returned rows, and decodes up to their
 * share of the budget. */
static void add_best_effort(struct omni *o)
{
    struct plan *p = &o->p;
    struct latency_load *load = &p->d->load;
    double left_ns = DECODE_SHARE * o->budget_ns + price_ns(&p->price, load);
    uint32_t n = p->sums.n[PLAN_BE_DECODE], n_before = 0;
    uint32_t mean = n > 0 ? (uint32_t)(p->sums.be_decode_tokens / n) : 0;

    omni_reserve_for_returned(o);
    for (uint32_t step = 8; n_before < n; n_before += step) {
        struct latency_load before = *load;
        for (uint32_t i = n_before; i < n && i < n_before + step; i++)
            price_add(&p->price, load, mean, 1, true);
        if (price_ns(&p->price, load) <= left_ns)
            continue;
        *load = before;
        return;
    }
}

/* A prompt that takes the whole budget makes best-effort decodes skip a sweep, on the device and at
 * workers, though both cost little of it: one that has time is sized as if they were there. */
static void give_prompts(struct omni *o)
{
    struct plan *p = &o->p;
    struct latency_load load = p->d->load;

    if (!isinf(o->budget_ns) && !omni_is_without(o, SCHED_WITHOUT_SHARE) && prompts_have_time(o))
        add_best_effort(o);
    plan_ls_chunks(p, o->budget_ns, UINT32_MAX);
    add_group(p, PLAN_LS_PREFILL, &load);
    p->d->load = load;
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct omni o = {0};

    plan_open(&o.p, state, d);
    o.budget_ns = plan_budget(&o.p);
    omni_look_at_workers(&o);
    plan_ls_decodes(&o.p);
    give_prompts(&o);
    omni_reserve_for_returned(&o);
    omni_set_reserves(&o);
    omni_judge(&o);
    omni_place(&o);
    omni_bring_back(&o);
    o.best_effort_ns = best_effort_budget_ns(&o);
    give_best_effort(&o);
    omni_reserve_for_prompts(&o);
    d->ride = !omni_is_without(&o, SCHED_WITHOUT_RIDING);
    close(&o);
}

const struct sched_policy policy_omni = {
    .name = "omni",
    .doc = "worth most per time among device, workers, one batch or two, within the objectives",
    .decide = decide,
    .heeds_gaps = true};
