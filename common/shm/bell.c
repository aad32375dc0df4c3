#include "common/shm/bell.h"

#include "common/base/clock.h"
#include "common/base/invariant.h"

enum { SPINS_PER_CLOCK = 16 }; /* the clock costs about as much as so many looks */

void bell_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    static _Atomic int meeting_point;
    atomic_fetch_add_explicit(&meeting_point, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

bool bell_ring(struct bell_shared *b)
{
    /* F1: between publishing (before the call) and looking at the flag; pairs with F2. */
    bell_fence();
    if (atomic_load_explicit(&b->sleeping, memory_order_relaxed) == 0)
        return false;
    /* B1: release, pairs with B2: a sleeper that sees the new word sees what was published. */
    atomic_fetch_add_explicit(&b->word, 1, memory_order_release);
    futex_wake(&b->word, 1);
    return true;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool spin(const struct bell_wait *w)
{
    uint64_t until = w->spin_until_ns < w->until_ns ? w->spin_until_ns : w->until_ns;

    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (w->ready(w->arg))
                return true;
            relax();
        }
    } while (clock_now_ns() < until);
    return false;
}

static void set_sleeping(struct bell_shared *const *bells, uint32_t n, uint32_t value)
{
    for (uint32_t i = 0; i < n; i++)
        atomic_store_explicit(&bells[i]->sleeping, value, memory_order_relaxed);
}

/* Flag, fence, look again, sleep.  True: ready, false: look again or time is up (*timed_out). */
static bool sleep_once(struct bell_shared *const *bells, uint32_t n, const struct bell_wait *w,
                       bool *timed_out)
{
    _Atomic uint32_t *words[FUTEX_WORDS_MAX];
    uint32_t seen[FUTEX_WORDS_MAX];
    bool ready;

    set_sleeping(bells, n, 1);
    /* F2: between setting the flag and looking once more; pairs with F1. */
    bell_fence();
    for (uint32_t i = 0; i < n; i++) {
        words[i] = &bells[i]->word;
        seen[i] = atomic_load_explicit(words[i], memory_order_acquire); /* B2 */
    }
    ready = w->ready(w->arg);
    if (!ready)
        *timed_out = futex_wait_any(words, seen, n, w->until_ns) == FUTEX_TIMED_OUT;
    set_sleeping(bells, n, 0);
    return ready;
}

bool bell_sleep(struct bell_shared *const *bells, uint32_t n, const struct bell_wait *w)
{
    bool timed_out = false;

    invariant(n <= FUTEX_WORDS_MAX);
    invariant(n > 0 || w->until_ns != FUTEX_NO_DEADLINE);
    if (w->ready(w->arg) || (w->spin_until_ns != 0 && spin(w)))
        return true;
    while (!timed_out) {
        if (n > 0 && sleep_once(bells, n, w, &timed_out))
            return true;
        if (n == 0) {
            uint64_t now = clock_now_ns();
            if (now < w->until_ns)
                clock_sleep_ns(w->until_ns - now);
            timed_out = clock_now_ns() >= w->until_ns;
        }
    }
    return w->ready(w->arg);
}
