/* cuda_dense.c - see cuda_dense.h.
 *
 * DESIGN.  A plan is a shape with one output: the library's description of the product, three layouts,
 * and an algorithm per row bucket.  Row-major is column-major of the transpose: with m = n_out, n = rows,
 * k = n_in the library computes out^T = (W^T)^T in^T, so W is transposed, in is not, and every leading
 * dimension is a row's length.  A run sets the number of rows in the plan's layouts and the bias in its
 * description, both of which the call copies, so one plan serves all matrices of a shape and all numbers
 * of rows; nothing is allocated. */
#include "gpu-engine/device/cuda/cuda_dense.h"

#include <cuda_runtime_api.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/cuda/cublaslt.h"
#include "gpu-engine/device/cuda/gemv.h"
#include "gpu-engine/device/cuda/swiglu.h"

enum {
    PLANS_MAX = 64, /* distinct shapes of a model, each with its outputs */
    BUCKET_MIN = 16,
    BUCKETS_MAX = 20, /* 16 .. 2^23 rows */
    WORKSPACE_DEFAULT = 64 << 20
};

struct plan {
    uint32_t n_out, n_in;
    bool f32, bias;
    cublaslt_desc desc;
    cublaslt_layout w, in, out;
    struct cublaslt_heuristic algo[BUCKETS_MAX];
    bool has_algo[BUCKETS_MAX];
};

struct cuda_dense {
    struct cublaslt lt;
    cublaslt_preference preference;
    uint32_t type, rows_max;
    void *workspace;
    size_t workspace_bytes;
    uint16_t *scratch; /* [rows_max][scratch_width] gate and up, before SwiGLU */
    uint32_t scratch_width;
    uint32_t n_plans;
    struct plan plans[PLANS_MAX];
    uint64_t n_gemv, n_lt, n_hits, n_asked;
};

/* ---- Buckets and plans -------------------------------------------------------------------------- */

static uint32_t bucket_index(uint32_t n_rows)
{
    uint32_t i = 0;

    while ((uint32_t)BUCKET_MIN << i < n_rows)
        i++;
    return i;
}

uint32_t cuda_dense_bucket(uint32_t n_rows)
{
    return (uint32_t)BUCKET_MIN << bucket_index(n_rows);
}

static struct plan *plan_find(struct cuda_dense *d, const struct cuda_matrix *m, bool f32)
{
    for (uint32_t i = 0; i < d->n_plans; i++) {
        struct plan *p = &d->plans[i];
        if (p->n_out == m->n_out && p->n_in == m->n_in && p->f32 == f32 &&
            p->bias == (m->bias != NULL))
            return p;
    }
    return NULL;
}

static int rows_set(const struct cublaslt *lt, const struct plan *p, uint64_t n_rows)
{
    int rc = lt->layout_set(p->in, LT_LAYOUT_COLS, &n_rows, sizeof n_rows);

    return rc == LT_SUCCESS ? lt->layout_set(p->out, LT_LAYOUT_COLS, &n_rows, sizeof n_rows) : rc;
}

static int bias_set(const struct cublaslt *lt, const struct plan *p, const struct cuda_matrix *m)
{
    return p->bias ? lt->desc_set(p->desc, LT_DESC_BIAS_POINTER, &m->bias16, sizeof m->bias16)
                   : LT_SUCCESS;
}

/* Status of the library. */
static int algo_ask(struct cuda_dense *d, struct plan *p, uint32_t bucket, uint32_t n_rows)
{
    int n_found = 0, rc = rows_set(&d->lt, p, n_rows);

    if (rc == LT_SUCCESS)
        rc = d->lt.heuristic(d->lt.handle, p->desc, p->w, p->in, p->out, p->out, d->preference, 1,
                             &p->algo[bucket], &n_found);
    d->n_asked++;
    if (rc == LT_SUCCESS && (n_found < 1 || p->algo[bucket].state != LT_SUCCESS))
        rc = LT_NOT_SUPPORTED;
    p->has_algo[bucket] = rc == LT_SUCCESS;
    return rc;
}

static void plan_close(const struct cublaslt *lt, struct plan *p)
{
    if (p->out != NULL)
        (void)lt->layout_destroy(p->out);
    if (p->in != NULL)
        (void)lt->layout_destroy(p->in);
    if (p->w != NULL)
        (void)lt->layout_destroy(p->w);
    if (p->desc != NULL)
        (void)lt->desc_destroy(p->desc);
    *p = (struct plan){.n_out = 0};
}

static int desc_make(const struct cublaslt *lt, struct plan *p, int type)
{
    const int transposed = LT_OP_T, epilogue = p->bias ? LT_EPILOGUE_BIAS : LT_EPILOGUE_DEFAULT;
    int rc = lt->desc_create(&p->desc, LT_COMPUTE_32F, LT_R_32F);

    if (rc == LT_SUCCESS)
        rc = lt->desc_set(p->desc, LT_DESC_TRANSA, &transposed, sizeof transposed);
    if (rc == LT_SUCCESS)
        rc = lt->desc_set(p->desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (rc == LT_SUCCESS && p->bias)
        rc = lt->desc_set(p->desc, LT_DESC_BIAS_DATA_TYPE, &type, sizeof type);
    return rc;
}

static int plan_make(struct cuda_dense *d, struct plan *p)
{
    const struct cublaslt *lt = &d->lt;
    const int type = d->type == KV_TYPE_BF16 ? LT_R_16BF : LT_R_16F;
    int rc = desc_make(lt, p, type);

    if (rc == LT_SUCCESS)
        rc = lt->layout_create(&p->w, type, p->n_in, p->n_out, p->n_in);
    if (rc == LT_SUCCESS)
        rc = lt->layout_create(&p->in, type, p->n_in, BUCKET_MIN, p->n_in);
    if (rc == LT_SUCCESS)
        rc = lt->layout_create(&p->out, p->f32 ? LT_R_32F : type, p->n_out, BUCKET_MIN, p->n_out);
    return rc;
}

/* ---- Life --------------------------------------------------------------------------------------- */

/* Rows may begin anywhere that is a multiple of 16 bytes: unasked, the library counts on 256. */
static int preference_make(struct cuda_dense *d)
{
    const uint32_t alignment = 16;
    int rc = d->lt.preference_create(&d->preference);

    for (int i = LT_PREF_MIN_ALIGNMENT_A; rc == LT_SUCCESS && i <= LT_PREF_MIN_ALIGNMENT_D; i++)
        rc = d->lt.preference_set(d->preference, i, &alignment, sizeof alignment);

    if (rc == LT_SUCCESS)
        rc = d->lt.preference_set(d->preference, LT_PREF_MAX_WORKSPACE_BYTES, &d->workspace_bytes,
                                  sizeof d->workspace_bytes);
    return rc;
}

int cuda_dense_create(struct cuda_dense **out, const struct cuda_dense_options *options,
                      struct error *err)
{
    struct cuda_dense *d = calloc(1, sizeof *d);

    if (d == NULL)
        return error_set(err, -ENOMEM, "no memory for dense products");
    d->type = options->type;
    d->rows_max = options->rows_max;
    d->workspace_bytes =
        options->workspace_bytes != 0 ? options->workspace_bytes : (size_t)WORKSPACE_DEFAULT;
    int rc = cublaslt_open(&d->lt, err);
    if (rc == 0 && cudaMalloc(&d->workspace, d->workspace_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        d->workspace = NULL;
        rc = error_set(err, -ENOMEM, "no GPU memory for cuBLASLt's workspace of %zu MiB",
                       d->workspace_bytes >> 20);
    }
    if (rc == 0 && preference_make(d) != LT_SUCCESS)
        rc = error_set(err, -EIO, "%s: no preference can be made", d->lt.path);
    if (rc != 0) {
        cuda_dense_destroy(d);
        return rc;
    }
    *out = d;
    return 0;
}

void cuda_dense_destroy(struct cuda_dense *d)
{
    if (d == NULL)
        return;
    for (uint32_t i = 0; i < d->n_plans; i++)
        plan_close(&d->lt, &d->plans[i]);
    if (d->preference != NULL)
        (void)d->lt.preference_destroy(d->preference);
    cublaslt_close(&d->lt);
    if (d->workspace != NULL)
        (void)cudaFree(d->workspace);
    if (d->scratch != NULL)
        (void)cudaFree(d->scratch);
    free(d);
}

static int scratch_take(struct cuda_dense *d, uint32_t width, struct error *err)
{
    size_t bytes = (size_t)d->rows_max * width * sizeof *d->scratch;
    void *scratch = NULL;

    if (width <= d->scratch_width)
        return 0;
    if (cudaMalloc(&scratch, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return error_set(err, -ENOMEM, "no GPU memory for %u rows of gate and up: %zu MiB",
                         d->rows_max, bytes >> 20);
    }
    if (d->scratch != NULL)
        (void)cudaFree(d->scratch);
    d->scratch = scratch;
    d->scratch_width = width;
    return 0;
}

int cuda_dense_prepare(struct cuda_dense *d, const struct cuda_matrix *matrix,
                       enum cuda_dense_output output, struct error *err)
{
    const bool f32 = output == CUDA_DENSE_F32;
    int rc = output == CUDA_DENSE_SWIGLU ? scratch_take(d, matrix->n_out, err) : 0;

    if (rc != 0 || d->rows_max <= GEMV_ROWS_MAX || plan_find(d, matrix, f32) != NULL)
        return rc;
    if (d->n_plans == PLANS_MAX)
        return error_set(err, -ENOTSUP, "more than %d distinct shapes of products", PLANS_MAX);
    struct plan *p = &d->plans[d->n_plans++];
    *p = (struct plan){
        .n_out = matrix->n_out, .n_in = matrix->n_in, .f32 = f32, .bias = matrix->bias != NULL};
    rc = plan_make(d, p);
    if (rc == LT_SUCCESS)
        rc = bias_set(&d->lt, p, matrix); /* the library looks at its alignment as well */
    for (uint32_t b = 0; rc == LT_SUCCESS && b <= bucket_index(d->rows_max); b++)
        rc = algo_ask(d, p, b, (uint32_t)BUCKET_MIN << b);
    if (rc == LT_SUCCESS)
        return 0;
    plan_close(&d->lt, p);
    d->n_plans--;
    return error_set(err, -ENOTSUP, "%s offers nothing for %u x %u products: status %d", d->lt.path,
                     matrix->n_out, matrix->n_in, rc);
}

int cuda_dense_prepare_model(struct cuda_dense *d, const struct cuda_weights *w, struct error *err)
{
    int rc = cuda_dense_prepare(d, &w->head, CUDA_DENSE_F32, err);

    for (uint32_t i = 0; i < w->n_layers && rc == 0; i++) {
        const struct cuda_layer_weights *l = &w->layers[i];

        rc = cuda_dense_prepare(d, &l->qkv, CUDA_DENSE_ROWS, err);
        if (rc == 0)
            rc = cuda_dense_prepare(d, &l->output, CUDA_DENSE_ROWS, err);
        if (rc == 0)
            rc = cuda_dense_prepare(d, &l->gate_up, CUDA_DENSE_SWIGLU, err);
        if (rc == 0)
            rc = cuda_dense_prepare(d, &l->down, CUDA_DENSE_ROWS, err);
    }
    return rc;
}

/* ---- Running ------------------------------------------------------------------------------------ */

static int run_gemv(struct cuda_dense *d, const struct cuda_dense_job *job, cuda_stream stream)
{
    const struct cuda_matrix *m = job->matrix;
    const struct gemv a = {.out = job->output == CUDA_DENSE_F32 ? NULL : job->out,
                           .out_f32 = job->output == CUDA_DENSE_F32 ? job->out : NULL,
                           .x = job->in,
                           .w = m->w,
                           .bias = m->bias,
                           .n_rows = job->n_rows,
                           .n_out = m->n_out,
                           .n_in = m->n_in,
                           .type = d->type,
                           .swiglu = job->output == CUDA_DENSE_SWIGLU};

    d->n_gemv++;
    return gemv(&a, stream);
}

static int multiply(struct cuda_dense *d, const struct plan *p, const struct cublaslt_heuristic *h,
                    const struct cuda_dense_job *job, void *out, cuda_stream stream)
{
    const float one = 1.0f, zero = 0.0f;

    return d->lt.matmul(d->lt.handle, p->desc, &one, job->matrix->w, p->w, job->in, p->in, &zero,
                        out, p->out, out, p->out, &h->algo, d->workspace, d->workspace_bytes,
                        stream);
}

/* An algorithm was asked for at its bucket's largest number of rows; should it refuse a smaller one, the
 * library is asked again for that, and the answer kept. */
static int run_lt(struct cuda_dense *d, const struct cuda_dense_job *job, void *out,
                  cuda_stream stream)
{
    struct plan *p = plan_find(d, job->matrix, job->output == CUDA_DENSE_F32);
    uint32_t bucket = bucket_index(job->n_rows);

    if (p == NULL || !p->has_algo[bucket])
        return CUDA_NOT_SUPPORTED;
    d->n_lt++;
    int rc = rows_set(&d->lt, p, job->n_rows);
    if (rc == LT_SUCCESS)
        rc = bias_set(&d->lt, p, job->matrix);
    if (rc == LT_SUCCESS)
        rc = multiply(d, p, &p->algo[bucket], job, out, stream);
    if (rc == LT_SUCCESS) {
        d->n_hits++;
        return 0;
    }
    if (algo_ask(d, p, bucket, job->n_rows) != LT_SUCCESS)
        return CUDA_NOT_SUPPORTED;
    rc = multiply(d, p, &p->algo[bucket], job, out, stream);
    return rc == LT_SUCCESS ? 0 : cudaErrorLaunchFailure;
}

int cuda_dense_run(struct cuda_dense *d, const struct cuda_dense_job *job, cuda_stream stream)
{
    const uint32_t n_out = job->matrix->n_out;

    invariant(job->output < CUDA_DENSE_OUTPUTS);
    if (job->n_rows > d->rows_max)
        return CUDA_NOT_SUPPORTED;
    if (job->n_rows == 0)
        return 0;
    if (job->n_rows <= GEMV_ROWS_MAX)
        return run_gemv(d, job, stream);
    if (job->output != CUDA_DENSE_SWIGLU)
        return run_lt(d, job, job->out, stream);
    if (n_out > d->scratch_width)
        return CUDA_NOT_SUPPORTED;
    int rc = run_lt(d, job, d->scratch, stream);
    const struct swiglu a = {.out = job->out,
                             .gate_up = d->scratch,
                             .rows = {.n = job->n_rows},
                             .width = n_out / 2,
                             .type = d->type};
    return rc == 0 ? swiglu(&a, stream) : rc;
}

void cuda_dense_stats(const struct cuda_dense *d, struct cuda_dense_stats *out)
{
    *out = (struct cuda_dense_stats){.n_gemv = d->n_gemv,
                                     .n_lt = d->n_lt,
                                     .n_hits = d->n_hits,
                                     .n_asked = d->n_asked,
                                     .library = d->lt.path,
                                     .version = d->lt.version};
}
