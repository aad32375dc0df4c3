/* dense.h - exact dense products: y[r][n] = sum over k of x[r][k] * w[n][k].
 *
 * Exact means: every y[r][n] is one chain of fused multiply-adds in ascending k,
 *
 *     acc = 0 (or y[r][n] when accumulating);  for k: acc = fma(x[r][k], w[n][k], acc)
 *
 * whatever the number of rows, the row's place among them, the number of threads and the
 * instruction set.  So a token's activations do not depend on what else is in the batch.
 * Quantised weights count with their exact value, rounded to f32 once (common/model/weight.h).
 *
 * dense_matrix_create copies a weight view into panels of DENSE_PANEL outputs, interleaved along k,
 * in the type it has (see dense_matrix_bytes); after it the view is not needed.
 * A product allocates nothing, and spreads panels over the team.
 *
 * A matrix is immutable after creation and may be used by several teams at once. */
#ifndef OMNI_COMMON_COMPUTE_DENSE_H
#define OMNI_COMMON_COMPUTE_DENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compute/isa.h"
#include "common/compute/team.h"
#include "common/model/weight.h"

enum {
    DENSE_PANEL = 32,    /* outputs per panel: two AVX-512 or four AVX2 accumulators per row */
    DENSE_JOBS_MAX = 64, /* products in one dense_run */
};

struct dense_matrix;

/* 0; -EINVAL (unknown type, k not a multiple of the type's block, sizes that overflow), -ENOMEM. */
int dense_matrix_create(struct dense_matrix **out, enum isa isa, const struct weight_view *view);
void dense_matrix_destroy(struct dense_matrix *m); /* NULL is allowed */

uint32_t dense_matrix_outputs(const struct dense_matrix *m); /* n: rows of the view */
uint32_t dense_matrix_inputs(const struct dense_matrix *m);  /* k: columns of the view */

/* Packed size, what one pass reads: the bits per weight of the file (Q4_0 4.5, Q4_1 5, Q5_0 5.5, Q5_1 6,
 * Q8_0 8.5, Q6_K 6.5625), but Q4_K 4.625 and Q5_K 5.625, whose scales are bytes here. */
uint64_t dense_matrix_bytes(const struct dense_matrix *m);

/* One product.  x: [n_rows][k], rows ldx floats apart; y: [n_rows][n], rows ldy floats apart; x and
 * y must not overlap, nor may two products of one dense_run write the same y. */
struct dense_job {
    const struct dense_matrix *matrix;
    const float *x;
    float *y;
    size_t ldx, ldy;
    uint32_t n_rows;
    bool accumulate; /* y is the first term of the sum instead of 0 */
};

/* Runs n_jobs <= DENSE_JOBS_MAX independent products (Q, K and V; gate and up; one per expert) as
 * one parallel region.  Blocks until all are done.  n_rows = 0 is allowed. */
void dense_run(struct team *team, const struct dense_job *jobs, uint32_t n_jobs);

/* One product on its own. */
static inline void dense_apply(struct team *team, const struct dense_matrix *m, const float *x,
                               size_t ldx, uint32_t n_rows, float *y, size_t ldy, bool accumulate)
{
    struct dense_job job = {.matrix = m,
                            .x = x,
                            .y = y,
                            .ldx = ldx,
                            .ldy = ldy,
                            .n_rows = n_rows,
                            .accumulate = accumulate};

    dense_run(team, &job, 1);
}

#endif
