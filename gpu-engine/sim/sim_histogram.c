#include "gpu-engine/sim/sim_histogram.h"

#include <math.h>

static const double smallest_ns = 1000, growth = 1.01;

void sim_histogram_add(struct sim_histogram *h, uint64_t ns)
{
    double at = (double)ns > smallest_ns ? log((double)ns / smallest_ns) / log(growth) : 0;
    uint32_t bin = at < SIM_HISTOGRAM_BINS ? (uint32_t)at : SIM_HISTOGRAM_BINS - 1;

    h->bins[bin]++;
    h->n++;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
}

double sim_histogram_quantile(const struct sim_histogram *h, double q)
{
    double rank = q * (double)h->n, most = (double)h->max_ns;
    uint64_t n = 0;

    for (uint32_t i = 0; i < SIM_HISTOGRAM_BINS && h->n > 0; i++) {
        n += h->bins[i];
        if ((double)n >= rank)
            return fmin(smallest_ns * pow(growth, i + 0.5), most) / 1e9;
    }
    return 0;
}
