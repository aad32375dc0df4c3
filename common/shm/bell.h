/* bell.h - how one side sleeps until the other has published something, without a lost wake-up.
 *
 * DESIGN.  The sleeper sets its flag, passes a seq_cst fence, looks once more, and only then sleeps
 * on the word.  The waker publishes, passes a seq_cst fence, looks at the flag, and rings only if
 * it is set: so nothing is paid while the other side is awake.  Store-then-load needs the full
 * fence on both sides: with release and acquire alone both looks may miss (8 % of rounds when
 * measured). The flag of a sleeper that was killed stays set; that costs its peers needless wakes
 * until the next sleeper resets it. One sleeping thread per bell; any number of wakers, in any
 * process. */
#ifndef OMNI_COMMON_SHM_BELL_H
#define OMNI_COMMON_SHM_BELL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shm/futex.h"
#include "common/shm/layout.h"

/* Full fence.  The thread sanitizer does not know fences, but knows a read-modify-write. */
void bell_fence(void);

/* Wakes the sleeper if there is one; call after publishing, any number of times.  True if it had to
 * (a system call was made). */
bool bell_ring(struct bell_shared *b);

/* What a sleeper waits for, and how. */
struct bell_wait {
    bool (*ready)(void *arg); /* looked at with acquire loads; called often: cheap, no blocking */
    void *arg;
    uint64_t spin_until_ns; /* spins before that time; 0 unless both ends own disjoint cores */
    uint64_t until_ns;      /* FUTEX_NO_DEADLINE = for ever */
};

/* Returns true as soon as ready() holds, false at until_ns.  With several bells any of them wakes
 * (n <= FUTEX_WORDS_MAX); n = 0 is allowed and sleeps until until_ns, which must then be set. */
bool bell_sleep(struct bell_shared *const *bells, uint32_t n, const struct bell_wait *wait);

#endif
