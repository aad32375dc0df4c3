/* half.h - IEEE binary16 to and from float, portable, bit for bit what the F16C instructions give;
 * and bfloat16 from float.
 *
 * KV is stored as f16 and quantised weights carry f16 scales; a worker with F16C and one without
 * must produce the same bits, so this is the definition and the instructions are the short cut.
 * Rounding is to nearest, ties to even; overflow gives infinity; a NaN keeps the top of its payload
 * and becomes quiet.  Pure functions, any thread. */
#ifndef OMNI_COMMON_BASE_HALF_H
#define OMNI_COMMON_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_float_from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline uint32_t half_bits_from_float(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 0x1fu;
    const uint32_t mantissa = h & 0x3ffu;

    if (exponent == 0x1f) {
        const uint32_t quiet = mantissa ? 0x400000u : 0;

        return half_float_from_bits(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) {
        /* Subnormal: mantissa * 2^-24, exact in a float. */
        const float magnitude = (float)mantissa * 0x1p-24f;

        return half_float_from_bits(sign | half_bits_from_float(magnitude));
    }
    return half_float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Drops the low `shift` bits of x, to nearest, ties to even.  shift is 1..31. */
static inline uint32_t half_round_shift(uint32_t x, uint32_t shift)
{
    const uint32_t kept = x >> shift;
    const uint32_t rest = x & ((UINT32_C(1) << shift) - 1);
    const uint32_t tie = UINT32_C(1) << (shift - 1);

    return kept + (rest > tie || (rest == tie && (kept & 1)));
}

static inline uint16_t float_to_half(float f)
{
    const uint32_t bits = half_bits_from_float(f);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) /* NaN */
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
    if (magnitude >= 0x47800000u) /* 2^16 and above, infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= 0x38800000u) /* normal: rebias; a carry out of the mantissa is right */
        return (uint16_t)(sign | half_round_shift(magnitude - (UINT32_C(112) << 23), 13));
    if (magnitude < 0x33000000u) /* below half of the smallest subnormal */
        return (uint16_t)sign;

    const uint32_t exponent = magnitude >> 23;
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;

    return (uint16_t)(sign | half_round_shift(mantissa, 126 - exponent));
}

/* bfloat16: to nearest, ties to even; NaN stays NaN (quiet). */
static inline uint16_t float_to_bf16(float f)
{
    const uint32_t bits = half_bits_from_float(f);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)half_round_shift(bits, 16);
}

#endif
