/* stats.h - order statistics over samples of one measurement.
 *
 * Latencies have long tails and clocks ramp up, so nothing here is a mean: a measurement is
 * reported as its median, and as a percentile where the tail is the question.  Pure functions, any
 * thread. */
#ifndef OMNI_TESTS_GPU_STATS_H
#define OMNI_TESTS_GPU_STATS_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sorts samples in place, ascending.  NaN must not occur. */
void stats_sort(double *samples, size_t n);

/* Nearest-rank percentile (0 < percent <= 100) of n >= 1 sorted samples: the smallest sample that
 * at least percent % of the samples do not exceed. */
double stats_percentile(const double *sorted, size_t n, double percent);

/* Median of n >= 1 samples in any order (the mean of the middle two when n is even); sorts in
 * place. */
double stats_median(double *samples, size_t n);

#ifdef __cplusplus
}
#endif
#endif
