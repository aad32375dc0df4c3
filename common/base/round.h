/* round.h - sizes and offsets rounded up to what they are to be a multiple of.  Pure, any thread. */
#ifndef OMNI_COMMON_BASE_ROUND_H
#define OMNI_COMMON_BASE_ROUND_H

#include <stdint.h>

/* The smallest multiple of `to` (not 0) that is n or more; n + to must not overflow. */
static inline uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static inline uint32_t round_up_u32(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

#endif
