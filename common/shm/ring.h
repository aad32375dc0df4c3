/* ring.h - single-producer, single-consumer ring of 64-bit entries in memory the caller owns.
 *
 * DESIGN.  Capacity is a power of two, indices run freely through 32 bits and are masked.  Each
 * index has its own cache line and one writer; each side keeps a private copy of the other's index
 * and reads the shared one only when the copy says full (or empty).
 * Memory order, in pairs: R1 the producer releases head after writing entries, A1 the consumer
 * acquires head before reading them; R2 the consumer releases tail after reading, A2 the producer
 * acquires tail before overwriting.
 * Entries are hints only: after a crash a ring may hold doubled or stale ones, and a full ring
 * drops. The ring never sleeps; see bell.h. */
#ifndef OMNI_COMMON_SHM_RING_H
#define OMNI_COMMON_SHM_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm/layout.h"

enum { RING_CAPACITY_MAX = 1 << 20 };

/* One side's view; producer and consumer each have their own. */
struct ring {
    struct ring_shared *shared;
    uint64_t *entries;
    uint32_t capacity; /* checked once at attach; the shared one is not trusted again */
    uint32_t head;     /* producer: own index; consumer: last seen of the other's */
    uint32_t tail;     /* consumer: own index; producer: last seen of the other's */
};

/* Bytes of a ring of that capacity, a multiple of SHM_LINE. */
size_t ring_bytes(uint32_t capacity);

/* Creator: memory is zeroed, aligned to SHM_LINE and ring_bytes(capacity) long. */
void ring_init(void *memory, uint32_t capacity);

/* Either side.  -EINVAL if the memory does not hold a ring of that capacity, or its indices are
 * impossible (a damaged segment). */
int ring_attach(struct ring *r, void *memory, uint32_t capacity);

/* Producer: false = full. */
bool ring_push(struct ring *r, uint64_t entry);

/* Producer: pushes the first entries that fit and publishes them at once; how many. */
uint32_t ring_push_many(struct ring *r, const uint64_t *entries, uint32_t n);

/* Consumer: false = empty. */
bool ring_pop(struct ring *r, uint64_t *entry);

/* Consumer: pops at most n; how many. */
uint32_t ring_pop_many(struct ring *r, uint64_t *entries, uint32_t n);

/* Consumer: is there something to pop?  One acquire load. */
bool ring_ready(struct ring *r);

/* Consumer that has just attached: forgets everything pushed so far.  The producer's truth must be
 * scanned afterwards, not before. */
void ring_skip_to_head(struct ring *r);

#endif
