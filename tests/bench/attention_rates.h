/* attention_rates.h - what the machine can do, for bench attention's roofline.
 *
 * Every function runs for about a hundred microseconds and returns what it did per second of the
 * given clock, so that a benchmark can measure it beside a kernel again and again: on a shared
 * machine the ceiling moves.  Plain loops of one instruction each, over registers.  */
#ifndef OMNI_TESTS_BENCH_ATTENTION_RATES_H
#define OMNI_TESTS_BENCH_ATTENTION_RATES_H

#include <stddef.h>
#include <stdint.h>

#include "common/compute/kernels.h"
#include "common/compute/team.h"
#include "common/kv/geometry.h"

/* Per second, by the whole team. */
struct rates {
    double read; /* bytes */
    double mac;  /* multiply-adds, by the instruction that the kernels use for the KV type */
    double exp;  /* exponentials, the kernels' own */
};

/* Seconds of the thread's processor time (a team of one) or of the wall. */
double rates_now(const struct team *team);

/* Measures all three; n bytes at p are read (more than the caches hold between two calls on the
 * same place). */
void rates_measure(struct team *team, enum isa isa, enum kv_type type, const uint8_t *p, size_t n,
                   struct rates *out);

#endif
