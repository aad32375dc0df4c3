/* futex.h - sleep and wake on a 32-bit word in memory shared between processes.
 *
 * Thin over futex(2), without FUTEX_PRIVATE: the word may be mapped anywhere.  Time-outs are points
 * of CLOCK_MONOTONIC (clock.h), so a wait that is interrupted goes on with the same one.  Sleeping
 * orders no memory: the caller looks again, with acquire.  Use bell.h unless there is a reason. */
#ifndef OMNI_COMMON_SHM_FUTEX_H
#define OMNI_COMMON_SHM_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

#define FUTEX_NO_DEADLINE UINT64_MAX

enum futex_result {
    FUTEX_WOKEN,    /* or a spurious wake: look again */
    FUTEX_CHANGED,  /* the word did not hold expected */
    FUTEX_TIMED_OUT /* until_ns has passed */
};

/* Sleeps while *word == expected, at most until until_ns. */
enum futex_result futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t until_ns);

enum { FUTEX_WORDS_MAX = 16 };

/* Sleeps while every words[i] holds expected[i]; n <= FUTEX_WORDS_MAX.  Uses futex_waitv (Linux
 * 5.16); where the kernel lacks it, sleeps on words[0] at most 1 ms at a time. */
enum futex_result futex_wait_any(_Atomic uint32_t *const *words, const uint32_t *expected,
                                 uint32_t n, uint64_t until_ns);

/* Wakes at most n sleepers of any process. */
void futex_wake(_Atomic uint32_t *word, int n);

#endif
