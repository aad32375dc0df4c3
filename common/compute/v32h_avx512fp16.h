/* v32h_avx512fp16.h - 32 lanes of f16 as one AVX512-FP16 register; included by
 * kernels_avx512fp16.c alone, after v16_avx512.h. */
#ifndef OMNI_COMMON_COMPUTE_V32H_AVX512FP16_H
#define OMNI_COMMON_COMPUTE_V32H_AVX512FP16_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef __m512h v32h;

V_INLINE v32h vh_zero(void)
{
    return _mm512_setzero_ph();
}
V_INLINE v32h vh_load(const void *p)
{
    return _mm512_castsi512_ph(_mm512_loadu_si512(p));
}
/* The f16 at p in every lane. */
V_INLINE v32h vh_set1(const uint16_t *p)
{
    int16_t bits;

    memcpy(&bits, p, sizeof bits);
    return _mm512_castsi512_ph(_mm512_set1_epi16(bits));
}
/* a * b + c, rounded once to f16. */
V_INLINE v32h vh_fma(v32h a, v32h b, v32h c)
{
    return _mm512_fmadd_ph(a, b, c);
}
/* Lanes 0..15, and 16..31. */
V_INLINE v16 vh_low(v32h a)
{
    return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_castph_si512(a)));
}
V_INLINE v16 vh_high(v32h a)
{
    return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(_mm512_castph_si512(a), 1));
}

#endif
