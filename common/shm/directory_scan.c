/* Recovery: which sequences can go on, and who uses which block.  See directory.h.
 *
 * Pass 1 judges each entry alone.  Pass 2 finds blocks with two owners, through a table that keeps,
 * per block, the first entry that holds it; a second one that shares no full identical prefix with
 * it makes the block a stolen one.  Pass 3 condemns whoever holds a stolen block: nothing says who
 * wrote it last, so those that share it rightly cannot trust it either.  Pass 4 counts references
 * of what is left. */
#include <string.h>

#include "common/base/invariant.h"
#include "common/shm/directory_entry.h"

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
    uint32_t committed = atomic_load_explicit(&e->committed, memory_order_acquire); /* C2 */

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

/* Pass 2: refs holds 1 + the first holder's index, or that the block is stolen. */
#define BLOCK_STOLEN UINT32_MAX

static void find_stolen(void *arg, uint32_t idx, uint32_t group, uint32_t table_idx,
                        uint32_t worker, uint32_t block)
{
    struct scan *s = arg;
    uint32_t *holder = &s->u->refs[worker][block];

    if (*holder == 0)
        *holder = idx + 1;
    else if (*holder != BLOCK_STOLEN &&
             (*holder == idx + 1 ||
              !is_shared_prefix(s->d, *holder - 1, idx, group, table_idx, block)))
        *holder = BLOCK_STOLEN;
}

static void condemn_holder(void *arg, uint32_t idx, uint32_t group, uint32_t table_idx,
                           uint32_t worker, uint32_t block)
{
    struct scan *s = arg;

    (void)group, (void)table_idx;
    if (s->u->refs[worker][block] == BLOCK_STOLEN)
        s->u->verdict[idx] = DIRECTORY_DOUBLE_OWNER;
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

/* For every entry that is still believed; a verdict may change while its own blocks are visited. */
static void for_each_sound_block(struct scan *s, block_visit *visit)
{
    for (uint32_t i = 0; i < s->d->n_entries; i++) {
        if (s->u->verdict[i] == DIRECTORY_OK)
            for_each_block(s->d, i, visit, s);
    }
}

static void tell_verdicts(const struct scan *s, directory_visit *visit, void *arg)
{
    for (uint32_t i = 0; i < s->d->n_entries; i++) {
        const struct directory_entry *e = directory_entry_at(s->d, i);
        struct sequence_ref ref = {.idx = i};

        if (!in_use(s->d, i))
            continue;
        ref.gen = atomic_load_explicit(&e->generation, memory_order_acquire); /* G2 */
        visit(arg, ref, (enum directory_fault)s->u->verdict[i]);
    }
}

uint32_t directory_scan(const struct directory *d, struct directory_usage *u,
                        directory_visit *visit, void *arg)
{
    struct scan scan = {.d = d, .u = u};
    uint32_t n_ok = 0;

    clear_refs(u);
    for (uint32_t i = 0; i < d->n_entries; i++)
        u->verdict[i] = judge_alone(d, u, i);
    for_each_sound_block(&scan, find_stolen);
    for_each_sound_block(&scan, condemn_holder);
    clear_refs(u);
    for_each_sound_block(&scan, count_ref);
    for (uint32_t i = 0; i < d->n_entries; i++)
        n_ok += u->verdict[i] == DIRECTORY_OK;
    if (visit != NULL)
        tell_verdicts(&scan, visit, arg);
    return n_ok;
}
