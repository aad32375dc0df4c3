/* median.h - order statistics of measured figures, for all benchmarks (peer_ggml.c is built alone).
 * Both sort x. */
#ifndef OMNI_TESTS_BENCH_MEDIAN_H
#define OMNI_TESTS_BENCH_MEDIAN_H

#include <stddef.h>
#include <stdlib.h>

static inline int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The share q (0..1) of n > 0 figures lies at or below it. */
static inline double quantile_of(double *x, size_t n, double q)
{
    qsort(x, n, sizeof *x, compare_doubles);
    return x[(size_t)(q * (double)(n - 1))];
}

/* Of an even number the upper one. */
static inline double median_of(double *x, size_t n)
{
    qsort(x, n, sizeof *x, compare_doubles);
    return x[n / 2];
}

#endif
