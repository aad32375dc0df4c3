/* decode_step.cu - see decode_step.h. */
#include "gpu-engine/device/cuda/embedding.h"
#include "gpu-engine/device/cuda/rms_norm.h"
#include "gpu-engine/device/cuda/weight_fill.h"
#include "tests/gpu/decode_step.h"
#include "tests/gpu/probe_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct step_shape step_shape_8b(uint32_t batch, uint32_t ctx)
{
    return {32, 4096, 32, 8, 14336, 128256, batch, ctx, 512};
}

static uint32_t q_width(const struct step_shape *s)
{
    return s->n_heads * STEP_HEAD_DIM;
}
static uint32_t qkv_width(const struct step_shape *s)
{
    return (s->n_heads + 2 * s->n_kv_heads) * STEP_HEAD_DIM;
}

/* ---- Weights ------------------------------------------------------------------------------------------ */

/* A matrix at *at, filled with random weights. */
static int matrix_make(struct probe *p, struct cuda_matrix *m, uint16_t **at, uint32_t n_out,
                       uint32_t n_in)
{
    struct weight_fill fill = {};
    fill.out = *at;
    fill.n_values = (uint64_t)n_out * n_in;
    fill.seed = (uint64_t)(uintptr_t)*at;
    fill.span = sqrtf(3.0f / (float)n_in);
    fill.type = KV_TYPE_BF16;
    *m = {*at, NULL, NULL, n_out, n_in};
    *at += fill.n_values;
    PROBE_TRY(p, (cudaError_t)weight_fill(&fill, p->stream));
    return 0;
}

static int weights_make(struct probe *p, struct decode_step *s)
{
    const struct step_shape *h = &s->shape;
    uint16_t *at;
    PROBE_DO(probe_device_alloc(p, (void **)&at,
                                (size_t)(s->weight_bytes + 2.0 * h->n_vocab * h->n_embd)));
    for (uint32_t l = 0; l < h->n_layers; l++) {
        PROBE_DO(matrix_make(p, &s->qkv[l], &at, qkv_width(h), h->n_embd));
        PROBE_DO(matrix_make(p, &s->output[l], &at, h->n_embd, q_width(h)));
        PROBE_DO(matrix_make(p, &s->gate_up[l], &at, 2 * h->n_ff, h->n_embd));
        PROBE_DO(matrix_make(p, &s->down[l], &at, h->n_embd, h->n_ff));
    }
    struct cuda_matrix table;
    PROBE_DO(matrix_make(p, &s->head, &at, h->n_vocab, h->n_embd));
    PROBE_DO(matrix_make(p, &table, &at, h->n_vocab, h->n_embd));
    s->table = (uint16_t *)table.w;
    return 0;
}

static int dense_make(struct probe *p, struct decode_step *s)
{
    struct cuda_dense_options options = {};
    struct error err;
    options.type = KV_TYPE_BF16;
    options.rows_max = s->shape.batch;
    if (cuda_dense_create(&s->dense, &options, &err) != 0 ||
        cuda_dense_prepare(s->dense, &s->qkv[0], CUDA_DENSE_ROWS, &err) != 0 ||
        cuda_dense_prepare(s->dense, &s->output[0], CUDA_DENSE_ROWS, &err) != 0 ||
        cuda_dense_prepare(s->dense, &s->gate_up[0], CUDA_DENSE_SWIGLU, &err) != 0 ||
        cuda_dense_prepare(s->dense, &s->down[0], CUDA_DENSE_ROWS, &err) != 0 ||
        cuda_dense_prepare(s->dense, &s->head, CUDA_DENSE_F32, &err) != 0)
        return probe_fail(p, "%s", err.text);
    return 0;
}

/* ---- Context ------------------------------------------------------------------------------------------ */

/* Blocks of all layers, in an order without pattern: an odd factor permutes a power of two. */
static int pool_make(struct probe *p, struct decode_step *s)
{
    const struct step_shape *h = &s->shape;
    const uint32_t n_blocks = h->batch * h->ctx / STEP_BLOCK_TOKENS;
    const uint64_t half = (uint64_t)h->n_kv_heads * STEP_BLOCK_TOKENS * STEP_HEAD_DIM * 2;
    uint32_t *tables = (uint32_t *)malloc(n_blocks * sizeof *tables);
    if (tables == NULL)
        return probe_fail(p, "no memory for tables");
    for (uint32_t i = 0; i < n_blocks; i++)
        tables[i] = i * 2654435761u & (n_blocks - 1);
    const int rc = probe_words(p, tables, n_blocks, &s->kv.tables);
    free(tables);
    PROBE_DO(rc);
    s->kv.table_stride = h->ctx / STEP_BLOCK_TOKENS;
    s->kv.block_tokens = STEP_BLOCK_TOKENS;
    s->kv.n_kv_heads = h->n_kv_heads;
    s->kv.head_dim = STEP_HEAD_DIM;
    s->kv.type = KV_TYPE_BF16;
    s->kv.block_bytes = 2 * half * h->n_layers;
    return probe_elements(p, (void **)&s->kv.pool, n_blocks * s->kv.block_bytes / 2, 21);
}

/* Per row: position, context, slot, token. */
static int rows_make(struct probe *p, struct decode_step *s)
{
    const uint32_t n = s->shape.batch;
    struct rotary_row *rows = (struct rotary_row *)calloc(n, sizeof *rows);
    uint32_t *words = (uint32_t *)calloc(3 * n, sizeof *words);
    int rc = rows == NULL || words == NULL ? probe_fail(p, "no memory for rows") : 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rows[i] = {s->shape.ctx - 1, i, CUDA_SLOT_NONE, 1};
        words[i] = s->shape.ctx;
        words[n + i] = i;
        words[2 * n + i] = 17 * i;
    }
    if (rc == 0)
        rc = probe_words(p, rows, n * sizeof *rows / 4, (const uint32_t **)&s->row);
    if (rc == 0)
        rc = probe_words(p, words, 3 * n, &s->ctx_len);
    free(rows);
    free(words);
    s->slots = s->ctx_len + n;
    s->token = s->ctx_len + 2 * n;
    return rc;
}

static int floats_make(struct probe *p, float **out, size_t n, float value)
{
    float *host = (float *)malloc(n * sizeof *host);
    if (host == NULL)
        return probe_fail(p, "no memory for floats");
    for (size_t i = 0; i < n; i++)
        host[i] = value;
    const int rc = probe_words(p, host, n, (const uint32_t **)out);
    free(host);
    return rc;
}

static struct decode_attention attention_of(const struct decode_step *s, uint32_t layer)
{
    const struct step_shape *h = &s->shape;
    struct decode_attention a = {};
    a.out = s->a;
    a.q = s->q;
    a.partial = s->partial;
    a.ctx_len = s->ctx_len;
    a.kv = s->kv;
    a.kv.k_off = s->kv.block_bytes / h->n_layers * layer;
    a.kv.v_off = a.kv.k_off + s->kv.block_bytes / h->n_layers / 2;
    a.n_seqs = h->batch;
    a.n_heads = h->n_heads;
    a.ctx_max = h->ctx;
    a.split_tokens = h->split;
    a.scale = 1.0f / sqrtf(STEP_HEAD_DIM);
    return a;
}

static int buffers_make(struct probe *p, struct decode_step *s)
{
    const struct step_shape *h = &s->shape;
    const size_t n = h->batch;
    struct decode_attention widest = attention_of(s, 0);
    widest.split_tokens = 64;
    PROBE_DO(floats_make(p, &s->norm, h->n_embd, 1.0f));
    PROBE_DO(floats_make(p, &s->angles, (size_t)h->ctx * STEP_HEAD_DIM, sqrtf(0.5f)));
    PROBE_DO(probe_device_alloc(p, (void **)&s->residual, n * h->n_embd * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&s->partial, decode_attention_scratch(&widest)));
    PROBE_DO(probe_device_alloc(p, (void **)&s->logits, n * h->n_vocab * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&s->logprobs, n * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&s->tokens, n * 4));
    PROBE_DO(probe_device_alloc(p, (void **)&s->n, n * h->n_embd * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->y, n * h->n_embd * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->qkv_rows, n * qkv_width(h) * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->q, n * q_width(h) * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->a, n * q_width(h) * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->h, n * h->n_ff * 2));
    PROBE_DO(probe_device_alloc(p, (void **)&s->how, n * sizeof *s->how)); /* zeros are greedy */
    PROBE_TRY(p, cudaMemset(s->how, 0, n * sizeof *s->how));
    const size_t scratch = sampling_scratch(h->batch, h->n_vocab, 0);
    PROBE_DO(probe_device_alloc(p, &s->scratch, scratch));
    PROBE_TRY(p, cudaMemset(s->scratch, 0, scratch));
    return 0;
}

/* ---- Life --------------------------------------------------------------------------------------------- */

static int fits(struct probe *p, const struct decode_step *s)
{
    const struct step_shape *h = &s->shape;
    const double need = s->weight_bytes + 2.0 * h->n_vocab * h->n_embd + s->kv_bytes + 1e9;
    if (need <= (double)p->free_bytes)
        return 0;
    return probe_fail(p, "%.1f GB of device memory are needed, %.1f are free", need / 1e9,
                      (double)p->free_bytes / 1e9);
}

int decode_step_open(struct probe *p, struct decode_step *s, const struct step_shape *shape)
{
    memset(s, 0, sizeof *s);
    s->shape = *shape;
    s->layer_bytes = 2.0 * shape->n_embd *
                     ((double)qkv_width(shape) + q_width(shape) + 3.0 * (double)shape->n_ff);
    s->weight_bytes = s->layer_bytes * shape->n_layers + 2.0 * shape->n_vocab * shape->n_embd;
    s->kv_bytes = 4.0 * STEP_HEAD_DIM * shape->n_kv_heads * shape->n_layers * (double)shape->batch *
                  (double)shape->ctx;
    PROBE_DO(fits(p, s));
    PROBE_DO(weights_make(p, s));
    PROBE_DO(pool_make(p, s));
    PROBE_DO(rows_make(p, s));
    PROBE_DO(buffers_make(p, s));
    PROBE_DO(dense_make(p, s));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    return 0;
}

void decode_step_close(struct decode_step *s)
{
    cuda_dense_destroy(s->dense);
    s->dense = NULL;
}

/* ---- Launching ---------------------------------------------------------------------------------------- */

/* delta NULL: nothing is added before. */
static int step_norm(const struct decode_step *s, const uint16_t *delta, cudaStream_t stream)
{
    struct rms_norm a = {};
    a.out = s->n;
    a.residual = s->residual;
    a.delta = delta;
    a.slots = s->slots;
    a.weight = s->norm;
    a.rows.n = s->shape.batch;
    a.width = s->shape.n_embd;
    a.type = KV_TYPE_BF16;
    a.epsilon = 1e-5f;
    return rms_norm(&a, stream);
}

static int step_product(struct decode_step *s, const struct cuda_matrix *m,
                        enum cuda_dense_output output, const uint16_t *in, void *out,
                        cudaStream_t stream)
{
    const struct cuda_dense_job job = {m, output, s->shape.batch, in, out};
    return cuda_dense_run(s->dense, &job, stream);
}

static int step_rotary(const struct decode_step *s, uint32_t layer, cudaStream_t stream)
{
    struct rotary_write a = {};
    a.q = s->q;
    a.qkv = s->qkv_rows;
    a.angles = s->angles;
    a.row = s->row;
    a.rows.n = s->shape.batch;
    a.kv = attention_of(s, layer).kv;
    a.layer = layer;
    a.n_heads = s->shape.n_heads;
    a.n_dims = STEP_HEAD_DIM;
    return rotary_write(&a, stream);
}

static int step_layer(struct decode_step *s, uint32_t l, cudaStream_t stream)
{
    const struct decode_attention attention = attention_of(s, l);
    int rc = step_norm(s, l == 0 ? NULL : s->y, stream);
    if (rc == 0)
        rc = step_product(s, &s->qkv[l], CUDA_DENSE_ROWS, s->n, s->qkv_rows, stream);
    if (rc == 0)
        rc = step_rotary(s, l, stream);
    if (rc == 0)
        rc = decode_attention(&attention, stream);
    if (rc == 0)
        rc = step_product(s, &s->output[l], CUDA_DENSE_ROWS, s->a, s->y, stream);
    if (rc == 0)
        rc = step_norm(s, s->y, stream);
    if (rc == 0)
        rc = step_product(s, &s->gate_up[l], CUDA_DENSE_SWIGLU, s->n, s->h, stream);
    if (rc == 0)
        rc = step_product(s, &s->down[l], CUDA_DENSE_ROWS, s->h, s->y, stream);
    return rc;
}

static int step_begin(const struct decode_step *s, cudaStream_t stream)
{
    struct embedding a = {};
    a.residual = s->residual;
    a.table = s->table;
    a.tokens = s->token;
    a.slots = s->slots;
    a.rows.n = s->shape.batch;
    a.width = s->shape.n_embd;
    a.n_vocab = s->shape.n_vocab;
    a.type = KV_TYPE_BF16;
    return embedding(&a, stream);
}

static int step_end(struct decode_step *s, cudaStream_t stream)
{
    struct sampling a = {};
    a.tokens = s->tokens;
    a.logprobs = s->logprobs;
    a.logits = s->logits;
    a.row = s->how;
    a.rows.n = s->shape.batch;
    a.n_vocab = s->shape.n_vocab;
    a.scratch = s->scratch;
    int rc = step_norm(s, s->y, stream);
    if (rc == 0)
        rc = step_product(s, &s->head, CUDA_DENSE_F32, s->n, s->logits, stream);
    return rc == 0 ? sampling(&a, stream) : rc;
}

cudaError_t decode_step_launch(void *arg, unsigned, cudaStream_t stream)
{
    struct decode_step *s = (struct decode_step *)arg;
    int rc = step_begin(s, stream);
    for (uint32_t l = 0; rc == 0 && l < s->shape.n_layers; l++)
        rc = step_layer(s, l, stream);
    return (cudaError_t)(rc == 0 ? step_end(s, stream) : rc);
}

cudaError_t decode_step_products(void *arg, unsigned iteration, cudaStream_t stream)
{
    struct decode_step *s = (struct decode_step *)arg;
    const uint32_t l = iteration % s->shape.n_layers;
    int rc = step_product(s, &s->qkv[l], CUDA_DENSE_ROWS, s->n, s->qkv_rows, stream);
    if (rc == 0)
        rc = step_product(s, &s->output[l], CUDA_DENSE_ROWS, s->a, s->y, stream);
    if (rc == 0)
        rc = step_product(s, &s->gate_up[l], CUDA_DENSE_SWIGLU, s->n, s->h, stream);
    if (rc == 0)
        rc = step_product(s, &s->down[l], CUDA_DENSE_ROWS, s->h, s->y, stream);
    return (cudaError_t)rc;
}
