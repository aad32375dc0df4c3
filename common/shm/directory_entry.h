/* directory_entry.h - addresses inside a directory entry; private to directory*.c.
 *
 * The strides come from the checked copies in struct directory, never from shared memory. */
#ifndef OMNI_COMMON_SHM_DIRECTORY_ENTRY_H
#define OMNI_COMMON_SHM_DIRECTORY_ENTRY_H

#include "common/shm/directory.h"

static inline struct directory_entry *directory_entry_at(const struct directory *d, uint32_t idx)
{
    return (struct directory_entry *)(void *)(d->segment.base + d->entries_off +
                                              (uint64_t)idx * d->entry_stride);
}

static inline uint32_t *directory_entry_blocks(const struct directory *d,
                                               const struct directory_entry *e, uint32_t group)
{
    return (uint32_t *)(uintptr_t)((uintptr_t)e + d->blocks_off) + (size_t)group * d->blocks_max;
}

static inline uint32_t *directory_entry_log(const struct directory *d,
                                            const struct directory_entry *e)
{
    return (uint32_t *)(uintptr_t)((uintptr_t)e + d->log_off);
}

static inline enum directory_state directory_entry_state(const struct directory_entry *e,
                                                         uint32_t group)
{
    /* T2: acquire, pairs with T1 in directory.c. */
    return (enum directory_state)atomic_load_explicit(&e->state[group], memory_order_acquire);
}

/* The private free list from the entries' states. */
void directory_rebuild_free(struct directory *d);

#endif
