/* cublaslt.h - cuBLASLt found at run time: the probe links no CUDA library but the static runtime.
 *
 * One function is offered: prepare a bf16 product for a shape, then launch it.  Where the header
 * was missing at compile time, or the library is missing now, lt_open says so and nothing else is
 * lost. */
#ifndef OMNI_TESTS_GPU_CUBLASLT_H
#define OMNI_TESTS_GPU_CUBLASLT_H
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stddef.h>

struct lt;
struct lt_gemm;

/* 0, or -1 with the reason in why. */
int lt_open(struct lt **out, char *why, size_t why_bytes);
void lt_close(struct lt *lt);

/* The file that was loaded, and cublasLtGetVersion. */
const char *lt_path(const struct lt *lt);
size_t lt_version(const struct lt *lt);

/* out[rows][n_out] = in[rows][n_in] x weight[n_out][n_in]^T, row-major, fp32 sums: how a dense
 * layer stores its weights.  n_candidates: how many algorithms the heuristic offers, best guess
 * first. */
int lt_gemm_create(struct lt_gemm **out, struct lt *lt, int rows, int n_out, int n_in,
                   void *workspace, size_t workspace_bytes, int *n_candidates, char *why,
                   size_t why_bytes);
void lt_gemm_destroy(struct lt_gemm *gemm);

/* Moves: reads 2 (rows n_in + n_out n_in) bytes, writes 2 rows n_out; 2 rows n_out n_in flops. */
cudaError_t lt_gemm_launch(struct lt_gemm *gemm, int candidate, __nv_bfloat16 *out,
                           const __nv_bfloat16 *in, const __nv_bfloat16 *weight,
                           cudaStream_t stream);

#endif
