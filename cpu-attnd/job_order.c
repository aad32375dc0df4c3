#include "cpu-attnd/job_order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int job_order_init(struct job_order *o, uint32_t cap)
{
    memset(o, 0, sizeof *o);
    o->items = calloc(cap, sizeof *o->items);
    o->cap = cap;
    return o->items == NULL ? -ENOMEM : 0;
}

void job_order_fini(struct job_order *o)
{
    free(o->items);
    memset(o, 0, sizeof *o);
}

bool job_order_push(struct job_order *o, const struct job_order_item *item)
{
    if (o->n == o->cap)
        return false;
    o->items[o->n++] = *item;
    return true;
}

static bool can_make_it(const struct job_order_item *i, uint64_t now_ns)
{
    return now_ns + i->predicted_ns <= i->job.deadline_ns;
}

/* Age: the time of posting, ties by slot.  Not the sweep, which counts from each engine's own
 * start: jobs of a young engine would pass for older than all of an old one's. */
static bool is_older(const struct job *a, const struct job *b)
{
    return a->posted_ns != b->posted_ns ? a->posted_ns < b->posted_ns : a->slot < b->slot;
}

static bool goes_before(const struct job_order_item *a, const struct job_order_item *b,
                        uint64_t now_ns)
{
    bool a_makes_it = can_make_it(a, now_ns), b_makes_it = can_make_it(b, now_ns);

    if (a_makes_it != b_makes_it)
        return a_makes_it;
    if (a_makes_it && a->job.deadline_ns != b->job.deadline_ns)
        return a->job.deadline_ns < b->job.deadline_ns;
    return is_older(&a->job, &b->job);
}

bool job_order_pop(struct job_order *o, uint64_t now_ns, struct job_order_item *out)
{
    uint32_t best = 0;

    if (o->n == 0)
        return false;
    for (uint32_t i = 1; i < o->n; i++) {
        if (goes_before(&o->items[i], &o->items[best], now_ns))
            best = i;
    }
    *out = o->items[best];
    o->items[best] = o->items[--o->n];
    return true;
}

void job_order_drop_link(struct job_order *o, uint32_t link)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < o->n; i++) {
        if (o->items[i].link != link)
            o->items[n++] = o->items[i];
    }
    o->n = n;
}
