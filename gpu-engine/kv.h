/* kv.h - the device blocks of a sequence: growing, sharing a prefix, sealing, dropping.
 *
 * All layer groups of a sequence grow together; a group's table is s->blocks[g * table_max].
 * Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_KV_H
#define OMNI_GPU_ENGINE_KV_H

#include "gpu-engine/engine.h"

/* Makes room for n_tokens positions.  All or nothing: 0, or -ENOSPC. */
int kv_grow(struct engine *e, struct sequence *s, uint32_t n_tokens);

/* A sequence without KV takes over the full blocks of its tokens that others hold already; n_kv
 * moves past them: n_positions at most, and never past the last token, which must be computed to
 * sample. */
void kv_share_prefix(struct engine *e, struct sequence *s, uint32_t n_positions);

/* Leading positions that kv_share_prefix could take over now. */
uint32_t kv_shareable(struct engine *e, const struct sequence *s);

/* Device blocks (all groups) that would come free if the sequence gave its own up. */
uint32_t kv_n_freed(const struct engine *e, const struct sequence *s);

/* Seals the blocks that n_kv has passed, so that others may share them. */
void kv_seal(struct engine *e, struct sequence *s);

/* Gives all device blocks back; n_kv stays (the KV may live in an arena). */
void kv_release(struct engine *e, struct sequence *s);

/* Identity of a sealed block of group g, after the chain of its tokens. */
uint64_t kv_group_hash(uint64_t chain, uint32_t group);

#endif
