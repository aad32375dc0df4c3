/* class_queue.h - bounded queues, one per class, over one set of items; tenants share each by weight.
 *
 * Classes are an ordered list: class 0 is served first, then 1, and so on (today 0 is "ls" and 1 is
 * "be"; nothing here knows that).  An item is a small number that the caller gives a meaning, such
 * as a slot of its request table; an item waits in at most one class at a time.
 *
 * In a class each tenant's items are first in, first out; between tenants the one that is furthest
 * behind its share goes first, what was served counted by the items' costs (fair_share.h).  So when
 * several tenants always have items waiting, what each got differs from its weight's share by no more
 * than one item of each.  A class that is full still takes from a tenant that has less than its
 * share of the bound waiting: nobody can fill a queue for the others.
 * All storage is allocated by init; front is O(classes + tenants), the others are O(1).
 * Not thread-safe: one owner. */
#ifndef OMNI_COMMON_SCHED_CLASS_QUEUE_H
#define OMNI_COMMON_SCHED_CLASS_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sched/fair_share.h"

#define CLASS_QUEUE_CLASSES_MAX 8
#define CLASS_QUEUE_NONE        UINT32_MAX /* no such item */

enum class_queue_result { CLASS_QUEUE_OK, CLASS_QUEUE_FULL };

struct class_queue_link {
    uint32_t prev, next; /* CLASS_QUEUE_NONE at the ends */
    uint32_t class_idx;  /* the queue it waits in; CLASS_QUEUE_NONE: in none */
    uint32_t tenant, cost;
};

struct class_queue_tenant {
    uint32_t head, tail;
    uint32_t length;
};

struct class_queue_list {
    struct class_queue_tenant tenants[FAIR_TENANTS_MAX];
    struct fair_share fair;
    uint32_t length, length_max;
    bool blocked; /* front passes over it */
};

struct class_queue {
    uint32_t n_classes, n_items, n_tenants;
    uint32_t weights; /* of all tenants */
    struct class_queue_list lists[CLASS_QUEUE_CLASSES_MAX];
    struct class_queue_link *links; /* [n_items], owned */
};

/* length_max[c] bounds class c.  Items are 0 .. n_items - 1.  0, -EINVAL (n_classes is 0 or above
 * CLASS_QUEUE_CLASSES_MAX, or there are no items), -ENOMEM; fini is safe after each. */
int class_queue_init(struct class_queue *q, uint32_t n_classes, const uint32_t *length_max,
                     uint32_t n_items);
void class_queue_fini(struct class_queue *q);

/* While nothing waits: from now on n tenants, with weights above 0.  Before that there is one. */
void class_queue_set_tenants(struct class_queue *q, uint32_t n, const uint32_t *weights);

/* Puts an item behind all others of the class, or of the tenant in the class.  CLASS_QUEUE_FULL
 * leaves everything as it was. */
enum class_queue_result class_queue_push(struct class_queue *q, uint32_t class_idx, uint32_t item);
enum class_queue_result class_queue_push_for(struct class_queue *q, uint32_t class_idx,
                                             uint32_t tenant, uint32_t cost, uint32_t item);

/* Puts an item that was served and came back before all others of its tenant; it has cost nothing
 * then.  Never refused: it was counted against the bound when it first came, so the class may exceed
 * its bound by the items that are under way. */
void class_queue_push_front(struct class_queue *q, uint32_t class_idx, uint32_t item);

/* The item to serve next: of the first class that has one and is not blocked; it stays in the queue.
 * CLASS_QUEUE_NONE if there is none. */
uint32_t class_queue_front(const struct class_queue *q);

/* The tenant's oldest in the class, or CLASS_QUEUE_NONE. */
uint32_t class_queue_head(const struct class_queue *q, uint32_t class_idx, uint32_t tenant);

/* Takes the item out as served: its tenant has had its cost. */
void class_queue_serve(struct class_queue *q, uint32_t item);

/* Takes an item out, wherever it waits, for nothing.  False if it did not wait. */
bool class_queue_remove(struct class_queue *q, uint32_t item);

/* A class that is blocked keeps its items but is passed over by front: the classes after it are
 * served while its own front cannot be. */
void class_queue_set_blocked(struct class_queue *q, uint32_t class_idx, bool blocked);

uint32_t class_queue_length(const struct class_queue *q, uint32_t class_idx);

#endif
