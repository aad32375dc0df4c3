/* The cpu device: device_ops on the machine's own cores. */
#include "gpu-engine/device/cpu/cpu_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/clock.h"
#include "common/base/log.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

static int alloc_kv(struct device *d)
{
    d->kv_bytes = (size_t)d->config.n_kv_blocks * d->geometry->block_bytes;
    if (d->kv_bytes == 0)
        return -EINVAL;
    void *p = mmap(NULL, d->kv_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    d->kv = p;
    madvise(p, d->kv_bytes, MADV_HUGEPAGE); /* an optimisation: its failure changes nothing */
    memset(p, 0, d->kv_bytes);
    return 0;
}

static int alloc_slots(struct device *d)
{
    size_t table = (size_t)d->geometry->n_groups * d->table_max;

    d->slots = calloc(d->n_slots + 1, sizeof *d->slots);
    d->slot_tables = calloc(d->n_slots * table + 1, sizeof *d->slot_tables);
    d->pick_slots = calloc(d->n_slots + 1, sizeof *d->pick_slots);
    d->done_generation = calloc(d->n_slots + 1, sizeof *d->done_generation);
    if (d->slots == NULL || d->slot_tables == NULL || d->pick_slots == NULL ||
        d->done_generation == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < d->n_slots; i++)
        d->slots[i].tables = d->slot_tables + i * table;
    return wait_book_init(&d->waits, d->n_slots,
                          d->config.exchange != NULL ? d->config.exchange->slots_per_worker : 0);
}

static int alloc_batch(struct device *d, struct cpu_batch *b, uint32_t rows_max, uint32_t parts_max)
{
    int rc = cpu_buffers_share(&b->buffers, &d->buffers);

    b->rows.x = calloc(rows_max, sizeof *b->rows.x);
    b->rows.pos = calloc(rows_max, sizeof *b->rows.pos);
    b->parts = calloc(parts_max, sizeof *b->parts);
    return b->rows.x == NULL || b->rows.pos == NULL || b->parts == NULL ? -ENOMEM : rc;
}

static void free_batch(struct cpu_batch *b)
{
    cpu_buffers_unshare(&b->buffers);
    free(b->rows.x);
    free(b->rows.pos);
    free(b->parts);
}

static int alloc_rows(struct device *d)
{
    const struct device_config *c = &d->config;
    uint32_t rows_max = c->rows_max + c->returned_rows_max;
    uint32_t parts_max = c->seqs_max + c->returned_rows_max;
    int rc = cpu_buffers_init(&d->buffers, c->model, rows_max, CPU_LOGIT_ROWS);

    if (rc == 0)
        rc = sampler_init(&d->sampler, c->model->n_vocab);
    d->residual_rows = c->rows_max + d->n_slots * d->n_q_max;
    d->residual = calloc((size_t)d->residual_rows * c->model->n_embd, sizeof *d->residual);
    d->attn_jobs = calloc(parts_max, sizeof *d->attn_jobs);
    d->previous_tokens = calloc(c->seqs_max + d->n_slots + 1, sizeof *d->previous_tokens);
    if (d->residual == NULL || d->attn_jobs == NULL || d->previous_tokens == NULL)
        return -ENOMEM;
    for (int i = 0; i < DEVICE_BATCHES && rc == 0; i++)
        rc = alloc_batch(d, &d->batch[i], rows_max, parts_max);
    for (int i = 0; i < CPU_SWEEP_BUFFERS && rc == 0; i++)
        rc = cpu_sweep_alloc(d, &d->sweeps[i]);
    return rc;
}

static void free_all(struct device *d)
{
    for (int i = 0; i < CPU_SWEEP_BUFFERS; i++)
        cpu_sweep_free(&d->sweeps[i]);
    cpu_copy_free(d);
    for (int i = 0; i < DEVICE_BATCHES; i++)
        free_batch(&d->batch[i]);
    wait_book_fini(&d->waits);
    cpu_buffers_fini(&d->buffers);
    sampler_fini(&d->sampler);
    attn_scratch_destroy(d->attn);
    cpu_weights_destroy(d->weights);
    if (d->kv != NULL)
        munmap(d->kv, d->kv_bytes);
    free(d->slots);
    free(d->slot_tables);
    free(d->pick_slots);
    free(d->done_generation);
    free(d->residual);
    free(d->attn_jobs);
    free(d->previous_tokens);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->idle);
    free(d);
}

/* ---- The sweep thread ------------------------------------------------------------------------ */

static uint32_t widest(const struct kv_geometry *g, int of_k)
{
    uint32_t w = 0;

    for (uint32_t l = 0; l < g->n_layers; l++) {
        uint32_t x = of_k ? g->layer[l].dk : g->layer[l].dv;
        w = x > w ? x : w;
    }
    return w;
}

/* The team's thread 0 is this one, so the team is made here; reports through start_error. */
static int thread_start(struct device *d)
{
    int rc = team_create(&d->team, d->config.n_threads, d->config.cpus, d->config.spin_us);

    if (rc == 0)
        rc = attn_scratch_create(&d->attn, d->weights->isa, d->config.n_threads,
                                 widest(d->geometry, 1), widest(d->geometry, 0));
    pthread_mutex_lock(&d->lock);
    d->start_error = rc;
    d->started = true;
    pthread_cond_broadcast(&d->idle);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* Holds the lock, but not while it measures. */
static void serve_measurement(struct device *d)
{
    struct cpu_measurement *m = d->measurement;

    pthread_mutex_unlock(&d->lock);
    cpu_measure_run(d, m);
    pthread_mutex_lock(&d->lock);
    m->done = true;
    d->measurement = NULL;
    pthread_cond_broadcast(&d->idle);
}

static void *sweep_main(void *device)
{
    struct device *d = device;

    if (thread_start(d) != 0) {
        team_destroy(d->team);
        return NULL;
    }
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (d->n_completed == d->n_submitted && !d->stopping) {
            if (d->measurement != NULL)
                serve_measurement(d);
            else
                pthread_cond_wait(&d->work, &d->lock);
        }
        if (d->n_completed == d->n_submitted)
            break;
        struct cpu_sweep *s = &d->sweeps[d->n_completed % CPU_SWEEP_BUFFERS];
        pthread_mutex_unlock(&d->lock);
        cpu_sweep_run(d, s);
        pthread_mutex_lock(&d->lock);
        d->n_completed++;
        pthread_cond_broadcast(&d->idle);
        pthread_mutex_unlock(&d->lock);
        d->config.notify(d->config.notify_arg);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    team_destroy(d->team);
    return NULL;
}

static int start_threads(struct device *d)
{
    int rc = pthread_create(&d->sweep_thread, NULL, sweep_main, d);

    if (rc != 0)
        return -rc;
    d->sweep_thread_up = true;
    pthread_mutex_lock(&d->lock);
    while (!d->started)
        pthread_cond_wait(&d->idle, &d->lock);
    rc = d->start_error;
    pthread_mutex_unlock(&d->lock);
    return rc == 0 ? cpu_copy_start(d) : rc;
}

static void stop_threads(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    d->stopping = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    if (d->sweep_thread_up)
        pthread_join(d->sweep_thread, NULL);
    if (d->copy_thread_up)
        pthread_join(d->copy_thread, NULL);
}

/* ---- device_ops ------------------------------------------------------------------------------ */

static void cpu_close(struct device *d)
{
    if (d == NULL)
        return;
    stop_threads(d);
    free_all(d);
}

static void set_sizes(struct device *d)
{
    const struct device_config *c = &d->config;

    d->geometry = c->geometry;
    d->n_layers = c->geometry->n_layers;
    d->n_slots = c->exchange != NULL ? exchange_n_slots(c->exchange) : 0;
    d->n_q_max = c->exchange != NULL ? c->exchange->n_q_max : 1;
    d->table_max = geometry_blocks_for(c->geometry, c->context_max);
}

static int cpu_open(struct device **out, const struct device_config *config)
{
    struct device *d = calloc(1, sizeof *d);
    struct error why;
    enum isa isa;
    int rc;

    if (d == NULL)
        return -ENOMEM;
    d->config = *config;
    set_sizes(d);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->idle, NULL);
    rc = isa_detect(&isa);
    if (rc != 0) {
        isa_explain(rc, &why);
        log_error("device_open", "device=cpu reason=\"%s\"", why.text);
    }
    if (rc == 0)
        rc = cpu_weights_create(&d->weights, config->model, isa, config->context_max);
    if (rc == 0)
        rc = alloc_kv(d);
    if (rc == 0)
        rc = alloc_slots(d);
    if (rc == 0)
        rc = alloc_rows(d);
    if (rc == 0)
        rc = start_threads(d);
    if (rc != 0) {
        cpu_close(d);
        return rc;
    }
    log_info("device_open", "device=cpu isa=%s threads=%u kv_blocks=%u block_bytes=%u",
             isa_name(isa), config->n_threads, config->n_kv_blocks, d->geometry->block_bytes);
    *out = d;
    return 0;
}

static void cpu_caps(const struct device *d, struct device_caps *out)
{
    *out = (struct device_caps){.name = device_cpu.name,
                                .variant = isa_name(d->weights->isa),
                                .n_threads = d->config.n_threads,
                                .n_kv_blocks = d->config.n_kv_blocks,
                                .rows_max = d->config.rows_max,
                                .rank = d->geometry->rank,
                                .n_ranks = d->geometry->n_ranks,
                                .two_batch = 1,
                                .waits = 1,
                                .half_batches = 1,
                                .adjusts = 1,
                                .picks_on_device = 1};
}

static int cpu_submit(struct device *d, const struct device_sweep *sweep)
{
    pthread_mutex_lock(&d->lock);
    bool full = d->n_submitted - d->n_completed == DEVICE_SWEEPS_IN_FLIGHT ||
                d->n_submitted - d->n_polled == DEVICE_SWEEPS_IN_FLIGHT;
    struct cpu_sweep *s = &d->sweeps[d->n_submitted % CPU_SWEEP_BUFFERS];
    pthread_mutex_unlock(&d->lock);
    if (full)
        return -EAGAIN;
    int rc = cpu_sweep_copy(d, s, sweep);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&d->lock);
    d->n_submitted++;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int cpu_poll(struct device *d, struct device_done *out)
{
    pthread_mutex_lock(&d->lock);
    bool ended = d->n_polled < d->n_completed;
    if (ended)
        *out = d->sweeps[d->n_polled++ % CPU_SWEEP_BUFFERS].done;
    pthread_mutex_unlock(&d->lock);
    return ended;
}

static uint32_t cpu_n_returned(struct device *d, struct device_offloaded *rows)
{
    pthread_mutex_lock(&d->lock);
    bool busy = d->n_submitted != d->n_completed;
    pthread_mutex_unlock(&d->lock);
    /* With a sweep in flight its picks answer the question. */
    memset(rows, 0, sizeof *rows);
    return busy ? 0 : cpu_slots_n_returned(d, rows);
}

static uint64_t cpu_now(const struct device *d)
{
    (void)d;
    return clock_now_ns();
}

static void cpu_sync(struct device *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->n_completed != d->n_submitted || d->copies_completed != d->copies_submitted)
        pthread_cond_wait(&d->idle, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

const struct device_ops device_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .caps = cpu_caps,
    .submit = cpu_submit,
    .poll = cpu_poll,
    .n_returned = cpu_n_returned,
    .copy = cpu_copy_submit,
    .copy_done = cpu_copy_done,
    .now = cpu_now,
    .sync = cpu_sync,
    .measure = cpu_measure,
};
