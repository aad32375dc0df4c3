#include "common/shm/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/invariant.h"
#include "common/shm/directory_entry.h"

/* Which state may follow which (from the row's to the column's), as drawn at enum directory_state.
 */
static const bool transition_allowed[5][5] = {
    [DIRECTORY_FREE] = {0, 1, 0, 0, 0},    [DIRECTORY_DEVICE] = {1, 0, 1, 0, 0},
    [DIRECTORY_FILLING] = {1, 1, 0, 1, 0}, [DIRECTORY_RESIDENT] = {1, 0, 0, 0, 1},
    [DIRECTORY_LEAVING] = {1, 1, 0, 1, 0},
};

static struct directory_entry *entry_at(const struct directory *d, uint32_t idx)
{
    invariant(idx < d->n_entries);
    return directory_entry_at(d, idx);
}

/* The engine's own entry: a stale reference is a programmer's error. */
static struct directory_entry *own_entry(const struct directory *d, struct sequence_ref ref)
{
    struct directory_entry *e = entry_at(d, ref.idx);

    invariant(d->free_list != NULL);
    invariant(atomic_load_explicit(&e->generation, memory_order_relaxed) == ref.gen);
    invariant(directory_entry_state(e, 0) != DIRECTORY_FREE);
    return e;
}

/* The one place where a state changes. */
static void set_state(struct directory *d, struct directory_entry *e, uint32_t group,
                      enum directory_state state)
{
    enum directory_state old = directory_entry_state(e, group);

    invariant((unsigned)old < 5 && transition_allowed[old][state]);
    /* T1: release, pairs with T2 in directory_entry_state: blocks and KV are there. */
    atomic_store_explicit(&e->state[group], (uint32_t)state, memory_order_release);
    d->n_transitions++;
}

int directory_acquire(struct directory *d, const struct sequence_info *info,
                      struct sequence_ref *ref)
{
    struct directory_entry *e;

    if (info->prompt_len == 0 || info->prompt_len > d->ctx_max)
        return -EINVAL;
    if (d->n_free == 0)
        return -ENOSPC;
    ref->idx = d->free_list[--d->n_free];
    e = entry_at(d, ref->idx);
    ref->gen = atomic_load_explicit(&e->generation, memory_order_relaxed) + 1;
    if (ref->gen == 0) /* 0 means "none" in owner tags */
        ref->gen = 1;
    atomic_store_explicit(&e->committed, 0, memory_order_relaxed);
    e->prompt_len = info->prompt_len;
    e->slot = UINT32_MAX;
    memcpy(e->request_id, info->request_id, sizeof e->request_id);
    e->model_hash = d->model_hash;
    e->geometry_hash = d->geometry_hash;
    e->admitted_ns = info->admitted_ns;
    e->params = info->params;
    for (uint32_t g = 0; g < d->n_groups; g++)
        atomic_store_explicit(&e->n_blocks[g], 0, memory_order_relaxed);
    memcpy(directory_entry_log(d, e), info->prompt, info->prompt_len * sizeof(uint32_t));
    fault_point("directory.fields");
    /* G1: release, pairs with G2 in directory_table: all of the above is there. */
    atomic_store_explicit(&e->generation, ref->gen, memory_order_release);
    fault_point("directory.generation");
    for (uint32_t g = d->n_groups; g-- > 0;) /* group 0 last: it says "in use" */
        set_state(d, e, g, DIRECTORY_DEVICE);
    fault_point("directory.acquired");
    return 0;
}

static void free_entry(struct directory *d, struct directory_entry *e)
{
    for (uint32_t g = 0; g < d->n_groups; g++) {
        if (directory_entry_state(e, g) != DIRECTORY_FREE)
            set_state(d, e, g, DIRECTORY_FREE);
        fault_point("directory.freed_group");
    }
}

void directory_release(struct directory *d, struct sequence_ref ref)
{
    free_entry(d, own_entry(d, ref));
    d->free_list[d->n_free++] = ref.idx;
}

void directory_set_state(struct directory *d, struct sequence_ref ref, uint32_t group,
                         enum directory_state state)
{
    struct directory_entry *e = own_entry(d, ref);

    invariant(group < d->n_groups && state != DIRECTORY_FREE);
    set_state(d, e, group, state);
    fault_point("directory.state");
}

enum directory_state directory_state(const struct directory *d, struct sequence_ref ref,
                                     uint32_t group)
{
    struct directory_entry *e = entry_at(d, ref.idx);

    invariant(group < d->n_groups);
    if (atomic_load_explicit(&e->generation, memory_order_acquire) != ref.gen) /* G2 */
        return DIRECTORY_FREE;
    return directory_entry_state(e, group);
}

void directory_set_blocks(struct directory *d, struct sequence_ref ref, uint32_t group,
                          uint32_t worker, const uint32_t *blocks, uint32_t n)
{
    struct directory_entry *e = own_entry(d, ref);
    enum directory_state state = directory_entry_state(e, group);

    invariant(group < d->n_groups && n <= d->blocks_max);
    invariant(state == DIRECTORY_DEVICE || state == DIRECTORY_FILLING);
    atomic_store_explicit(&e->n_blocks[group], 0, memory_order_release);
    memcpy(directory_entry_blocks(d, e, group), blocks, n * sizeof *blocks);
    atomic_store_explicit(&e->worker[group], worker, memory_order_relaxed);
    fault_point("directory.blocks");
    /* L1: release, pairs with L2 in directory_table: the ids below n are there. */
    atomic_store_explicit(&e->n_blocks[group], n, memory_order_release);
}

void directory_append_block(struct directory *d, struct sequence_ref ref, uint32_t group,
                            uint32_t block)
{
    struct directory_entry *e = own_entry(d, ref);
    uint32_t n;

    invariant(group < d->n_groups);
    n = atomic_load_explicit(&e->n_blocks[group], memory_order_relaxed);
    invariant(n < d->blocks_max);
    directory_entry_blocks(d, e, group)[n] = block;
    fault_point("directory.append");
    atomic_store_explicit(&e->n_blocks[group], n + 1, memory_order_release); /* L1 */
}

void directory_set_slot(struct directory *d, struct sequence_ref ref, uint32_t slot)
{
    own_entry(d, ref)->slot = slot;
}

void directory_log_token(struct directory *d, struct sequence_ref ref, uint32_t pos, uint32_t id)
{
    struct directory_entry *e = own_entry(d, ref);

    invariant(pos <= d->ctx_max);
    invariant(pos >
              atomic_load_explicit(&e->committed, memory_order_relaxed)); /* else it is read */
    directory_entry_log(d, e)[pos] = id;
    fault_point("directory.logged");
}

void directory_commit(struct directory *d, struct sequence_ref ref, uint32_t c)
{
    struct directory_entry *e = own_entry(d, ref);
    uint32_t old = atomic_load_explicit(&e->committed, memory_order_relaxed);

    invariant(c <= d->ctx_max);
    invariant(c >= old || (c == 0 && directory_entry_state(e, 0) == DIRECTORY_DEVICE));
    /* C1: release, last, pairs with C2 in directory_committed: KV, then ids, then this. */
    atomic_store_explicit(&e->committed, c, memory_order_release);
    fault_point("directory.committed");
}

/* ---- readers --------------------------------------------------------------------------------- */

int directory_table(const struct directory *d, struct sequence_ref ref, uint32_t group,
                    uint32_t ctx_len, struct directory_table *out)
{
    struct directory_entry *e;

    if (ref.idx >= d->n_entries || group >= d->n_groups)
        return -EPROTO;
    e = directory_entry_at(d, ref.idx);
    /* G2: acquire, pairs with G1. */
    if (atomic_load_explicit(&e->generation, memory_order_acquire) != ref.gen ||
        directory_entry_state(e, group) != DIRECTORY_RESIDENT)
        return -ESTALE;
    /* L2: acquire, pairs with L1. */
    out->n_blocks = atomic_load_explicit(&e->n_blocks[group], memory_order_acquire);
    out->worker = atomic_load_explicit(&e->worker[group], memory_order_relaxed);
    out->blocks = directory_entry_blocks(d, e, group);
    if (out->n_blocks > d->blocks_max || (uint64_t)out->n_blocks * d->block_tokens < ctx_len)
        return -EPROTO;
    return 0;
}

uint32_t directory_committed(const struct directory *d, struct sequence_ref ref)
{
    return atomic_load_explicit(&entry_at(d, ref.idx)->committed, memory_order_acquire); /* C2 */
}

const uint32_t *directory_log(const struct directory *d, struct sequence_ref ref)
{
    return directory_entry_log(d, entry_at(d, ref.idx));
}

const struct directory_entry *directory_entry(const struct directory *d, uint32_t idx)
{
    return entry_at(d, idx);
}

/* ---- free list ------------------------------------------------------------------------------- */

void directory_rebuild_free(struct directory *d)
{
    d->n_free = 0;
    for (uint32_t i = d->n_entries; i-- > 0;) { /* lowest index on top */
        if (directory_entry_state(directory_entry_at(d, i), 0) == DIRECTORY_FREE)
            d->free_list[d->n_free++] = i;
    }
}

static void force_free(struct directory *d, uint32_t idx)
{
    struct directory_entry *e = directory_entry_at(d, idx);

    /* What the last engine left may be no state at all: not by way of set_state.  Release as T1. */
    for (uint32_t g = 0; g < KV_GROUPS_MAX; g++)
        atomic_store_explicit(&e->state[g], DIRECTORY_FREE, memory_order_release);
    d->n_transitions++;
}

void directory_clear(struct directory *d)
{
    for (uint32_t i = 0; i < d->n_entries; i++)
        force_free(d, i);
    directory_rebuild_free(d);
}

void directory_keep(struct directory *d, const struct directory_usage *usage)
{
    for (uint32_t i = 0; i < d->n_entries; i++) {
        if (usage->verdict[i] != DIRECTORY_OK)
            force_free(d, i);
    }
    directory_rebuild_free(d);
}
