#include "tests/bench/attention_overhead.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/shm/directory.h"
#include "common/shm/job_engine.h"
#include "cpu-attnd/attnd.h"
#include "tests/bench/median.h"

enum {
    ROUNDS = 2001,
    ASLEEP_ROUNDS = 201,
    PAUSE_US = 500,
    BLOCK_TOKENS = 64,
    N_BLOCKS = 16,
    ATTACH_MS = 5000
};

struct overhead {
    char dir[64];
    struct omni_config config;
    struct kv_geometry geometry;
    struct engine_page page;
    struct directory directory;
    struct job_table table; /* the engine's side */
    struct arena arena;
    struct sequence_ref seq;
    bool asleep;
    struct attnd attnd; /* the worker thread's */
    struct error err;   /* why it has none, before failed */
    _Atomic bool ready, failed, stop;
};

/* ---- Worker ---------------------------------------------------------------------------------- */

static void *worker_main(void *arg)
{
    struct overhead *o = arg;
    struct attnd *a = &o->attnd;

    if (attnd_init(a, &o->config, 0, &o->err) != 0) {
        atomic_store(&o->failed, true);
    } else {
        while (!atomic_load_explicit(&o->stop, memory_order_relaxed)) {
            attnd_tick(a);
            if (!atomic_load_explicit(&o->ready, memory_order_relaxed))
                atomic_store(&o->ready, a->links[0].attached);
        }
    }
    attnd_shutdown(a);
    return NULL;
}

/* Until it is attached; what it needs of the machine is known by then. */
static bool worker_is_there(struct overhead *o)
{
    uint64_t until = clock_now_ns() + ATTACH_MS * NS_PER_MS;

    while (!atomic_load(&o->ready) && !atomic_load(&o->failed) && clock_now_ns() < until)
        clock_sleep_ns(NS_PER_MS);
    if (atomic_load(&o->failed) || !atomic_load(&o->ready)) {
        fprintf(stderr, "overhead: no worker: %s\n", o->err.text);
        return false;
    }
    if (!o->asleep && !o->attnd.plan.worker[0].exclusive) {
        fprintf(stderr, "overhead: the worker has no core of its own\n");
        return false;
    }
    return true;
}

/* ---- Engine ---------------------------------------------------------------------------------- */

static double round_us(struct overhead *o, uint32_t round)
{
    struct job_desc desc = {
        .seq_idx = o->seq.idx, .seq_gen = o->seq.gen, .n_q = 1, .ctx_len = 1, .sweep = round};
    uint64_t start = clock_now_ns(), end;
    uint32_t generation;

    desc.posted_ns = start;
    invariant(job_engine_post(&o->table, 0, &desc, &generation) == 0);
    job_engine_flush(&o->table);
    while (job_engine_done_generation(&o->table, 0) != generation)
        __builtin_ia32_pause();
    end = clock_now_ns();
    while (job_engine_poll(&o->table, &(uint32_t){0}, 1) != 1) /* the announcement comes last */
        __builtin_ia32_pause();
    invariant(job_engine_take(&o->table, 0, generation, NULL) == JOB_OK);
    return (double)(end - start) / 1e3;
}

static double run_rounds(struct overhead *o)
{
    static double us[ROUNDS];
    uint32_t n = o->asleep ? ASLEEP_ROUNDS : ROUNDS;

    for (uint32_t i = 0; i < n; i++) {
        if (o->asleep)
            clock_sleep_ns(PAUSE_US * NS_PER_US);
        us[i] = round_us(o, i);
    }
    return median_of(us, n);
}

/* ---- Shared memory --------------------------------------------------------------------------- */

static void make_geometry(struct kv_geometry *g)
{
    static const struct kv_layer_spec spec = {.attention = KV_ATTENTION_FULL,
                                              .n_heads = 9,
                                              .n_kv_heads = 3,
                                              .dk = 64,
                                              .dv = 64,
                                              .scale = 0.125f};
    static const struct kv_geometry_config config = {
        .type = KV_TYPE_F16, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    const char *field;

    invariant(geometry_init(g, &config, &spec, 1, &field) == 0);
}

/* A sequence of one block at worker 0. */
static void make_sequence(struct overhead *o)
{
    const uint32_t prompt[1] = {1}, blocks[1] = {0};
    const struct sequence_info info = {
        .request_id = {1}, .prompt = prompt, .prompt_len = 1, .admitted_ns = 1};

    invariant(directory_acquire(&o->directory, &info, &o->seq) == 0);
    directory_set_state(&o->directory, o->seq, 0, DIRECTORY_FILLING);
    directory_set_blocks(&o->directory, o->seq, 0, 0, blocks, 1);
    directory_set_state(&o->directory, o->seq, 0, DIRECTORY_RESIDENT);
}

static int open_segments(struct overhead *o, struct error *err)
{
    const struct job_table_config table = {.n_slots = 1, .n_q_max = 1, .element = JOB_ELEMENT_F32};
    const struct directory_config directory = {.n_entries = 1, .ctx_max = BLOCK_TOKENS};
    int rc = segment_dir_prepare(o->dir, err);

    if (rc == 0)
        rc = engine_page_open(&o->page, o->dir, 0, err);
    if (rc == 0)
        rc = directory_open(&o->directory, o->dir, 0, &directory, &o->geometry, err);
    if (rc == 0)
        rc = job_table_open(&o->table, o->dir, 0, 0, &table, &o->geometry, SEGMENT_ANY_NODE, err);
    if (rc == 0)
        rc = arena_open(&o->arena, o->dir, 0, 0, &o->geometry, N_BLOCKS, false, SEGMENT_ANY_NODE,
                        err);
    return rc;
}

static bool open_engine(struct overhead *o)
{
    struct error err = {.text = ""};

    make_geometry(&o->geometry);
    if (open_segments(o, &err) != 0) {
        fprintf(stderr, "overhead: %s\n", err.text);
        return false;
    }
    directory_clear(&o->directory);
    job_engine_raise_epoch(&o->table, 1);
    job_engine_free_all(&o->table); /* there is no worker yet */
    engine_page_enter(&o->page, 1, clock_now_ns());
    make_sequence(o);
    return true;
}

static void close_engine(struct overhead *o)
{
    uint32_t n_removed, n_busy;
    struct error err;

    job_table_detach(&o->table);
    arena_detach(&o->arena);
    directory_detach(&o->directory);
    engine_page_detach(&o->page);
    segment_unlink_stale(o->dir, &n_removed, &n_busy, &err);
    rmdir(o->dir);
}

static void configure(struct overhead *o)
{
    config_defaults(&o->config);
    snprintf(o->config.shm_dir, sizeof o->config.shm_dir, "/dev/shm");
    snprintf(o->config.group_name, sizeof o->config.group_name, "omni-bench-%d", (int)getpid());
    snprintf(o->dir, sizeof o->dir, "/dev/shm/omni-bench-%d", (int)getpid());
    o->config.group_n_engines = o->config.group_n_workers = 1;
    o->config.worker_slots = 1;
    if (o->asleep)
        o->config.worker_spin_us = 0;
}

static double measure(struct overhead *o)
{
    cpu_set_t before;
    pthread_t worker;
    double us = -1;

    invariant(pthread_getaffinity_np(pthread_self(), sizeof before, &before) == 0);
    if (pthread_create(&worker, NULL, worker_main, o) != 0)
        return -1;
    if (worker_is_there(o)) {
        topology_pin_thread(&o->attnd.plan.engine[0].cpus);
        us = run_rounds(o);
    }
    atomic_store(&o->stop, true);
    pthread_join(worker, NULL);
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    return us;
}

double attention_overhead_us(bool asleep)
{
    static struct overhead o;
    double us = -1;

    memset(&o, 0, sizeof o);
    o.asleep = asleep;
    o.page.segment = SEGMENT_NONE;
    o.table = JOB_TABLE_NONE;
    o.arena = ARENA_NONE;
    o.directory = DIRECTORY_NONE;
    configure(&o);
    if (open_engine(&o))
        us = measure(&o);
    close_engine(&o);
    return us;
}
