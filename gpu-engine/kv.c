#include "gpu-engine/kv.h"

#include <errno.h>

#include "common/base/hash.h"
#include "common/base/invariant.h"

uint64_t kv_group_hash(uint64_t chain, uint32_t group)
{
    uint64_t h = hash_bytes(chain, &group, sizeof group);

    return h != 0 ? h : 1;
}

int kv_grow(struct engine *e, struct sequence *s, uint32_t n_tokens)
{
    uint32_t n = geometry_blocks_for(&e->geometry, n_tokens);

    invariant(n <= e->table_max);
    if (n > s->n_blocks && (n - s->n_blocks) * e->geometry.n_groups > e->pool.n_free)
        return -ENOSPC;
    for (; s->n_blocks < n; s->n_blocks++) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++)
            s->blocks[g * e->table_max + s->n_blocks] = kv_pool_acquire(&e->pool);
    }
    return 0;
}

static uint64_t chain_start(const struct engine *e)
{
    return kv_chain_start(&e->prefix_key, e->geometry.model_hash, 0);
}

/* All groups' blocks of that chain, or false. */
static bool find_blocks(const struct engine *e, uint64_t chain, uint32_t found[KV_GROUPS_MAX])
{
    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        found[g] = kv_pool_find(&e->pool, kv_group_hash(chain, g));
        if (found[g] == KV_BLOCK_NONE)
            return false;
    }
    return true;
}

/* One step along the prefix that others hold: block idx of the sequence's tokens, all groups.  Moves
 * *chain past it; false: nobody holds it, or its last token is the sequence's last. */
static bool follow_prefix(const struct engine *e, const struct sequence *s, uint32_t idx,
                          uint64_t *chain, uint32_t found[KV_GROUPS_MAX])
{
    uint32_t bt = e->geometry.block_tokens;

    if ((idx + 1) * bt >= s->n_tokens)
        return false;
    uint64_t next = kv_chain_hash(&e->prefix_key, *chain, s->tokens + idx * bt, bt);
    if (!find_blocks(e, next, found))
        return false;
    *chain = next;
    return true;
}

uint32_t kv_shareable(struct engine *e, const struct sequence *s)
{
    uint32_t found[KV_GROUPS_MAX] = {0}, n = 0;
    uint64_t chain = chain_start(e);

    while (follow_prefix(e, s, n, &chain, found))
        n++;
    return n * e->geometry.block_tokens;
}

void kv_share_prefix(struct engine *e, struct sequence *s, uint32_t n_positions)
{
    uint32_t bt = e->geometry.block_tokens, found[KV_GROUPS_MAX] = {0};

    invariant(s->n_blocks == 0 && s->n_kv == 0);
    s->chain = chain_start(e);
    s->n_sealed = 0;
    while (s->n_kv + bt <= n_positions && follow_prefix(e, s, s->n_blocks, &s->chain, found)) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
            kv_pool_share(&e->pool, found[g]);
            s->blocks[g * e->table_max + s->n_blocks] = found[g];
        }
        s->n_blocks++;
        s->n_sealed++;
        s->n_kv += bt;
    }
}

uint32_t kv_n_freed(const struct engine *e, const struct sequence *s)
{
    uint32_t n = s->n_blocks * e->geometry.n_groups;

    if (e->pool.n_shared == 0)
        return n;
    for (uint32_t i = 0; i < s->n_sealed; i++) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++)
            n -= e->pool.blocks[s->blocks[g * e->table_max + i]].refs > 1;
    }
    return n;
}

void kv_seal(struct engine *e, struct sequence *s)
{
    uint32_t bt = e->geometry.block_tokens;

    while ((s->n_sealed + 1) * bt <= s->n_kv && s->n_sealed < s->n_blocks) {
        s->chain = kv_chain_hash(&e->prefix_key, s->chain, s->tokens + s->n_sealed * bt, bt);
        for (uint32_t g = 0; g < e->geometry.n_groups; g++)
            kv_pool_seal(&e->pool, s->blocks[g * e->table_max + s->n_sealed],
                         kv_group_hash(s->chain, g));
        s->n_sealed++;
    }
}

void kv_release(struct engine *e, struct sequence *s)
{
    for (uint32_t i = 0; i < s->n_blocks; i++) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++)
            kv_pool_release(&e->pool, s->blocks[g * e->table_max + i]);
    }
    s->n_blocks = s->n_sealed = 0;
}
