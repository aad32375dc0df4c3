#include "gpu-engine/idle_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

int idle_check_init(struct engine *e)
{
    struct engine_idle *idle = &e->idle;

    if (e->directory == NULL)
        return 0;
    idle->verdict = calloc(e->directory->n_entries, sizeof *idle->verdict);
    idle->slot_seen = calloc(e->exchange->slots_per_worker + 1U, sizeof *idle->slot_seen);
    if (idle->verdict == NULL || idle->slot_seen == NULL)
        return -ENOMEM;
    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        idle->n_blocks[w] = e->workers[w].pool.n_blocks;
        idle->refs[w] = calloc(idle->n_blocks[w] + 1U, sizeof *idle->refs[w]);
        if (idle->refs[w] == NULL)
            return -ENOMEM;
    }
    return 0;
}

void idle_check_fini(struct engine *e)
{
    free(e->idle.verdict);
    free(e->idle.slot_seen);
    for (uint32_t w = 0; w < ENGINE_WORKERS_MAX; w++)
        free(e->idle.refs[w]);
    memset(&e->idle, 0, sizeof e->idle);
}

/* ---- What must hold -------------------------------------------------------------------------- */

static void expect(struct engine *e, const char *what, uint64_t expected, uint64_t found)
{
    if (expected == found)
        return;
    engine_count(e, ENGINE_STAT_IDLE_FAULTS, 1);
    log_error("books_are_wrong", "what=\"%s\" expected=%llu found=%llu", what,
              (unsigned long long)expected, (unsigned long long)found);
}

static void check_pool(struct engine *e, const char *what, const struct kv_pool *pool)
{
    expect(e, what, pool->n_blocks, pool->n_free);
    expect(e, "free list of KV blocks", 0, (uint64_t)-kv_pool_check(pool));
}

/* Each slot of a worker is in its stack once, and nobody's. */
static void check_slots(struct engine *e, uint32_t w)
{
    const struct engine_worker *worker = &e->workers[w];
    uint32_t n = e->exchange->slots_per_worker, n_foreign = 0, n_not_once = 0;
    uint32_t *seen = e->idle.slot_seen;

    memset(seen, 0, n * sizeof *seen);
    for (uint32_t i = 0; i < worker->n_free_slots; i++) {
        if (worker->free_slots[i] / n == w)
            seen[worker->free_slots[i] % n]++;
        else
            n_foreign++;
    }
    for (uint32_t i = 0; i < n; i++) {
        n_not_once += seen[i] != 1;
        expect(e, "owner of a free slot", SEQUENCE_NONE, e->slot_owner[w * n + i]);
    }
    expect(e, "free slots", n, worker->n_free_slots);
    expect(e, "free slots of another worker", 0, n_foreign);
    expect(e, "slots that are not free once", 0, n_not_once);
    expect(e, "resident sequences", 0, worker->n_resident);
}

/* A row whose request ended keeps its residual until the next sweep hears that it leaves. */
static void check_residuals(struct engine *e)
{
    uint64_t n = 0;

    e->ops->n_returned(e->device, &e->batch.offloaded);
    for (uint32_t l = 0; l < e->geometry.n_layers; l++)
        n += e->batch.offloaded.back[l] + e->batch.offloaded.out[l];
    if (n > 0)
        expect(e, "residuals held, beside those that leave", e->n_leaves, n);
}

static void count_entry(void *arg, struct sequence_ref ref, enum directory_fault fault)
{
    uint32_t *n_used = arg;

    (void)ref;
    (void)fault;
    ++*n_used;
}

/* Who holds which arena block, from the directory alone, against the pools. */
static void check_directory(struct engine *e)
{
    struct engine_idle *idle = &e->idle;
    struct directory_usage usage = {.n_workers = e->exchange->n_workers,
                                    .n_blocks = idle->n_blocks,
                                    .refs = idle->refs,
                                    .verdict = idle->verdict};
    uint32_t n_used = 0;
    uint64_t n_differ = 0;

    directory_scan(e->directory, &usage, count_entry, &n_used);
    for (uint32_t w = 0; w < usage.n_workers; w++) {
        for (uint32_t b = 0; b < idle->n_blocks[w]; b++)
            n_differ += idle->refs[w][b] != e->workers[w].pool.blocks[b].refs;
    }
    expect(e, "directory entries in use", 0, n_used);
    expect(e, "free directory entries", e->directory->n_entries, e->directory->n_free);
    expect(e, "arena blocks whose owners differ from the directory's", 0, n_differ);
}

static void check_books(struct engine *e)
{
    check_pool(e, "free KV blocks of the device", &e->pool);
    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        check_pool(e, "free KV blocks of an arena", &e->workers[w].pool);
        check_slots(e, w);
    }
    expect(e, "copies under way", 0, e->n_copies);
    check_residuals(e);
    check_directory(e);
    engine_count(e, ENGINE_STAT_IDLE_CHECKS, 1);
}

/* ---- When ------------------------------------------------------------------------------------ */

static bool is_idle(const struct engine *e)
{
    uint32_t n = 0;

    for (uint32_t s = SEQUENCE_WAITING; s < SEQUENCE_STATES; s++)
        n += e->sequences.n_in_state[s];
    return n == 0 && !e->in_flight;
}

void idle_check(struct engine *e)
{
    if (e->idle.verdict == NULL || e->idle.checked_at == e->admission.n_arrived + 1 || !is_idle(e))
        return;
    check_books(e);
    e->idle.checked_at = e->admission.n_arrived + 1;
}
