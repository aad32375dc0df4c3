/* cuda_dense.h - the CUDA device's dense products: our gemv up to 8 rows, cuBLASLt beyond.
 *
 * Up to 8 rows a product is bound by reading the weights, and gemv does the bias and SwiGLU in passing.
 * Beyond, cuBLASLt computes, found at run time (cublaslt.h), so that one binary runs with and without
 * it.  Its algorithms are asked for once per (shape, output, row bucket), before "ready"
 * (cuda_dense_prepare); a run finds them in a table.  Sums are f32 everywhere.
 *
 * A run queues on a stream and never synchronises or allocates: it may be captured into a graph.
 * Workspace and scratch are fixed and one for all runs, so runs follow one another on one stream, or
 * on streams that wait for each other.  One host thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_DENSE_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_DENSE_H

#include <stddef.h>
#include <stdint.h>

#include "gpu-engine/device/cuda/cuda_kv.h"
#include "gpu-engine/device/cuda/cuda_weights.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_dense;

enum cuda_dense_output {
    CUDA_DENSE_ROWS,   /* 16-bit rows [n_rows][n_out] */
    CUDA_DENSE_F32,    /* f32 rows [n_rows][n_out]: logits */
    CUDA_DENSE_SWIGLU, /* 16-bit rows [n_rows][n_out / 2]: silu(gate) * up of a gate_up matrix */
    CUDA_DENSE_OUTPUTS
};

struct cuda_dense_options {
    uint32_t type;          /* of the weights: KV_TYPE_BF16 or KV_TYPE_F16 */
    uint32_t rows_max;      /* of any run */
    size_t workspace_bytes; /* 0: 64 MiB; cuBLASLt asks for 32 MiB on sm_90 */
};

/* What runs found: for logs and tests. */
struct cuda_dense_stats {
    uint64_t n_gemv;     /* runs of up to 8 rows */
    uint64_t n_lt;       /* runs through cuBLASLt ... */
    uint64_t n_hits;     /* ... whose algorithm was in the table ... */
    uint64_t n_asked;    /* ... and heuristics asked for, prepare's included */
    const char *library; /* file that was loaded */
    size_t version;      /* cublasLtGetVersion */
};

struct cuda_dense_job {
    const struct cuda_matrix *matrix;
    enum cuda_dense_output output;
    uint32_t n_rows;    /* at most rows_max; rows of the batch, there or not: all are computed */
    const uint16_t *in; /* [n_rows][n_in], 16-byte aligned */
    void *out;          /* as output says; may not overlap in */
};

/* Loads the library, takes workspace.  0; -ENOENT with err (no library: the names that were tried and
 * OMNI_CUBLASLT, which names a file); -ENOMEM, -EIO. */
int cuda_dense_create(struct cuda_dense **out, const struct cuda_dense_options *options,
                      struct error *err);
void cuda_dense_destroy(struct cuda_dense *d); /* NULL is allowed */

/* Asks for the algorithms of a matrix's shape in all row buckets up to rows_max (16, 32, 64, ...), and
 * takes scratch for SWIGLU.  Once per distinct shape; others of the same shape share it.  0, -ENOTSUP
 * (the library has none: shape in err), -ENOMEM. */
int cuda_dense_prepare(struct cuda_dense *d, const struct cuda_matrix *matrix,
                       enum cuda_dense_output output, struct error *err);

/* The same for every matrix of a model. */
int cuda_dense_prepare_model(struct cuda_dense *d, const struct cuda_weights *w, struct error *err);

/* Queues.  0, or a cudaError_t; CUDA_NOT_SUPPORTED: more than rows_max rows, or not prepared. */
int cuda_dense_run(struct cuda_dense *d, const struct cuda_dense_job *job, cuda_stream stream);

/* The rows a bucket is asked for: the smallest bucket that holds n rows (n > GEMV_ROWS_MAX). */
uint32_t cuda_dense_bucket(uint32_t n_rows);

void cuda_dense_stats(const struct cuda_dense *d, struct cuda_dense_stats *out);

#ifdef __cplusplus
}
#endif
#endif
