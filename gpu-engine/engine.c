#include "gpu-engine/engine.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "gpu-engine/batch.h"
#include "gpu-engine/decide.h"
#include "gpu-engine/ending.h"
#include "gpu-engine/foresight.h"
#include "gpu-engine/idle_check.h"
#include "gpu-engine/ledger.h"
#include "gpu-engine/overflow.h"
#include "gpu-engine/placement.h"
#include "gpu-engine/replay.h"
#include "gpu-engine/report.h"

enum {
    STATE_EVERY_BEATS = 5, /* state messages: 4 a second */
};

/* ---- Books ----------------------------------------------------------------------------------- */

static int init_worker_books(struct engine *e, uint32_t w)
{
    struct engine_worker *worker = &e->workers[w];
    uint32_t n_slots = e->exchange->slots_per_worker;
    int rc = kv_pool_init(&worker->pool, e->exchange->ops->n_blocks(e->exchange, w));

    worker->free_slots = calloc(n_slots, sizeof *worker->free_slots);
    if (rc != 0 || worker->free_slots == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_slots; i++)
        worker->free_slots[worker->n_free_slots++] = w * n_slots + n_slots - 1 - i;
    return 0;
}

static uint32_t largest_arena(const struct engine *e)
{
    uint32_t n = 0;

    for (uint32_t w = 0; w < e->exchange->n_workers; w++)
        n = e->workers[w].pool.n_blocks > n ? e->workers[w].pool.n_blocks : n;
    return n;
}

/* What one sweep's tokens are told in. */
static int init_items(struct engine *e, size_t n)
{
    e->items = calloc(n, sizeof *e->items);
    e->item_ids = calloc(n, sizeof *e->item_ids);
    e->item_logprobs = calloc(n, sizeof *e->item_logprobs);
    e->item_top_ids = calloc(n, DEVICE_TOP_MAX * sizeof *e->item_top_ids);
    e->item_top_logprobs = calloc(n, DEVICE_TOP_MAX * sizeof *e->item_top_logprobs);
    return e->items == NULL || e->item_ids == NULL || e->item_logprobs == NULL ||
                   e->item_top_ids == NULL || e->item_top_logprobs == NULL
               ? -ENOMEM
               : 0;
}

static int init_books(struct engine *e)
{
    const struct omni_config *c = e->config;
    uint32_t n_slots = exchange_n_slots(e->exchange);
    size_t table = (size_t)e->geometry.n_groups * e->table_max;
    int rc = sequence_table_init(&e->sequences, c->engine_max_seqs, e->geometry.n_groups,
                                 e->table_max, e->context_max);

    if (rc == 0)
        rc = kv_pool_init(&e->pool, e->device_blocks);
    for (uint32_t w = 0; w < e->exchange->n_workers && rc == 0; w++)
        rc = init_worker_books(e, w);
    e->slot_owner = calloc(n_slots + 1, sizeof *e->slot_owner);
    e->leaves = calloc(n_slots + 1, sizeof *e->leaves);
    e->copy_blocks = calloc(table, sizeof *e->copy_blocks);
    e->copy_staging = calloc(table, sizeof *e->copy_staging);
    if (rc == 0)
        rc = init_items(e, c->engine_max_seqs);
    if (rc == 0)
        rc = batch_init(e);
    if (rc == 0)
        rc = decide_init(e);
    if (rc == 0)
        rc = idle_check_init(e);
    if (rc != 0 || e->slot_owner == NULL || e->leaves == NULL || e->copy_blocks == NULL ||
        e->copy_staging == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_slots; i++)
        e->slot_owner[i] = SEQUENCE_NONE;
    struct admission_limits limits = {.context_max = e->context_max,
                                      .block_tokens = e->geometry.block_tokens,
                                      .n_groups = e->geometry.n_groups,
                                      .device_blocks = e->pool.n_blocks,
                                      .arena_blocks = largest_arena(e),
                                      .must_offload = c->engine_offload == CONFIG_OFFLOAD_ALWAYS};
    return admission_init(&e->admission, e, &limits);
}

static void free_books(struct engine *e)
{
    batch_fini(e);
    decide_fini(e);
    idle_check_fini(e);
    for (uint32_t w = 0; w < ENGINE_WORKERS_MAX; w++) {
        kv_pool_fini(&e->workers[w].pool);
        free(e->workers[w].free_slots);
    }
    kv_pool_fini(&e->pool);
    free(e->slot_owner);
    free(e->leaves);
    free(e->copy_blocks);
    free(e->copy_staging);
    free(e->items);
    free(e->item_ids);
    free(e->item_logprobs);
    free(e->item_top_ids);
    free(e->item_top_logprobs);
    if (e->sequences.all != NULL)
        sequence_table_fini(&e->sequences);
}

int engine_init(struct engine *e)
{
    return init_books(e);
}

void engine_fini(struct engine *e)
{
    free_books(e);
    admission_fini(&e->admission);
}

/* ---- One round ------------------------------------------------------------------------------- */

void engine_take_arrivals(struct engine *e)
{
    struct sequence *s;

    while ((s = sequence_next_arrival(&e->sequences)) != NULL) {
        e->admission.n_arrived = s->order;
        if (engine_is_best_effort(s) && ledger_open(e, s) != 0)
            ending_fail(e, s, ERROR_OVERLOADED, "the sequence directory is full", true);
    }
}

static void poll_device(struct engine *e)
{
    struct device_done done;

    while (e->ops->poll(e->device, &done))
        replay_sweep(e, &done);
}

/* Everything that changes the books. */
static void between_sweeps(struct engine *e)
{
    engine_take_arrivals(e);
    ending_obey(e);
    ending_drain(e);
    placement_step(e);
    e->exchange->ops->drain(e->exchange);
    overflow_step(e);
    decide_sweep(e);
    if (batch_build(e))
        batch_submit(e);
    placement_mirror(e); /* behind the sweep, which somebody waits for */
    admission_publish(e);
}

static void beat(struct engine *e, uint64_t now)
{
    if (now < e->next_beat_ns)
        return;
    e->next_beat_ns = now + ENGINE_BEAT_MS * NS_PER_MS;
    e->n_beats++;
    e->exchange->ops->beat(e->exchange, now, e->sweep);
    if (e->n_beats % STATE_EVERY_BEATS == 0) {
        idle_check(e);
        foresight_report(e);
        report_state(e);
    }
}

void engine_step(struct engine *e)
{
    poll_device(e);
    if (!e->in_flight)
        between_sweeps(e);
    beat(e, e->ops->now(e->device));
}
