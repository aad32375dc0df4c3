/* triple.h - the newest of something from one thread to another, without a lock and without waiting.
 *
 * Three buffers: the writer fills the back one and publishes it, the reader takes the newest that was
 * published; between them lies the middle one, which changes hands by one exchange.  Neither ever
 * waits for the other, the reader never sees a half-written buffer, and skips those it was too slow
 * for.  One writer, one reader; the buffers are the caller's, this says which is whose. */
#ifndef OMNI_COMMON_BASE_TRIPLE_H
#define OMNI_COMMON_BASE_TRIPLE_H

#include <stdatomic.h>
#include <stdint.h>

enum { TRIPLE_BUFFERS = 3, TRIPLE_FRESH = 4 };

struct triple {
    _Atomic uint32_t middle; /* a buffer, and TRIPLE_FRESH: not taken yet */
    uint32_t back;           /* writer */
    uint32_t front;          /* reader */
};

static inline void triple_init(struct triple *t)
{
    atomic_init(&t->middle, 1);
    t->back = 0;
    t->front = 2;
}

/* Writer: buffer t->back is full; afterwards t->back is another one, to fill next. */
static inline void triple_publish(struct triple *t)
{
    /* P1: acq_rel.  Releases the bytes of the buffer to T1; acquires the reader's last look at the
     * one that comes back (T1's release). */
    uint32_t was =
        atomic_exchange_explicit(&t->middle, t->back | TRIPLE_FRESH, memory_order_acq_rel);

    t->back = was & (TRIPLE_FRESH - 1);
}

/* Reader: the buffer with the newest that was published; may be the same as before. */
static inline uint32_t triple_take(struct triple *t)
{
    /* Relaxed: only whether the exchange is worth it. */
    if ((atomic_load_explicit(&t->middle, memory_order_relaxed) & TRIPLE_FRESH) != 0)
        /* T1: acq_rel, pairs with P1. */
        t->front = atomic_exchange_explicit(&t->middle, t->front, memory_order_acq_rel) &
                   (TRIPLE_FRESH - 1);
    return t->front;
}

#endif
