/* blas_ref.h - OpenBLAS as the reference for our dense products, in benches and tests.
 *
 * Loaded at run time, one thread, with the core type that matches an instruction set of ours.  The
 * library is not part of the product.  One open reference per process: OpenBLAS reads its core type
 * when it is loaded. */
#ifndef OMNI_TESTS_BENCH_BLAS_REF_H
#define OMNI_TESTS_BENCH_BLAS_REF_H

#include <stdint.h>

#include "common/compute/isa.h"

typedef void blas_sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                           const float *a, int lda, const float *b, int ldb, float beta, float *c,
                           int ldc);

struct blas_ref {
    void *library;
    blas_sgemm_fn *sgemm;
    const char *config; /* version and core type, as OpenBLAS reports them */
};

/* 0, or -ENOENT where the library is not installed. */
int blas_ref_open(struct blas_ref *ref, enum isa isa);
void blas_ref_close(struct blas_ref *ref);

/* y[r][0..n) = x[r][0..k) * w[n][k], all of it in one call. */
void blas_ref_plain(const struct blas_ref *ref, const float *w, uint32_t n, uint32_t k,
                    const float *x, uint32_t n_rows, float *y);

/* The same over fixed tiles of BLAS_TILE_ROWS rows and BLAS_TILE_OUTPUTS outputs, which makes the
 * bits independent of the number of rows.  x and y must have room for n_rows rounded up to whole
 * tiles. */
enum { BLAS_TILE_ROWS = 8, BLAS_TILE_OUTPUTS = 256 };
void blas_ref_tiles(const struct blas_ref *ref, const float *w, uint32_t n, uint32_t k,
                    const float *x, uint32_t n_rows, float *y);

#endif
