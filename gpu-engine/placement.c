#include "gpu-engine/placement.h"

#include "common/base/invariant.h"
#include "gpu-engine/kv.h"
#include "gpu-engine/ledger.h"
#include "gpu-engine/reservation.h"

/* Blocks, per group, that hold its KV; the last one may have room. */
static uint32_t n_holding(const struct engine *e, const struct sequence *s)
{
    return geometry_blocks_for(&e->geometry, s->n_kv);
}

/* Blocks of it that never change again. */
static uint32_t n_full(const struct engine *e, const struct sequence *s)
{
    return s->n_kv / e->geometry.block_tokens;
}

static bool is_reserved(const struct sequence *s)
{
    return s->slot != SEQUENCE_NONE;
}

/* ---- Copy out -------------------------------------------------------------------------------- */

/* Does the policy want KV kept in host memory, and the engine's copies do that? */
static bool keeps_mirrors(const struct engine *e)
{
    return e->decide.decision.checkpoint && !e->decide.checkpoints;
}

/* Fills the copy's lists with the blocks from n_mirrored up to `to` that the arena lacks.  Where the
 * device itself copies blocks as they fill, full ones are in host memory already. */
static uint32_t list_part(struct engine *e, struct sequence *s, uint32_t to)
{
    bool checkpointed = e->decide.checkpoints && e->decide.decision.checkpoint;
    uint32_t first = checkpointed ? n_full(e, s) : 0, n = 0;

    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = s->n_mirrored; i < to; i++) {
            if (reservation_has_block(e, s, g, i) || i < first)
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

/* The sequence's arena blocks from..to-1, group after group, in e->copy_blocks. */
static uint32_t list_arena_blocks(struct engine *e, const struct sequence *s, uint32_t from,
                                  uint32_t to)
{
    uint32_t n = 0;

    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = from; i < to; i++)
            e->copy_blocks[n++] = s->arena_blocks[g * e->table_max + i];
    }
    return n;
}

/* True: it is done already. */
static bool begin_exchange_copy(struct engine *e, struct sequence *s, bool out)
{
    const struct exchange_ops *x = e->exchange->ops;
    uint32_t n = out ? list_arena_blocks(e, s, s->n_mirrored, s->n_mirroring)
                     : list_arena_blocks(e, s, 0, n_holding(e, s));
    int done = (out ? x->copy_out : x->copy_in)(e->exchange, s->worker, e->copy_blocks, n,
                                                &s->copy_ticket);

    s->copy = done ? SEQUENCE_COPY_NONE : SEQUENCE_COPY_EXCHANGE;
    return done != 0;
}

/* Begins to copy what the arena lacks below `to`; returns the number of blocks.  A part without blocks
 * runs like any other: behind the copies of those whose blocks it shares. */
static uint32_t begin_part(struct engine *e, struct sequence *s, uint32_t to)
{
    uint32_t n = list_part(e, s, to);

    s->n_mirroring = to;
    begin_device_copy(e, s, DEVICE_COPY_OUT, n);
    e->n_copies++;
    engine_count(e, ENGINE_STAT_COPIED_BLOCKS, n);
    return n;
}

static void become_resident(struct engine *e, struct sequence *s)
{
    ledger_set_place(e, s);
    ledger_set_state(e, s, DIRECTORY_RESIDENT);
    e->workers[s->worker].n_resident++;
    s->last_move_ns = e->ops->now(e->device);
    sequence_set_state(&e->sequences, s, SEQUENCE_RESIDENT);
}

/* With no part under way: the next one, or all is there. */
static void go_on_out(struct engine *e, struct sequence *s)
{
    if (s->n_mirrored < n_holding(e, s)) {
        begin_part(e, s, n_holding(e, s));
        return;
    }
    kv_release(e, s);
    become_resident(e, s);
}

void placement_reserve(struct engine *e, struct sequence *s, uint32_t worker)
{
    invariant(engine_is_best_effort(s) && s->state <= SEQUENCE_COMPUTING);
    reservation_make(e, s, worker);
}

void placement_copy_out(struct engine *e, struct sequence *s, uint32_t worker)
{
    if (!is_reserved(s))
        reservation_make(e, s, worker);
    invariant(s->worker == worker);
    ledger_set_state(e, s, DIRECTORY_FILLING);
    ledger_set_place(e, s);
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_OUT);
    engine_count(e, ENGINE_STAT_COPIES_OUT, 1);
    if (s->copy == SEQUENCE_COPY_NONE)
        go_on_out(e, s);
}

void placement_adopt(struct engine *e, struct sequence *s, uint32_t worker)
{
    invariant(s->state == SEQUENCE_WAITING && s->n_blocks == 0);
    reservation_make(e, s, worker);
    s->n_mirrored = n_holding(e, s);
    ledger_set_state(e, s, DIRECTORY_FILLING);
    sequence_set_state(&e->sequences, s, SEQUENCE_COMPUTING);
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_OUT);
    become_resident(e, s);
}

/* ---- Copies of what computes ----------------------------------------------------------------- */

/* Half of the copies are left to moves; a part is short, since its sequence cannot yield meanwhile. */
enum { MIRRORS_MAX = ENGINE_COPIES_MAX / 2, MIRROR_BLOCKS_MAX = 8 };

void placement_mirror(struct engine *e)
{
    uint32_t n = e->sequences.n, from = e->mirror_at;

    for (uint32_t i = 0; i < n && e->n_copies < MIRRORS_MAX; i++) {
        uint32_t idx = (from + i) % n;
        struct sequence *s = &e->sequences.all[idx];

        if (s->state != SEQUENCE_COMPUTING || !is_reserved(s) || s->copy != SEQUENCE_COPY_NONE ||
            n_full(e, s) <= s->n_mirrored)
            continue;
        uint32_t left = n_full(e, s) - s->n_mirrored;
        uint32_t n_blocks =
            begin_part(e, s, s->n_mirrored + (left < MIRROR_BLOCKS_MAX ? left : MIRROR_BLOCKS_MAX));
        engine_count(e, ENGINE_STAT_MIRRORED_BLOCKS, n_blocks);
        e->mirror_at = idx + 1;
    }
}

/* ---- Copy in --------------------------------------------------------------------------------- */

static void copy_in_to_device(struct engine *e, struct sequence *s)
{
    uint32_t n_blocks = n_holding(e, s), n = 0;

    for (uint32_t g = 0; g < e->geometry.n_groups; g++) {
        for (uint32_t i = 0; i < n_blocks; i++) {
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

static void release_reservation(struct engine *e, struct sequence *s)
{
    reservation_give_slot(e, s);
    reservation_release_blocks(e, s);
}

static void copied_in(struct engine *e, struct sequence *s)
{
    ledger_set_state(e, s, DIRECTORY_DEVICE);
    if (keeps_mirrors(e))
        s->n_mirrored = n_full(e, s); /* all that has changed since it left */
    else
        release_reservation(e, s);
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

/* A part on its way out.  False: it is still under way. */
static bool part_ended(struct engine *e, struct sequence *s)
{
    if (!step_ended(e, s) || (s->copy == SEQUENCE_COPY_DEVICE && !begin_exchange_copy(e, s, true)))
        return false;
    placement_copy_ended(e, s);
    s->n_mirrored = s->n_mirroring;
    return true;
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

        if (s->state == SEQUENCE_COPY_IN)
            advance_copy_in(e, s);
        else if (s->state == SEQUENCE_COMPUTING && s->copy != SEQUENCE_COPY_NONE)
            part_ended(e, s);
        else if (s->state == SEQUENCE_COPY_OUT && part_ended(e, s))
            go_on_out(e, s);
    }
}

void placement_step(struct engine *e)
{
    advance_copies(e);
}

/* ---- Dropping -------------------------------------------------------------------------------- */

/* What is in the arena stays: the sequence is resident with it, as if it had been copied out, and
 * computes the rest again when it is back. */
static void retreat(struct engine *e, struct sequence *s)
{
    s->n_kv = s->n_mirrored * e->geometry.block_tokens;
    ledger_drop(e, s);
    ledger_set_state(e, s, DIRECTORY_FILLING);
    sequence_set_state(&e->sequences, s, SEQUENCE_COPY_OUT);
    become_resident(e, s);
    ledger_commit_kv(e, s);
}

void placement_drop(struct engine *e, struct sequence *s)
{
    bool retreats = s->n_mirrored > 0 && keeps_mirrors(e);
    uint32_t n_lost = s->n_kv - (retreats ? s->n_mirrored * e->geometry.block_tokens : 0);

    invariant(engine_is_best_effort(s) && s->n_swept == 0 && s->copy == SEQUENCE_COPY_NONE);
    s->n_recomputed += n_lost;
    engine_count(e, ENGINE_STAT_YIELDS, 1);
    engine_count(e, ENGINE_STAT_RECOMPUTED, n_lost);
    kv_release(e, s);
    if (retreats) {
        engine_count(e, ENGINE_STAT_RETREATS, 1);
        retreat(e, s);
        return;
    }
    if (is_reserved(s))
        release_reservation(e, s);
    s->n_kv = 0;
    ledger_drop(e, s);
    sequence_set_state(&e->sequences, s, SEQUENCE_WAITING);
}
