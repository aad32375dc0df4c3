/* v16_ref.h - the 16 virtual lanes in plain C: the meaning of every v_ operation.
 *
 * v16_avx2.h and v16_avx512.h compute the same bits.  Included by kernels_ref.c alone. */
#ifndef OMNI_COMMON_COMPUTE_V16_REF_H
#define OMNI_COMMON_COMPUTE_V16_REF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/base/half.h"

#define V_IN_MEMORY 1
/* Not forced: there are no registers to keep, and the sanitizers multiply inlined code. */
#define V_INLINE static inline __attribute__((unused))

typedef struct {
    float f[16];
} v16;
typedef struct {
    uint32_t u[16];
} v16i;

#define V_EACH(expression)                                                                         \
    v16 out_;                                                                                      \
    for (int i = 0; i < 16; i++)                                                                   \
        out_.f[i] = (expression);                                                                  \
    return out_

V_INLINE v16 v_set1(float x)
{
    V_EACH(x);
}
V_INLINE v16 v_load(const float *p)
{
    V_EACH(p[i]);
}
V_INLINE void v_store(float *p, v16 a)
{
    memcpy(p, a.f, sizeof a.f);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    V_EACH(fmaf(a.f[i], b.f[i], c.f[i]));
}
V_INLINE v16 v_add(v16 a, v16 b)
{
    V_EACH(a.f[i] + b.f[i]);
}
V_INLINE v16 v_sub(v16 a, v16 b)
{
    V_EACH(a.f[i] - b.f[i]);
}
V_INLINE v16 v_mul(v16 a, v16 b)
{
    V_EACH(a.f[i] * b.f[i]);
}
V_INLINE v16 v_div(v16 a, v16 b)
{
    V_EACH(a.f[i] / b.f[i]);
}
/* b where either is NaN, as the instruction does. */
V_INLINE v16 v_max(v16 a, v16 b)
{
    V_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}
V_INLINE v16 v_min(v16 a, v16 b)
{
    V_EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]);
}
/* a, but 0 where x < limit. */
V_INLINE v16 v_zero_below(v16 a, v16 x, v16 limit)
{
    V_EACH(x.f[i] < limit.f[i] ? 0.0f : a.f[i]);
}
/* 2^n for whole n in -126..127; any bits for others. */
V_INLINE v16 v_pow2(v16 n)
{
    V_EACH(half_float_from_bits(
        n.f[i] > -127.0f && n.f[i] < 128.0f ? (uint32_t)((int)n.f[i] + 127) << 23 : 0));
}
V_INLINE v16 v_load_f16(const uint16_t *p)
{
    V_EACH(half_to_float(p[i]));
}
V_INLINE v16 v_load_bf16(const uint16_t *p)
{
    V_EACH(half_float_from_bits((uint32_t)p[i] << 16));
}
/* Sixteen pairs of bf16: the first or second of each. */
V_INLINE v16 v_load_pair0(const uint16_t *p)
{
    V_EACH(half_float_from_bits((uint32_t)p[2 * i] << 16));
}
V_INLINE v16 v_load_pair1(const uint16_t *p)
{
    V_EACH(half_float_from_bits((uint32_t)p[2 * i + 1] << 16));
}
/* Sixteen pairs of int8, as int16 in a lane's halves. */
V_INLINE v16i vi_load_pairs(const int8_t *p)
{
    v16i a;

    for (int i = 0; i < 16; i++)
        a.u[i] = (uint16_t)p[2 * i] | (uint32_t)(uint16_t)p[2 * i + 1] << 16;
    return a;
}
V_INLINE v16i vi_zero(void)
{
    return (v16i){{0}};
}
/* The pair at p in every lane. */
V_INLINE v16i vi_set_pair(const int16_t *p)
{
    v16i a;

    for (int i = 0; i < 16; i++)
        a.u[i] = (uint16_t)p[0] | (uint32_t)(uint16_t)p[1] << 16;
    return a;
}
/* c + a0 * b0 + a1 * b1, int32; whoever uses it stays inside its range. */
V_INLINE v16i vi_dot(v16i a, v16i b, v16i c)
{
    for (int i = 0; i < 16; i++) {
        int32_t p0 = (int16_t)(a.u[i] & 0xffff) * (int16_t)(b.u[i] & 0xffff);
        int32_t p1 = (int16_t)(a.u[i] >> 16) * (int16_t)(b.u[i] >> 16);

        c.u[i] += (uint32_t)p0 + (uint32_t)p1;
    }
    return c;
}
V_INLINE v16 vi_to_float(v16i a)
{
    V_EACH((float)(int32_t)a.u[i]);
}
/* Rounded to int16 (ties to even), saturated; what is out of int32's range: the least. */
V_INLINE void v_store_i16(int16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++) {
        float f = rintf(a.f[i]);

        if (!(f >= -32768.0f && f < 2147483648.0f))
            f = -32768.0f;
        p[i] = (int16_t)(f > 32767.0f ? 32767.0f : f);
    }
}
V_INLINE int v_any_above(v16 a, v16 b)
{
    int any = 0;

    for (int i = 0; i < 16; i++)
        any |= a.f[i] > b.f[i];
    return any;
}
/* p * 2^n for whole n in -126..127 (t: n + 1.5 * 2^23). */
V_INLINE v16 v_scale2(v16 p, v16 n, v16 t)
{
    (void)t;
    return v_mul(p, v_pow2(n));
}
V_INLINE v16 v_load_i8(const int8_t *p)
{
    V_EACH((float)p[i]);
}
/* To nearest, ties to even. */
V_INLINE void v_store_f16(uint16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = float_to_half(a.f[i]);
}
V_INLINE v16i vi_load(const uint32_t *p)
{
    v16i a;

    memcpy(a.u, p, sizeof a.u);
    return a;
}
V_INLINE v16i vi_shift1(v16i a)
{
    for (int i = 0; i < 16; i++)
        a.u[i] >>= 1;
    return a;
}
V_INLINE v16i vi_shift2(v16i a)
{
    for (int i = 0; i < 16; i++)
        a.u[i] >>= 2;
    return a;
}
V_INLINE v16i vi_shift4(v16i a)
{
    for (int i = 0; i < 16; i++)
        a.u[i] >>= 4;
    return a;
}
/* The low nibble as a float. */
V_INLINE v16 v_nibble(v16i a)
{
    V_EACH((float)(a.u[i] & 15));
}
/* The lowest bit, the lowest two, as a float. */
V_INLINE v16 v_bit(v16i a)
{
    V_EACH((float)(a.u[i] & 1));
}
V_INLINE v16 v_bit_pair(v16i a)
{
    V_EACH((float)(a.u[i] & 3));
}

/* Sums and maxima over lanes: i with i+8, then +4, +2, +1. */
V_INLINE float v_sum(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] + a.f[i + half];
    return a.f[0];
}
V_INLINE float v_top(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.f[i] = a.f[i] > a.f[i + half] ? a.f[i] : a.f[i + half];
    return a.f[0];
}
/* Lane i of the result = v_sum of the i-th of 16 vectors. */
V_INLINE v16 v_sum16(const float *p)
{
    V_EACH(v_sum(v_load(p + 16 * i)));
}

#endif
