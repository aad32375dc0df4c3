/* attention_half_body.h - attention over f16 KV in f16 arithmetic; included by attention_body.h
 * where ATTN_HALF is defined, after a header that defines v32h.
 *
 * Twice the lanes and no conversion of K and V.  Queries and weights are rounded to f16; HALF_CHAIN
 * products are added in f16, each sum rounded, and such chains in float.  So a score's error is at
 * most HALF_CHAIN * 2^-12 of the sum of its products' magnitudes, some 2^-12 of it as a rule.
 * Chains begin at fixed elements and tokens: a row's bits do not depend on its company. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_HALF_BODY_H
#define OMNI_COMMON_COMPUTE_ATTENTION_HALF_BODY_H

enum { HALF_CHAIN = 8 };

/* Element-major, [d][n_rows] f16. */
static void attn_q_half(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                        float *dst, float *scale)
{
    uint16_t *out = (uint16_t *)(void *)dst + row, rounded[16];

    for (uint32_t e = 0; e < d; e++) {
        if (e % 16 == 0)
            v_store_f16(rounded,
                        v_mul(v_load_tail(q + e, d - e < 16 ? d - e : 16, 0.0f), v_set1(factor)));
        out[(size_t)e * n_rows] = rounded[e % 16];
    }
    *scale = 1.0f;
}

/* One panel of 32 tokens. */
V_INLINE void score_panel_half(const uint8_t *k, const uint8_t *ahead, const uint16_t *q,
                               uint32_t d, float *s, uint32_t n_rows)
{
    v16 sum[ATTN_GROUP][2];
    v32h acc[ATTN_GROUP];

    foreach (r, n_rows)
        sum[r][0] = sum[r][1] = v_set1(0.0f);
    for (uint32_t e0 = 0; e0 < d; e0 += HALF_CHAIN) {
        foreach (r, n_rows)
            acc[r] = vh_zero();
        for (uint32_t e = e0; e < d && e < e0 + HALF_CHAIN; e++) {
            v32h key = vh_load(k + 64 * (size_t)e);

            fetch(ahead + 64 * (size_t)e);
            foreach (r, n_rows)
                acc[r] = vh_fma(vh_set1(q + (size_t)e * n_rows + r), key, acc[r]);
        }
        foreach (r, n_rows) {
            sum[r][0] = v_add(sum[r][0], vh_low(acc[r]));
            sum[r][1] = v_add(sum[r][1], vh_high(acc[r]));
        }
    }
    foreach (r, n_rows) {
        v_store(s + ATTN_TILE * r, sum[r][0]);
        v_store(s + ATTN_TILE * r + 16, sum[r][1]);
    }
}

V_INLINE void score_rows_half(const struct attn_tile *tile, const uint8_t *ahead, const float *q,
                              uint32_t d, float *s, uint32_t n_rows)
{
    const uint16_t *halves = (const uint16_t *)(const void *)q;

    for (uint32_t p = 0; 32 * p < tile->n; p++)
        score_panel_half(tile->k[p], ahead + 64 * (size_t)d * p, halves, d, s + 32 * p, n_rows);
}

V_INLINE v32h value_load_half(const uint8_t *src, uint32_t n)
{
    uint8_t tail[64];

    if (n >= 32)
        return vh_load(src);
    memset(tail, 0, sizeof tail);
    memcpy(tail, src, 2 * (size_t)n);
    return vh_load(tail);
}

/* Elements c..c+31, or as many as there are, over the tile's first n tokens. */
V_INLINE void value_block_half(const struct attn_tile *tile, const uint8_t *ahead,
                               const struct attn_out *out, uint16_t (*w)[ATTN_TILE], uint32_t c,
                               uint32_t n, uint32_t n_rows)
{
    const uint32_t left = out->dv - c < 32 ? out->dv - c : 32;
    v16 sum[ATTN_GROUP][2];
    v32h acc[ATTN_GROUP];

    foreach (r, n_rows) {
        const float *o = out->o + r * out->ldo + c;

        sum[r][0] = v_mul(v_load(o), v_set1(out->alpha[r]));
        sum[r][1] = left > 16 ? v_mul(v_load(o + 16), v_set1(out->alpha[r])) : v_set1(0.0f);
    }
    for (uint32_t t0 = 0; t0 < n; t0 += HALF_CHAIN) {
        const uint8_t *v = tile->v[t0 / 32] + (size_t)(t0 % 32) * tile->v_stride + 2 * (size_t)c;

        foreach (r, n_rows)
            acc[r] = vh_zero();
        for (uint32_t t = t0; t < n && t < t0 + HALF_CHAIN; t++, v += tile->v_stride) {
            v32h value = value_load_half(v, left);

            fetch(ahead + 2 * (size_t)c * n + 64 * (size_t)t);
            foreach (r, n_rows)
                acc[r] = vh_fma(vh_set1(&w[r][t]), value, acc[r]);
        }
        foreach (r, n_rows) {
            sum[r][0] = v_add(sum[r][0], vh_low(acc[r]));
            sum[r][1] = v_add(sum[r][1], vh_high(acc[r]));
        }
    }
    foreach (r, n_rows) {
        float *o = out->o + r * out->ldo + c;

        v_store(o, sum[r][0]);
        if (left > 16)
            v_store(o + 16, sum[r][1]);
    }
}

V_INLINE void value_rows_half(const struct attn_tile *tile, const uint8_t *ahead,
                              const struct attn_out *out, uint32_t n, uint32_t n_rows)
{
    uint16_t w[ATTN_GROUP][ATTN_TILE];

    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t t = 0; t < n; t += 16)
            v_store_f16(w[r] + t, v_load(out->s + ATTN_TILE * r + t));
    for (uint32_t c = 0; c < out->dv; c += 32)
        value_block_half(tile, ahead, out, w, c, n, n_rows);
}

#endif
