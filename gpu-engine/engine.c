#include "gpu-engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "gpu-engine/batch.h"
#include "gpu-engine/ending.h"
#include "gpu-engine/exchange_delay.h"
#include "gpu-engine/foresight.h"
#include "gpu-engine/intake.h"
#include "gpu-engine/placement.h"
#include "gpu-engine/profile.h"
#include "gpu-engine/replay.h"
#include "gpu-engine/report.h"
#include "gpu-engine/setup.h"
#include "proto/wire.h"

enum {
    STATE_EVERY_BEATS = 5, /* state messages: 4 a second */
};

void engine_ring(void *engine)
{
    struct engine *e = engine;

    atomic_fetch_add_explicit(&e->events, 1, memory_order_release);
    bell_ring(&e->bell);
}

/* ---- Start ----------------------------------------------------------------------------------- */

static void set_sizes(struct engine *e)
{
    struct setup_sizes sizes;

    setup_sizes(&sizes, e->config, e->model, &e->geometry);
    e->context_max = sizes.context_max;
    e->table_max = sizes.table_max;
    e->rows_max = sizes.rows_max;
    e->seqs_max = sizes.seqs_max;
    e->returned_max = sizes.returned_max;
    e->device_blocks = sizes.device_blocks;
}

static int open_model(struct engine *e, struct error *err)
{
    struct gguf_error gguf_err;
    int rc = model_open(e->config->model_path, &e->model, &gguf_err);

    if (rc != 0)
        return error_set(err, rc, "model.path %s: %s", e->config->model_path, gguf_err.text);
    rc = setup_geometry(&e->geometry, e->config, e->model, err);
    if (rc == 0)
        set_sizes(e);
    return rc;
}

static int plan_topology(struct engine *e, struct error *err)
{
    const struct omni_config *c = e->config;
    struct topology_request request = {.n_engines = c->group_n_engines,
                                       .n_workers = c->group_n_workers,
                                       .engine_threads = c->engine_threads,
                                       .worker_threads = c->worker_threads,
                                       .engine_cpus = c->engine_cpus,
                                       .worker_cpus = c->worker_cpus};
    int rc = topology_load(&e->topology, NULL, err);

    if (rc == 0)
        rc = topology_plan(&e->topology, &request, &e->plan, err);
    /* Threads started from here on inherit it: they stay away from the workers' cores. */
    if (rc == 0 && e->plan.engine[e->index].pinned)
        topology_pin_thread(&e->plan.engine[e->index].cpus);
    return rc;
}

static int open_exchange(struct engine *e, struct error *err)
{
    const struct omni_config *c = e->config;
    char dir[SEGMENT_PATH_MAX];
    const char *delay =
        getenv("OMNI_EXCHANGE_DELAY"); /* a fault to test with, see exchange_delay.h */
    int rc = segment_dir_resolve(c->shm_dir, c->group_name, dir, sizeof dir);

    if (rc != 0)
        return error_set(err, rc, "shm.dir is too long");
    rc = segment_dir_prepare(dir, err);
    struct exchange_shm_config config = {
        .dir = dir,
        .engine_idx = e->index,
        .n_workers = c->engine_offload == CONFIG_OFFLOAD_NEVER ? 0 : c->group_n_workers,
        .slots_per_worker = c->worker_slots,
        .n_q_max = c->worker_n_q_max,
        .arena_bytes = (uint64_t)c->worker_arena_mb << 20,
        .n_sequences = c->engine_max_seqs,
        .context_max = e->context_max,
        .late_ns = c->worker_late_ms * NS_PER_MS,
        .kill_ns = c->worker_kill_ms * NS_PER_MS,
        .settle_timeout_ns = c->engine_ready_timeout_ms * NS_PER_MS,
        .geometry = &e->geometry};
    for (uint32_t w = 0; w < config.n_workers; w++)
        config.node[w] = e->plan.worker[w].node;
    if (rc == 0)
        rc = exchange_shm_create(&e->shm, &config, err);
    if (rc == 0)
        rc = stats_create(&e->stats, dir, "gpu-engine", e->index, report_stats_rows(),
                          ENGINE_N_STATS, err);
    if (rc != 0)
        return rc;
    e->exchange = &e->shm->base;
    if (delay != NULL &&
        exchange_delay_create(&e->exchange, e->exchange, (uint32_t)strtoul(delay, NULL, 10)) != 0)
        return error_set(err, -ENOMEM, "no memory for the delaying exchange");
    return 0;
}

static int open_device(struct engine *e, struct error *err)
{
    const struct topology_place *place = &e->plan.engine[e->index];
    int cpus[TOPOLOGY_CPUS_MAX];

    e->ops = setup_device(e->config, err);
    if (e->ops == NULL)
        return -ENOTSUP;
    for (uint32_t i = 0; i < place->n_threads && i < TOPOLOGY_CPUS_MAX; i++)
        cpus[i] = cpu_set_nth(&place->cpus, i % cpu_set_count(&place->cpus));
    struct device_config config = {.model = e->model,
                                   .geometry = &e->geometry,
                                   .exchange = e->exchange,
                                   .n_kv_blocks = e->device_blocks,
                                   .rows_max = e->rows_max,
                                   .returned_rows_max = e->returned_max,
                                   .seqs_max = e->seqs_max,
                                   .context_max = e->context_max,
                                   .n_threads = place->n_threads,
                                   .cpus = place->pinned ? cpus : NULL,
                                   .spin_us = place->exclusive ? e->config->worker_spin_us : 0,
                                   .copies_max = ENGINE_COPIES_MAX,
                                   .notify = engine_ring,
                                   .notify_arg = e};
    if (config.n_kv_blocks == 0)
        return error_set(err, -EINVAL, "engine.kv_mb = %u holds no KV block of %u bytes",
                         e->config->engine_kv_mb, e->geometry.block_bytes);
    int rc = e->ops->open(&e->device, &config);
    return rc == 0 ? 0 : error_set(err, rc, "device %s: %s", e->ops->name, strerror(-rc));
}

/* Without a profile nothing is predicted: jobs have no deadlines and run oldest first. */
static int take_profile(struct engine *e, struct error *err)
{
    const struct omni_config *c = e->config;
    const struct profile_subject subject = {.ops = e->ops,
                                            .device = e->device,
                                            .model = e->model,
                                            .geometry = &e->geometry,
                                            .rows_max = e->rows_max,
                                            .seqs_max = e->seqs_max,
                                            .context_max = e->context_max};
    struct profile profile;
    int rc;

    if (c->engine_profile == CONFIG_PROFILE_OFF)
        return profile_set_kinds(&e->latency, e->model, err);
    rc = profile_obtain(&profile, &subject, c->engine_profile_dir,
                        c->engine_profile == CONFIG_PROFILE_FRESH, err);
    if (rc == 0)
        e->latency = profile.latency;
    return rc;
}

static int init_worker_books(struct engine *e, uint32_t w)
{
    struct engine_worker *worker = &e->workers[w];
    uint32_t n_slots = e->exchange->slots_per_worker;
    int rc = kv_pool_init(&worker->pool, e->shm->arenas[w].n_blocks);

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
    e->items = calloc(c->engine_max_seqs, sizeof *e->items);
    e->item_ids = calloc(c->engine_max_seqs, sizeof *e->item_ids);
    if (rc == 0)
        rc = batch_init(e);
    if (rc != 0 || e->slot_owner == NULL || e->leaves == NULL || e->copy_blocks == NULL ||
        e->copy_staging == NULL || e->items == NULL || e->item_ids == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_slots; i++)
        e->slot_owner[i] = SEQUENCE_NONE;
    struct admission_limits limits = {.context_max = e->context_max,
                                      .block_tokens = e->geometry.block_tokens,
                                      .n_groups = e->geometry.n_groups,
                                      .device_blocks = e->pool.n_blocks,
                                      .arena_blocks = largest_arena(e),
                                      .must_offload = c->engine_offload == CONFIG_OFFLOAD_ALWAYS};
    admission_init(&e->admission, &limits);
    return 0;
}

static int open_control(struct engine *e, struct error *err)
{
    char run_dir[256], name[32], url[WIRE_URL_BYTES];
    int rc = wire_run_dir(e->config->run_dir, run_dir, sizeof run_dir);

    snprintf(name, sizeof name, "engine-%u.sock", e->index);
    if (rc == 0)
        rc = wire_url(url, run_dir, e->config->group_name, name);
    if (rc != 0)
        return error_set(err, rc, "run.dir is too long for a socket path");
    e->identity = (uint64_t)e->shm->epoch << 32 | (uint32_t)getpid();
    struct control_config config = {
        .url = url, .epoch = e->identity, .handlers = intake_handlers(e)};
    return control_create(&e->control, &config, err);
}

/* Said once: small pages cost reads, a foreign node costs more. */
static void warn_of_memory(const struct engine *e, uint32_t w)
{
    const struct engine_worker *worker = &e->workers[w];
    int node = e->plan.worker[w].node;

    if (worker->huge_bytes < worker->arena_bytes / 2)
        log_warn(
            "arena_small_pages",
            "worker=%u huge_bytes=%llu arena_bytes=%llu remedy=\"shm.dir on hugetlbfs, or on a "
            "tmpfs mounted with huge=always\"",
            w, (unsigned long long)worker->huge_bytes, (unsigned long long)worker->arena_bytes);
    if (node >= 0 && e->shm->arenas[w].segment.bound_node != node)
        log_warn("arena_not_bound", "worker=%u node=%d remedy=\"allow mbind in the container\"", w,
                 node);
}

static void set_totals(struct engine *e)
{
    uint64_t huge = 0;

    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        const struct segment *segment = &e->shm->arenas[w].segment;

        e->workers[w].arena_bytes = segment->bytes;
        e->workers[w].huge_bytes = segment_huge_bytes(segment);
        huge += e->workers[w].huge_bytes;
        warn_of_memory(e, w);
    }
    stats_set(&e->stats, ENGINE_STAT_ARENA_HUGE, huge);
}

int engine_init(struct engine *e, const struct omni_config *config, uint32_t index,
                struct error *err)
{
    int rc;

    memset(e, 0, sizeof *e);
    e->stats = STATS_NONE;
    e->sweep_log = SWEEP_LOG_NONE;
    e->config = config;
    e->index = index;
    rc = plan_topology(e, err);
    if (rc == 0)
        rc = open_model(e, err);
    if (rc == 0)
        rc = open_exchange(e, err);
    if (rc == 0)
        rc = open_device(e, err);
    if (rc == 0)
        rc = take_profile(e, err);
    if (rc == 0)
        rc = sweep_log_open(&e->sweep_log, config->engine_sweep_log, err);
    if (rc == 0 && init_books(e) != 0)
        rc = error_set(err, -ENOMEM, "no memory for %u sequences of %u tokens",
                       config->engine_max_seqs, e->context_max);
    if (rc == 0)
        rc = open_control(e, err);
    if (rc != 0)
        return rc;
    set_totals(e);
    log_info("engine_ready",
             "index=%u epoch=%u layers=%u context=%u kv_blocks=%u workers=%u slots=%u", e->index,
             e->shm->epoch, e->geometry.n_layers, e->context_max, e->pool.n_blocks,
             e->exchange->n_workers, exchange_n_slots(e->exchange));
    return 0;
}

/* ---- The loop -------------------------------------------------------------------------------- */

static void take_arrivals(struct engine *e)
{
    struct sequence *s;

    while ((s = sequence_next_arrival(&e->sequences)) != NULL) {
        struct sequence_info info = {.prompt = s->tokens,
                                     .prompt_len = s->n_prompt,
                                     .admitted_ns = clock_now_ns(),
                                     .params = {.seed = s->sampling.seed,
                                                .temperature = s->sampling.temperature,
                                                .top_p = s->sampling.top_p,
                                                .min_p = s->sampling.min_p,
                                                .top_k = s->sampling.top_k,
                                                .max_tokens = s->max_tokens,
                                                .class_idx = s->class_idx}};
        memcpy(info.request_id, s->id.bytes, sizeof info.request_id);
        if (engine_is_best_effort(s) && directory_acquire(&e->shm->directory, &info, &s->ref) != 0)
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
    take_arrivals(e);
    ending_obey(e);
    ending_drain(e);
    placement_step(e);
    exchange_shm_drain_announcements(e->shm);
    if (batch_build(e))
        batch_submit(e);
}

static void beat(struct engine *e, uint64_t now)
{
    if (now < e->next_beat_ns)
        return;
    e->next_beat_ns = now + ENGINE_BEAT_MS * NS_PER_MS;
    e->n_beats++;
    exchange_shm_poll_peers(e->shm, now);
    engine_page_beat(&e->shm->page, now, e->sweep);
    if (e->n_beats % STATE_EVERY_BEATS == 0) {
        foresight_report(e);
        report_state(e);
    }
}

static bool something_happened(void *arg)
{
    struct engine *e = arg;

    if (atomic_load_explicit(&e->events, memory_order_acquire) != e->events_seen)
        return true;
    return !e->in_flight && exchange_shm_announced(e->shm);
}

static void sleep_until_event(struct engine *e, uint32_t events_seen)
{
    struct bell_shared *bells[] = {&e->bell, &e->shm->page.shared->done_bell};
    struct bell_wait wait = {.ready = something_happened, .arg = e, .until_ns = e->next_beat_ns};

    if (e->exchange->poll_us > 0 && !e->in_flight)
        wait.until_ns = clock_now_ns() + e->exchange->poll_us * NS_PER_US;
    e->events_seen = events_seen;
    bell_sleep(bells, e->in_flight ? 1 : 2, &wait);
}

void engine_tick(struct engine *e)
{
    uint32_t events_seen = atomic_load_explicit(&e->events, memory_order_acquire);

    poll_device(e);
    if (!e->in_flight)
        between_sweeps(e);
    beat(e, clock_now_ns());
    sleep_until_event(e, events_seen);
}

/* ---- End ------------------------------------------------------------------------------------- */

static void free_books(struct engine *e)
{
    batch_fini(e);
    for (uint32_t w = 0; w < EXCHANGE_WORKERS_MAX; w++) {
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
    if (e->sequences.all != NULL)
        sequence_table_fini(&e->sequences);
}

void engine_shutdown(struct engine *e)
{
    control_destroy(e->control);
    sweep_log_close(&e->sweep_log);
    if (e->device != NULL)
        e->ops->close(e->device);
    free_books(e);
    stats_detach(&e->stats);
    if (e->exchange != NULL)
        e->exchange->ops->destroy(e->exchange);
    else if (e->shm != NULL)
        e->shm->base.ops->destroy(&e->shm->base);
    model_close(e->model);
}
