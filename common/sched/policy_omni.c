/* policy_omni.c - ours: at each sweep the way to serve best effort that is worth most per time.
 *
 * DESIGN.  Latency-sensitive rows first: all decodes, then as many prompt rows as the tightest TPOT
 * objective leaves, of which no sweep uses more than what predictions have kept of late.  Best
 * effort gets the rest, less what returned rows will take: its decodes on the device, then chunks.
 * None of it may push a waiting latency-sensitive prompt past its due time.
 *
 * Worth.  Everything is counted in best-effort tokens:
 *
 *   riders = sum over workers of min((window - latency) / job time, residents / 2)
 *   worth  = min(worker rate x time, riders + residents / layers)
 *            + prompt rows x output / input x scarcity
 *
 * and what is worth most per time is taken: of chunk sizes, and of one batch or two.  The time is what
 * is left of the sweep when rows that come at a rate have paid: latency-sensitive ones and decodes, each
 * its price in the largest sweep.  Scarcity of prompts is 1 while more of them could decode: while the
 * device has room, or the arenas are less than half full; from there it falls to 0 when they are full.
 * So prompts are computed as fast as decodes use them up, and in rows that cost little time.
 *
 * Steps.  Latency-sensitive prompts fill a sweep to the end of that step of the dense staircase which
 * has most rows per time, and no chunk is put beside those that wait for the next sweep: in the long
 * run that is fastest for both classes.  In a hurry as many as are computed fastest now.
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
 * what decodes and returned rows cost, as long as all that wait are in time three times over.
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
/* Prompts hurry unless all that wait would be computed within 1 / HASTE of the time that each has left.
 * Measured where they take four fifths of the device's time: 2 makes some late, 6 fills sweeps so often
 * beyond their best size that prompts are no faster, and best effort makes a twentieth less. */
#define HASTE 3
/* Share of the budget that best-effort decodes may keep from prompts which have time. */
#define DECODE_SHARE 0.25
/* Of a sweep's time that counts as best effort's at least, where prices of rows do not add up. */
#define LEAST_OWN_SHARE 0.05

/* slo_use_pct of the objective, and no more than predictions can be relied on for. */
static double budget_ns(const struct omni *o)
{
    const struct plan *p = &o->p;
    double budget = plan_budget(p), sure = p->state->sure_share;

    return sure > 0 && isfinite(p->ls_budget_ns) ? fmin(budget, fmax(0, sure * p->ls_budget_ns))
                                                 : budget;
}

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

static double attention_ns(const struct omni *o, enum plan_group group)
{
    struct latency_load load = {.n_rows = 0};

    add_group(&o->p, group, &load);
    return price_attention_ns(&o->p.price, &load);
}

/* What comes at a rate costs at a rate: in the long run a sweep that takes longer has so many more
 * latency-sensitive rows.  Their part of its time, each row at its price in the largest sweep, is none
 * of best effort's; sizes are compared by how well the rest is used.  Held against the whole sweep, their
 * rows would look like a price paid once, and long sweeps better than they are. */
static void note_latency_sensitive(struct omni *o)
{
    uint32_t n_rows = o->p.limits->rows_max - o->p.rows_left;

    o->dense_row_ns = omni_dense_row_ns(o);
    o->ls_ns = n_rows * o->dense_row_ns + attention_ns(o, PLAN_LS_DECODE) +
               attention_ns(o, PLAN_LS_PREFILL);
}

struct way {
    double sweep_ns, window_ns, per_ns;
};

/* While sizes of chunks are compared, best effort's decodes come at a rate as well: as many tokens as
 * prompts make possible, whatever the sweep's size.  With chunks given they count themselves. */
enum decodes { DECODES_AT_A_RATE, DECODES_COUNT };

static void set_worth(const struct omni *o, struct way *w, enum decodes decodes, uint32_t n_rows)
{
    double tokens = omni_worker_tokens(o, w->sweep_ns, w->window_ns) + n_rows * output_per_row(o);
    double others_ns = o->ls_ns;

    if (decodes == DECODES_COUNT)
        tokens += o->p.n_picked[PLAN_BE_DECODE];
    else
        others_ns += o->decodes_ns;
    double own_ns = fmax(w->sweep_ns - others_ns, LEAST_OWN_SHARE * w->sweep_ns);
    w->per_ns = own_ns > 0 ? tokens / own_ns : 0;
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

/* Not while latency-sensitive prompts wait: the second read of the weights would be their time. */
static bool may_be_two(const struct omni *o)
{
    const struct plan *p = &o->p;

    return !o->prompts_wait && p->limits->two_batch && p->price.m != NULL && o->n_residents > 0 &&
           !omni_is_without(o, SCHED_WITHOUT_TWO_BATCH);
}

/* The better of the two ways; `split` if that is two batches. */
static struct way best_way(const struct omni *o, const struct latency_load *all,
                           const struct latency_load *chunks, enum decodes decodes, uint32_t n_rows,
                           bool *split)
{
    struct way one = as_one_batch(o, all), two;

    *split = false;
    set_worth(o, &one, decodes, n_rows);
    if (!may_be_two(o) || chunks->n_rows == 0 || o->decodes.n_rows == 0)
        return one;
    two = as_two_batches(o, chunks);
    set_worth(o, &two, decodes, n_rows);
    *split = two.sweep_ns <= o->budget_ns && two.per_ns > one.per_ns;
    return *split ? two : one;
}

static double worth_with_chunk(const void *of, const struct latency_load *all,
                               const struct latency_load *chunks, uint32_t n)
{
    const struct omni *o = of;
    bool split;

    return best_way(o, all, chunks, DECODES_AT_A_RATE, n, &split).per_ns;
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
    o->decodes_ns = p->n_picked[PLAN_BE_DECODE] * o->dense_row_ns + attention_ns(o, PLAN_BE_DECODE);
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
    /* A chunk that fills up a sweep of latency-sensitive prompts would be in the way of those that
     * wait for the next one. */
    if (!o->prompts_wait)
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
    struct way w =
        best_way(o, &p->d->load, &chunks, DECODES_COUNT, rows_picked(p, PLAN_BE_PREFILL), &split);
    p->d->p_max = split
                      ? returned_within(o, o->decodes, o->budget_ns - price_ns(&p->price, &chunks))
                      : returned_within(o, p->d->load, o->budget_ns);
    enter(o);
    fund_waiting(o, &w);
    price_set_returned(&p->price, &p->d->load, o->returned); /* predicted: what they do return */
    plan_close(p, split);
}

/* ---- Latency-sensitive prompts --------------------------------------------------------------- */

/* May they take a sweep less than all of its time, all at the slower pace? */
static bool prompts_have_time(const struct omni *o)
{
    const struct plan *p = &o->p;
    double rows = 0, slow_ns = omni_row_ns(o) / (1 - DECODE_SHARE);

    for (uint32_t seq = plan_next(p, PLAN_LS_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_PREFILL, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        double left = (double)s->first_due_ns - (double)p->state->now_ns;

        rows += sched_todo(s);
        if (s->first_due_ns != 0 && rows * slow_ns > left / HASTE)
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

struct best_rows {
    double rate, decodes_ns;
    uint32_t n;
    bool hurry;
};

/* Takes n rows of prompts if they are better; false: they do not fit. */
static bool try_rows(const struct omni *o, struct best_rows *best, uint32_t n)
{
    const struct plan *p = &o->p;
    struct latency_load with = p->d->load;

    price_add(&p->price, &with, 0, n, false);
    double ns = price_ns(&p->price, &with);
    double rate = best->hurry ? n / ns : with.n_rows / (ns - best->decodes_ns);
    if (ns > o->budget_ns)
        return false;
    if (rate >= best->rate) {
        best->rate = rate;
        best->n = n;
    }
    return true;
}

/* Rows of prompts to the end of a step of the dense staircase, or as many as fit: those with which the
 * sweep has most rows per time; where they are in a hurry, most of theirs. */
static uint32_t best_rows(const struct omni *o, bool hurry)
{
    const struct plan *p = &o->p;
    const struct latency_load *load = &p->d->load;
    const struct latency_stairs *s = plan_stairs(p);
    double there = load->n_rows + load->returned_rows / o->n_layers;
    struct best_rows best = {
        .n = UINT32_MAX, .hurry = hurry, .decodes_ns = price_attention_ns(&p->price, load)};
    uint32_t most = price_rows_within(&p->price, load, 0, p->chunk_left, UINT32_MAX, o->budget_ns);

    if (most > 1)
        try_rows(o, &best, most);
    for (uint32_t i = 0; s != NULL && i < s->n; i++) {
        double n = floor(s->rows[i] - there);
        if (n >= 2 && !try_rows(o, &best, (uint32_t)n))
            break;
    }
    return best.n;
}

static bool prompts_wait(const struct omni *o)
{
    const struct plan *p = &o->p;
    uint32_t at = 0;

    for (uint32_t seq = plan_next(p, PLAN_LS_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_PREFILL, seq)) {
        if (plan_is_idle(p, seq) || /* picked in the order of the list */
            p->scratch->picked[PLAN_LS_PREFILL][at++].n_rows < sched_todo(&p->seqs[seq]))
            return true;
    }
    return false;
}

/* A prompt that takes the whole budget makes best-effort decodes skip a sweep, on the device and at
 * workers, though both cost little of it: one that has time is sized as if they were there. */
static void give_prompts(struct omni *o)
{
    struct plan *p = &o->p;
    struct latency_load load = p->d->load;

    bool hurry = omni_is_without(o, SCHED_WITHOUT_SHARE) || !prompts_have_time(o);
    bool aligned = !isinf(o->budget_ns) && !omni_is_without(o, SCHED_WITHOUT_STAIRS);

    if (!isinf(o->budget_ns) && !hurry)
        add_best_effort(o);
    plan_ls_chunks(p, o->budget_ns, aligned ? best_rows(o, hurry) : UINT32_MAX);
    o->prompts_wait = prompts_wait(o);
    add_group(p, PLAN_LS_PREFILL, &load);
    p->d->load = load;
}

static void decide(const struct sched_state *state, struct sched_decision *d)
{
    struct omni o = {0};

    plan_open(&o.p, state, d);
    o.budget_ns = budget_ns(&o);
    omni_look_at_workers(&o);
    plan_ls_decodes(&o.p);
    give_prompts(&o);
    note_latency_sensitive(&o);
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
