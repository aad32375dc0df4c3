/* v16_avx512.h - the 16 virtual lanes as one AVX-512 register; see v16_ref.h for the meaning.
 * Included by kernels_avx512.c and kernels_avx512bf16.c
 * alone; the latter has dot products of int16 and bf16 as well. */
#ifndef OMNI_COMMON_COMPUTE_V16_AVX512_H
#define OMNI_COMMON_COMPUTE_V16_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V_INLINE static inline __attribute__((always_inline, unused))

typedef __m512 v16;
typedef __m512i v16i;

V_INLINE v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}
V_INLINE v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V_INLINE void v_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V_INLINE v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
V_INLINE v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
V_INLINE v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
V_INLINE v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
V_INLINE v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
V_INLINE v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
V_INLINE v16 v_zero_below(v16 a, v16 x, v16 limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), a);
}
V_INLINE v16 v_pow2(v16 n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));

    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
V_INLINE v16 v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
V_INLINE v16 v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/* Sixteen pairs of bf16: the first or second of each. */
V_INLINE v16 v_load_pair0(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
V_INLINE v16 v_load_pair1(const uint16_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000U)));
}
/* Sixteen pairs of int8, as int16. */
V_INLINE v16i vi_load_pairs(const int8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
V_INLINE v16i vi_zero(void)
{
    return _mm512_setzero_si512();
}
#ifdef __AVX512BF16__
/* Sixteen pairs of bf16 as they lie in memory; the first of each alone. */
V_INLINE v16i vb_load_pairs(const void *p)
{
    return _mm512_loadu_si512(p);
}
V_INLINE v16i vb_first(v16i a)
{
    return _mm512_and_si512(a, _mm512_set1_epi32(0xffff));
}
/* c + a0 * b0 + a1 * b1 of bf16 pairs, float.  As assembler, here and in vi_dot: around the
 * intrinsics GCC 12 copies every accumulator to and fro and spills some (int8 KV, groups of 8:
 * 14 and 16 instead of 17 and 20 GB/s, 64 and 128 wide). */
V_INLINE v16 vb_dot(v16i a, v16i b, v16 c)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
}
/* Rounded to bf16, ties to even. */
V_INLINE void vb_store(uint16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a));
}
V_INLINE v16 vb_round(v16 a)
{
    __m512i wide = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a));

    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
#endif
/* The pair at p in every lane. */
V_INLINE v16i vi_set_pair(const int16_t *p)
{
    int32_t both;

    memcpy(&both, p, sizeof both);
    return _mm512_set1_epi32(both);
}
/* c + a0 * b0 + a1 * b1, int32. */
V_INLINE v16i vi_dot(v16i a, v16i b, v16i c)
{
#ifdef __AVX512VNNI__
    __asm__("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
#else
    return _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
#endif
}
V_INLINE v16 vi_to_float(v16i a)
{
    return _mm512_cvtepi32_ps(a);
}
/* Rounded to int16, saturated. */
V_INLINE void v_store_i16(int16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)));
}
V_INLINE int v_any_above(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
/* p * 2^n for whole n in -126..127 (t: n + 1.5 * 2^23). */
V_INLINE v16 v_scale2(v16 p, v16 n, v16 t)
{
    (void)t;
    return _mm512_scalef_ps(p, n);
}
V_INLINE v16 v_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
V_INLINE void v_store_f16(uint16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
V_INLINE v16i vi_load(const uint32_t *p)
{
    return _mm512_loadu_si512(p);
}
V_INLINE v16i vi_shift1(v16i a)
{
    return _mm512_srli_epi32(a, 1);
}
V_INLINE v16i vi_shift2(v16i a)
{
    return _mm512_srli_epi32(a, 2);
}
V_INLINE v16i vi_shift4(v16i a)
{
    return _mm512_srli_epi32(a, 4);
}
/* A table look-up takes the low four bits by itself: one instruction instead of mask and convert.
 */
V_INLINE v16 v_nibble(v16i a)
{
    const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    return _mm512_permutexvar_ps(a, table);
}
V_INLINE v16 v_bit(v16i a)
{
    return _mm512_cvtepi32_ps(_mm512_and_si512(a, _mm512_set1_epi32(1)));
}
V_INLINE v16 v_bit_pair(v16i a)
{
    return _mm512_cvtepi32_ps(_mm512_and_si512(a, _mm512_set1_epi32(3)));
}

V_INLINE __m128 v_fold_sum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));

    return _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
}
V_INLINE float v_sum(v16 a)
{
    __m128 b = v_fold_sum(a);

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
V_INLINE float v_top(v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));

    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* The four levels of v_sum, two vectors into one at each: lanes +8, +4, +2, +1. */
V_INLINE v16 v_pair8(v16 a, v16 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}
V_INLINE v16 v_pair4(v16 a, v16 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}
V_INLINE v16 v_pair2(v16 a, v16 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
}
V_INLINE v16 v_pair1(v16 a, v16 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
}
/* Vectors i, i+4, i+8, i+12 folded to one: four lanes of each, in that order. */
V_INLINE v16 v_quad(const float *p, int i)
{
    v16 lo = v_pair8(v_load(p + 16 * i), v_load(p + 16 * (i + 4)));
    v16 hi = v_pair8(v_load(p + 16 * (i + 8)), v_load(p + 16 * (i + 12)));

    return v_pair4(lo, hi);
}
/* The order of the quads makes the sums come out in the order of the vectors. */
V_INLINE v16 v_sum16(const float *p)
{
    return v_pair1(v_pair2(v_quad(p, 0), v_quad(p, 1)), v_pair2(v_quad(p, 2), v_quad(p, 3)));
}

#endif
