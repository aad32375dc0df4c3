/* probe_data.h - what the parts that time the device's kernels share: ceilings, random data, graphs. */
#ifndef OMNI_TESTS_GPU_PROBE_DATA_H
#define OMNI_TESTS_GPU_PROBE_DATA_H
#include "tests/gpu/probe.h"

/* A figure that an earlier part left in the results file; 0, or -1 where it was not measured. */
int probe_earlier(struct probe *p, const char *key, double *value);

/* The larger of copy and read bandwidth, GB/s, as measured in this run. */
int probe_bandwidth(struct probe *p, double *gbps);

/* n elements (an even number) of random bf16 in (-2, -0.25] and [0.25, 2), on the device. */
int probe_elements(struct probe *p, void **out, size_t n, uint32_t seed);

/* A copy of n words on the device. */
int probe_words(struct probe *p, const void *from, size_t n, const uint32_t **out);

/* n launches of work, captured; the caller destroys *exec. */
int probe_graph(struct probe *p, struct probe_work work, int n, cudaGraphExec_t *exec);

/* Median time of one launch of work inside a graph of n of them: no launch gap of the host's counts. */
int probe_time_in_graph(struct probe *p, struct probe_work work, int n, double *us);

#endif
