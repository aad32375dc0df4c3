/* attention_body.h - the attention kernels over virtual lanes; included once by each
 * kernels_<isa>.c, after its v16 header, dense_body.h and ops_body.h, with
 *   SCORE_ROWS, SCORE_TOKENS  queries x keys whose partial sums fit the registers
 *
 * A score is 16 chains of v_fma over the head's elements, folded by v_sum's tree: the same bits for
 * any block of queries and keys. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_BODY_H
#define OMNI_COMMON_COMPUTE_ATTENTION_BODY_H

#include <math.h>
#include <string.h>

#include "common/compute/kernels.h"

/* Elements e..e+15 of a token, or fewer followed by zeros. */
#define KV_LOAD_ROW(name, element, load, multiply)                                                 \
    V_INLINE void name(const uint8_t *src, uint32_t d, float scale, float *dst)                    \
    {                                                                                              \
        const element *p = (const element *)(const void *)src;                                     \
        element tail[16] = {0};                                                                    \
        uint32_t e = 0;                                                                            \
                                                                                                   \
        for (; e + 16 <= d; e += 16)                                                               \
            v_store(dst + e, multiply(load(p + e), scale));                                        \
        if (e < d) {                                                                               \
            memcpy(tail, p + e, (d - e) * sizeof(element));                                        \
            v_store(dst + e, multiply(load(tail), scale));                                         \
        }                                                                                          \
    }
#define UNSCALED(a, scale) ((void)(scale), (a))
#define SCALED(a, scale)   v_mul(a, v_set1(scale))
KV_LOAD_ROW(kv_row_f16, uint16_t, v_load_f16, UNSCALED)
KV_LOAD_ROW(kv_row_bf16, uint16_t, v_load_bf16, UNSCALED)
KV_LOAD_ROW(kv_row_f32, float, v_load, UNSCALED)
KV_LOAD_ROW(kv_row_i8, int8_t, v_load_i8, SCALED)

static void attn_kv_load(enum kv_type type, const uint8_t *src, size_t stride, const float *scales,
                         uint32_t n, uint32_t d, float *dst, size_t ld)
{
    for (uint32_t t = 0; t < n; t++, src += stride, dst += ld) {
        switch (type) {
        case KV_TYPE_F16:
            kv_row_f16(src, d, 1.0f, dst);
            break;
        case KV_TYPE_BF16:
            kv_row_bf16(src, d, 1.0f, dst);
            break;
        case KV_TYPE_F32:
            kv_row_f32(src, d, 1.0f, dst);
            break;
        case KV_TYPE_I8:
            kv_row_i8(src, d, scales[t], dst);
            break;
        }
    }
}

static void attn_kv_store_f16(uint16_t *dst, const float *x, uint32_t n)
{
    uint16_t tail[16];
    uint32_t i = 0;

    for (; i + 16 <= n; i += 16)
        v_store_f16(dst + i, v_load(x + i));
    if (i < n) {
        v_store_f16(tail, v_load_tail(x + i, n - i, 0.0f));
        memcpy(dst + i, tail, (n - i) * sizeof tail[0]);
    }
}

/* Partial sums of n_rows queries with SCORE_TOKENS keys: part[row][token][16]. */
V_INLINE void score_block(const float *q, size_t ldq, const float *k, size_t ldk, uint32_t d,
                          float *part, uint32_t n_rows)
{
    v16 acc[SCORE_ROWS][SCORE_TOKENS];

    foreach (r, n_rows) {
        foreach (t, SCORE_TOKENS)
            acc[r][t] = v_set1(0.0f);
    }
    for (uint32_t e = 0; e < d; e += 16) {
        v16 key[SCORE_TOKENS];

        foreach (t, SCORE_TOKENS)
            key[t] = v_load(k + t * ldk + e);
        foreach (r, n_rows) {
            v16 query = v_load(q + r * ldq + e);

            foreach (t, SCORE_TOKENS)
                acc[r][t] = v_fma(query, key[t], acc[r][t]);
        }
    }
    foreach (r, n_rows) {
        foreach (t, SCORE_TOKENS)
            v_store(part + 256 * r + 16 * t, acc[r][t]);
    }
}

#define SCORE_N(n)                                                                                 \
    static void score_##n(const float *q, size_t ldq, const float *k, size_t ldk, uint32_t d,      \
                          float *part)                                                             \
    {                                                                                              \
        score_block(q, ldq, k, ldk, d, part, n);                                                   \
    }
SCORE_N(1)
SCORE_N(2)
#if SCORE_ROWS > 2
SCORE_N(3)
SCORE_N(4)
#endif

typedef void score_fn(const float *q, size_t ldq, const float *k, size_t ldk, uint32_t d,
                      float *part);

static score_fn *const score_table[SCORE_ROWS] = {
    score_1,
    score_2,
#if SCORE_ROWS > 2
    score_3,
    score_4,
#endif
};

/* cap * tanh(s / cap), tanh(x) = 1 - 2 / (exp(2x) + 1). */
V_INLINE v16 v_softcap(v16 s, float cap)
{
    v16 e = v_exp(v_mul(s, v_set1(2.0f / cap)));
    v16 t = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));

    return v_mul(t, v_set1(cap));
}

/* 16 keys for all rows. */
static void score_keys(const float *q, size_t ldq, uint32_t n_rows, const float *k, size_t ldk,
                       uint32_t d, float scale, float softcap, float *s)
{
    float part[SCORE_ROWS * 256];

    for (uint32_t r = 0; r < n_rows; r += SCORE_ROWS) {
        uint32_t rows = n_rows - r < SCORE_ROWS ? n_rows - r : SCORE_ROWS;

        for (uint32_t t = 0; t < 16; t += SCORE_TOKENS)
            score_table[rows - 1](q + r * ldq, ldq, k + t * ldk, ldk, d, part + 16 * t);
        for (uint32_t i = 0; i < rows; i++) {
            v16 sums = v_mul(v_sum16(part + 256 * i), v_set1(scale));

            if (softcap != 0.0f)
                sums = v_softcap(sums, softcap);
            v_store(s + 32 * (r + i), sums);
        }
    }
}

static void attn_scores(const float *q, size_t ldq, uint32_t n_rows, const float *k, size_t ldk,
                        uint32_t d, uint32_t n, float scale, float softcap, float *s)
{
    for (uint32_t t = 0; t < n; t += 16)
        score_keys(q, ldq, n_rows, k + t * ldk, ldk, d, scale, softcap, s + t);
}

/* With nothing but -infinity so far, 0 stands in for the maximum: all weights are then 0, not NaN.
 */
static float attn_softmax_step(float *s, float *m, float *l)
{
    v16 a = v_load(s), b = v_load(s + 16);
    float top = v_top(v_max(a, b));
    float max = *m > top ? *m : top;
    float base = max == -INFINITY ? 0.0f : max;
    float alpha = *m == max ? 1.0f : ops_exp1(*m - base);

    a = v_exp(v_sub(a, v_set1(base)));
    b = v_exp(v_sub(b, v_set1(base)));
    v_store(s, a);
    v_store(s + 16, b);
    *m = max;
    *l = *l * alpha + v_sum(v_add(a, b));
    return alpha;
}

static void attn_blend(float *o, float a, const float *p, float b, uint32_t n)
{
    v16 va = v_set1(a), vb = v_set1(b);

    for (uint32_t i = 0; i < n; i += 16) {
        v16 x = v_mul(v_load(o + i), va);

        v_store(o + i, p == NULL ? x : v_add(x, v_mul(v_load(p + i), vb)));
    }
}

#endif
