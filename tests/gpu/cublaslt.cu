/* cublaslt.cu - see cublaslt.h. */
#include "tests/gpu/cublaslt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

enum { CANDIDATES_MAX = 8 };

/* Every function of the library that is used: the list is the contract with versions 12 and 13. */
#define LT_FUNCTIONS(X)                                                                            \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmul)

struct lt {
    void *library;
    char path[512];
    cublasLtHandle_t handle;
#define LT_FIELD(name) decltype(&::name) name;
    LT_FUNCTIONS(LT_FIELD)
#undef LT_FIELD
};

struct lt_gemm {
    struct lt *lt;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weight, in, out;
    void *workspace;
    size_t workspace_bytes;
    int n_candidates;
    cublasLtMatmulHeuristicResult_t candidate[CANDIDATES_MAX];
};

/* OMNI_CUBLASLT (a file) first: the only way to a library that no search path names. */
static void *library_open(char *path, size_t bytes)
{
    const char *names[] = {getenv("OMNI_CUBLASLT"),
                           "libcublasLt.so.13",
                           "libcublasLt.so.12",
                           "/usr/local/cuda/lib64/libcublasLt.so.13",
                           "/usr/local/cuda/lib64/libcublasLt.so.12",
                           "/usr/local/cuda/lib64/libcublasLt.so",
                           "libcublasLt.so"};
    for (const char *name : names) {
        void *library = name && *name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : NULL;
        if (library) {
            snprintf(path, bytes, "%s", name);
            return library;
        }
    }
    return NULL;
}

/* The name of the first function that the library lacks, or NULL. */
static const char *functions_load(struct lt *lt)
{
#define LT_LOAD(name)                                                                              \
    lt->name = (decltype(lt->name))dlsym(lt->library, #name);                                      \
    if (!lt->name)                                                                                 \
        return #name;
    LT_FUNCTIONS(LT_LOAD)
#undef LT_LOAD
    return NULL;
}

int lt_open(struct lt **out, char *why, size_t why_bytes)
{
    struct lt *lt = (struct lt *)calloc(1, sizeof *lt);
    *out = NULL;
    if (!lt || !(lt->library = library_open(lt->path, sizeof lt->path))) {
        const char *reason = dlerror();
        snprintf(why, why_bytes, "no libcublasLt.so.13 or .12 (OMNI_CUBLASLT names one): %s",
                 reason ? reason : "");
        free(lt);
        return -1;
    }
    const char *missing = functions_load(lt);
    const cublasStatus_t status = missing ? CUBLAS_STATUS_SUCCESS : lt->cublasLtCreate(&lt->handle);
    if (missing || status != CUBLAS_STATUS_SUCCESS) {
        snprintf(why, why_bytes, "%s: %s, status %d", lt->path,
                 missing ? missing : "cublasLtCreate", (int)status);
        lt_close(lt);
        return -1;
    }
    *out = lt;
    return 0;
}

void lt_close(struct lt *lt)
{
    if (!lt)
        return;
    if (lt->handle)
        (void)lt->cublasLtDestroy(lt->handle);
    (void)dlclose(lt->library);
    free(lt);
}

const char *lt_path(const struct lt *lt)
{
    return lt->path;
}

size_t lt_version(const struct lt *lt)
{
    return lt->cublasLtGetVersion();
}

/* Row-major is column-major of the transpose: with m = n_out, n = rows, k = n_in the library
 * computes out^T [n_out x rows] = weight^T^T in^T, so weight is transposed, in is not, and every
 * leading dimension is the row length. */
static cublasStatus_t shape_create(struct lt_gemm *g, int rows, int n_out, int n_in)
{
    const struct lt *lt = g->lt;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint64_t m = (uint64_t)n_out, n = (uint64_t)rows, k = (uint64_t)n_in;
    cublasStatus_t s = lt->cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                               sizeof transposed);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatrixLayoutCreate(&g->weight, CUDA_R_16BF, k, m, n_in);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatrixLayoutCreate(&g->in, CUDA_R_16BF, k, n, n_in);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatrixLayoutCreate(&g->out, CUDA_R_16BF, m, n, n_out);
    return s;
}

static cublasStatus_t candidates_find(struct lt_gemm *g)
{
    const struct lt *lt = g->lt;
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t s = lt->cublasLtMatmulPreferenceCreate(&preference);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &g->workspace_bytes,
            sizeof g->workspace_bytes);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, g->product, g->weight, g->in, g->out,
                                               g->out, preference, CANDIDATES_MAX, g->candidate,
                                               &g->n_candidates);
    if (preference)
        (void)lt->cublasLtMatmulPreferenceDestroy(preference);
    return s;
}

int lt_gemm_create(struct lt_gemm **out, struct lt *lt, int rows, int n_out, int n_in,
                   void *workspace, size_t workspace_bytes, int *n_candidates, char *why,
                   size_t why_bytes)
{
    struct lt_gemm *g = (struct lt_gemm *)calloc(1, sizeof *g);
    cublasStatus_t s = CUBLAS_STATUS_ALLOC_FAILED;
    *out = NULL;
    if (g) {
        g->lt = lt;
        g->workspace = workspace;
        g->workspace_bytes = workspace_bytes;
        s = shape_create(g, rows, n_out, n_in);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = candidates_find(g);
    }
    if (s != CUBLAS_STATUS_SUCCESS || g->n_candidates == 0) {
        snprintf(why, why_bytes, "cuBLASLt offers nothing for %dx%dx%d, status %d", rows, n_out,
                 n_in, (int)s);
        lt_gemm_destroy(g);
        return -1;
    }
    *n_candidates = g->n_candidates;
    *out = g;
    return 0;
}

void lt_gemm_destroy(struct lt_gemm *g)
{
    if (!g)
        return;
    if (g->out)
        (void)g->lt->cublasLtMatrixLayoutDestroy(g->out);
    if (g->in)
        (void)g->lt->cublasLtMatrixLayoutDestroy(g->in);
    if (g->weight)
        (void)g->lt->cublasLtMatrixLayoutDestroy(g->weight);
    if (g->product)
        (void)g->lt->cublasLtMatmulDescDestroy(g->product);
    free(g);
}

cudaError_t lt_gemm_launch(struct lt_gemm *g, int candidate, __nv_bfloat16 *out,
                           const __nv_bfloat16 *in, const __nv_bfloat16 *weight,
                           cudaStream_t stream)
{
    const float one = 1.0f, zero = 0.0f;
    const cublasStatus_t s = g->lt->cublasLtMatmul(
        g->lt->handle, g->product, &one, weight, g->weight, in, g->in, &zero, out, g->out, out,
        g->out, &g->candidate[candidate].algo, g->workspace, g->workspace_bytes, stream);
    return s == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
}

#else /* no header: the probe is built without this part */

int lt_open(struct lt **out, char *why, size_t why_bytes)
{
    *out = NULL;
    snprintf(why, why_bytes, "built without cublasLt.h");
    return -1;
}

void lt_close(struct lt *)
{
}

const char *lt_path(const struct lt *)
{
    return "";
}

size_t lt_version(const struct lt *)
{
    return 0;
}

int lt_gemm_create(struct lt_gemm **, struct lt *, int, int, int, void *, size_t, int *, char *,
                   size_t)
{
    return -1;
}

void lt_gemm_destroy(struct lt_gemm *)
{
}

cudaError_t lt_gemm_launch(struct lt_gemm *, int, __nv_bfloat16 *, const __nv_bfloat16 *,
                           const __nv_bfloat16 *, cudaStream_t)
{
    return cudaErrorNotSupported;
}

#endif
