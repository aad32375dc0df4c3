#include "common/shm/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

enum { FALLBACK_NS = 1000000 };

/* Debian 12's headers know futex_waitv, older ones do not: our own copy of the kernel's struct. */
struct futex_waiter {
    uint64_t expected;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
enum { FUTEX_WORD_U32 = 2 };

static enum futex_result result_of(long rc)
{
    if (rc >= 0)
        return FUTEX_WOKEN;
    switch (errno) {
    case EAGAIN:
        return FUTEX_CHANGED;
    case ETIMEDOUT:
        return FUTEX_TIMED_OUT;
    default: /* EINTR: as a spurious wake */
        invariant(errno == EINTR);
        return FUTEX_WOKEN;
    }
}

enum futex_result futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t until_ns)
{
    struct timespec until = clock_timespec(until_ns);

    return result_of(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
                             until_ns == FUTEX_NO_DEADLINE ? NULL : &until, NULL,
                             FUTEX_BITSET_MATCH_ANY));
}

/* Not all words are watched: wake up often enough to look at the others. */
static enum futex_result wait_first(_Atomic uint32_t *word, uint32_t expected, uint64_t until_ns)
{
    uint64_t slice = clock_now_ns() + FALLBACK_NS;
    enum futex_result result = futex_wait(word, expected, slice < until_ns ? slice : until_ns);

    return result == FUTEX_TIMED_OUT && slice < until_ns ? FUTEX_WOKEN : result;
}

enum futex_result futex_wait_any(_Atomic uint32_t *const *words, const uint32_t *expected,
                                 uint32_t n, uint64_t until_ns)
{
    struct futex_waiter waiters[FUTEX_WORDS_MAX];
    struct timespec until = clock_timespec(until_ns);
    long rc;

    invariant(n >= 1 && n <= FUTEX_WORDS_MAX);
    if (n == 1)
        return futex_wait(words[0], expected[0], until_ns);
    for (uint32_t i = 0; i < n; i++)
        waiters[i] = (struct futex_waiter){
            .expected = expected[i], .address = (uintptr_t)words[i], .flags = FUTEX_WORD_U32};
    rc = syscall(SYS_futex_waitv, waiters, n, 0, until_ns == FUTEX_NO_DEADLINE ? NULL : &until,
                 CLOCK_MONOTONIC);
    if (rc < 0 && (errno == ENOSYS || errno == EPERM))
        return wait_first(words[0], expected[0], until_ns);
    return result_of(rc);
}

void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}
