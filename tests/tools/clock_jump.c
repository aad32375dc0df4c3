/* Preloaded (LD_PRELOAD) into a program under test: its wall clock jumps by a day, there and back,
 * at every look.  Only CLOCK_REALTIME and what is made of it; CLOCK_MONOTONIC stays.  Whoever
 * measures time by the wall clock then waits for ever, or not at all. */
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { DAY_S = 86400 };

static time_t jump(void)
{
    static _Atomic unsigned n;
    unsigned i = atomic_fetch_add(&n, 1);

    return i % 2 == 0 ? DAY_S : -DAY_S;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, t);

    if (rc == 0 && clock == CLOCK_REALTIME)
        t->tv_sec += jump();
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
