/* arena.h - segment arena-e<E>-w<W>: the paged KV memory of one worker for one engine.
 *
 * The engine lays it out and owns which block is whose (its free list is private, the directory
 * says it to others); engine copy threads and the worker write the blocks.  The header carries a
 * copy of the KV geometry, so that a worker needs no model file.  The owner tag per block is for
 * tests and for looking in: it proves that no block changed hands early.  Blocks are never zeroed:
 * whoever acquires one writes before it reads. */
#ifndef OMNI_COMMON_SHM_ARENA_H
#define OMNI_COMMON_SHM_ARENA_H

#include "common/base/invariant.h"
#include "common/shm/layout_arena.h"
#include "common/shm/segment.h"

struct arena {
    struct segment segment;
    struct arena_shared *shared;
    struct kv_geometry geometry; /* checked copy */
    uint32_t n_blocks;
    uint8_t *blocks;
    _Atomic uint64_t *owners;
    bool created;          /* engine: new, not taken over */
    struct error replaced; /* engine: why the one that was there did not fit; "" = none was */
};
#define ARENA_NONE ((struct arena){.segment = {.fd = -1}})

/* Engine: with reuse, takes over a fitting arena that is there (same geometry, same number of
 * blocks); else creates one (n_blocks: arena_blocks_for).  reuse must be false if the job table
 * of the same worker was created anew: a worker may still run jobs of the old table, and would
 * write into the old arena. */
int arena_open(struct arena *a, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
               const struct kv_geometry *g, uint32_t n_blocks, bool reuse, int numa_node,
               struct error *err);

/* Worker, read-write; tool, read-only.  Errors as segment_attach. */
int arena_attach(struct arena *a, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                 bool writable, struct error *err);

void arena_detach(struct arena *a);

/* Blocks that fit into a segment of that many bytes, header and tags included. */
uint32_t arena_blocks_for(const struct kv_geometry *g, uint64_t bytes);

static inline uint8_t *arena_block(const struct arena *a, uint32_t idx)
{
    invariant(idx < a->n_blocks);
    return a->blocks + (uint64_t)idx * a->geometry.block_bytes;
}

/* Owner tag (engine writes, relaxed): 0, 0 = none. */
void arena_set_owner(struct arena *a, uint32_t idx, uint32_t seq_idx, uint32_t seq_gen);
uint64_t arena_owner(const struct arena *a, uint32_t idx);

/* The KV of a layer as kernels take it: table holds n block ids of this arena, already checked to
 * be below n_blocks. */
struct kv_view arena_view(const struct arena *a, uint32_t layer, const uint32_t *table,
                          uint32_t n_blocks);

#endif
