/* Recovery: which sequences can go on, and who uses which block.  See directory.h.
 *
 * Pass 1 judges each entry alone.  Pass 2 finds blocks with two owners, through a table that keeps,
 * per block, one entry that holds it; entries that clash without sharing a full identical prefix
 * are condemned, the older holder too.  Pass 3 counts references of what is left. */
#include <string.h>

#include "common/base/invariant.h"
#include "common/shm/directory_layout.h"

static bool in_use(const struct directory *d, uint32_t idx)
{
    return directory_entry_state(directory_entry_at(d, idx), 0) != DIRECTORY_FREE;
}

static bool group_is_sound(const struct directory *d, const struct directory_usage *u,
                           const struct directory_entry *e, uint32_t group, uint32_t committed)
{
    uint32_t n = atomic_load_explicit(&e->n_blocks[group], memory_order_acquire);
    uint32_t worker = atomic_load_explicit(&e->worker[group], memory_order_relaxed);
    const uint32_t *blocks = directory_entry_blocks(d, e, group);

    if (worker >= u->n_workers || n > d->blocks_max || (uint64_t)n * d->block_tokens < committed)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (blocks[i] >= u->n_blocks[worker])
            return false;
    }
    return true;
}

static enum directory_fault judge_alone(const struct directory *d, const struct directory_usage *u,
                                        uint32_t idx)
{
    const struct directory_entry *e = directory_entry_at(d, idx);
    uint32_t committed = atomic_load_explicit(&e->committed, memory_order_acquire);

    if (!in_use(d, idx))
        return DIRECTORY_UNFINISHED;
    if (committed > d->ctx_max || e->prompt_len == 0 || e->prompt_len > d->ctx_max ||
        e->model_hash != d->model_hash || e->geometry_hash != d->geometry_hash)
        return DIRECTORY_DAMAGED;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        uint32_t state = (uint32_t)directory_entry_state(e, g);
        if (state > DIRECTORY_LEAVING)
            return DIRECTORY_DAMAGED;
        if (state != DIRECTORY_RESIDENT)
            return DIRECTORY_UNFINISHED;
        if (!group_is_sound(d, u, e, g, committed))
            return DIRECTORY_DAMAGED;
    }
    return committed == 0 ? DIRECTORY_UNFINISHED : DIRECTORY_OK;
}

/* Calls once per (group, table index, block) of an entry that was found sound. */
typedef void block_visit(void *arg, uint32_t idx, uint32_t group, uint32_t table_idx,
                         uint32_t worker, uint32_t block);

static void for_each_block(const struct directory *d, uint32_t idx, block_visit *visit, void *arg)
{
    const struct directory_entry *e = directory_entry_at(d, idx);

    for (uint32_t g = 0; g < d->n_groups; g++) {
        uint32_t n = atomic_load_explicit(&e->n_blocks[g], memory_order_relaxed);
        uint32_t worker = atomic_load_explicit(&e->worker[g], memory_order_relaxed);
        const uint32_t *blocks = directory_entry_blocks(d, e, g);

        for (uint32_t i = 0; i < n; i++)
            visit(arg, idx, g, i, worker, blocks[i]);
    }
}

/* Is `block` at the same place of the same group in both, full in both, after identical ids?  Then
 * it is a shared prefix and no accident. */
static bool is_shared_prefix(const struct directory *d, uint32_t a, uint32_t b, uint32_t group,
                             uint32_t table_idx, uint32_t block)
{
    const struct directory_entry *ea = directory_entry_at(d, a), *eb = directory_entry_at(d, b);
    uint32_t end = (table_idx + 1) * d->block_tokens;

    if (atomic_load_explicit(&ea->n_blocks[group], memory_order_relaxed) <= table_idx ||
        directory_entry_blocks(d, ea, group)[table_idx] != block)
        return false;
    if (atomic_load_explicit(&ea->committed, memory_order_relaxed) < end ||
        atomic_load_explicit(&eb->committed, memory_order_relaxed) < end)
        return false;
    return memcmp(directory_entry_log(d, ea), directory_entry_log(d, eb), end * sizeof(uint32_t)) ==
           0;
}

struct scan {
    const struct directory *d;
    struct directory_usage *u;
};

/* refs holds 1 + the first holder's index during this pass. */
static void find_double_owner(void *arg, uint32_t idx, uint32_t group, uint32_t table_idx,
                              uint32_t worker, uint32_t block)
{
    struct scan *s = arg;
    uint32_t *holder = &s->u->refs[worker][block];

    if (*holder == 0) {
        *holder = idx + 1;
    } else if (*holder == idx + 1 ||
               !is_shared_prefix(s->d, *holder - 1, idx, group, table_idx, block)) {
        s->u->verdict[*holder - 1] = DIRECTORY_DOUBLE_OWNER;
        s->u->verdict[idx] = DIRECTORY_DOUBLE_OWNER;
    }
}

static void count_ref(void *arg, uint32_t idx, uint32_t group, uint32_t table_idx, uint32_t worker,
                      uint32_t block)
{
    struct scan *s = arg;

    (void)idx, (void)group, (void)table_idx;
    s->u->refs[worker][block]++;
}

static void clear_refs(struct directory_usage *u)
{
    for (uint32_t w = 0; w < u->n_workers; w++)
        memset(u->refs[w], 0, u->n_blocks[w] * sizeof **u->refs);
}

uint32_t directory_scan(const struct directory *d, struct directory_usage *u,
                        directory_visit *visit, void *arg)
{
    struct scan scan = {.d = d, .u = u};
    uint32_t n_ok = 0;

    clear_refs(u);
    for (uint32_t i = 0; i < d->n_entries; i++)
        u->verdict[i] = judge_alone(d, u, i);
    for (uint32_t i = 0; i < d->n_entries; i++) {
        if (u->verdict[i] == DIRECTORY_OK || u->verdict[i] == DIRECTORY_DOUBLE_OWNER)
            for_each_block(d, i, find_double_owner, &scan);
    }
    clear_refs(u);
    for (uint32_t i = 0; i < d->n_entries; i++) {
        if (u->verdict[i] == DIRECTORY_OK) {
            for_each_block(d, i, count_ref, &scan);
            n_ok++;
        }
        if (visit != NULL && in_use(d, i)) {
            const struct directory_entry *e = directory_entry_at(d, i);
            struct sequence_ref ref = {
                .idx = i, .gen = atomic_load_explicit(&e->generation, memory_order_acquire)};
            visit(arg, ref, (enum directory_fault)u->verdict[i]);
        }
    }
    return n_ok;
}
