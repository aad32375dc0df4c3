/* clock.h - the one clock of deadlines and durations: CLOCK_MONOTONIC in nanoseconds.
 *
 * Monotonic time is the same in all processes of a machine since boot, so it may be written to
 * shared memory and compared there.  Wall-clock time appears in log lines alone. */
#ifndef OMNI_COMMON_BASE_CLOCK_H
#define OMNI_COMMON_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* Sleeps; a signal may end it early. */
static inline void clock_sleep_ns(uint64_t ns)
{
    struct timespec t = clock_timespec(ns);

    nanosleep(&t, NULL);
}

#endif
