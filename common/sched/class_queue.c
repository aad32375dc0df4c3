#include "common/sched/class_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

static const uint32_t one_share = 1;

int class_queue_init(struct class_queue *q, uint32_t n_classes, const uint32_t *length_max,
                     uint32_t n_items)
{
    memset(q, 0, sizeof *q);
    if (n_classes == 0 || n_classes > CLASS_QUEUE_CLASSES_MAX || n_items == 0 ||
        n_items == CLASS_QUEUE_NONE)
        return -EINVAL;
    q->links = calloc(n_items, sizeof *q->links);
    if (!q->links)
        return -ENOMEM;
    q->n_classes = n_classes;
    q->n_items = n_items;
    for (uint32_t c = 0; c < n_classes; c++)
        q->lists[c].length_max = length_max[c];
    class_queue_set_tenants(q, 1, &one_share);
    for (uint32_t i = 0; i < n_items; i++)
        q->links[i].class_idx = CLASS_QUEUE_NONE;
    return 0;
}

void class_queue_set_tenants(struct class_queue *q, uint32_t n, const uint32_t *weights)
{
    q->n_tenants = n;
    q->weights = 0;
    for (uint32_t t = 0; t < n; t++)
        q->weights += weights[t];
    for (uint32_t c = 0; c < q->n_classes; c++) {
        struct class_queue_list *list = &q->lists[c];

        invariant(list->length == 0);
        fair_share_init(&list->fair, n, weights);
        for (uint32_t t = 0; t < n; t++)
            list->tenants[t] =
                (struct class_queue_tenant){.head = CLASS_QUEUE_NONE, .tail = CLASS_QUEUE_NONE};
    }
}

void class_queue_fini(struct class_queue *q)
{
    free(q->links);
    memset(q, 0, sizeof *q);
}

/* Links item between prev and next, of which either may be CLASS_QUEUE_NONE. */
static void insert(struct class_queue *q, uint32_t class_idx, uint32_t item, uint32_t prev,
                   uint32_t next)
{
    struct class_queue_link *link = &q->links[item];
    struct class_queue_tenant *t = &q->lists[class_idx].tenants[link->tenant];

    invariant(link->class_idx == CLASS_QUEUE_NONE);
    link->prev = prev;
    link->next = next;
    link->class_idx = class_idx;
    if (prev == CLASS_QUEUE_NONE)
        t->head = item;
    else
        q->links[prev].next = item;
    if (next == CLASS_QUEUE_NONE)
        t->tail = item;
    else
        q->links[next].prev = item;
    t->length++;
    q->lists[class_idx].length++;
}

/* A full class is not full for a tenant that has less than its share of it. */
static bool is_full_for(const struct class_queue *q, uint32_t class_idx, uint32_t tenant)
{
    const struct class_queue_list *list = &q->lists[class_idx];
    double share = list->length_max * list->fair.weight[tenant] / q->weights;

    return list->length >= list->length_max &&
           (q->n_tenants == 1 || list->tenants[tenant].length >= share);
}

enum class_queue_result class_queue_push_for(struct class_queue *q, uint32_t class_idx,
                                             uint32_t tenant, uint32_t cost, uint32_t item)
{
    invariant(class_idx < q->n_classes && item < q->n_items && tenant < q->n_tenants);
    if (is_full_for(q, class_idx, tenant))
        return CLASS_QUEUE_FULL;
    q->links[item].tenant = tenant;
    q->links[item].cost = cost;
    insert(q, class_idx, item, q->lists[class_idx].tenants[tenant].tail, CLASS_QUEUE_NONE);
    return CLASS_QUEUE_OK;
}

enum class_queue_result class_queue_push(struct class_queue *q, uint32_t class_idx, uint32_t item)
{
    return class_queue_push_for(q, class_idx, 0, 1, item);
}

void class_queue_push_front(struct class_queue *q, uint32_t class_idx, uint32_t item)
{
    invariant(class_idx < q->n_classes && item < q->n_items);
    const struct class_queue_link *link = &q->links[item];
    struct class_queue_list *list = &q->lists[class_idx];

    fair_share_charge(&list->fair, link->tenant, -(double)link->cost);
    insert(q, class_idx, item, CLASS_QUEUE_NONE, list->tenants[link->tenant].head);
}

uint32_t class_queue_head(const struct class_queue *q, uint32_t class_idx, uint32_t tenant)
{
    invariant(class_idx < q->n_classes && tenant < q->n_tenants);
    return q->lists[class_idx].tenants[tenant].head;
}

/* Of the tenant that is furthest behind. */
static uint32_t front_of(const struct class_queue *q, const struct class_queue_list *list)
{
    uint32_t best = CLASS_QUEUE_NONE;

    for (uint32_t t = 0; t < q->n_tenants; t++) {
        if (list->tenants[t].length > 0 &&
            (best == CLASS_QUEUE_NONE ||
             fair_share_start(&list->fair, t) < fair_share_start(&list->fair, best)))
            best = t;
    }
    return list->tenants[best].head;
}

uint32_t class_queue_front(const struct class_queue *q)
{
    for (uint32_t c = 0; c < q->n_classes; c++) {
        if (q->lists[c].length > 0 && !q->lists[c].blocked)
            return front_of(q, &q->lists[c]);
    }
    return CLASS_QUEUE_NONE;
}

bool class_queue_remove(struct class_queue *q, uint32_t item)
{
    invariant(item < q->n_items);
    struct class_queue_link *link = &q->links[item];

    if (link->class_idx == CLASS_QUEUE_NONE)
        return false;
    struct class_queue_list *list = &q->lists[link->class_idx];
    struct class_queue_tenant *t = &list->tenants[link->tenant];

    if (link->prev == CLASS_QUEUE_NONE)
        t->head = link->next;
    else
        q->links[link->prev].next = link->next;
    if (link->next == CLASS_QUEUE_NONE)
        t->tail = link->prev;
    else
        q->links[link->next].prev = link->prev;
    t->length--;
    list->length--;
    link->class_idx = CLASS_QUEUE_NONE;
    return true;
}

void class_queue_serve(struct class_queue *q, uint32_t item)
{
    invariant(item < q->n_items && q->links[item].class_idx < q->n_classes);
    struct class_queue_list *list = &q->lists[q->links[item].class_idx];
    uint32_t waiting = 0;

    for (uint32_t t = 0; t < q->n_tenants; t++)
        waiting |= list->tenants[t].length > 0 ? UINT32_C(1) << t : 0;
    fair_share_advance(&list->fair, waiting);
    fair_share_charge(&list->fair, q->links[item].tenant, q->links[item].cost);
    class_queue_remove(q, item);
}

void class_queue_set_blocked(struct class_queue *q, uint32_t class_idx, bool blocked)
{
    invariant(class_idx < q->n_classes);
    q->lists[class_idx].blocked = blocked;
}

uint32_t class_queue_length(const struct class_queue *q, uint32_t class_idx)
{
    invariant(class_idx < q->n_classes);
    return q->lists[class_idx].length;
}
