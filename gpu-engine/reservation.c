#include "gpu-engine/reservation.h"

#include "common/base/invariant.h"

static uint32_t *block_of(const struct engine *e, struct sequence *s, uint32_t g, uint32_t i)
{
    return &s->arena_blocks[g * e->table_max + i];
}

static void take_block(struct engine *e, struct sequence *s, uint32_t *to)
{
    *to = kv_pool_acquire(&e->workers[s->worker].pool);
    invariant(*to != KV_BLOCK_NONE); /* the policy has counted the free ones */
    e->exchange->ops->set_owner(e->exchange, s->worker, *to, s->ref.idx, s->ref.gen);
}

/* The owner tag names the sequence that acquired the block.  Where others share it and outlive that
 * one the tag stays with the first owner, until the last holder lets go. */
static void release_block(struct engine *e, const struct sequence *s, uint32_t block)
{
    struct kv_pool *pool = &e->workers[s->worker].pool;

    kv_pool_release(pool, block);
    if (pool->blocks[block].refs == 0)
        e->exchange->ops->set_owner(e->exchange, s->worker, block, 0, 0);
}

static void take_slot(struct engine *e, struct sequence *s)
{
    struct engine_worker *w = &e->workers[s->worker];

    s->slot = w->free_slots[--w->n_free_slots];
    e->slot_owner[s->slot] = sequence_idx(&e->sequences, s);
}

void reservation_make(struct engine *e, struct sequence *s, uint32_t worker)
{
    invariant(s->slot == SEQUENCE_NONE && s->n_arena_blocks == 0);
    s->worker = worker;
    s->n_mirrored = 0;
    s->n_arena_blocks = geometry_blocks_for(&e->geometry, s->n_prompt + s->max_tokens);
    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < s->n_arena_blocks; i++)
            take_block(e, s, block_of(e, s, g, i));
    }
    take_slot(e, s);
}

void reservation_give_slot(struct engine *e, struct sequence *s)
{
    struct engine_worker *w = &e->workers[s->worker];

    e->slot_owner[s->slot] = SEQUENCE_NONE;
    w->free_slots[w->n_free_slots++] = s->slot;
    s->slot = SEQUENCE_NONE;
    s->in_slot = false;
}

void reservation_release_blocks(struct engine *e, struct sequence *s)
{
    for (uint32_t i = 0; i < s->n_arena_blocks; i++) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++)
            release_block(e, s, *block_of(e, s, g, i));
    }
    s->n_arena_blocks = s->n_mirrored = 0;
}

bool reservation_has_block(struct engine *e, struct sequence *s, uint32_t g, uint32_t i)
{
    struct kv_pool *pool = &e->workers[s->worker].pool;
    uint32_t *own = block_of(e, s, g, i);
    uint64_t hash = i < s->n_sealed ? e->pool.blocks[s->blocks[g * e->table_max + i]].hash : 0;
    uint32_t found = hash != 0 ? kv_pool_find(pool, hash) : KV_BLOCK_NONE;

    if (found == KV_BLOCK_NONE) {
        /* Copies run in order: whoever finds this seal copies, or reads, after the bytes are there. */
        if (hash != 0)
            kv_pool_seal(pool, *own, hash);
        return false;
    }
    if (found != *own) {
        kv_pool_share(pool, found);
        release_block(e, s, *own);
        *own = found;
    }
    engine_count(e, ENGINE_STAT_SHARED_BLOCKS, 1);
    return true;
}
