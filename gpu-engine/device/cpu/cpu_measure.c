/* One module on its own, timed: what the latency model's profile is fitted to.
 *
 * The sweep thread runs it, with its team, on the buffers and kernels of a sweep.  Layers are taken
 * in turn: one layer over and over would find its weights in the cache, where a sweep never does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "gpu-engine/device/cpu/cpu_device.h"
#include "gpu-engine/device/shape.h"

/* Repetitions at most: the quartile of so many stays put where the machine is quiet. */
enum { SAMPLES_MAX = 20 };

typedef void run_fn(struct device *d, struct cpu_measurement *m, uint32_t layer);

/* ---- What is run ----------------------------------------------------------------------------- */

/* n rows of a token's embedding each, so that experts are chosen as by real rows. */
static void fill_rows(struct device *d, uint32_t n)
{
    struct cpu_batch *a = &d->batch[0];

    a->rows.n = a->n_parts = 0;
    for (uint32_t i = 0; i < n; i++) {
        float *x = d->residual + (size_t)i * d->buffers.n_embd;

        model_embed_ref(d->weights->model, i * 37 % d->weights->model->n_vocab, x);
        cpu_part_add(a, i, i % d->config.context_max, 1, x);
        a->n_parts = 0; /* rows alone matter here */
    }
}

static void run_dense(struct device *d, struct cpu_measurement *m, uint32_t layer)
{
    const struct cpu_layer *l = &d->weights->layers[layer];
    const struct cpu_rows *rows = &d->batch[0].rows;

    (void)m;
    cpu_dense_run(d->weights, d->team, &d->buffers, l->post, l->n_post, rows);
    cpu_dense_run(d->weights, d->team, &d->buffers, l->pre, l->n_pre, rows);
}

static struct attn_job decode_job(struct device *d, struct cpu_measurement *m, uint32_t i,
                                  uint32_t layer)
{
    const struct kv_geometry *g = d->geometry;
    const struct kv_layer *desc = &g->layer[layer];
    struct cpu_buffers *b = &d->buffers;
    const uint32_t *tables = m->tables + (size_t)i * g->n_groups * d->table_max;

    return (struct attn_job){.q = b->q + (size_t)i * b->q_width,
                             .out = b->a + (size_t)i * b->a_width,
                             .n_q = 1,
                             .pos = m->shape.ctx - 1,
                             .kv = {.base = d->kv,
                                    .table = tables + (size_t)desc->group * d->table_max,
                                    .block_bytes = g->block_bytes,
                                    .block_tokens = g->block_tokens,
                                    .n_blocks = d->table_max,
                                    .type = g->type,
                                    .layer = desc},
                             .ldq = b->q_width,
                             .ldo = b->a_width};
}

static void append(struct device *d, const struct attn_job *job, size_t row)
{
    struct cpu_buffers *b = &d->buffers;

    attn_append(&job->kv, job->pos, job->n_q, b->k + row * b->k_width, b->k_width,
                b->v + row * b->v_width, b->v_width);
}

static void run_decodes(struct device *d, struct cpu_measurement *m, uint32_t layer)
{
    for (uint32_t i = 0; i < m->shape.n; i++) {
        d->attn_jobs[i] = decode_job(d, m, i, layer);
        append(d, &d->attn_jobs[i], i);
    }
    attn_run(d->team, d->attn, d->attn_jobs, m->shape.n);
}

static void run_chunk(struct device *d, struct cpu_measurement *m, uint32_t layer)
{
    struct attn_job *job = &d->attn_jobs[0];

    *job = decode_job(d, m, 0, layer);
    job->n_q = m->shape.n;
    job->pos = m->shape.ctx;
    append(d, job, 0);
    attn_run(d->team, d->attn, job, 1);
}

static void run_head(struct device *d, struct cpu_measurement *m, uint32_t layer)
{
    static const struct device_sampling greedy = {.top_p = 1};
    float logprob;

    (void)layer;
    for (uint32_t first = 0; first < m->shape.n; first += CPU_LOGIT_ROWS) {
        uint32_t left = m->shape.n - first;
        struct cpu_rows rows = {.n = left < CPU_LOGIT_ROWS ? left : CPU_LOGIT_ROWS,
                                .x = d->batch[0].rows.x + first,
                                .pos = d->batch[0].rows.pos + first};

        cpu_dense_run(d->weights, d->team, &d->buffers, d->weights->head, MODEL_HEAD_OPS, &rows);
        for (uint32_t i = 0; i < rows.n; i++)
            sampler_draw(&d->sampler, d->buffers.logits + (size_t)i * d->buffers.n_vocab, &greedy,
                         i, &logprob);
    }
}

static void run_embed(struct device *d, struct cpu_measurement *m, uint32_t layer)
{
    (void)layer;
    fill_rows(d, m->shape.n);
}

/* ---- Repetitions ----------------------------------------------------------------------------- */

/* One thread alone is timed by what it computed, so that being preempted counts for nothing.  A
 * team waits for its last member: for it the wall clock tells the truth. */
static uint64_t now(const struct device *d)
{
    return team_n_threads(d->team) > 1 ? clock_now_ns() : cpu_thread_ns();
}

/* A sweep comes back to a layer's KV, and to the head, with all other weights read in between.
 * Over and over, they would be found in a large cache: measured on 32 MiB of L3, decodes over 600
 * tokens look a quarter faster than they are in a sweep.  One row through every layer puts them
 * out. */
static void displace(struct device *d, const struct device_shape *s)
{
    struct cpu_measurement none = {.shape = *s};
    uint32_t *n_rows = &d->batch[0].rows.n, n = *n_rows;

    if (s->kind == DEVICE_SHAPE_DENSE || s->kind == DEVICE_SHAPE_EMBED)
        return;
    *n_rows = 1;
    for (uint32_t l = 0; l < d->n_layers; l++)
        run_dense(d, &none, l);
    *n_rows = n;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static run_fn *const run_of[DEVICE_SHAPE_KINDS] = {
    [DEVICE_SHAPE_DENSE] = run_dense, [DEVICE_SHAPE_DECODES] = run_decodes,
    [DEVICE_SHAPE_CHUNK] = run_chunk, [DEVICE_SHAPE_HEAD] = run_head,
    [DEVICE_SHAPE_EMBED] = run_embed,
};

void cpu_measure_run(struct device *d, struct cpu_measurement *m)
{
    const struct device_shape *s = &m->shape;
    run_fn *run = run_of[s->kind];
    uint64_t ns[SAMPLES_MAX], end = clock_now_ns() + s->budget_ns;
    uint32_t n = 0;

    fill_rows(d, s->kind == DEVICE_SHAPE_DENSE || s->kind == DEVICE_SHAPE_HEAD ? s->n : 1);
    run(d, m, s->n_layers > 0 ? s->layers[s->n_layers - 1] : 0); /* pages and code are touched */
    do {
        displace(d, s);
        uint64_t start = now(d);
        run(d, m, s->n_layers > 0 ? s->layers[n % s->n_layers] : 0);
        ns[n++] = now(d) - start;
    } while (n < SAMPLES_MAX && clock_now_ns() < end);
    qsort(ns, n, sizeof *ns, compare);
    m->ns = ns[n / 4];
    d->batch[0].rows.n = d->batch[0].n_parts = 0;
}

/* ---- Asking for it --------------------------------------------------------------------------- */

/* Different sequences lie in different blocks, as far as the pool goes round. */
static uint32_t *make_tables(const struct device *d, uint32_t n_seqs)
{
    size_t n = (size_t)n_seqs * d->geometry->n_groups * d->table_max;
    uint32_t *tables = calloc(n, sizeof *tables);

    for (size_t i = 0; tables != NULL && i < n; i++)
        tables[i] = (uint32_t)(i % d->config.n_kv_blocks);
    return tables;
}

int cpu_measure(struct device *d, const struct device_shape *shape, uint64_t *ns)
{
    struct cpu_measurement m = {.shape = *shape};
    int rc = 0;

    if (!device_shape_fits(shape, &d->config, d->n_layers))
        return -EINVAL;
    m.tables = make_tables(d, shape->kind == DEVICE_SHAPE_DECODES ? shape->n : 1);
    if (m.tables == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&d->lock);
    if (d->n_submitted != d->n_completed)
        rc = -EBUSY;
    else
        d->measurement = &m;
    pthread_cond_broadcast(&d->work);
    while (rc == 0 && !m.done)
        pthread_cond_wait(&d->idle, &d->lock);
    pthread_mutex_unlock(&d->lock);
    free(m.tables);
    *ns = m.ns;
    return rc;
}
