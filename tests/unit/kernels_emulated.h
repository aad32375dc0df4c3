/* kernels_emulated.h - registers that this machine may lack, in plain C: bf16 pairs and 32 lanes
 * of f16 (tiles_emulated.h: matrix tiles), under the names that the kernels' bodies use.
 *
 * A program that compiles a body over them defines the table of that instruction set itself, and so
 * leaves out the library's, which needs the processor.  What is tested is everything but the
 * instructions: layout, tails, order, rounding. */
#ifndef OMNI_TESTS_UNIT_KERNELS_EMULATED_H
#define OMNI_TESTS_UNIT_KERNELS_EMULATED_H

#include "common/compute/v16_ref.h"

/* a * b + c of narrow numbers, whose product a double holds: a call less than fmaf. */
V_INLINE float emulated_fma(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

V_INLINE float eb_float(uint16_t b)
{
    return half_float_from_bits((uint32_t)b << 16);
}
V_INLINE uint16_t eb_round(float f)
{
    uint32_t bits = half_bits_from_float(f);

    if ((bits & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)(bits >> 16 | 0x40U);
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}
V_INLINE void vb_store(uint16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = eb_round(a.f[i]);
}
V_INLINE v16 vb_round(v16 a)
{
    V_EACH(eb_float(eb_round(a.f[i])));
}
V_INLINE v16i vb_load_pairs(const void *p)
{
    v16i out;

    memcpy(out.u, p, sizeof out.u);
    return out;
}
V_INLINE v16i vb_first(v16i a)
{
    for (int i = 0; i < 16; i++)
        a.u[i] &= 0xffffU;
    return a;
}
V_INLINE v16 vb_dot(v16i a, v16i b, v16 c)
{
    for (int i = 0; i < 16; i++) {
        c.f[i] = emulated_fma(eb_float((uint16_t)(a.u[i] >> 16)),
                              eb_float((uint16_t)(b.u[i] >> 16)), c.f[i]);
        c.f[i] = emulated_fma(eb_float((uint16_t)a.u[i]), eb_float((uint16_t)b.u[i]), c.f[i]);
    }
    return c;
}

/* ---- f16 ------------------------------------------------------------------------------------- */

typedef struct {
    uint16_t h[32];
} v32h;

V_INLINE v32h vh_zero(void)
{
    return (v32h){{0}};
}
V_INLINE v32h vh_load(const void *p)
{
    v32h out;

    memcpy(out.h, p, sizeof out.h);
    return out;
}
V_INLINE v32h vh_set1(const uint16_t *p)
{
    v32h out;

    for (int i = 0; i < 32; i++)
        out.h[i] = *p;
    return out;
}
/* Rounded twice, to float and to f16: the processor rounds once. */
V_INLINE v32h vh_fma(v32h a, v32h b, v32h c)
{
    for (int i = 0; i < 32; i++)
        c.h[i] = float_to_half(
            emulated_fma(half_to_float(a.h[i]), half_to_float(b.h[i]), half_to_float(c.h[i])));
    return c;
}
V_INLINE v16 vh_low(v32h a)
{
    V_EACH(half_to_float(a.h[i]));
}
V_INLINE v16 vh_high(v32h a)
{
    V_EACH(half_to_float(a.h[16 + i]));
}

#endif
