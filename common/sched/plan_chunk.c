/* plan_chunk.c - how many best-effort prompt rows are worth their time.
 *
 * The time of a dense layer grows in steps: a chunk that ends just behind a step pays a whole tile
 * for a few rows.  So the sizes worth looking at are the largest that fits and those that fill a
 * step; of these the one is taken that makes the whole sweep worth most per time.  Rows go to
 * prompts in order, so a size means a prefix of a list of prompts. */
#include <math.h>

#include "common/sched/plan.h"

enum { PROMPTS_MAX = 64 };

/* Prompts that may get rows, in order. */
struct candidates {
    uint32_t n, rows;
    uint32_t seq[PROMPTS_MAX];
    uint32_t todo[PROMPTS_MAX]; /* rows that it could take */
};

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void gather_placed(struct plan *p, bool waiting, uint32_t keep, struct candidates *c)
{
    uint32_t left = smaller(p->chunk_left, p->rows_left), n_free = p->n_free;
    uint32_t seqs = smaller(p->seqs_left, PROMPTS_MAX);

    for (uint32_t seq = plan_next(p, PLAN_BE_PREFILL, SCHED_NONE);
         seq != SCHED_NONE && c->n < seqs && c->rows < left;
         seq = plan_next(p, PLAN_BE_PREFILL, seq)) {
        const struct sched_seq *s = &p->seqs[seq];

        if (!plan_is_idle(p, seq) || (s->place == SCHED_WAITING) != waiting)
            continue;
        if (waiting && (p->d->be_starved || !plan_may_begin(p, seq, n_free, keep))) {
            p->d->be_starved = true; /* nobody begins before it */
            return;
        }
        n_free -= waiting ? sched_growth(p->limits, s, s->n_todo + 1) : 0;
        c->seq[c->n] = seq;
        c->todo[c->n] = smaller(sched_todo(s), left - c->rows);
        c->rows += c->todo[c->n++];
    }
}

/* Who has begun goes on before anybody begins, however long those have waited: half a prompt holds
 * the blocks of a whole one and makes no token. */
static void gather(struct plan *p, uint32_t keep, struct candidates *c)
{
    c->n = c->rows = 0;
    gather_placed(p, false, keep, c);
    gather_placed(p, true, keep, c);
}

/* Adds the first n rows of the candidates. */
static void add_rows(const struct plan *p, const struct candidates *c, uint32_t n,
                     struct latency_load *load)
{
    for (uint32_t i = 0; i < c->n && n > 0; i++) {
        const struct sched_seq *s = &p->seqs[c->seq[i]];
        uint32_t rows = smaller(n, c->todo[i]);
        price_add(&p->price, load, sched_from(s), rows, rows == sched_todo(s));
        n -= rows;
    }
}

static double time_with(const struct plan *p, const struct candidates *c, uint32_t n)
{
    struct latency_load load = p->d->load;

    add_rows(p, c, n, &load);
    return price_ns(&p->price, &load);
}

static uint32_t largest_within(const struct plan *p, const struct candidates *c, double budget_ns)
{
    uint32_t low = 0, high = c->rows;

    if (isinf(budget_ns) || time_with(p, c, high) <= budget_ns)
        return high;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;

        if (time_with(p, c, mid) <= budget_ns)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

const struct latency_stairs *plan_stairs(const struct plan *p)
{
    const struct latency_model *m = p->price.m;
    uint32_t best = 0;

    if (m == NULL || m->n_kinds == 0)
        return NULL;
    for (uint32_t k = 1; k < m->n_kinds; k++)
        best = m->n_of[k] > m->n_of[best] ? k : best;
    return &m->kind[best].dense;
}

static double worth_with(const struct plan *p, const struct candidates *c,
                         const struct plan_worth *worth, uint32_t n)
{
    struct latency_load all = p->d->load, prompts = worth->prompts;

    add_rows(p, c, n, &all);
    add_rows(p, c, n, &prompts);
    return worth->per_ns(worth->of, &all, &prompts, n);
}

/* The better of `best` and the sizes that fill a step behind so many rows. */
static uint32_t best_step(const struct plan *p, const struct candidates *c,
                          const struct plan_worth *worth, double there, uint32_t largest,
                          uint32_t best)
{
    const struct latency_stairs *s = plan_stairs(p);
    double best_worth = worth_with(p, c, worth, best);

    for (uint32_t i = s->n; i-- > 0;) {
        double n = floor(s->rows[i] - there);

        if (n >= largest)
            continue;
        if (n < 1)
            break;
        double w = worth_with(p, c, worth, (uint32_t)n);
        if (w > best_worth) {
            best_worth = w;
            best = (uint32_t)n;
        }
    }
    return best;
}

static uint32_t best_size(const struct plan *p, const struct candidates *c, uint32_t largest,
                          const struct plan_worth *worth)
{
    uint32_t best = largest;

    if (largest == 0 || plan_stairs(p) == NULL)
        return largest;
    best =
        best_step(p, c, worth, p->d->load.n_rows + p->d->load.returned_rows / p->price.m->n_layers,
                  largest, best);
    if (worth->two_batch)
        best = best_step(p, c, worth, worth->prompts.n_rows, largest, best);
    return best;
}

void plan_be_chunks_by_stairs(struct plan *p, double budget_ns, uint32_t keep,
                              const struct plan_worth *worth)
{
    struct candidates c;

    gather(p, keep, &c);
    uint32_t n = best_size(p, &c, largest_within(p, &c, budget_ns), worth);
    if (c.n > 0 && plan_is_forced(p, PLAN_BE_PREFILL, c.seq[0])) {
        uint32_t least = smaller(c.todo[0], p->limits->block_tokens);
        n = n > least ? n : least;
    }
    for (uint32_t i = 0; i < c.n && n > 0; i++) {
        uint32_t rows = smaller(n, c.todo[i]);

        if (!plan_give(p, PLAN_BE_PREFILL, c.seq[i], rows))
            return;
        p->chunk_left -= rows;
        n -= rows;
    }
}
