/* attention_overhead.h - the fixed cost of a job, for bench attention.
 *
 * An engine's side in shared memory (page, directory, job table, arena) and the worker itself
 * (attnd_init, attnd_tick) in a thread of its own, each on the cores that a group of one engine and
 * one worker has.  A round: from just before the post to the done word being visible, for a job
 * with one token of context.  The worker spins between jobs, or sleeps on the engine's bell. */
#ifndef OMNI_TESTS_BENCH_ATTENTION_OVERHEAD_H
#define OMNI_TESTS_BENCH_ATTENTION_OVERHEAD_H

#include <stdbool.h>

/* Median microseconds.  Negative where it cannot be measured: fewer than two cores, somebody else
 * has claimed the worker's, no room in /dev/shm; the reason goes to standard error. */
double attention_overhead_us(bool asleep);

#endif
