#include "gpu-engine/kv_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

int kv_pool_init(struct kv_pool *p, uint32_t n_blocks)
{
    memset(p, 0, sizeof *p);
    p->n_blocks = p->n_free = n_blocks;
    p->n_buckets = 1;
    while (p->n_buckets < n_blocks)
        p->n_buckets *= 2;
    p->blocks = calloc(n_blocks + 1U, sizeof *p->blocks);
    p->buckets = malloc(p->n_buckets * sizeof *p->buckets);
    if (p->blocks == NULL || p->buckets == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_buckets; i++)
        p->buckets[i] = KV_BLOCK_NONE;
    for (uint32_t i = 0; i < n_blocks; i++)
        p->blocks[i].next = i + 1 < n_blocks ? i + 1 : KV_BLOCK_NONE;
    p->free_head = n_blocks > 0 ? 0 : KV_BLOCK_NONE;
    return 0;
}

void kv_pool_fini(struct kv_pool *p)
{
    free(p->blocks);
    free(p->buckets);
    memset(p, 0, sizeof *p);
}

uint32_t kv_pool_acquire(struct kv_pool *p)
{
    uint32_t block = p->free_head;

    if (block == KV_BLOCK_NONE)
        return KV_BLOCK_NONE;
    p->free_head = p->blocks[block].next;
    p->n_free--;
    p->blocks[block] = (struct kv_pool_block){.refs = 1, .next = KV_BLOCK_NONE};
    return block;
}

void kv_pool_share(struct kv_pool *p, uint32_t block)
{
    invariant(block < p->n_blocks && p->blocks[block].refs > 0 && p->blocks[block].hash != 0);
    p->n_shared += p->blocks[block].refs++ == 1;
}

static uint32_t *bucket_of(const struct kv_pool *p, uint64_t hash)
{
    return &p->buckets[hash & (p->n_buckets - 1)];
}

static void unseal(struct kv_pool *p, uint32_t block)
{
    uint32_t *link = bucket_of(p, p->blocks[block].hash);

    while (*link != block) {
        invariant(*link != KV_BLOCK_NONE);
        link = &p->blocks[*link].next;
    }
    *link = p->blocks[block].next;
    p->blocks[block].hash = 0;
}

void kv_pool_release(struct kv_pool *p, uint32_t block)
{
    invariant(block < p->n_blocks && p->blocks[block].refs > 0);
    if (--p->blocks[block].refs > 0) {
        p->n_shared -= p->blocks[block].refs == 1;
        return;
    }
    if (p->blocks[block].hash != 0)
        unseal(p, block);
    p->blocks[block].next = p->free_head;
    p->free_head = block;
    p->n_free++;
}

void kv_pool_seal(struct kv_pool *p, uint32_t block, uint64_t hash)
{
    invariant(block < p->n_blocks && p->blocks[block].refs > 0 && hash != 0);
    if (p->blocks[block].hash != 0 || kv_pool_find(p, hash) != KV_BLOCK_NONE)
        return;
    p->blocks[block].hash = hash;
    p->blocks[block].next = *bucket_of(p, hash);
    *bucket_of(p, hash) = block;
}

uint32_t kv_pool_find(const struct kv_pool *p, uint64_t hash)
{
    uint32_t block = *bucket_of(p, hash);

    while (block != KV_BLOCK_NONE && p->blocks[block].hash != hash)
        block = p->blocks[block].next;
    return block;
}

int kv_pool_check(const struct kv_pool *p)
{
    uint32_t n_free = 0, n_shared = 0, n_listed = 0, n_held = 0;

    for (uint32_t i = 0; i < p->n_blocks; i++) {
        n_free += p->blocks[i].refs == 0;
        n_shared += p->blocks[i].refs > 1;
    }
    for (uint32_t b = p->free_head; b != KV_BLOCK_NONE && n_listed <= p->n_blocks;
         b = p->blocks[b].next) {
        n_listed++;
        n_held += p->blocks[b].refs > 0;
    }
    return n_free == p->n_free && n_listed == p->n_free && n_held == 0 && n_shared == p->n_shared
               ? 0
               : -EUCLEAN;
}
