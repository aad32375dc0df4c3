/* verdict.h - what the posted-write experiment (probe_posted.cu) concludes from its figures.
 *
 * Kept apart from the CUDA code so that the rule itself is tested on machines without a GPU. */
#ifndef OMNI_TESTS_GPU_VERDICT_H
#define OMNI_TESTS_GPU_VERDICT_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One size of the experiment; all times are medians on the device's clock, in microseconds. */
struct posted_point {
    double bytes;          /* written to pinned host memory by kernel A */
    double issued_us;      /* A's first instruction to its last store issued (not: arrived) */
    double gap_us;         /* A's last store issued to the first instruction of the next kernel B */
    double control_gap_us; /* the same gap when A writes the same bytes to device memory */
};

enum posted_verdict {
    POSTED_WAITS, /* B did not start before the link can have carried A's bytes, and A's end waited
                   */
    POSTED_OVERLAPS, /* B started while bytes of A must still have been on their way */
    POSTED_UNCLEAR,  /* the stores themselves were throttled to link speed: nothing left to wait for
                      */
};

/* points: >= 2, ascending in bytes.  The link's rate is the slope between the two largest sizes,
 * where the store queues are full in either case; a size whose wire time is below 5 us is not
 * judged, because launch latency hides it. */
enum posted_verdict posted_judge(const struct posted_point *points, size_t n);

/* Bytes per microsecond between the two largest sizes; 0 when the figures make no sense. */
double posted_rate(const struct posted_point *points, size_t n);

/* "waits", "overlaps", "unclear". */
const char *posted_verdict_name(enum posted_verdict verdict);

#ifdef __cplusplus
}
#endif
#endif
