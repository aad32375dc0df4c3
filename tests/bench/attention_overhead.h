/* attention_overhead.h - the fixed cost of a job, for bench attention.
 *
 * Two threads on cores of their own, as engine and worker, over a real job table in shared memory:
 * from just before the post to the done word being visible, for a job with one token of context
 * (append, attention, publish).  The worker spins, or sleeps on the table's bell. */
#ifndef OMNI_TESTS_BENCH_ATTENTION_OVERHEAD_H
#define OMNI_TESTS_BENCH_ATTENTION_OVERHEAD_H

#include <stdbool.h>

#include "common/compute/isa.h"

/* Median microseconds; negative where it cannot be measured (fewer than two cpus, no /dev/shm). */
double attention_overhead_us(enum isa isa, bool asleep);

#endif
