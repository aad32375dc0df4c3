/* compute_common.h - what the tests of common/compute share: random numbers and bit comparison. */
#ifndef OMNI_TESTS_UNIT_COMPUTE_COMMON_H
#define OMNI_TESTS_UNIT_COMPUTE_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/compute/isa.h"

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((random_next(state) >> 33) % n);
}

/* Uniform in -1..1. */
static inline float random_float(uint64_t *state)
{
    return (float)((double)(random_next(state) >> 11) / 4503599627370496.0 - 1.0);
}

static inline float *random_floats(uint64_t *state, size_t n)
{
    float *x = malloc((n > 0 ? n : 1) * sizeof *x);

    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(state);
    return x;
}

/* The same bits, NaN included; names the first element that differs. */
static inline void assert_same_bits(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: element %zu is %.9g (%a), expected %.9g (%a)", what, i, (double)a[i],
                     (double)a[i], (double)b[i], (double)b[i]);
}

#endif
