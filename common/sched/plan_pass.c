#include <math.h>

#include "common/sched/plan.h"

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

double plan_budget(const struct plan *p)
{
    uint32_t use = p->limits->params.slo_use_pct;

    if (isfinite(p->ls_budget_ns))
        return fmax(0, p->ls_budget_ns * (use != 0 ? use : 100) / 100);
    return p->limits->sweep_max_ns != 0 ? (double)p->limits->sweep_max_ns : INFINITY;
}

/* ---- Latency-sensitive ----------------------------------------------------------------------- */

void plan_ls_decodes(struct plan *p)
{
    for (uint32_t seq = plan_next(p, PLAN_LS_DECODE, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_DECODE, seq)) {
        if (p->rows_left == 0 || p->seqs_left == 0)
            return;
        if (plan_make_room(p, seq, p->seqs[seq].n_kv + 1))
            plan_give(p, PLAN_LS_DECODE, seq, 1);
    }
}

/* Rows of the sequence for which there are blocks, those that best effort could give up included.
 */
static uint32_t rows_with_blocks(const struct plan *p, const struct sched_seq *s)
{
    uint64_t bt = p->limits->block_tokens;
    uint64_t blocks = (p->n_free + p->sums.yieldable_blocks) / p->limits->n_groups + s->n_blocks;
    uint64_t holds = s->place == SCHED_WAITING ? blocks * bt + s->n_shared : blocks * bt;
    uint64_t from = sched_from(s), todo = sched_todo(s);

    if (holds <= from)
        return 0;
    return (uint32_t)(holds - from < todo ? holds - from : todo);
}

/* The most urgent prompt goes on however tight the objective is: by a block, or, where that takes
 * longer, by what LEAST_BUDGETS budgets hold: a bound for large blocks on slow devices.  Less would
 * make shorter gaps and pay for the decodes more often.  Measured on one core, where a row takes a
 * millisecond, at half the load that it can bear, against an idle machine: 64 rows TTFT 1.13x, TPOT
 * 1.05x, gaps p99.9 79 ms, best effort 34 %; 16 to 24 rows 1.61x, 1.38x, 34 ms, 26 %; 8 to 12 rows
 * 3.2x, 2.7x, 27 ms, 18 %. */
static uint32_t least_rows(const struct plan *p, const struct sched_seq *s, uint32_t most,
                           double budget_ns)
{
    enum { LEAST_BUDGETS = 16, LEAST_ROWS = 16 };
    uint32_t block = smaller(most, p->limits->block_tokens);
    uint32_t n = price_rows_within(&p->price, &p->d->load, sched_from(s), block, sched_todo(s),
                                   LEAST_BUDGETS * budget_ns);

    return larger(n, smaller(block, LEAST_ROWS));
}

void plan_ls_chunks(struct plan *p, double budget_ns, uint32_t rows)
{
    bool most_urgent = true;

    for (uint32_t seq = plan_next(p, PLAN_LS_PREFILL, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_LS_PREFILL, seq)) {
        const struct sched_seq *s = &p->seqs[seq];
        uint32_t most = smaller(smaller(rows, p->chunk_left), p->rows_left);
        most = p->seqs_left > 0 ? smaller(most, rows_with_blocks(p, s)) : 0;
        uint32_t n = price_rows_within(&p->price, &p->d->load, sched_from(s), most, sched_todo(s),
                                       budget_ns);
        if (most_urgent)
            n = larger(n, least_rows(p, s, most, budget_ns));
        most_urgent = false;
        if (n == 0)
            return; /* in order: a long prompt is not passed over for ever */
        if (plan_make_room(p, seq, sched_from(s) + n) && plan_give(p, PLAN_LS_PREFILL, seq, n)) {
            rows -= n;
            p->chunk_left -= n;
        }
    }
}

uint32_t plan_ls_by_tokens(struct plan *p)
{
    uint32_t least = p->limits->block_tokens, left = plan_token_budget(p, true), n;

    plan_ls_decodes(p);
    n = p->n_picked[PLAN_LS_DECODE];
    plan_ls_chunks(p, INFINITY, larger(left > n ? left - n : 0, least));
    n = p->limits->rows_max - p->rows_left;
    left = plan_token_budget(p, false);
    return left - smaller(left, n);
}

/* ---- Best effort ----------------------------------------------------------------------------- */

/* How many of the group's idle sequences, in order, keep the sweep within budget_ns as decodes.
 * Looks at the price once in a while and goes back: a price costs more than an addition. */
static uint32_t decodes_within(const struct plan *p, double budget_ns, uint32_t most)
{
    enum { STEP = 8 };
    struct latency_load load = p->d->load, before = load;
    uint32_t n = 0, n_before = 0, seq = SCHED_NONE, seq_before = SCHED_NONE, step = STEP;

    if (isinf(budget_ns) || p->price.m == NULL)
        return most;
    while (n < most && (seq = plan_next(p, PLAN_BE_DECODE, seq)) != SCHED_NONE) {
        if (!plan_is_idle(p, seq))
            continue;
        price_add(&p->price, &load, p->seqs[seq].n_kv, 1, true);
        if (++n % step != 0 && n < most)
            continue;
        if (price_ns(&p->price, &load) <= budget_ns) {
            before = load;
            n_before = n;
            seq_before = seq;
        } else if (step == 1) {
            return n - 1;
        } else {
            load = before;
            n = n_before;
            seq = seq_before;
            step = 1;
        }
    }
    return price_ns(&p->price, &load) <= budget_ns ? n : n_before;
}

void plan_send_decodes_out(struct plan *p)
{
    for (uint32_t seq = plan_next(p, PLAN_BE_DECODE, SCHED_NONE);
         seq != SCHED_NONE && p->copies_left > 0; seq = plan_next(p, PLAN_BE_DECODE, seq)) {
        if (plan_is_idle(p, seq))
            plan_move_out(p, seq);
    }
}

void plan_be_decodes(struct plan *p, double budget_ns, uint32_t rows)
{
    if (plan_decodes_at_workers(p)) {
        plan_send_decodes_out(p);
        return;
    }
    uint32_t left = decodes_within(p, budget_ns, smaller(rows, p->rows_left));

    if (left == 0 && p->starved[PLAN_BE_DECODE] != SCHED_NONE)
        left = smaller(1, p->rows_left);
    for (uint32_t seq = plan_next(p, PLAN_BE_DECODE, SCHED_NONE); seq != SCHED_NONE && left > 0;
         seq = plan_next(p, PLAN_BE_DECODE, seq)) {
        if (p->seqs_left == 0)
            return;
        if (!plan_is_idle(p, seq))
            continue;
        if (plan_give(p, PLAN_BE_DECODE, seq, 1))
            left--;
        else
            p->d->be_stuck = true;
    }
}

bool plan_may_begin(const struct plan *p, uint32_t seq, uint32_t n_free, uint32_t keep)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint64_t need = sched_growth(p->limits, s, s->n_todo + 1);
    /* Nothing will come free for the first of all while no other holds blocks. */
    bool alone = p->sums.n_be_device + p->sums.n_leaving + p->sums.n_returning == 0 &&
                 seq == plan_next(p, PLAN_BE_PREFILL, SCHED_NONE);

    return need + (alone ? 0 : keep) <= n_free;
}

/* A prompt of those that hold blocks, or of those that wait.  False: nobody behind it gets rows. */
static bool give_chunk(struct plan *p, uint32_t seq, double budget_ns, uint32_t *rows)
{
    const struct sched_seq *s = &p->seqs[seq];
    uint32_t most = smaller(smaller(*rows, p->chunk_left), p->rows_left);

    most = smaller(most, sched_todo(s));
    if (most == 0 || p->seqs_left == 0)
        return false;
    uint32_t n =
        price_rows_within(&p->price, &p->d->load, sched_from(s), most, sched_todo(s), budget_ns);
    if (plan_is_forced(p, PLAN_BE_PREFILL, seq))
        n = larger(n, smaller(most, p->limits->block_tokens));
    if (n == 0)
        return false;
    if (plan_give(p, PLAN_BE_PREFILL, seq, n)) {
        *rows -= n;
        p->chunk_left -= n;
    }
    return true;
}

void plan_be_chunks(struct plan *p, double budget_ns, uint32_t rows, uint32_t keep)
{
    /* Who has begun goes on before anybody begins, however long those have waited: half a prompt
     * holds the blocks of a whole one and makes no token. */
    for (int waiting = 0; waiting < 2; waiting++) {
        for (uint32_t seq = plan_next(p, PLAN_BE_PREFILL, SCHED_NONE); seq != SCHED_NONE;
             seq = plan_next(p, PLAN_BE_PREFILL, seq)) {
            bool waits = p->seqs[seq].place == SCHED_WAITING;

            if (!plan_is_idle(p, seq) || waits != (waiting != 0))
                continue;
            /* In order, so that a long prompt is not passed over for ever. */
            if (waits && (p->d->be_starved || !plan_may_begin(p, seq, p->n_free, keep))) {
                p->d->be_starved = true;
                return;
            }
            if (!give_chunk(p, seq, budget_ns, &rows))
                return;
        }
    }
}

void plan_enters(struct plan *p, uint32_t n)
{
    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE && n > 0;
         seq = plan_next(p, PLAN_RESIDENT, seq)) {
        if (p->d->n_enter == p->limits->returned_max)
            return;
        n -= plan_is_idle(p, seq) && plan_enter(p, seq);
    }
}

/* The attention of the fullest sweep that one tunes for: decodes read all of the device's KV, or what
 * there is half of the time for. */
static double full_device_ns(const struct plan *p, double slo_ns)
{
    uint64_t tokens = (uint64_t)p->limits->n_blocks / p->limits->n_groups * p->limits->block_tokens;
    struct latency_load load = {0};

    price_add(&p->price, &load, (uint32_t)(tokens < UINT32_MAX ? tokens : UINT32_MAX) - 1, 1, true);
    return p->price.m != NULL ? fmin(price_attention_ns(&p->price, &load), slo_ns / 2) : 0;
}

static uint32_t longest_prompt(const struct plan *p, bool latency_sensitive)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < p->state->n_seqs; i++) {
        const struct sched_seq *s = &p->seqs[i];
        if ((s->latency_sensitive != 0) == latency_sensitive && !sched_is_decode(s))
            most = larger(most, s->n_kv + s->n_todo);
    }
    return most;
}

uint32_t plan_token_budget(const struct plan *p, bool latency_sensitive)
{
    const struct sched_limits *l = p->limits;
    struct latency_load none = {0};
    uint32_t use = l->params.slo_use_pct != 0 ? l->params.slo_use_pct : 100;
    double slo_ns = (double)l->tpot_slo_ns * use / 100;

    if (l->params.token_budget != 0)
        return l->params.token_budget;
    if (l->tpot_slo_ns == 0)
        return l->rows_max;
    return larger(1,
                  price_rows_within(&p->price, &none, longest_prompt(p, latency_sensitive),
                                    l->rows_max, UINT32_MAX, slo_ns - full_device_ns(p, slo_ns)));
}

/* ---- Moves ----------------------------------------------------------------------------------- */

/* The last one that holds KV gains nothing by dropping its own: it could not even begin again. */
static bool several_hold_blocks(const struct plan *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->state->n_seqs && n < 2; i++)
        n += p->seqs[i].place == SCHED_DEVICE && !p->seqs[i].latency_sensitive;
    return n >= 2;
}

void plan_unstick(struct plan *p)
{
    if (p->state->be_stuck && p->sums.n_leaving == 0 && several_hold_blocks(p))
        plan_yield(p);
}

static void copy_back(struct plan *p, uint32_t keep, uint32_t most)
{
    uint64_t owed = 0; /* to those that begin to return now, beyond what they take at once */

    if (p->sums.n_returning > 0)
        return;
    for (uint32_t seq = plan_next(p, PLAN_RESIDENT, SCHED_NONE); seq != SCHED_NONE && most > 0;
         seq = plan_next(p, PLAN_RESIDENT, seq), most--) {
        const struct sched_seq *s = &p->seqs[seq];
        uint64_t promise = sched_promise(p->limits, s), free_before = p->n_free;

        if (s->last_move_ns != 0 && s->last_move_ns + p->limits->be_settle_ns > p->state->now_ns)
            return;
        if (promise + owed + keep > p->n_free || !plan_move_in(p, seq))
            return;
        owed += promise - (free_before - p->n_free);
    }
}

void plan_copy_back(struct plan *p, uint32_t keep)
{
    copy_back(p, keep, 1);
}

void plan_copy_all_back(struct plan *p, uint32_t keep)
{
    copy_back(p, keep, UINT32_MAX);
}

void plan_relieve(struct plan *p, uint32_t reserve, uint32_t most)
{
    const struct sched_state *s = p->state;
    bool waited = s->be_starved || s->be_stuck;

    while (p->copies_left > 0 && p->sums.n_leaving < most &&
           (p->n_free + (uint64_t)p->sums.leaving_blocks < reserve ||
            (waited && p->sums.n_leaving == 0))) {
        uint32_t newest = plan_newest_decode(p);
        if (newest == SCHED_NONE)
            return;
        plan_move_out(p, newest);
    }
}

uint32_t plan_decode_growth(const struct plan *p)
{
    uint32_t n = 0;

    for (uint32_t seq = plan_next(p, PLAN_BE_DECODE, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_BE_DECODE, seq))
        n += sched_growth(p->limits, &p->seqs[seq], p->seqs[seq].n_kv + 1);
    return n;
}

void plan_preempt_for_decodes(struct plan *p)
{
    uint32_t needed = 0;

    for (uint32_t seq = plan_next(p, PLAN_BE_DECODE, SCHED_NONE); seq != SCHED_NONE;
         seq = plan_next(p, PLAN_BE_DECODE, seq)) {
        if (!plan_is_idle(p, seq))
            continue;
        needed += sched_growth(p->limits, &p->seqs[seq], p->seqs[seq].n_kv + 1);
        while (needed > p->n_free && plan_yield(p))
            continue;
    }
}
