#include "common/sched/job_order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int job_order_init(struct job_order *o, uint32_t cap)
{
    memset(o, 0, sizeof *o);
    o->items = calloc(cap, sizeof *o->items);
    o->free = calloc(cap, sizeof *o->free);
    o->hopeful.entries = calloc(cap, sizeof *o->hopeful.entries);
    o->late.entries = calloc(cap, sizeof *o->late.entries);
    o->cap = cap;
    for (uint32_t i = 0; o->free != NULL && i < cap; i++)
        o->free[i] = i;
    return o->items == NULL || o->free == NULL || o->hopeful.entries == NULL ||
                   o->late.entries == NULL
               ? -ENOMEM
               : 0;
}

void job_order_fini(struct job_order *o)
{
    free(o->items);
    free(o->free);
    free(o->hopeful.entries);
    free(o->late.entries);
    memset(o, 0, sizeof *o);
}

/* ---- A heap ---------------------------------------------------------------------------------- */

/* Age: the time of posting, ties by slot.  Not the sweep, which counts from each engine's own
 * start: jobs of a young engine would pass for older than all of an old one's. */
static bool goes_before(const struct job_order_entry *a, const struct job_order_entry *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    return a->posted_ns != b->posted_ns ? a->posted_ns < b->posted_ns : a->slot < b->slot;
}

static void heap_push(struct job_order_heap *h, struct job_order_entry entry)
{
    uint32_t at = h->n++;

    while (at > 0 && goes_before(&entry, &h->entries[(at - 1) / 2])) {
        h->entries[at] = h->entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->entries[at] = entry;
}

/* Puts the entry in at the top, whose place is free. */
static void sift_down(struct job_order_heap *h, struct job_order_entry entry)
{
    uint32_t at = 0, child;

    while ((child = 2 * at + 1) < h->n) {
        if (child + 1 < h->n && goes_before(&h->entries[child + 1], &h->entries[child]))
            child++;
        if (!goes_before(&h->entries[child], &entry))
            break;
        h->entries[at] = h->entries[child];
        at = child;
    }
    h->entries[at] = entry;
}

static struct job_order_entry heap_pop(struct job_order_heap *h)
{
    struct job_order_entry top = h->entries[0];

    h->n--;
    if (h->n > 0)
        sift_down(h, h->entries[h->n]);
    return top;
}

/* ---- The order ------------------------------------------------------------------------------- */

bool job_order_push(struct job_order *o, const struct job_order_item *item)
{
    if (o->n == o->cap)
        return false;
    uint32_t i = o->free[o->cap - ++o->n];
    o->items[i] = *item;
    heap_push(&o->hopeful, (struct job_order_entry){.key = item->job.deadline_ns,
                                                    .posted_ns = item->job.posted_ns,
                                                    .slot = item->job.slot,
                                                    .item = i});
    return true;
}

/* Those at the top that cannot make it any more go over to the late. */
static void give_up_hope(struct job_order *o, uint64_t now_ns)
{
    while (o->hopeful.n > 0) {
        const struct job_order_entry *top = &o->hopeful.entries[0];

        if (now_ns + o->items[top->item].predicted_ns <= top->key)
            return;
        struct job_order_entry late = heap_pop(&o->hopeful);
        late.key = late.posted_ns;
        heap_push(&o->late, late);
    }
}

bool job_order_pop(struct job_order *o, uint64_t now_ns, struct job_order_item *out)
{
    if (o->n == 0)
        return false;
    give_up_hope(o, now_ns);
    struct job_order_entry next = heap_pop(o->hopeful.n > 0 ? &o->hopeful : &o->late);
    *out = o->items[next.item];
    o->free[o->cap - o->n--] = next.item;
    return true;
}

static void heap_drop_link(struct job_order *o, struct job_order_heap *h, uint32_t link)
{
    uint32_t n = h->n;

    h->n = 0;
    for (uint32_t i = 0; i < n; i++) { /* the heap that grows never overtakes the one it reads */
        struct job_order_entry entry = h->entries[i];

        if (o->items[entry.item].link == link)
            o->free[o->cap - o->n--] = entry.item;
        else
            heap_push(h, entry);
    }
}

void job_order_drop_link(struct job_order *o, uint32_t link)
{
    heap_drop_link(o, &o->hopeful, link);
    heap_drop_link(o, &o->late, link);
}
