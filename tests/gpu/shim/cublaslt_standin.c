/* cublaslt_standin.c - the handful of cuBLASLt's functions that the CUDA device calls, in plain C, over
 * the shim's streams: a shared object that is found as the real one is, through OMNI_CUBLASLT.
 *
 * It refuses what the real one refuses and a mistake of ours would lead to: shapes that do not fit, an
 * algorithm that no heuristic gave, a workspace smaller than was promised, pointers off alignment or to
 * memory that is not the GPU's.  A product is put on the stream like a kernel: ordered and captured. */
#include "tests/gpu/shim/cublaslt_standin.h"

#include <stdlib.h>
#include <string.h>

#include "gpu-engine/device/cuda/cublaslt.h"
#include "gpu-engine/device/cuda/element.h"
#include "tests/gpu/shim/runtime.h"

enum { INVALID = 7, ALGO_MAGIC = 0x4c74, WORKSPACE_NEEDED = 4096 };

struct product {
    uint64_t m, n, k;
    int type, out_type;
    const uint16_t *w, *in, *bias;
    void *out;
    uint8_t *workspace;
};

struct cublaslt_context {
    int n_products;
};
struct cublaslt_desc_opaque {
    int transa, epilogue, bias_type;
    const uint16_t *bias;
};
struct cublaslt_layout_opaque {
    int type;
    uint64_t rows, cols;
    int64_t ld;
};
struct cublaslt_preference_opaque {
    uint64_t workspace_bytes;
    uint32_t alignment[4]; /* of A, B, C, D; the real one counts on 256 where nothing is said */
};

static uint64_t refuse_divisor;

void cublaslt_standin_refuse(uint64_t divisor)
{
    refuse_divisor = divisor;
}

/* ---- Descriptions ------------------------------------------------------------------------------- */

int cublasLtCreate(cublaslt_handle *out);
int cublasLtDestroy(cublaslt_handle h);
size_t cublasLtGetVersion(void);
int cublasLtMatmulDescCreate(cublaslt_desc *out, int compute_type, int scale_type);
int cublasLtMatmulDescDestroy(cublaslt_desc d);
int cublasLtMatmulDescSetAttribute(cublaslt_desc d, int attribute, const void *value, size_t bytes);
int cublasLtMatrixLayoutCreate(cublaslt_layout *out, int type, uint64_t rows, uint64_t cols,
                               int64_t ld);
int cublasLtMatrixLayoutDestroy(cublaslt_layout l);
int cublasLtMatrixLayoutSetAttribute(cublaslt_layout l, int attribute, const void *value,
                                     size_t bytes);
int cublasLtMatmulPreferenceCreate(cublaslt_preference *out);
int cublasLtMatmulPreferenceDestroy(cublaslt_preference p);
int cublasLtMatmulPreferenceSetAttribute(cublaslt_preference p, int attribute, const void *value,
                                         size_t bytes);
int cublasLtMatmulAlgoGetHeuristic(cublaslt_handle h, cublaslt_desc d, cublaslt_layout a,
                                   cublaslt_layout b, cublaslt_layout c, cublaslt_layout out,
                                   cublaslt_preference p, int n_wanted,
                                   struct cublaslt_heuristic *results, int *n_found);
int cublasLtMatmul(cublaslt_handle h, cublaslt_desc d, const void *alpha, const void *a,
                   cublaslt_layout a_layout, const void *b, cublaslt_layout b_layout,
                   const void *beta, const void *c, cublaslt_layout c_layout, void *out,
                   cublaslt_layout out_layout, const struct cublaslt_algo *algo, void *workspace,
                   size_t workspace_bytes, cuda_stream stream);

int cublasLtCreate(cublaslt_handle *out)
{
    *out = calloc(1, sizeof **out);
    return *out == NULL ? INVALID : LT_SUCCESS;
}

int cublasLtDestroy(cublaslt_handle h)
{
    free(h);
    return LT_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return 130000;
}

int cublasLtMatmulDescCreate(cublaslt_desc *out, int compute_type, int scale_type)
{
    if (compute_type != LT_COMPUTE_32F || scale_type != LT_R_32F)
        return LT_NOT_SUPPORTED;
    *out = calloc(1, sizeof **out);
    return *out == NULL ? INVALID : LT_SUCCESS;
}

int cublasLtMatmulDescDestroy(cublaslt_desc d)
{
    free(d);
    return LT_SUCCESS;
}

int cublasLtMatmulDescSetAttribute(cublaslt_desc d, int attribute, const void *value, size_t bytes)
{
    void *to = NULL;
    size_t expected = sizeof(int);

    if (attribute == LT_DESC_TRANSA)
        to = &d->transa;
    else if (attribute == LT_DESC_EPILOGUE)
        to = &d->epilogue;
    else if (attribute == LT_DESC_BIAS_DATA_TYPE)
        to = &d->bias_type;
    else if (attribute == LT_DESC_BIAS_POINTER) {
        to = &d->bias;
        expected = sizeof d->bias;
    }
    if (to == NULL || bytes != expected)
        return INVALID;
    memcpy(to, value, bytes);
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutCreate(cublaslt_layout *out, int type, uint64_t rows, uint64_t cols,
                               int64_t ld)
{
    if (ld < (int64_t)rows)
        return INVALID;
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return INVALID;
    **out = (struct cublaslt_layout_opaque){type, rows, cols, ld};
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutDestroy(cublaslt_layout l)
{
    free(l);
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutSetAttribute(cublaslt_layout l, int attribute, const void *value,
                                     size_t bytes)
{
    if (attribute != LT_LAYOUT_COLS || bytes != sizeof l->cols)
        return INVALID;
    memcpy(&l->cols, value, bytes);
    return LT_SUCCESS;
}

int cublasLtMatmulPreferenceCreate(cublaslt_preference *out)
{
    *out = calloc(1, sizeof **out);
    return *out == NULL ? INVALID : LT_SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(cublaslt_preference p)
{
    free(p);
    return LT_SUCCESS;
}

int cublasLtMatmulPreferenceSetAttribute(cublaslt_preference p, int attribute, const void *value,
                                         size_t bytes)
{
    if (attribute >= LT_PREF_MIN_ALIGNMENT_A && attribute <= LT_PREF_MIN_ALIGNMENT_D) {
        if (bytes != sizeof(uint32_t))
            return INVALID;
        memcpy(&p->alignment[attribute - LT_PREF_MIN_ALIGNMENT_A], value, bytes);
        return LT_SUCCESS;
    }
    if (attribute != LT_PREF_MAX_WORKSPACE_BYTES || bytes != sizeof p->workspace_bytes)
        return INVALID;
    memcpy(&p->workspace_bytes, value, bytes);
    return LT_SUCCESS;
}

/* ---- Products ----------------------------------------------------------------------------------- */

static int is_16bit(int type)
{
    return type == LT_R_16BF || type == LT_R_16F;
}

/* W^T in, column-major: k x m transposed, k x n, m x n. */
static int shapes_fit(cublaslt_desc d, cublaslt_layout a, cublaslt_layout b, cublaslt_layout out)
{
    return d->transa == LT_OP_T && a->rows == b->rows && a->cols == out->rows &&
           b->cols == out->cols && a->type == b->type && is_16bit(a->type) &&
           (out->type == a->type || out->type == LT_R_32F) && a->ld == (int64_t)a->rows &&
           b->ld == (int64_t)b->rows && out->ld == (int64_t)out->rows &&
           (d->epilogue == LT_EPILOGUE_DEFAULT ||
            (d->epilogue == LT_EPILOGUE_BIAS && d->bias_type == a->type));
}

/* The algorithm remembers its shape. */
int cublasLtMatmulAlgoGetHeuristic(cublaslt_handle h, cublaslt_desc d, cublaslt_layout a,
                                   cublaslt_layout b, cublaslt_layout c, cublaslt_layout out,
                                   cublaslt_preference p, int n_wanted,
                                   struct cublaslt_heuristic *results, int *n_found)
{
    *n_found = 0;
    if (h == NULL || c != out || n_wanted < 1 || !shapes_fit(d, a, b, out))
        return INVALID;
    if (p->workspace_bytes < WORKSPACE_NEEDED || a->rows % 8 != 0)
        return LT_NOT_SUPPORTED;
    if (d->epilogue == LT_EPILOGUE_BIAS && d->bias == NULL)
        return INVALID;
    results[0] = (struct cublaslt_heuristic){
        .algo = {{ALGO_MAGIC, out->rows, out->cols, a->rows, (uint64_t)out->type,
                  p->alignment[0] != 0 ? p->alignment[0] : 256}},
        .workspace_bytes = WORKSPACE_NEEDED,
        .state = LT_SUCCESS};
    *n_found = 1;
    return LT_SUCCESS;
}

static float product_element(const struct product *p, uint64_t row, uint64_t col)
{
    uint32_t type = p->type == LT_R_16BF ? KV_TYPE_BF16 : KV_TYPE_F16;
    float sum = 0;

    for (uint64_t k = 0; k < p->k; k++)
        sum += element_to_float(type, p->w[col * p->k + k]) *
               element_to_float(type, p->in[row * p->k + k]);
    return p->bias == NULL ? sum : sum + element_to_float(type, p->bias[col]);
}

static cudaError_t product_run(void *arg)
{
    const struct product *p = arg;
    uint32_t type = p->type == LT_R_16BF ? KV_TYPE_BF16 : KV_TYPE_F16;

    memset(p->workspace, 0xa5, WORKSPACE_NEEDED); /* it is the product's while it runs */
    for (uint64_t i = 0; i < p->m * p->n; i++) {
        float y = product_element(p, i / p->m, i % p->m);

        if (p->out_type == LT_R_32F)
            ((float *)p->out)[i] = y;
        else
            ((uint16_t *)p->out)[i] = element_from_float(type, y);
    }
    return cudaSuccess;
}

static int algo_fits(const struct cublaslt_algo *algo, cublaslt_layout a, cublaslt_layout out)
{
    return algo != NULL && algo->data[0] == ALGO_MAGIC && algo->data[1] == out->rows &&
           algo->data[3] == a->rows && algo->data[4] == (uint64_t)out->type &&
           out->cols <= algo->data[2] &&
           (refuse_divisor == 0 || out->cols >= algo->data[2] / refuse_divisor);
}

static int reaches_all(const struct product *p)
{
    size_t out_bytes = p->m * p->n * (p->out_type == LT_R_32F ? sizeof(float) : sizeof(uint16_t));

    return shim_runtime_reaches(p->w, p->m * p->k * sizeof *p->w) &&
           shim_runtime_reaches(p->in, p->n * p->k * sizeof *p->in) &&
           shim_runtime_reaches(p->out, out_bytes) &&
           shim_runtime_reaches(p->workspace, WORKSPACE_NEEDED) &&
           (p->bias == NULL || shim_runtime_reaches(p->bias, p->m * sizeof *p->bias));
}

int cublasLtMatmul(cublaslt_handle h, cublaslt_desc d, const void *alpha, const void *a,
                   cublaslt_layout a_layout, const void *b, cublaslt_layout b_layout,
                   const void *beta, const void *c, cublaslt_layout c_layout, void *out,
                   cublaslt_layout out_layout, const struct cublaslt_algo *algo, void *workspace,
                   size_t workspace_bytes, cuda_stream stream)
{
    uintptr_t pointers = (uintptr_t)a | (uintptr_t)b | (uintptr_t)out;

    if (*(const float *)alpha != 1.0f || *(const float *)beta != 0.0f || c != out ||
        c_layout != out_layout || !shapes_fit(d, a_layout, b_layout, out_layout))
        return INVALID;
    if (!algo_fits(algo, a_layout, out_layout) || workspace == NULL ||
        workspace_bytes < WORKSPACE_NEEDED || pointers % algo->data[5] != 0)
        return LT_NOT_SUPPORTED;
    if (d->epilogue == LT_EPILOGUE_BIAS && d->bias == NULL)
        return INVALID;
    const struct product p = {.m = out_layout->rows,
                              .n = out_layout->cols,
                              .k = a_layout->rows,
                              .type = a_layout->type,
                              .out_type = out_layout->type,
                              .w = a,
                              .in = b,
                              .bias = d->epilogue == LT_EPILOGUE_BIAS ? d->bias : NULL,
                              .out = out,
                              .workspace = workspace};
    if (!reaches_all(&p))
        return INVALID;
    h->n_products++;
    return shim_stream_run(stream, product_run, &p, sizeof p) == cudaSuccess ? LT_SUCCESS : INVALID;
}
