/* layout_arena.h - arena-e<E>-w<W>: the KV blocks of one worker for one engine.
 *
 *   0            struct arena_shared
 *   owners_off   owner tag u64[n_blocks]: seq_gen << 32 | seq_idx; 0 = none (generations > 0)
 *   blocks_off   blocks [n_blocks][geometry.block_bytes]; aligned to 4 KiB, to 2 MiB if it is large
 *
 * Tags: E, relaxed | T; whoever acquired the block, also where others share it and outlive it.
 * Blocks: E (copies) and W (jobs), ordered by the job that names them.
 * Notation and rules: layout.h. */
#ifndef OMNI_COMMON_SHM_LAYOUT_ARENA_H
#define OMNI_COMMON_SHM_LAYOUT_ARENA_H

#include "common/kv/geometry.h"
#include "common/shm/layout.h"

enum { ARENA_LAYOUT_VERSION = 1 };

struct arena_shared {
    struct segment_header header; /*   0 */
    uint64_t n_blocks;            /* 128 C | both */
    uint64_t owners_off;          /* 136 C | both */
    uint64_t blocks_off;          /* 144 C | both */
    uint64_t reserved[5];
    struct kv_geometry geometry; /* 192 C | both; checked by whoever attaches */
};
static_assert(sizeof(struct arena_shared) == 192 + sizeof(struct kv_geometry), "arena_shared");

#endif
