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
#include "common/compute/attention.h"
#include "common/shm/engine_page.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"
#include "tests/bench/median.h"

enum { ROUNDS = 2001, ASLEEP_ROUNDS = 201, PAUSE_US = 500, BLOCK_TOKENS = 64 };

struct overhead {
    char dir[64];
    enum isa isa;
    bool asleep;
    struct kv_geometry geometry;
    struct engine_page page;
    struct job_table table; /* the engine's side */
    uint8_t *kv;
    _Atomic bool ready, stop;
};

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    invariant(pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0);
}

/* ---- Worker ---------------------------------------------------------------------------------- */

static void run_job(struct overhead *o, struct job_table *table, struct team *team,
                    struct attn_scratch *scratch, const struct job *job)
{
    static const uint32_t blocks[1] = {0};
    const struct job_table_layout *layout = &table->layout;
    uint64_t start = clock_now_ns();
    struct attn_job attn = {.q = job_table_q(table, job->slot),
                            .out = job_table_out(table, job->slot),
                            .n_q = 1,
                            .pos = job->pos,
                            .ldq = layout->q_width,
                            .ldo = layout->out_width,
                            .kv = {.base = o->kv,
                                   .table = blocks,
                                   .block_bytes = o->geometry.block_bytes,
                                   .block_tokens = BLOCK_TOKENS,
                                   .n_blocks = 1,
                                   .type = o->geometry.type,
                                   .layer = &o->geometry.layer[0]}};

    attn_append(&attn.kv, job->pos, 1, job_table_k(table, job->slot), layout->k_width,
                job_table_v(table, job->slot), layout->v_width);
    attn_run(team, scratch, &attn, 1);
    invariant(job_worker_complete(table, job, start, clock_now_ns(), 0) == 0);
}

static void *worker_main(void *arg)
{
    struct overhead *o = arg;
    struct engine_page page;
    struct job_table table, *tables[1] = {&table};
    struct attn_scratch *scratch;
    struct team *team;
    struct error err;
    struct job job;

    pin(1);
    invariant(engine_page_attach(&page, o->dir, 0, &err) == 0);
    invariant(job_table_attach(&table, o->dir, 0, 0, &page.shared->done_bell, &err) == 0);
    invariant(team_create(&team, 1, NULL, 0) == 0);
    invariant(attn_scratch_create(&scratch, o->isa, 1, 128, 128) == 0);
    invariant(!job_worker_next(&table, &job)); /* the scan of the attach ends */
    atomic_store(&o->ready, true);
    while (!atomic_load_explicit(&o->stop, memory_order_relaxed)) {
        if (job_worker_next(&table, &job))
            run_job(o, &table, team, scratch, &job);
        else if (o->asleep)
            job_worker_wait(tables, 1, 0, clock_now_ns() + 10 * NS_PER_MS);
    }
    attn_scratch_destroy(scratch);
    team_destroy(team);
    job_table_detach(&table);
    engine_page_detach(&page);
    return NULL;
}

/* ---- Engine ---------------------------------------------------------------------------------- */

static double round_us(struct overhead *o, uint32_t round)
{
    struct job_desc desc = {.seq_gen = 1, .n_q = 1, .pos = 0, .ctx_len = 1, .sweep = round};
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
    while (job_engine_take(&o->table, 0, generation, NULL) != JOB_OK)
        __builtin_ia32_pause();
    return (double)(end - start) / 1e3;
}

static double run_rounds(struct overhead *o)
{
    static double us[ROUNDS];
    uint32_t n = o->asleep ? ASLEEP_ROUNDS : ROUNDS;

    while (!atomic_load(&o->ready))
        sched_yield();
    for (uint32_t i = 0; i < n; i++) {
        if (o->asleep)
            usleep(PAUSE_US);
        us[i] = round_us(o, i);
    }
    return median_of(us, n);
}

static int open_table(struct overhead *o)
{
    static const struct kv_layer_spec spec = {.attention = KV_ATTENTION_FULL,
                                              .n_heads = 9,
                                              .n_kv_heads = 3,
                                              .dk = 64,
                                              .dv = 64,
                                              .scale = 0.125f};
    static const struct kv_geometry_config geometry = {
        .type = KV_TYPE_F16, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    static const struct job_table_config config = {
        .n_slots = 1, .n_q_max = 1, .element = JOB_ELEMENT_F32};
    const char *field;
    struct error err = {.text = ""};
    int rc;

    invariant(geometry_init(&o->geometry, &geometry, &spec, 1, &field) == 0);
    snprintf(o->dir, sizeof o->dir, "/dev/shm/omni-bench-%d", (int)getpid());
    rc = segment_dir_prepare(o->dir, &err);
    if (rc == 0)
        rc = engine_page_open(&o->page, o->dir, 0, &err);
    if (rc == 0)
        rc = job_table_open(&o->table, o->dir, 0, 0, &config, &o->geometry, SEGMENT_ANY_NODE, &err);
    if (rc != 0) {
        fprintf(stderr, "bench_attention: %s\n", err.text);
        return rc;
    }
    job_engine_raise_epoch(&o->table, 1);
    job_engine_free_all(&o->table);
    return 0;
}

static void close_table(struct overhead *o)
{
    uint32_t n_removed, n_busy;
    struct error err;

    job_table_detach(&o->table);
    engine_page_detach(&o->page);
    segment_unlink_stale(o->dir, &n_removed, &n_busy, &err);
    rmdir(o->dir);
}

double attention_overhead_us(enum isa isa, bool asleep)
{
    static struct overhead o;
    cpu_set_t before;
    pthread_t worker;
    double us = -1;

    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        return -1;
    memset(&o, 0, sizeof o);
    o.isa = isa;
    o.asleep = asleep;
    if (open_table(&o) != 0)
        return -1;
    o.kv = aligned_alloc(64, o.geometry.block_bytes);
    invariant(o.kv != NULL);
    memset(o.kv, 0, o.geometry.block_bytes);
    invariant(pthread_getaffinity_np(pthread_self(), sizeof before, &before) == 0);
    pin(0);
    if (pthread_create(&worker, NULL, worker_main, &o) == 0) {
        us = run_rounds(&o);
        atomic_store(&o.stop, true);
        pthread_join(worker, NULL);
    }
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    free(o.kv);
    close_table(&o);
    return us;
}
