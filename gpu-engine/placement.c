#include "gpu-engine/placement.h"

#include "common/base/invariant.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/ledger.h"

/* ---- The books of an arena ------------------------------------------------------------------- */

static uint32_t arena_need(const struct engine *e, const struct sequence *s)
{
    return geometry_blocks_for(&e->geometry, s->n_prompt + s->max_tokens);
}

void placement_give_slot(struct engine *e, struct sequence *s)
{
    struct engine_worker *w = &e->workers[s->worker];

    e->slot_owner[s->slot] = SEQUENCE_NONE;
    w->free_slots[w->n_free_slots++] = s->slot;
    s->slot = SEQUENCE_NONE;
    s->in_slot = false;
}

static void take_slot(struct engine *e, struct sequence *s)
{
    struct engine_worker *w = &e->workers[s->worker];

    s->slot = w->free_slots[--w->n_free_slots];
    e->slot_owner[s->slot] = sequence_idx(&e->sequences, s);
}

/* The owner tag names the sequence that acquired the block.  Where others share it and outlive that
 * one the tag stays with the first owner, until the last holder lets go. */
void placement_release_arena(struct engine *e, struct sequence *s)
{
    struct kv_pool *pool = &e->workers[s->worker].pool;

    for (uint32_t i = 0; i < s->n_arena_blocks; i++) {
        for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
            uint32_t block = s->arena_blocks[g * e->table_max + i];
            kv_pool_release(pool, block);
            if (pool->blocks[block].refs == 0)
                e->exchange->ops->set_owner(e->exchange, s->worker, block, 0, 0);
        }
    }
    s->n_arena_blocks = 0;
}

/* ---- Copy out -------------------------------------------------------------------------------- */

/* Takes arena block i of group g; false: it was shared, there is nothing to copy. */
static bool take_arena_block(struct engine *e, struct sequence *s, uint32_t g, uint32_t i)
{
    struct kv_pool *pool = &e->workers[s->worker].pool;
    uint32_t *to = &s->arena_blocks[g * e->table_max + i];
    uint64_t hash = i < s->n_sealed ? e->pool.blocks[s->blocks[g * e->table_max + i]].hash : 0;
    uint32_t found = hash != 0 ? kv_pool_find(pool, hash) : KV_BLOCK_NONE;

    if (found != KV_BLOCK_NONE) {
        kv_pool_share(pool, found);
        *to = found;
        engine_count(e, ENGINE_STAT_SHARED_BLOCKS, 1);
        return false;
    }
    *to = kv_pool_acquire(pool);
    invariant(*to != KV_BLOCK_NONE); /* the policy has counted the free ones */
    e->exchange->ops->set_owner(e->exchange, s->worker, *to, s->ref.idx, s->ref.gen);
    /* Copies run in order: whoever finds this seal copies, or reads, after the bytes are there. */
    if (hash != 0)
        kv_pool_seal(pool, *to, hash);
    return true;
}

/* Fills the copy's lists with the blocks that hold KV; the rest of the promise is only taken.  Where
 * blocks are checkpointed as they fill, full ones are in host memory already. */
static uint32_t plan_copy_out(struct engine *e, struct sequence *s)
{
    uint32_t n_full = geometry_blocks_for(&e->geometry, s->n_kv), n = 0;
    bool checkpointed = e->decide.checkpoints && e->decide.decision.checkpoint;
    uint32_t first = checkpointed ? s->n_kv / e->geometry.block_tokens : 0;

    s->n_arena_blocks = arena_need(e, s);
    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < s->n_arena_blocks; i++) {
            if (!take_arena_block(e, s, g, i) || i < first || i >= n_full)
                continue;
            e->copy_blocks[n] = s->blocks[g * e->table_max + i];
            e->copy_staging[n++] = e->exchange->ops->staging(e->exchange, s->worker,
                                                             s->arena_blocks[g * e->table_max + i]);
        }
    }
    return n;
}

static void begin_device_copy(struct engine *e, struct sequence *s,
                              enum device_copy_direction direction, uint32_t n)
{
    struct device_copy copy = {.direction = direction,
                               .n_blocks = n,
                               .blocks = e->copy_blocks,
                               .staging = e->copy_staging};
    int rc = e->ops->copy(e->device, &copy, &s->copy_ticket);

    invariant(rc == 0); /* n_copies is below the device's copies_max */
    s->copy = SEQUENCE_COPY_DEVICE;
}

/* The arena blocks that hold the sequence's KV, group after group, in e->copy_blocks. */
static uint32_t list_arena_blocks(struct engine *e, const struct sequence *s)
{
    uint32_t n_full = geometry_blocks_for(&e->geometry, s->n_kv), n = 0;

    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < n_full; i++)
            e->copy_blocks[n++] = s->arena_blocks[g * e->table_max + i];
    }
    return n;
}

/* True: it is done already. */
static bool begin_exchange_copy(struct engine *e, struct sequence *s, bool out)
{
    const struct exchange_ops *x = e->exchange->ops;
    uint32_t n = list_arena_blocks(e, s);
    int done = (out ? x->copy_out : x->copy_in)(e->exchange, s->worker, e->copy_blocks, n,
                                                &s->copy_ticket);

    s->copy = done ? SEQUENCE_COPY_NONE : SEQUENCE_COPY_EXCHANGE;
    return done != 0;
}

void placement_copy_out(struct engine *e, struct sequence *s, uint32_t worker)
{
    s->worker = worker;
    uint32_t n = plan_copy_out(e, s);

    take_slot(e, s);
    ledger_set_state(e, s, DIRECTORY_FILLING);
    ledger_set_place(e, s);
    begin_device_copy(e, s, DEVICE_COPY_OUT, n);
    e->n_copies++;
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_OUT);
    engine_count(e, ENGINE_STAT_COPIED_BLOCKS, n);
    engine_count(e, ENGINE_STAT_COPIES_OUT, 1);
}

static void become_resident(struct engine *e, struct sequence *s)
{
    e->workers[s->worker].n_resident++;
    s->last_move_ns = e->ops->now(e->device);
    sequence_set_state(&e->sequences, s, SEQUENCE_RESIDENT);
}

static void copied_out(struct engine *e, struct sequence *s)
{
    ledger_set_state(e, s, DIRECTORY_RESIDENT);
    kv_release(e, s);
    become_resident(e, s);
}

void placement_adopt(struct engine *e, struct sequence *s, uint32_t worker)
{
    invariant(s->state == SEQUENCE_WAITING && s->n_blocks == 0);
    s->worker = worker;
    plan_copy_out(e, s); /* takes the blocks; nothing is copied */
    take_slot(e, s);
    ledger_set_place(e, s);
    ledger_set_state(e, s, DIRECTORY_RESIDENT);
    sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_OUT);
    become_resident(e, s);
}

/* ---- Copy in --------------------------------------------------------------------------------- */

static void copy_in_to_device(struct engine *e, struct sequence *s)
{
    uint32_t n_full = geometry_blocks_for(&e->geometry, s->n_kv), n = 0;

    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < n_full; i++) {
            e->copy_blocks[n] = s->blocks[g * e->table_max + i];
            e->copy_staging[n++] = e->exchange->ops->staging(e->exchange, s->worker,
                                                             s->arena_blocks[g * e->table_max + i]);
        }
    }
    begin_device_copy(e, s, DEVICE_COPY_IN, n);
    engine_count(e, ENGINE_STAT_COPIED_BLOCKS, n);
}

void placement_copy_in(struct engine *e, struct sequence *s)
{
    int rc = kv_grow(e, s, s->n_tokens);

    invariant(rc == 0 && !s->in_slot);
    ledger_set_state(e, s, DIRECTORY_LEAVING);
    e->n_copies++;
    e->workers[s->worker].n_resident--;
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_IN);
    engine_count(e, ENGINE_STAT_COPIES_IN, 1);
    if (begin_exchange_copy(e, s, false))
        copy_in_to_device(e, s);
}

static void copied_in(struct engine *e, struct sequence *s)
{
    ledger_set_state(e, s, DIRECTORY_DEVICE);
    placement_give_slot(e, s);
    placement_release_arena(e, s);
    /* Its blocks are its own copies: sealing starts over with the sequence's first block. */
    s->n_sealed = 0;
    s->chain = kv_chain_start(&e->prefix_key, e->geometry.model_hash, 0);
    kv_seal(e, s);
    s->last_move_ns = e->ops->now(e->device);
    sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
}

/* ---- Copies under way ------------------------------------------------------------------------ */

static bool step_ended(struct engine *e, const struct sequence *s)
{
    switch (s->copy) {
    case SEQUENCE_COPY_NONE:
        break;
    case SEQUENCE_COPY_DEVICE:
        return e->ops->copy_done(e->device, s->copy_ticket) != 0;
    case SEQUENCE_COPY_EXCHANGE:
        return e->exchange->ops->copy_done(e->exchange, s->copy_ticket) != 0;
    }
    return true;
}

bool placement_copy_ended(struct engine *e, struct sequence *s)
{
    if (!step_ended(e, s))
        return false;
    s->copy = SEQUENCE_COPY_NONE;
    e->n_copies--;
    return true;
}

static void advance_copy_out(struct engine *e, struct sequence *s)
{
    if (!step_ended(e, s))
        return;
    if (s->copy == SEQUENCE_COPY_DEVICE && !begin_exchange_copy(e, s, true))
        return;
    placement_copy_ended(e, s);
    copied_out(e, s);
}

static void advance_copy_in(struct engine *e, struct sequence *s)
{
    if (!step_ended(e, s))
        return;
    if (s->copy == SEQUENCE_COPY_EXCHANGE) {
        copy_in_to_device(e, s);
        return;
    }
    placement_copy_ended(e, s);
    copied_in(e, s);
}

static void advance_copies(struct engine *e)
{
    for (uint32_t i = 0; i < e->sequences.n && e->n_copies > 0; i++) {
        struct sequence *s = &e->sequences.all[i];

        if (s->state == SEQUENCE_COPY_OUT)
            advance_copy_out(e, s);
        else if (s->state == SEQUENCE_COPY_IN)
            advance_copy_in(e, s);
    }
}

void placement_step(struct engine *e)
{
    advance_copies(e);
}

/* ---- Dropping -------------------------------------------------------------------------------- */

void placement_drop(struct engine *e, struct sequence *s)
{
    invariant(engine_is_best_effort(s) && s->n_swept == 0);
    s->n_recomputed += s->n_kv;
    engine_count(e, ENGINE_STAT_YIELDS, 1);
    engine_count(e, ENGINE_STAT_RECOMPUTED, s->n_kv);
    kv_release(e, s);
    s->n_kv = 0;
    ledger_drop(e, s);
    sequence_set_state(&e->sequences, s, SEQUENCE_WAITING);
}
