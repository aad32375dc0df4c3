#include "common/sched/job_order.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double window_ns = 1e9; /* a share is of the last second, the past fading away */

static int init_links(struct job_order *o, uint32_t n_links)
{
    o->links = calloc(n_links, sizeof *o->links);
    o->n_links = o->links != NULL ? n_links : 0;
    for (uint32_t i = 0; i < o->n_links; i++) {
        struct job_order_link *l = &o->links[i];

        l->part = 1;
        l->hopeful.entries = calloc(o->cap, sizeof *l->hopeful.entries);
        l->late.entries = calloc(o->cap, sizeof *l->late.entries);
        if (l->hopeful.entries == NULL || l->late.entries == NULL)
            return -ENOMEM;
    }
    return o->links != NULL ? 0 : -ENOMEM;
}

static int init(struct job_order *o, uint32_t cap, uint32_t n_links)
{
    memset(o, 0, sizeof *o);
    o->cap = cap;
    o->items = calloc(cap, sizeof *o->items);
    o->free = calloc(cap, sizeof *o->free);
    if (o->items == NULL || o->free == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < cap; i++)
        o->free[i] = i;
    return init_links(o, n_links);
}

int job_order_init(struct job_order *o, uint32_t cap)
{
    return init(o, cap, 1);
}

int job_order_init_shared(struct job_order *o, uint32_t cap, const uint32_t *shares,
                          uint32_t n_links)
{
    uint64_t sum = 0;
    int rc = init(o, cap, n_links);

    for (uint32_t i = 0; i < n_links; i++)
        sum += shares[i];
    for (uint32_t i = 0; rc == 0 && i < n_links; i++)
        o->links[i].part = (double)shares[i] / (double)sum;
    return rc;
}

void job_order_fini(struct job_order *o)
{
    for (uint32_t i = 0; i < o->n_links; i++) {
        free(o->links[i].hopeful.entries);
        free(o->links[i].late.entries);
    }
    free(o->items);
    free(o->free);
    free(o->links);
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

/* ---- Shares ---------------------------------------------------------------------------------- */

static void fade(struct job_order *o, uint64_t now_ns)
{
    if (o->n_links == 1 || now_ns <= o->used_ns)
        return;
    double kept = exp(-(double)(now_ns - o->used_ns) / window_ns);

    for (uint32_t i = 0; i < o->n_links; i++)
        o->links[i].used *= kept;
    o->used_ns = now_ns;
}

void job_order_charge(struct job_order *o, uint32_t link, uint64_t start_ns, uint64_t end_ns)
{
    fade(o, end_ns);
    if (o->n_links > 1 && end_ns > start_ns)
        o->links[link].used += 1 - exp(-(double)(end_ns - start_ns) / window_ns);
}

/* ---- The order ------------------------------------------------------------------------------- */

/* Without shares all links are one. */
static struct job_order_link *link_of(struct job_order *o, uint32_t link)
{
    return &o->links[o->n_links == 1 ? 0 : link];
}

bool job_order_push(struct job_order *o, const struct job_order_item *item)
{
    if (o->n == o->cap)
        return false;
    uint32_t i = o->free[o->cap - ++o->n];
    o->items[i] = *item;
    heap_push(&link_of(o, item->link)->hopeful,
              (struct job_order_entry){.key = item->job.deadline_ns,
                                       .posted_ns = item->job.posted_ns,
                                       .slot = item->job.slot,
                                       .item = i});
    return true;
}

/* Those at the top that cannot make it any more go over to the late. */
static void give_up_hope(struct job_order *o, struct job_order_link *l, uint64_t now_ns)
{
    while (l->hopeful.n > 0) {
        const struct job_order_entry *top = &l->hopeful.entries[0];

        if (now_ns + o->items[top->item].predicted_ns <= top->key)
            return;
        struct job_order_entry late = heap_pop(&l->hopeful);
        late.key = late.posted_ns;
        heap_push(&l->late, late);
    }
}

static void look_for(struct job_order_heap *h, struct job_order_heap **best)
{
    if (h->n > 0 && (*best == NULL || goes_before(&h->entries[0], &(*best)->entries[0])))
        *best = h;
}

/* The heap whose top is next: of those within their shares, or of all. */
static struct job_order_heap *next_heap(struct job_order *o, bool all)
{
    struct job_order_heap *hopeful = NULL, *late = NULL;

    for (uint32_t i = 0; i < o->n_links; i++) {
        struct job_order_link *l = &o->links[i];

        if (!all && l->used > l->part)
            continue;
        look_for(&l->hopeful, &hopeful);
        look_for(&l->late, &late);
    }
    return hopeful != NULL ? hopeful : late;
}

bool job_order_pop(struct job_order *o, uint64_t now_ns, struct job_order_item *out)
{
    if (o->n == 0)
        return false;
    fade(o, now_ns);
    for (uint32_t i = 0; i < o->n_links; i++)
        give_up_hope(o, &o->links[i], now_ns);
    struct job_order_heap *h = next_heap(o, false);
    struct job_order_entry next = heap_pop(h != NULL ? h : next_heap(o, true));
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
    struct job_order_link *l = link_of(o, link);

    heap_drop_link(o, &l->hopeful, link);
    heap_drop_link(o, &l->late, link);
}
