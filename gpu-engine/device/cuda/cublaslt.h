/* cublaslt.h - cuBLASLt, found at run time: what is called of it, and the table of its functions.
 *
 * No header of NVIDIA's is needed: the few types and numbers that are used are spelled out here; they
 * are the same in versions 12 and 13, and cublaslt_check.c holds them against the real header where
 * there is one.  One binary runs with and without the library. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUBLASLT_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "gpu-engine/device/cuda/cuda_kv.h"

enum cublaslt_number {
    LT_SUCCESS = 0,        /* CUBLAS_STATUS_SUCCESS */
    LT_NOT_SUPPORTED = 15, /* CUBLAS_STATUS_NOT_SUPPORTED */
    LT_R_32F = 0,          /* CUDA_R_32F */
    LT_R_16F = 2,
    LT_R_16BF = 14,
    LT_COMPUTE_32F = 68, /* CUBLAS_COMPUTE_32F */
    LT_OP_T = 1,         /* CUBLAS_OP_T */
    LT_DESC_TRANSA = 3,  /* CUBLASLT_MATMUL_DESC_... */
    LT_DESC_EPILOGUE = 7,
    LT_DESC_BIAS_POINTER = 8,
    LT_DESC_BIAS_DATA_TYPE = 26,
    LT_EPILOGUE_DEFAULT = 1, /* CUBLASLT_EPILOGUE_... */
    LT_EPILOGUE_BIAS = 4,
    LT_LAYOUT_COLS = 3,              /* CUBLASLT_MATRIX_LAYOUT_COLS */
    LT_PREF_MAX_WORKSPACE_BYTES = 1, /* CUBLASLT_MATMUL_PREF_... */
    LT_PREF_MIN_ALIGNMENT_A = 5,     /* ..._BYTES; B, C, D follow */
    LT_PREF_MIN_ALIGNMENT_D = 8
};

typedef struct cublaslt_context *cublaslt_handle;
typedef struct cublaslt_desc_opaque *cublaslt_desc;
typedef struct cublaslt_layout_opaque *cublaslt_layout;
typedef struct cublaslt_preference_opaque *cublaslt_preference;

struct cublaslt_algo {
    uint64_t data[8];
};

struct cublaslt_heuristic {
    struct cublaslt_algo algo;
    size_t workspace_bytes;
    int state; /* LT_SUCCESS: the other fields are valid */
    float waves;
    int reserved[4];
};

struct cublaslt {
    void *library;
    char path[512];
    size_t version;
    cublaslt_handle handle;
    int (*create)(cublaslt_handle *out);
    int (*destroy)(cublaslt_handle h);
    size_t (*get_version)(void);
    int (*desc_create)(cublaslt_desc *out, int compute_type, int scale_type);
    int (*desc_destroy)(cublaslt_desc d);
    int (*desc_set)(cublaslt_desc d, int attribute, const void *value, size_t bytes);
    int (*layout_create)(cublaslt_layout *out, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_destroy)(cublaslt_layout l);
    int (*layout_set)(cublaslt_layout l, int attribute, const void *value, size_t bytes);
    int (*preference_create)(cublaslt_preference *out);
    int (*preference_destroy)(cublaslt_preference p);
    int (*preference_set)(cublaslt_preference p, int attribute, const void *value, size_t bytes);
    int (*heuristic)(cublaslt_handle h, cublaslt_desc d, cublaslt_layout a, cublaslt_layout b,
                     cublaslt_layout c, cublaslt_layout out, cublaslt_preference p, int n_wanted,
                     struct cublaslt_heuristic *results, int *n_found);
    int (*matmul)(cublaslt_handle h, cublaslt_desc d, const void *alpha, const void *a,
                  cublaslt_layout a_layout, const void *b, cublaslt_layout b_layout,
                  const void *beta, const void *c, cublaslt_layout c_layout, void *out,
                  cublaslt_layout out_layout, const struct cublaslt_algo *algo, void *workspace,
                  size_t workspace_bytes, cuda_stream stream);
};

/* Finds the library (the file in OMNI_CUBLASLT, else where systems keep version 13 or 12) and makes a
 * handle.  0, or -ENOENT, -EIO with err; a failed open is safe to close. */
int cublaslt_open(struct cublaslt *lt, struct error *err);
void cublaslt_close(struct cublaslt *lt);

#endif
