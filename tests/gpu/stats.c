/* stats.c - see stats.h. */
#include "tests/gpu/stats.h"

#include <math.h>
#include <stdlib.h>

static int double_cmp(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void stats_sort(double *samples, size_t n)
{
    qsort(samples, n, sizeof samples[0], double_cmp);
}

double stats_percentile(const double *sorted, size_t n, double percent)
{
    const double rank = ceil(percent / 100.0 * (double)n);
    const size_t idx = rank < 1.0 ? 0 : (size_t)rank - 1;
    return sorted[idx < n ? idx : n - 1];
}

double stats_median(double *samples, size_t n)
{
    stats_sort(samples, n);
    if (n % 2)
        return samples[n / 2];
    return (samples[n / 2 - 1] + samples[n / 2]) / 2.0;
}
