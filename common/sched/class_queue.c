#include "common/sched/class_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

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
        q->lists[c] = (struct class_queue_list){
            .head = CLASS_QUEUE_NONE, .tail = CLASS_QUEUE_NONE, .length_max = length_max[c]};
    for (uint32_t i = 0; i < n_items; i++)
        q->links[i].class_idx = CLASS_QUEUE_NONE;
    return 0;
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
    struct class_queue_list *list = &q->lists[class_idx];

    invariant(q->links[item].class_idx == CLASS_QUEUE_NONE);
    q->links[item] = (struct class_queue_link){.prev = prev, .next = next, .class_idx = class_idx};
    if (prev == CLASS_QUEUE_NONE)
        list->head = item;
    else
        q->links[prev].next = item;
    if (next == CLASS_QUEUE_NONE)
        list->tail = item;
    else
        q->links[next].prev = item;
    list->length++;
}

enum class_queue_result class_queue_push(struct class_queue *q, uint32_t class_idx, uint32_t item)
{
    invariant(class_idx < q->n_classes && item < q->n_items);
    if (q->lists[class_idx].length >= q->lists[class_idx].length_max)
        return CLASS_QUEUE_FULL;
    insert(q, class_idx, item, q->lists[class_idx].tail, CLASS_QUEUE_NONE);
    return CLASS_QUEUE_OK;
}

void class_queue_push_front(struct class_queue *q, uint32_t class_idx, uint32_t item)
{
    invariant(class_idx < q->n_classes && item < q->n_items);
    insert(q, class_idx, item, CLASS_QUEUE_NONE, q->lists[class_idx].head);
}

uint32_t class_queue_front(const struct class_queue *q)
{
    for (uint32_t c = 0; c < q->n_classes; c++) {
        if (q->lists[c].length > 0 && !q->lists[c].blocked)
            return q->lists[c].head;
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

    if (link->prev == CLASS_QUEUE_NONE)
        list->head = link->next;
    else
        q->links[link->prev].next = link->next;
    if (link->next == CLASS_QUEUE_NONE)
        list->tail = link->prev;
    else
        q->links[link->next].prev = link->prev;
    list->length--;
    link->class_idx = CLASS_QUEUE_NONE;
    return true;
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
