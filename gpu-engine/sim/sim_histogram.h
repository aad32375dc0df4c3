/* sim_histogram.h - quantiles of millions of times, to half a percent: bins that grow by 1 %.
 *
 * Plain data of fixed size; one thread. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_HISTOGRAM_H
#define OMNI_GPU_ENGINE_SIM_SIM_HISTOGRAM_H

#include <stdint.h>

enum { SIM_HISTOGRAM_BINS = 2400 }; /* from 1 us to some hours */

struct sim_histogram {
    uint64_t n, max_ns;
    uint32_t bins[SIM_HISTOGRAM_BINS];
};

void sim_histogram_add(struct sim_histogram *h, uint64_t ns);

/* The value that a share q of all do not exceed, in seconds; 0 if there is none. */
double sim_histogram_quantile(const struct sim_histogram *h, double q);

#endif
