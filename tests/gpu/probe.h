/* probe.h - what the parts of the probe share: the context of a measurement, what it owns, timing.
 *
 * A part is a list of measurements and runs in a process of its own (spawn.h).  A measurement
 * returns 0, or -1 after probe_fail() has noted why; whatever it took through the probe_*
 * allocators, events and streams is given back by the runner, in reverse order, so that a
 * measurement has one way out. One host thread.  No kernel waits without a deadline
 * (sys_memory.cuh). */
#ifndef OMNI_TESTS_GPU_PROBE_H
#define OMNI_TESTS_GPU_PROBE_H
#include "tests/gpu/report.h"
#include "tests/gpu/stats.h"

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

enum { PROBE_OWNED_MAX = 64, PROBE_SAMPLES_MAX = 64, PROBE_SIZE_TEXT = 24 };

enum probe_kind { PROBE_DEVICE_MEMORY, PROBE_PINNED_MEMORY, PROBE_STREAM, PROBE_EVENT };

struct probe_owned {
    enum probe_kind kind;
    void *handle;
};

struct probe {
    struct report *report;
    const char *results; /* path of the file that report appends to */
    cudaStream_t stream; /* lives as long as the part */
    int n_sm;
    size_t free_bytes; /* device memory free at the part's start */
    char why[REPORT_VALUE_MAX];
    int n_owned;
    struct probe_owned owned[PROBE_OWNED_MAX];
};

struct probe_measurement {
    const char *key; /* names the error line when it fails */
    int (*run)(struct probe *probe);
};

struct probe_part {
    const char *name;
    const char *what; /* one line for --list */
    int limit_s;      /* killed beyond */
    int n;
    const struct probe_measurement *measurement;
};

/* Order = order of running: the ceilings first, so that a short visit has at least these. */
extern const struct probe_part part_ceilings, part_gemm, part_copies, part_zerocopy, part_flags,
    part_posted, part_register, part_ipc, part_graphs, part_kernels, part_step, part_exchange,
    part_torch;

/* Notes why the measurement fails; returns -1. */
int probe_fail(struct probe *probe, const char *format, ...) __attribute__((format(printf, 2, 3)));
int probe_fail_cuda(struct probe *probe, const char *call, cudaError_t error);

#define PROBE_TRY(probe, call)                                                                     \
    do {                                                                                           \
        const cudaError_t error_ = (call);                                                         \
        if (error_ != cudaSuccess)                                                                 \
            return probe_fail_cuda(probe, #call, error_);                                          \
    } while (0)

/* For functions that return 0 or -1 and have noted why. */
#define PROBE_DO(call)                                                                             \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            return -1;                                                                             \
    } while (0)

/* Selects the first device and makes stream, counts; 0 or -1 (why is set). */
int probe_open(struct probe *probe, struct report *report);

/* Gives back what the measurement owns. */
void probe_release(struct probe *probe);

/* Each 0 or -1; *out belongs to the probe. */
int probe_device_alloc(struct probe *probe, void **out, size_t bytes);
int probe_pinned_alloc(struct probe *probe, void **out,
                       size_t bytes); /* mapped, portable, zeroed */
int probe_stream(struct probe *probe, cudaStream_t *out);
int probe_event(struct probe *probe, cudaEvent_t *out);

/* The smaller of want and a sixteenth-aligned share of the free device memory. */
size_t probe_fit(const struct probe *probe, size_t want, int share);

/* Something that can be launched again and again; iteration counts from 0 over the whole timing. */
struct probe_work {
    cudaError_t (*launch)(void *arg, unsigned iteration, cudaStream_t stream);
    void *arg;
};

/* Median over n_samples (<= PROBE_SAMPLES_MAX) of the device time of one launch, microseconds, each
 * sample being n_inner launches back to back between two events; one more sample warms up. */
int probe_time(struct probe *probe, struct probe_work work, int n_inner, int n_samples, double *us);

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t probe_now_ns(void);

/* "64k" for 65536: for keys. Returns text. */
const char *probe_size(char text[PROBE_SIZE_TEXT], size_t bytes);

/* report_number under "<prefix><middle><suffix>". */
void probe_number(struct probe *probe, double value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* GB/s (10^9) of bytes in microseconds. */
static inline double probe_gbps(double bytes, double us)
{
    return us > 0.0 ? bytes / us / 1e3 : 0.0;
}

#endif
