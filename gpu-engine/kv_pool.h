/* kv_pool.h - the books of one pool of KV blocks: the device's, or one worker's arena.
 *
 * A block has a reference count: several sequences may hold it once it is full.  A full block is
 * immutable and sealed under a chained hash of (model, adapter, all tokens up to its end): whoever
 * needs the same prefix finds it by that hash instead of computing or copying it again.  Blocks
 * that are not full have one holder.
 *
 * The pool knows nothing of memory; ids are 0..n_blocks-1.  Engine thread only.  Nothing is
 * allocated after init. */
#ifndef OMNI_GPU_ENGINE_KV_POOL_H
#define OMNI_GPU_ENGINE_KV_POOL_H

#include <stdint.h>

#include "common/base/siphash.h"

#define KV_BLOCK_NONE UINT32_MAX

struct kv_pool_block {
    uint64_t hash; /* 0 = not sealed */
    uint32_t refs; /* 0 = free */
    uint32_t next; /* free list, or chain of the hash bucket */
};

struct kv_pool {
    struct kv_pool_block *blocks;
    uint32_t *buckets; /* power of two >= n_blocks */
    uint32_t n_blocks, n_buckets, n_free;
    uint32_t n_shared; /* blocks with more than one holder */
    uint32_t free_head;
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int kv_pool_init(struct kv_pool *p, uint32_t n_blocks);
void kv_pool_fini(struct kv_pool *p);

/* A free block with one reference, or KV_BLOCK_NONE. */
uint32_t kv_pool_acquire(struct kv_pool *p);

/* One more holder of a sealed block. */
void kv_pool_share(struct kv_pool *p, uint32_t block);

/* One holder less; the last one frees the block (and its seal). */
void kv_pool_release(struct kv_pool *p, uint32_t block);

/* The block is full and never changes again.  A hash that another block already has stays with
 * that one.  hash is not 0. */
void kv_pool_seal(struct kv_pool *p, uint32_t block, uint64_t hash);

/* The sealed block of that hash, or KV_BLOCK_NONE.  Does not take a reference. */
uint32_t kv_pool_find(const struct kv_pool *p, uint64_t hash);

/* Hash of the block that follows `before` (kv_chain_start for the first) and holds these tokens.
 * Tokens are chosen by clients, and equal hashes mean equal KV: so the hash is keyed, and nobody
 * can make one that meets another's prefix. */
static inline uint64_t kv_chain_hash(const struct siphash_key *key, uint64_t before,
                                     const uint32_t *tokens, uint32_t n)
{
    struct siphash_key chained = {.k = {key->k[0] ^ before, key->k[1]}};
    uint64_t h = siphash(&chained, tokens, n * sizeof *tokens);

    return h != 0 ? h : 1;
}

/* Start of a sequence's chain. */
static inline uint64_t kv_chain_start(const struct siphash_key *key, uint64_t model_hash,
                                      uint64_t adapter)
{
    uint64_t of[2] = {model_hash, adapter};

    return siphash(key, of, sizeof of);
}

/* Counts references and free blocks anew: 0 if the books agree, else -EUCLEAN.  For idle checks. */
int kv_pool_check(const struct kv_pool *p);

#endif
