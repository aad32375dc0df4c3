#include "gpu-engine/report.h"

#include <string.h>

#include "common/base/hash.h"

/* clang-format off */
#define ROW(NAME, name, kind, doc) {name, STATS_##kind, doc},
static const struct stats_row rows[] = {ENGINE_STATS(ROW)};
/* clang-format on */

const struct stats_row *report_stats_rows(void)
{
    return rows;
}

static void set_gauges(struct engine *e)
{
    const uint32_t *n = e->sequences.n_in_state;
    uint64_t arena_free = 0, arena_total = 0, slots_free = 0;

    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        arena_free += e->workers[w].pool.n_free;
        arena_total += e->workers[w].pool.n_blocks;
        slots_free += e->workers[w].n_free_slots;
    }
    stats_set(&e->stats, ENGINE_STAT_WAITING, n[SEQUENCE_WAITING]);
    stats_set(&e->stats, ENGINE_STAT_RUNNING,
              n[SEQUENCE_COMPUTING] + n[SEQUENCE_COPY_OUT] + n[SEQUENCE_COPY_IN]);
    stats_set(&e->stats, ENGINE_STAT_RESIDENT, n[SEQUENCE_RESIDENT]);
    stats_set(&e->stats, ENGINE_STAT_DRAINING, n[SEQUENCE_ENDED]);
    stats_set(&e->stats, ENGINE_STAT_KV_FREE, e->pool.n_free);
    stats_set(&e->stats, ENGINE_STAT_KV_TOTAL, e->pool.n_blocks);
    stats_set(&e->stats, ENGINE_STAT_ARENA_FREE, arena_free);
    stats_set(&e->stats, ENGINE_STAT_ARENA_TOTAL, arena_total);
    stats_set(&e->stats, ENGINE_STAT_SLOTS_FREE, slots_free);
}

static uint32_t count_classes(const struct engine *e, struct class_state *classes)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->sequences.n; i++) {
        const struct sequence *s = &e->sequences.all[i];

        if (s->state < SEQUENCE_WAITING || s->state == SEQUENCE_ENDED)
            continue;
        for (; n <= s->class_idx; n++)
            classes[n] = (struct class_state){.class_index = n};
        struct class_state *c = &classes[s->class_idx];
        c->waiting += s->state == SEQUENCE_WAITING;
        c->running += s->state != SEQUENCE_WAITING;
        c->offloaded += s->state == SEQUENCE_RESIDENT;
    }
    return n;
}

static enum worker_health health(enum exchange_peer peer)
{
    switch (peer) {
    case EXCHANGE_PEER_ALIVE:
        return WORKER_READY;
    case EXCHANGE_PEER_LATE:
        return WORKER_LATE;
    case EXCHANGE_PEER_DEAD:
        return WORKER_DEAD;
    case EXCHANGE_PEER_ABSENT:
        break;
    }
    return WORKER_ABSENT;
}

static uint32_t jobs_out(const struct engine *e, uint32_t worker)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->sequences.n; i++) {
        const struct sequence *s = &e->sequences.all[i];
        n += s->state == SEQUENCE_RESIDENT && s->worker == worker && s->in_slot;
    }
    return n;
}

/* Field by field into zeroed memory, so that padding is the same in every report (state_hash). */
static uint32_t list_workers(const struct engine *e, struct worker_state *workers)
{
    memset(workers, 0, e->exchange->n_workers * sizeof *workers);
    for (uint32_t i = 0; i < e->exchange->n_workers; i++) {
        struct worker_state *w = &workers[i];

        w->worker = i;
        w->health = health(e->exchange->ops->peer(e->exchange, i));
        w->blocks_free = e->workers[i].pool.n_free;
        w->blocks_total = e->workers[i].pool.n_blocks;
        w->resident = e->workers[i].n_resident;
        w->jobs = jobs_out(e, i);
        w->pid = exchange_peer_pid(e->exchange, i);
        w->has_pid = w->pid != 0;
        w->arena_bytes = e->workers[i].arena_bytes;
        w->huge_bytes = e->workers[i].huge_bytes;
    }
    return e->exchange->n_workers;
}

/* Numbers only, so the bytes say whether anything changed. */
static uint64_t state_hash(const struct message_engine_state *s)
{
    uint32_t head[] = {s->waiting, s->running, s->offloaded, s->kv_blocks_free};
    uint64_t h = hash_bytes(HASH_SEED, head, sizeof head);

    h = hash_bytes(h, s->classes.data, s->classes.n * sizeof *s->classes.data);
    return hash_bytes(h, s->workers.data, s->workers.n * sizeof *s->workers.data);
}

void report_state(struct engine *e)
{
    struct class_state classes[CONFIG_CLASSES_MAX] = {{0}};
    struct worker_state workers[ENGINE_WORKERS_MAX];
    const uint32_t *n = e->sequences.n_in_state;
    struct message m = {.type = MESSAGE_ENGINE_STATE};

    set_gauges(e);
    m.engine_state = (struct message_engine_state){
        .waiting = n[SEQUENCE_WAITING],
        .running = n[SEQUENCE_COMPUTING] + n[SEQUENCE_COPY_OUT] + n[SEQUENCE_COPY_IN] +
                   n[SEQUENCE_RESIDENT],
        .offloaded = n[SEQUENCE_RESIDENT],
        .kv_blocks_free = e->pool.n_free,
        .kv_blocks_total = e->pool.n_blocks,
        .sweeps = e->sweep,
        .classes = {.data = classes, .n = count_classes(e, classes)},
        .workers = {.data = workers, .n = list_workers(e, workers)},
    };
    uint64_t hash = state_hash(&m.engine_state);
    bool wanted = atomic_exchange_explicit(&e->state_wanted, false, memory_order_relaxed);
    if (!e->sink.connected(e->sink.arg) || (hash == e->state_hash && !wanted))
        return;
    e->state_hash = hash;
    engine_send(e, &m);
}
