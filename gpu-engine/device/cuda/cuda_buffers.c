/* All memory of the CUDA device, taken at open. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/base/log.h"
#include "gpu-engine/device/cuda/cuda_device.h"
#include "gpu-engine/device/cuda/decode_attention.h"

/* What is left free when the pool takes "all": graphs, and what CUDA takes for itself. */
#define RESERVE_BYTES (UINT64_C(512) << 20)

static int bytes_of(size_t n, size_t size, size_t *bytes)
{
    if (__builtin_mul_overflow(n, size, bytes))
        return -EOVERFLOW;
    *bytes = *bytes > 0 ? *bytes : 1;
    return 0;
}

static void keep(struct device *d, void *memory, bool is_pinned)
{
    invariant(d->n_pieces < CUDA_MEMORY_PIECES_MAX);
    d->pieces[d->n_pieces++] = (struct cuda_piece){.memory = memory, .is_pinned = is_pinned};
}

int cuda_take_device(struct device *d, void *out, size_t n, size_t size)
{
    void *memory;
    size_t bytes;
    int rc = bytes_of(n, size, &bytes);

    if (rc != 0)
        return rc;
    CUDA_TRY(cudaMalloc(&memory, bytes));
    keep(d, memory, false);
    memcpy(out, &memory, sizeof memory);
    return 0;
}

int cuda_take_pinned(struct device *d, void *out, size_t n, size_t size)
{
    void *memory;
    size_t bytes;
    int rc = bytes_of(n, size, &bytes);

    if (rc != 0)
        return rc;
    CUDA_TRY(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped));
    memset(memory, 0, bytes);
    keep(d, memory, true);
    memcpy(out, &memory, sizeof memory);
    return 0;
}

void cuda_give_all(struct device *d)
{
    while (d->n_pieces > 0) {
        const struct cuda_piece *p = &d->pieces[--d->n_pieces];

        if (p->is_pinned)
            CUDA_NOTE(cudaFreeHost(p->memory));
        else
            CUDA_NOTE(cudaFree(p->memory));
    }
}

/* ---- Row buffers --------------------------------------------------------------------------------- */

/* Elements of a row, the largest of all layers. */
struct widths {
    uint32_t qkv, q, a, ff, heads, head_dim;
};

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static struct widths widest(const struct device *d)
{
    struct widths w = {.q = 0};

    for (uint32_t l = 0; l < d->n_layers; l++) {
        const struct cuda_layer_weights *layer = &d->weights->layers[l];
        const struct kv_layer *kv = &d->geometry->layer[l];

        w.qkv = larger(w.qkv, layer->qkv.n_out);
        w.q = larger(w.q, kv_layer_q_width(kv));
        w.a = larger(w.a, kv_layer_out_width(kv));
        w.ff = larger(w.ff, layer->down.n_in);
        w.heads = larger(w.heads, kv->n_heads);
        w.head_dim = larger(w.head_dim, kv->dk);
    }
    return w;
}

static int take_rows(struct device *d, const struct widths *w)
{
    struct cuda_buffers *b = &d->buffers;
    const size_t rows = d->row_room, n_embd = d->weights->n_embd, half = sizeof(uint16_t);
    const size_t residuals = d->config.rows_max + (size_t)d->n_slots * d->n_q_max;
    int rc = cuda_take_device(d, &b->residual, residuals * n_embd, sizeof(float));

    if (rc == 0)
        rc = cuda_take_device(d, &b->n, rows * n_embd, half);
    if (rc == 0)
        rc = cuda_take_device(d, &b->qkv, rows * w->qkv, half);
    for (int i = 0; i < SWEEP_BATCHES && rc == 0; i++)
        rc = cuda_take_device(d, &b->q[i], rows * w->q, half);
    if (rc == 0)
        rc = cuda_take_device(d, &b->a, rows * w->a, half);
    if (rc == 0)
        rc = cuda_take_device(d, &b->y, rows * n_embd, half);
    if (rc == 0)
        rc = cuda_take_device(d, &b->h, rows * w->ff, half);
    return rc;
}

static int take_sampling(struct device *d)
{
    size_t bytes = sampling_scratch(CUDA_LOGIT_ROWS, d->weights->n_vocab, 1);
    int rc = cuda_take_device(d, &d->buffers.sampling, bytes, 1);

    if (rc != 0)
        return rc;
    CUDA_TRY(cudaMemset(d->buffers.sampling, 0, bytes));
    return 0;
}

static int take_outputs(struct device *d, const struct widths *w)
{
    struct cuda_buffers *b = &d->buffers;
    const struct decode_attention largest = {.kv = {.head_dim = w->head_dim},
                                             .n_seqs = d->config.seqs_max,
                                             .n_heads = w->heads,
                                             .ctx_max = d->config.context_max,
                                             .split_tokens = CUDA_SPLIT_TOKENS};
    int rc = cuda_take_device(d, &b->partial, decode_attention_scratch(&largest), 1);

    if (rc == 0)
        rc = cuda_take_device(d, &b->head_in, (size_t)d->output_room * d->weights->n_embd,
                              sizeof *b->head_in);
    if (rc == 0)
        rc = cuda_take_device(d, &b->out_row, d->output_room, sizeof *b->out_row);
    if (rc == 0)
        rc = cuda_take_device(d, &b->logits, (size_t)CUDA_LOGIT_ROWS * d->weights->n_vocab,
                              sizeof *b->logits);
    return rc == 0 ? take_sampling(d) : rc;
}

static int take_state(struct device *d)
{
    struct cuda_rows_state *s = &d->rows;
    size_t n = d->n_slots;
    int rc = cuda_take_device(d, &s->slots, n, sizeof *s->slots);

    if (rc == 0)
        rc = cuda_take_device(d, &s->owner, n, sizeof *s->owner);
    if (rc == 0)
        rc = cuda_take_device(d, &s->generation, n, sizeof *s->generation);
    if (rc == 0)
        rc = cuda_take_device(d, &s->sampling, n, sizeof *s->sampling);
    if (rc == 0)
        rc = cuda_take_device(d, &s->budget, 1, sizeof *s->budget);
    if (rc == 0)
        rc = cuda_take_device(d, &s->deadline_ns, d->n_layers + 1, sizeof *s->deadline_ns);
    if (rc == 0)
        rc = cuda_take_device(d, &s->n_live, 1, sizeof *s->n_live);
    if (rc == 0)
        rc = cuda_take_device(d, &s->source, d->config.returned_rows_max, sizeof *s->source);
    if (rc != 0)
        return rc;
    CUDA_TRY(cudaMemset(s->slots, 0, n * sizeof *s->slots));
    return 0;
}

/* ---- Frames and logs ----------------------------------------------------------------------------- */

/* A frame of any sweep fits into one of this shape: rows and sequences are counted over both batches
 * together, so twice is more than enough. */
static void largest_shape(const struct device *d, struct cuda_shape *shape)
{
    *shape = (struct cuda_shape){.enters = d->config.returned_rows_max, .leaves = d->n_slots};
    for (int b = 0; b < SWEEP_BATCHES; b++)
        shape->batch[b] = (struct cuda_batch_shape){.rows = d->row_room,
                                                    .decodes = d->seq_room,
                                                    .chunks = b == 0 ? d->seq_room : 0,
                                                    .outputs = d->output_room};
}

static int take_sweep(struct device *d, struct cuda_sweep *s)
{
    size_t picked = (size_t)d->n_layers * d->config.returned_rows_max + 1;
    struct cuda_log log;
    int rc = cuda_take_pinned(d, &s->frame, d->frame_bytes, 1);

    cuda_log_place(&log, d->log, &d->log_sizes);
    if (rc == 0)
        rc = cuda_take_pinned(d, &s->log, log.bytes, 1);
    if (rc != 0)
        return rc;
    s->out_source = calloc(d->seq_room + 1, sizeof *s->out_source);
    s->layers = calloc(d->n_layers, sizeof *s->layers);
    s->picked = calloc(picked, sizeof *s->picked);
    s->out = calloc(d->output_room + 1, sizeof *s->out);
    s->n_top = calloc(d->output_room + 1, sizeof *s->n_top);
    s->top = calloc(d->output_room + 1, DEVICE_TOP_MAX * sizeof *s->top);
    return s->out_source == NULL || s->layers == NULL || s->picked == NULL || s->out == NULL ||
                   s->top == NULL || s->n_top == NULL
               ? -ENOMEM
               : 0;
}

static int take_sweeps(struct device *d)
{
    struct cuda_shape shape;
    struct cuda_log log;
    int rc;

    d->frame_sizes = (struct cuda_frame_sizes){.n_layers = d->n_layers,
                                               .seq_tables = d->geometry->n_groups * d->table_max};
    d->log_sizes =
        (struct cuda_log_sizes){.n_layers = d->n_layers,
                                .outputs_max = d->output_room,
                                .groups = (d->output_room + CUDA_LOGIT_ROWS - 1) / CUDA_LOGIT_ROWS,
                                .returned_max = d->config.returned_rows_max};
    largest_shape(d, &shape);
    d->frame_bytes = cuda_frame_bytes(&d->frame_sizes, &shape);
    cuda_log_place(&log, (void *)(uintptr_t)16, &d->log_sizes);
    rc = cuda_take_device(d, &d->frame, d->frame_bytes, 1);
    if (rc == 0)
        rc = cuda_take_device(d, &d->log, log.bytes, 1);
    if (rc == 0)
        rc = cuda_take_pinned(d, &d->clock_word, 1, sizeof *d->clock_word);
    for (int i = 0; i < CUDA_SWEEP_BUFFERS && rc == 0; i++)
        rc = take_sweep(d, &d->sweeps[i]);
    if (rc != 0)
        return rc;
    cuda_log_place(&d->log_at, d->log, &d->log_sizes);
    CUDA_TRY(cudaMemset(d->log, 0, log.bytes));
    return 0;
}

int cuda_buffers_take(struct device *d)
{
    const struct widths w = widest(d);
    int rc = take_rows(d, &w);

    if (rc == 0)
        rc = take_outputs(d, &w);
    if (rc == 0)
        rc = take_state(d);
    return rc == 0 ? take_sweeps(d) : rc;
}

int cuda_pool_take(struct device *d)
{
    uint64_t block = cuda_kv_block_bytes(d->geometry);
    uint32_t *n_blocks = &d->config.n_kv_blocks;
    size_t available, total;

    CUDA_TRY(cudaMemGetInfo(&available, &total));
    if (*n_blocks == 0 && available > RESERVE_BYTES)
        *n_blocks = (uint32_t)((available - RESERVE_BYTES) / block);
    if (*n_blocks == 0 || *n_blocks * block > available) {
        log_error(
            "device_open",
            "device=cuda reason=\"KV pool: %u blocks of %llu bytes, %zu bytes are free; lower "
            "engine.kv_mb, or take a card with more memory\"",
            *n_blocks, (unsigned long long)block, available);
        return -ENOMEM;
    }
    int rc = cuda_take_device(d, &d->pool, *n_blocks, block);
    if (rc != 0)
        return rc;
    /* What attention may read ahead is no number's garbage. */
    CUDA_TRY(cudaMemset(d->pool, 0, *n_blocks * block));
    return 0;
}
