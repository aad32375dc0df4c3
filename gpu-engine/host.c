/* Opens what the engine works with, and makes it sleep and wake. */
#include "gpu-engine/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/topology/claim.h"
#include "gpu-engine/decide.h"
#include "gpu-engine/exchange_delay.h"
#include "gpu-engine/intake.h"
#include "gpu-engine/profile.h"
#include "gpu-engine/report.h"
#include "gpu-engine/setup.h"
#include "proto/wire.h"

void host_ring(void *host)
{
    struct host *h = host;

    atomic_fetch_add_explicit(&h->events, 1, memory_order_release);
    bell_ring(&h->bell);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void set_sizes(struct host *h)
{
    struct setup_sizes sizes;

    setup_sizes(&sizes, h->engine.config, h->model, &h->engine.geometry);
    h->engine.context_max = sizes.context_max;
    h->engine.table_max = sizes.table_max;
    h->engine.rows_max = sizes.rows_max;
    h->engine.seqs_max = sizes.seqs_max;
    h->engine.returned_max = sizes.returned_max;
    h->engine.device_blocks = sizes.device_blocks;
}

static int open_model(struct host *h, struct error *err)
{
    struct gguf_error gguf_err;
    int rc = model_open(h->engine.config->model_path, &h->model, &gguf_err);

    if (rc != 0)
        return error_set(err, rc, "model.path %s: %s", h->engine.config->model_path, gguf_err.text);
    h->engine.n_vocab = h->model->n_vocab;
    rc = setup_geometry(&h->engine.geometry, h->engine.config, h->model, err);
    if (rc == 0)
        set_sizes(h);
    return rc;
}

static int plan_topology(struct host *h, struct error *err)
{
    struct topology_request request = topology_request_of(h->engine.config);
    int rc = topology_load(&h->topology, NULL, err);

    if (rc == 0)
        rc = topology_plan(&h->topology, &request, &h->plan, err);
    /* Threads started from here on inherit it: they stay away from the workers' cores. */
    if (rc == 0 && h->plan.engine[h->engine.index].pinned)
        topology_pin_thread(&h->plan.engine[h->engine.index].cpus);
    if (rc == 0)
        h->n_claimed = claim_place(&h->plan.engine[h->engine.index], "engine.cpus");
    return rc;
}

/* What the device writes into jobs, and reads out of them. */
static enum job_element job_element(const struct host *h)
{
    if (!h->engine.ops->halves)
        return JOB_ELEMENT_F32;
    return h->engine.geometry.type == KV_TYPE_BF16 ? JOB_ELEMENT_BF16 : JOB_ELEMENT_F16;
}

static int open_exchange(struct host *h, struct error *err)
{
    const struct omni_config *c = h->engine.config;
    char dir[SEGMENT_PATH_MAX];
    const char *delay =
        getenv("OMNI_EXCHANGE_DELAY"); /* a fault to test with, see exchange_delay.h */
    int rc = segment_dir_resolve(c->shm_dir, c->group_name, dir, sizeof dir);

    if (rc != 0)
        return error_set(err, rc, "shm.dir is too long");
    rc = segment_dir_prepare(dir, err);
    struct exchange_shm_config config = {
        .dir = dir,
        .engine_idx = h->engine.index,
        .n_workers = c->engine_offload == CONFIG_OFFLOAD_NEVER ? 0 : c->group_n_workers,
        .slots_per_worker = c->worker_slots,
        .n_q_max = c->worker_n_q_max,
        .element = job_element(h),
        .arena_bytes = (uint64_t)c->worker_arena_mb << 20,
        .n_sequences = c->engine_max_seqs,
        .context_max = h->engine.context_max,
        .late_ns = c->worker_late_ms * NS_PER_MS,
        .kill_ns = c->worker_kill_ms * NS_PER_MS,
        .settle_timeout_ns = c->engine_ready_timeout_ms * NS_PER_MS,
        .geometry = &h->engine.geometry};
    for (uint32_t w = 0; w < config.n_workers; w++)
        config.node[w] = h->plan.worker[w].node;
    if (rc == 0)
        rc = exchange_shm_create(&h->shm, &config, err);
    if (rc == 0)
        rc = stats_create(&h->engine.stats, dir, "gpu-engine", h->engine.index, report_stats_rows(),
                          ENGINE_N_STATS, err);
    if (rc != 0)
        return rc;
    h->engine.directory = &h->shm->directory;
    h->engine.exchange = &h->shm->base;
    if (delay != NULL && exchange_delay_create(&h->engine.exchange, h->engine.exchange,
                                               (uint32_t)strtoul(delay, NULL, 10)) != 0)
        return error_set(err, -ENOMEM, "no memory for the delaying exchange");
    return 0;
}

static int open_device(struct host *h, struct error *err)
{
    const struct topology_place *place = &h->plan.engine[h->engine.index];
    int cpus[TOPOLOGY_CPUS_MAX];

    for (uint32_t i = 0; i < place->n_threads && i < TOPOLOGY_CPUS_MAX; i++)
        cpus[i] = cpu_set_nth(&place->cpus, i % cpu_set_count(&place->cpus));
    struct device_config config = {
        .model = h->model,
        .geometry = &h->engine.geometry,
        .exchange = h->engine.exchange,
        .n_kv_blocks = h->engine.device_blocks,
        .rows_max = h->engine.rows_max,
        .returned_rows_max = h->engine.returned_max,
        .seqs_max = h->engine.seqs_max,
        .context_max = h->engine.context_max,
        .n_threads = place->n_threads,
        .cpus = place->pinned ? cpus : NULL,
        .spin_us = place->exclusive ? h->engine.config->worker_spin_us : 0,
        .copies_max = ENGINE_COPIES_MAX,
        .notify = host_ring,
        .notify_arg = h,
        .dummy_weights = h->engine.config->engine_weights == CONFIG_WEIGHTS_DUMMY};
    if (config.n_kv_blocks == 0 && !h->engine.ops->fills_kv)
        return error_set(err, -EINVAL, "engine.kv_mb = %u holds no KV block of %u bytes",
                         h->engine.config->engine_kv_mb, h->engine.geometry.block_bytes);
    int rc = h->engine.ops->open(&h->engine.device, &config);
    if (rc != 0)
        return error_set(err, rc, "device %s: %s", h->engine.ops->name, strerror(-rc));
    struct device_caps caps;
    h->engine.ops->caps(h->engine.device, &caps);
    h->engine.device_blocks = caps.n_kv_blocks; /* where it takes what fits */
    return 0;
}

/* Without a profile nothing is predicted: jobs have no deadlines and run oldest first. */
static int take_profile(struct host *h, struct error *err)
{
    const struct omni_config *c = h->engine.config;
    const struct profile_subject subject = {.ops = h->engine.ops,
                                            .device = h->engine.device,
                                            .model = h->model,
                                            .geometry = &h->engine.geometry,
                                            .rows_max = h->engine.rows_max,
                                            .seqs_max = h->engine.seqs_max,
                                            .context_max = h->engine.context_max};
    struct profile profile;
    int rc;

    if (c->engine_profile == CONFIG_PROFILE_OFF)
        return profile_set_kinds(&h->engine.latency, h->model, err);
    rc = profile_obtain(&profile, &subject, c->engine_profile_dir,
                        c->engine_profile == CONFIG_PROFILE_FRESH, err);
    if (rc == 0)
        h->engine.latency = profile.latency;
    return rc;
}

static int open_control(struct host *h, struct error *err)
{
    char run_dir[256], name[32], url[WIRE_URL_BYTES];
    int rc = wire_run_dir(h->engine.config->run_dir, run_dir, sizeof run_dir);

    snprintf(name, sizeof name, "engine-%u.sock", h->engine.index);
    if (rc == 0)
        rc = wire_url(url, run_dir, h->engine.config->group_name, name);
    if (rc != 0)
        return error_set(err, rc, "run.dir is too long for a socket path");
    h->identity = (uint64_t)h->shm->epoch << 32 | (uint32_t)getpid();
    struct control_config config = {
        .url = url, .epoch = h->identity, .handlers = intake_handlers(h)};
    return control_create(&h->control, &config, err);
}

/* Said once: small pages cost reads, a foreign node costs more. */
static void warn_of_memory(const struct host *h, uint32_t w)
{
    const struct engine_worker *worker = &h->engine.workers[w];
    int node = h->plan.worker[w].node;

    if (worker->huge_bytes < worker->arena_bytes / 2)
        log_warn(
            "arena_small_pages",
            "worker=%u huge_bytes=%llu arena_bytes=%llu remedy=\"shm.dir on hugetlbfs, or on a "
            "tmpfs mounted with huge=always\"",
            w, (unsigned long long)worker->huge_bytes, (unsigned long long)worker->arena_bytes);
    if (node >= 0 && h->shm->arenas[w].segment.bound_node != node)
        log_warn("arena_not_bound", "worker=%u node=%d remedy=\"allow mbind in the container\"", w,
                 node);
}

static void set_topology_totals(struct host *h)
{
    const struct topology_place *place = &h->plan.engine[h->engine.index];
    struct stats_page *stats = &h->engine.stats;

    stats_set(stats, ENGINE_STAT_NODES, h->topology.n_nodes);
    stats_set(stats, ENGINE_STAT_CPUS, h->topology.n_cpus);
    stats_set(stats, ENGINE_STAT_CPUS_OWN, place->exclusive ? cpu_set_count(&place->cpus) : 0);
    stats_set(stats, ENGINE_STAT_CPUS_CLAIMED, h->n_claimed);
}

static void set_totals(struct host *h)
{
    uint64_t huge = 0;

    for (uint32_t w = 0; w < h->engine.exchange->n_workers; w++) {
        const struct segment *segment = &h->shm->arenas[w].segment;

        h->engine.workers[w].arena_bytes = segment->bytes;
        h->engine.workers[w].huge_bytes = segment_huge_bytes(segment);
        huge += h->engine.workers[w].huge_bytes;
        warn_of_memory(h, w);
    }
    stats_set(&h->engine.stats, ENGINE_STAT_ARENA_HUGE, huge);
}

/* ---- The engine's sink ----------------------------------------------------------------------- */

static void sink_send(void *arg, const struct message *m)
{
    struct host *h = arg;

    control_send(h->control, m);
}

static bool sink_connected(void *arg)
{
    struct host *h = arg;

    return control_connected(h->control);
}

/* Prefix hashes are of this process: nobody outside can make two prefixes meet. */
static int take_prefix_key(struct engine *e, struct error *err)
{
    if (getrandom(&e->prefix_key, sizeof e->prefix_key, 0) != (ssize_t)sizeof e->prefix_key)
        return error_set(err, -EIO, "no random bytes from the kernel");
    return 0;
}

static int open_all(struct host *h, struct error *err)
{
    struct engine *e = &h->engine;
    int rc = plan_topology(h, err);

    if (rc == 0)
        rc = take_prefix_key(e, err);
    if (rc == 0 && (e->ops = setup_device(e->config, err)) == NULL)
        rc = -ENOTSUP;
    if (rc == 0)
        rc = open_model(h, err);
    if (rc == 0)
        rc = open_exchange(h, err);
    if (rc == 0)
        rc = open_device(h, err);
    if (rc == 0)
        rc = take_profile(h, err);
    if (rc == 0)
        rc = decide_check(e, err);
    if (rc == 0)
        rc = sweep_log_open(&e->sweep_log, e->config->engine_sweep_log, err);
    if (rc == 0 && engine_init(e) != 0)
        rc = error_set(err, -ENOMEM, "no memory for %u sequences of %u tokens",
                       e->config->engine_max_seqs, e->context_max);
    h->held = calloc(e->config->engine_max_seqs, sizeof *h->held);
    if (rc == 0 && h->held == NULL)
        rc = error_set(err, -ENOMEM, "no memory for the introduction");
    return rc == 0 ? open_control(h, err) : rc;
}

int host_init(struct host *h, const struct omni_config *config, uint32_t index, struct error *err)
{
    struct engine *e = &h->engine;

    memset(h, 0, sizeof *h);
    e->stats = STATS_NONE;
    e->sweep_log = SWEEP_LOG_NONE;
    e->config = config;
    e->index = index;
    e->sink = (struct engine_sink){.send = sink_send, .connected = sink_connected, .arg = h};
    int rc = open_all(h, err);
    if (rc != 0)
        return rc;
    set_topology_totals(h);
    set_totals(h);
    log_info("engine_ready",
             "index=%u epoch=%u layers=%u context=%u kv_blocks=%u workers=%u slots=%u", e->index,
             h->shm->epoch, e->geometry.n_layers, e->context_max, e->pool.n_blocks,
             e->exchange->n_workers, exchange_n_slots(e->exchange));
    return 0;
}

/* ---- The loop -------------------------------------------------------------------------------- */

static bool something_happened(void *arg)
{
    struct host *h = arg;

    if (atomic_load_explicit(&h->events, memory_order_acquire) != h->events_seen)
        return true;
    return !h->engine.in_flight && exchange_shm_announced(h->shm);
}

static void sleep_until_event(struct host *h, uint32_t events_seen)
{
    struct engine *e = &h->engine;
    struct bell_shared *bells[] = {&h->bell, &h->shm->page.shared->done_bell};
    struct bell_wait wait = {.ready = something_happened, .arg = h, .until_ns = e->next_beat_ns};

    if (e->exchange->poll_us > 0 && !e->in_flight)
        wait.until_ns = clock_now_ns() + e->exchange->poll_us * NS_PER_US;
    h->events_seen = events_seen;
    bell_sleep(bells, e->in_flight ? 1 : 2, &wait);
}

void host_tick(struct host *h)
{
    uint32_t events_seen = atomic_load_explicit(&h->events, memory_order_acquire);

    engine_step(&h->engine);
    sleep_until_event(h, events_seen);
}

void host_shutdown(struct host *h)
{
    struct engine *e = &h->engine;

    control_destroy(h->control);
    free(h->held);
    sweep_log_close(&e->sweep_log);
    if (e->device != NULL)
        e->ops->close(e->device);
    engine_fini(e);
    stats_detach(&e->stats);
    if (e->exchange != NULL)
        e->exchange->ops->destroy(e->exchange);
    else if (h->shm != NULL)
        h->shm->base.ops->destroy(&h->shm->base);
    model_close(h->model);
}
