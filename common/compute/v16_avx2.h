/* v16_avx2.h - the 16 virtual lanes as two AVX2 registers; see v16_ref.h for the meaning.
 * Included by kernels_avx2.c alone. */
#ifndef OMNI_COMMON_COMPUTE_V16_AVX2_H
#define OMNI_COMMON_COMPUTE_V16_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V_INLINE static inline __attribute__((always_inline, unused))

typedef struct {
    __m256 lo, hi;
} v16;
typedef struct {
    __m256i lo, hi;
} v16i;

V_INLINE v16 v_set1(float x)
{
    __m256 a = _mm256_set1_ps(x);

    return (v16){a, a};
}
V_INLINE v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
V_INLINE void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V_INLINE v16 v_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
V_INLINE v16 v_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
V_INLINE v16 v_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
V_INLINE v16 v_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
V_INLINE v16 v_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
V_INLINE v16 v_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
V_INLINE v16 v_zero_below(v16 a, v16 x, v16 limit)
{
    return (v16){_mm256_and_ps(_mm256_cmp_ps(x.lo, limit.lo, _CMP_NLT_UQ), a.lo),
                 _mm256_and_ps(_mm256_cmp_ps(x.hi, limit.hi, _CMP_NLT_UQ), a.hi)};
}
V_INLINE __m256 v_pow2_half(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
V_INLINE v16 v_pow2(v16 n)
{
    return (v16){v_pow2_half(n.lo), v_pow2_half(n.hi)};
}
V_INLINE __m128i v_load128(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
V_INLINE v16 v_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(v_load128(p)), _mm256_cvtph_ps(v_load128(p + 8))};
}
V_INLINE __m256 v_load_bf16_half(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v_load128(p)), 16));
}
V_INLINE v16 v_load_bf16(const uint16_t *p)
{
    return (v16){v_load_bf16_half(p), v_load_bf16_half(p + 8)};
}
V_INLINE v16 v_load_pair0(const uint16_t *p)
{
    __m256i lo = _mm256_loadu_si256((const __m256i *)p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(p + 16));

    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
V_INLINE v16 v_load_pair1(const uint16_t *p)
{
    const __m256i mask = _mm256_set1_epi32((int)0xffff0000U);
    __m256i lo = _mm256_loadu_si256((const __m256i *)p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(p + 16));

    return (v16){_mm256_castsi256_ps(_mm256_and_si256(lo, mask)),
                 _mm256_castsi256_ps(_mm256_and_si256(hi, mask))};
}
V_INLINE v16i vi_load_pairs(const int8_t *p)
{
    return (v16i){_mm256_cvtepi8_epi16(v_load128(p)), _mm256_cvtepi8_epi16(v_load128(p + 16))};
}
V_INLINE v16i vi_zero(void)
{
    return (v16i){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
V_INLINE v16i vi_set_pair(const int16_t *p)
{
    int32_t both;

    memcpy(&both, p, sizeof both);
    return (v16i){_mm256_set1_epi32(both), _mm256_set1_epi32(both)};
}
V_INLINE v16i vi_dot(v16i a, v16i b, v16i c)
{
    return (v16i){_mm256_add_epi32(c.lo, _mm256_madd_epi16(a.lo, b.lo)),
                  _mm256_add_epi32(c.hi, _mm256_madd_epi16(a.hi, b.hi))};
}
V_INLINE v16 vi_to_float(v16i a)
{
    return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
V_INLINE void v_store_i16(int16_t *p, v16 a)
{
    __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));

    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(both, 0xD8));
}
V_INLINE int v_any_above(v16 a, v16 b)
{
    return _mm256_movemask_ps(
        _mm256_or_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)));
}
V_INLINE __m256 v_scale2_half(__m256 p, __m256 t)
{
    __m256i e = _mm256_slli_epi32(_mm256_castps_si256(t), 23);

    e = _mm256_add_epi32(e, _mm256_set1_epi32(127 << 23));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}
V_INLINE v16 v_scale2(v16 p, v16 n, v16 t)
{
    (void)n;
    return (v16){v_scale2_half(p.lo, t.lo), v_scale2_half(p.hi, t.hi)};
}
V_INLINE __m256 v_load_i8_half(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
V_INLINE v16 v_load_i8(const int8_t *p)
{
    return (v16){v_load_i8_half(p), v_load_i8_half(p + 8)};
}
V_INLINE void v_store_f16(uint16_t *p, v16 a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
V_INLINE v16i vi_load(const uint32_t *p)
{
    return (v16i){_mm256_loadu_si256((const __m256i *)p),
                  _mm256_loadu_si256((const __m256i *)(p + 8))};
}
V_INLINE v16i vi_shift1(v16i a)
{
    return (v16i){_mm256_srli_epi32(a.lo, 1), _mm256_srli_epi32(a.hi, 1)};
}
V_INLINE v16i vi_shift2(v16i a)
{
    return (v16i){_mm256_srli_epi32(a.lo, 2), _mm256_srli_epi32(a.hi, 2)};
}
V_INLINE v16i vi_shift4(v16i a)
{
    return (v16i){_mm256_srli_epi32(a.lo, 4), _mm256_srli_epi32(a.hi, 4)};
}
V_INLINE v16 v_low_bits(v16i a, int bits)
{
    const __m256i mask = _mm256_set1_epi32(bits);

    return (v16){_mm256_cvtepi32_ps(_mm256_and_si256(a.lo, mask)),
                 _mm256_cvtepi32_ps(_mm256_and_si256(a.hi, mask))};
}
V_INLINE v16 v_nibble(v16i a)
{
    return v_low_bits(a, 15);
}
V_INLINE v16 v_bit(v16i a)
{
    return v_low_bits(a, 1);
}
V_INLINE v16 v_bit_pair(v16i a)
{
    return v_low_bits(a, 3);
}

V_INLINE float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));

    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
V_INLINE float v_top(v16 a)
{
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));

    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* The four levels of v_sum: lanes +8 inside a vector, then two vectors into one: +4, +2, +1. */
V_INLINE __m256 v_fold8(const float *p)
{
    return _mm256_add_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
/* Vectors i and i+4: four lanes of each. */
V_INLINE __m256 v_pair4(const float *p, int i)
{
    __m256 a = v_fold8(p + 16 * i);
    __m256 b = v_fold8(p + 16 * (i + 4));

    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
V_INLINE __m256 v_pair2(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
}
V_INLINE __m256 v_pair1(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xDD));
}
/* The sums of 8 vectors, in their order. */
V_INLINE __m256 v_sum8(const float *p)
{
    return v_pair1(v_pair2(v_pair4(p, 0), v_pair4(p, 1)), v_pair2(v_pair4(p, 2), v_pair4(p, 3)));
}
V_INLINE v16 v_sum16(const float *p)
{
    return (v16){v_sum8(p), v_sum8(p + 128)};
}

#endif
