#include "common/shm/ring.h"

#include <errno.h>

#include "common/base/invariant.h"

static bool capacity_is_valid(uint32_t n)
{
    return n >= 2 && n <= RING_CAPACITY_MAX && (n & (n - 1)) == 0;
}

size_t ring_bytes(uint32_t capacity)
{
    size_t bytes = sizeof(struct ring_shared) + (size_t)capacity * sizeof(uint64_t);

    return (bytes + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
}

void ring_init(void *memory, uint32_t capacity)
{
    struct ring_shared *shared = memory;

    invariant(capacity_is_valid(capacity) && (uintptr_t)memory % SHM_LINE == 0);
    shared->capacity = capacity;
}

int ring_attach(struct ring *r, void *memory, uint32_t capacity)
{
    struct ring_shared *shared = memory;
    uint32_t head, tail;

    if (!capacity_is_valid(capacity) || shared->capacity != capacity)
        return -EINVAL;
    /* Tail first: head only grows, so a ring in use cannot look impossible.  Acquire as in A1, A2:
     * whoever attaches goes on where the last one of its role was. */
    tail = atomic_load_explicit(&shared->tail, memory_order_acquire);
    head = atomic_load_explicit(&shared->head, memory_order_acquire);
    *r = (struct ring){.shared = shared,
                       .entries = (uint64_t *)(void *)(shared + 1),
                       .capacity = capacity,
                       .head = head,
                       .tail = tail};
    return head - tail <= capacity ? 0 : -EINVAL;
}

/* Free places, looking at the shared tail only when the private copy says full. */
static uint32_t room(struct ring *r, uint32_t wanted)
{
    uint32_t n = r->capacity - (r->head - r->tail);

    if (n < wanted) {
        /* A2: acquire, pairs with R2: the consumer has read what is about to be overwritten. */
        r->tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
        n = r->capacity - (r->head - r->tail);
        if (n > r->capacity) /* a damaged tail: as good as full */
            n = 0;
    }
    return n < wanted ? n : wanted;
}

uint32_t ring_push_many(struct ring *r, const uint64_t *entries, uint32_t n)
{
    n = room(r, n);
    for (uint32_t i = 0; i < n; i++)
        r->entries[(r->head + i) & (r->capacity - 1)] = entries[i];
    r->head += n;
    /* R1: release, pairs with A1: the entries are there before the index says so. */
    atomic_store_explicit(&r->shared->head, r->head, memory_order_release);
    return n;
}

bool ring_push(struct ring *r, uint64_t entry)
{
    return ring_push_many(r, &entry, 1) == 1;
}

/* Entries to pop, looking at the shared head only when the private copy says empty. */
static uint32_t available(struct ring *r, uint32_t wanted)
{
    uint32_t n = r->head - r->tail;

    if (n < wanted) {
        /* A1: acquire, pairs with R1. */
        r->head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
        n = r->head - r->tail;
        if (n > r->capacity) { /* a damaged head: what it leads to are no hints */
            r->head = r->tail;
            n = 0;
        }
    }
    return n < wanted ? n : wanted;
}

uint32_t ring_pop_many(struct ring *r, uint64_t *entries, uint32_t n)
{
    n = available(r, n);
    if (n == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        entries[i] = r->entries[(r->tail + i) & (r->capacity - 1)];
    r->tail += n;
    /* R2: release, pairs with A2: the entries were read before their places are free. */
    atomic_store_explicit(&r->shared->tail, r->tail, memory_order_release);
    return n;
}

bool ring_pop(struct ring *r, uint64_t *entry)
{
    return ring_pop_many(r, entry, 1) == 1;
}

bool ring_ready(struct ring *r)
{
    return available(r, 1) > 0;
}

void ring_skip_to_head(struct ring *r)
{
    r->head = atomic_load_explicit(&r->shared->head, memory_order_acquire); /* as A1 */
    r->tail = r->head;
    atomic_store_explicit(&r->shared->tail, r->tail, memory_order_release); /* as R2 */
}
