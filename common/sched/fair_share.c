#include "common/sched/fair_share.h"

#include <string.h>

#include "common/base/invariant.h"

enum { RANKED_MAX = 256 }; /* prompts; those behind keep their due times */

void fair_share_init(struct fair_share *f, uint32_t n, const uint32_t *weights)
{
    invariant(n <= FAIR_TENANTS_MAX);
    memset(f, 0, sizeof *f);
    f->n = n;
    for (uint32_t i = 0; i < n; i++) {
        invariant(weights[i] > 0);
        f->weight[i] = weights[i];
    }
}

double fair_share_start(const struct fair_share *f, uint32_t tenant)
{
    return f->finish[tenant] > f->now ? f->finish[tenant] : f->now;
}

void fair_share_charge(struct fair_share *f, uint32_t tenant, double cost)
{
    double from = cost > 0 ? fair_share_start(f, tenant) : f->finish[tenant];

    f->finish[tenant] = from + cost / f->weight[tenant];
}

void fair_share_advance(struct fair_share *f, uint32_t wanting)
{
    double least = -1;

    for (uint32_t t = 0; t < f->n; t++) {
        if ((wanting >> t & 1) != 0 && (least < 0 || fair_share_start(f, t) < least))
            least = fair_share_start(f, t);
    }
    if (least > f->now)
        f->now = least;
}

/* ---- Ranks ----------------------------------------------------------------------------------- */

struct prompts {
    uint32_t n;
    uint32_t seq[RANKED_MAX]; /* by due time */
    uint32_t tenants;         /* bits */
};

static uint64_t due(const struct sched_seq *s)
{
    return s->first_due_ns != 0 ? s->first_due_ns : UINT64_MAX;
}

static bool is_prompt(const struct sched_seq *s)
{
    return s->latency_sensitive && !sched_is_decode(s) &&
           (s->place == SCHED_WAITING || s->place == SCHED_DEVICE);
}

static void gather(const struct fair_share *f, struct sched_seq *seqs, uint32_t n_seqs,
                   struct prompts *p)
{
    p->n = p->tenants = 0;
    for (uint32_t i = 0; i < n_seqs; i++) {
        uint32_t at = p->n;

        seqs[i].rank = 0;
        if (!is_prompt(&seqs[i]) || p->n == RANKED_MAX)
            continue;
        invariant(seqs[i].tenant < f->n);
        p->tenants |= UINT32_C(1) << seqs[i].tenant;
        for (; at > 0 && due(&seqs[p->seq[at - 1]]) > due(&seqs[i]); at--)
            p->seq[at] = p->seq[at - 1];
        p->seq[at] = i;
        p->n++;
    }
}

/* Each turn to the tenant furthest behind: its most urgent prompt, which is then counted as served. */
static void assign(const struct fair_share *f, struct sched_seq *seqs, uint32_t n_seqs,
                   const struct prompts *p)
{
    struct fair_share served = *f;

    for (uint32_t rank = 1; rank <= p->n; rank++) {
        struct sched_seq *best = NULL;

        for (uint32_t i = 0, seen = 0; i < p->n && seen != p->tenants; i++) {
            struct sched_seq *s = &seqs[p->seq[i]];
            if (s->rank != 0 || (seen >> s->tenant & 1) != 0)
                continue;
            seen |= UINT32_C(1) << s->tenant;
            if (best == NULL ||
                fair_share_start(&served, s->tenant) < fair_share_start(&served, best->tenant))
                best = s;
        }
        best->rank = rank;
        fair_share_charge(&served, best->tenant, sched_todo(best));
    }
    for (uint32_t i = 0; i < n_seqs; i++) {
        if (is_prompt(&seqs[i]) && seqs[i].rank == 0)
            seqs[i].rank = UINT32_MAX; /* more than are ranked: behind those */
    }
}

void fair_share_rank(const struct fair_share *f, struct sched_seq *seqs, uint32_t n_seqs)
{
    struct prompts p;

    if (f->n < 2)
        return;
    gather(f, seqs, n_seqs, &p);
    if ((p.tenants & (p.tenants - 1)) != 0)
        assign(f, seqs, n_seqs, &p);
}
