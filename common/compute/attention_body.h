/* attention_body.h - the attention kernels over virtual lanes; included once by each
 * kernels_<isa>.c, after its v16 header, dense_body.h and ops_body.h, with
 *   ATTN_GROUP      most query rows whose accumulators fit the registers (at most 12)
 *   ATTN_WIDTH(n)   vectors of scores or values beside n rows: 1, 2, 4 or 8
 *
 * A score is one chain of multiply-adds over the head's elements, a value one over the tile's
 * tokens, both in ascending order.  Lanes are tokens or elements and are never added up, so the
 * shape of the register tile decides which chains run side by side and not one bit of any.
 *
 * K and V are converted in registers, once for all rows of a group.  Every step asks for the same
 * part of the tile ahead, so that the requests to memory are spread evenly over the arithmetic. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_BODY_H
#define OMNI_COMMON_COMPUTE_ATTENTION_BODY_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/compute/kernels.h"

/* Rows up to which a tile is awaited, by type of KV. */
#ifndef ATTN_AWAIT
#define ATTN_AWAIT      1
#define ATTN_AWAIT_BF16 4
#define ATTN_AWAIT_I8   1
#endif
enum { AWAIT_BYTES = 8192 };

/* 2^x for x < 128: n = round(x), a polynomial of degree 5 for 2^(x - n) (minimax, relative error
 * below 2^-23).  0 below 2^-126, and for -infinity; NaN stays NaN. */
V_INLINE v16 v_exp2(v16 x)
{
    const v16 magic = v_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const v16 low = v_set1(-126.0f);
    v16 c = v_max(low, x);
    v16 t = v_add(c, magic);
    v16 n = v_sub(t, magic);
    v16 r = v_sub(c, n);
    v16 p = v_set1(0.0013264728477224708f);

    p = v_fma(p, r, v_set1(0.009671513922512531f));
    p = v_fma(p, r, v_set1(0.05550733581185341f));
    p = v_fma(p, r, v_set1(0.24022242426872253f));
    p = v_fma(p, r, v_set1(0.6931470036506653f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_zero_below(v_scale2(p, n, t), x, low);
}

static float attn_exp2_1(float x)
{
    float out[16];

    v_store(out, v_exp2(v_set1(x)));
    return out[0];
}

static void attn_exp2(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        v_store(x + i, v_exp2(v_load(x + i)));
}

/* Asks for one line, and again for the one of a page before: requests are dropped while too many
 * are under way (measured on Zen 5, groups of 4: 37 instead of 33 GB/s; with the second request
 * 2,048 or 8,192 bytes behind less, and into the second cache or from further ahead as well). */
V_INLINE void fetch(const uint8_t *p)
{
    prefetch_line(p);
    prefetch_line(p - 4096);
}

/* Loads a word of every line at p, and asks for those ahead.  A request is dropped while too many are
 * under way, a load is not: what the requests missed comes at the rate of a plain read, instead of
 * line by line between the products.  Worth it where there is little to compute beside it, and for
 * 8 KiB at a time (4 and 16 KiB gain less).  Measured on Zen 5, blocks of 64, 128 wide: bf16 in
 * groups of 4 31 instead of 28 GB/s, int8 in groups of 1 29 instead of 26; f16 in groups of 3 28
 * instead of 31. */
V_INLINE void await(const uint8_t *p, const uint8_t *ahead, size_t n)
{
    uint32_t word;

    for (size_t i = 0; i < n; i += 64) {
        __asm__ volatile("movl %1, %0" : "=r"(word) : "m"(p[i]));
        prefetch_line(ahead + i);
    }
}

/* Bytes that one panel's K, or n tokens' V, takes. */
V_INLINE size_t panel_bytes(enum kv_type type, uint32_t d)
{
    const size_t pair = type == KV_TYPE_I8 ? 64 : type == KV_TYPE_F32 ? 256 : 128;

    return (d + 1) / 2 * pair;
}

/* Rows up to which a tile is awaited. */
V_INLINE uint32_t await_rows(enum kv_type type)
{
    return type == KV_TYPE_BF16 ? ATTN_AWAIT_BF16 : type == KV_TYPE_I8 ? ATTN_AWAIT_I8 : ATTN_AWAIT;
}

/* Before the scores of panel p: K of the whole tile at once where that is little. */
V_INLINE void await_keys(enum kv_type type, const struct attn_tile *tile, const uint8_t *ahead,
                         uint32_t d, uint32_t p)
{
    const size_t panel = panel_bytes(type, d);

    if (panel >= AWAIT_BYTES)
        await(tile->k[p], ahead + panel * p, panel);
    else if (p == 0)
        for (uint32_t i = 0; 32 * i < tile->n; i++)
            await(tile->k[i], ahead + panel * i, panel);
}

V_INLINE void await_values(const struct attn_tile *tile, const uint8_t *ahead, uint32_t n)
{
    for (uint32_t t = 0; t < n; t += 32)
        await(tile->v[t / 32], ahead + (size_t)t * tile->v_stride,
              (size_t)(n - t < 32 ? n - t : 32) * tile->v_stride);
}

/* ---- Queries: element-major, [d][n_rows] (i8: [d / 2][n_rows][2] int16) ---------------------- */

static void attn_q_float(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                         float *dst, float *scale)
{
    dst += row;
    for (uint32_t e = 0; e < d; e++)
        dst[(size_t)e * n_rows] = q[e] * factor;
    for (uint32_t e = d; e % 2 != 0; e++)
        dst[(size_t)e * n_rows] = 0.0f;
    *scale = 1.0f;
}

/* To int16 by the row's largest magnitude: 15 bits beside the 7 of K.  Fewer where a sum of d
 * products could leave int32. */
static void attn_q_int(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                       float *dst, float *scale)
{
    const float limit = d <= 512 ? 32767.0f : 16383.0f;
    int16_t *out = (int16_t *)(void *)(dst + row);
    float top = 0.0f, spread = 0.0f;

    for (uint32_t e = 0; e < d; e++) {
        top = fabsf(q[e]) > top ? fabsf(q[e]) : top;
        spread += q[e] * 0.0f; /* NaN if any is not finite */
    }
    for (uint32_t e = 0; e < d + d % 2; e++) {
        float x = e < d && top > 0.0f ? q[e] / top * limit : 0.0f;

        out[(size_t)(e / 2) * 2 * n_rows + e % 2] = (int16_t)(spread == 0.0f ? rintf(x) : 0.0f);
    }
    *scale = top / limit * factor + spread;
}

/* ---- Scores ---------------------------------------------------------------------------------- */

struct score_acc {
    v16 v[ATTN_GROUP][2];
};

V_INLINE void score_step(struct score_acc *acc, const v16 *key, const float *q, uint32_t n_rows,
                         uint32_t width)
{
    foreach (r, n_rows) {
        v16 query = v_set1(q[r]);

        foreach (p, width)
            acc->v[r][p] = v_fma(query, key[p], acc->v[r][p]);
    }
}

/* Element e (pairs: and e + 1) of `width` times 16 tokens of a panel. */
V_INLINE void score_element(enum kv_type type, struct score_acc *acc, const uint8_t *k,
                            const float *q, uint32_t n_rows, uint32_t width)
{
    const uint32_t bytes = type == KV_TYPE_F16 ? 32 : 64;
    v16 key[2];

    foreach (p, width) {
        const void *src = k + bytes * p;

        key[p] = type == KV_TYPE_F16   ? v_load_f16(src)
                 : type == KV_TYPE_F32 ? v_load(src)
                                       : v_load_pair0(src);
    }
    score_step(acc, key, q, n_rows, width);
    if (type != KV_TYPE_BF16)
        return;
    foreach (p, width)
        key[p] = v_load_pair1((const void *)(k + bytes * p));
    score_step(acc, key, q + n_rows, n_rows, width);
}

/* Two elements a turn: two lines of f16.  An odd d's last pair has zeros. */
V_INLINE void score_block(enum kv_type type, const uint8_t *k, const uint8_t *ahead, const float *q,
                          uint32_t d, float *s, uint32_t n_rows, uint32_t width)
{
    const size_t row =
        type == KV_TYPE_F16 ? 64 : 128; /* bytes from element (or pair) to the next */
    const size_t turn = type == KV_TYPE_F32 ? 256 : 128;
    struct score_acc acc;

    foreach (r, n_rows) {
        foreach (p, width)
            acc.v[r][p] = v_set1(0.0f);
    }
    for (uint32_t e = 0; e < d; e += 2, q += 2 * (size_t)n_rows, k += turn, ahead += turn) {
        for (uint32_t i = 0; i < turn; i += 64)
            fetch(ahead + i);
        score_element(type, &acc, k, q, n_rows, width);
        if (type != KV_TYPE_BF16 && e + 1 < d)
            score_element(type, &acc, k + row, q + n_rows, n_rows, width);
    }
    foreach (r, n_rows) {
        foreach (p, width)
            v_store(s + ATTN_TILE * r + 16 * p, acc.v[r][p]);
    }
}

/* scales: of the panel's tokens; q_scale: of the rows. */
V_INLINE void score_block_int(const uint8_t *k, const uint8_t *ahead, const float *q, uint32_t d,
                              const float *q_scale, const float *scales, float *s, uint32_t n_rows,
                              uint32_t width)
{
    const int16_t *pairs = (const int16_t *)(const void *)q;
    v16i acc[ATTN_GROUP][2], key[2];

    foreach (r, n_rows) {
        foreach (p, width)
            acc[r][p] = vi_zero();
    }
    for (uint32_t e = 0; e < d; e += 2, pairs += 2 * (size_t)n_rows, k += 64, ahead += 64) {
        fetch(ahead);
        foreach (p, width)
            key[p] = vi_load_pairs((const int8_t *)k + 32 * p);
        foreach (r, n_rows) {
            v16i query = vi_set_pair(pairs + 2 * r);

            foreach (p, width)
                acc[r][p] = vi_dot(query, key[p], acc[r][p]);
        }
    }
    foreach (r, n_rows) {
        foreach (p, width)
            v_store(
                s + ATTN_TILE * r + 16 * p,
                v_mul(v_mul(vi_to_float(acc[r][p]), v_set1(q_scale[r])), v_load(scales + 16 * p)));
    }
}

#ifdef ATTN_DOT_BF16
/* Queries [d / 2][n_rows][2] in bf16. */
V_INLINE void score_block_dot(const uint8_t *k, const uint8_t *ahead, const float *q, uint32_t d,
                              float *s, uint32_t n_rows, uint32_t width)
{
    const int16_t *pairs = (const int16_t *)(const void *)q;
    v16 acc[ATTN_GROUP][2];
    v16i key[2];

    foreach (r, n_rows) {
        foreach (p, width)
            acc[r][p] = v_set1(0.0f);
    }
    for (uint32_t e = 0; e < d; e += 2, pairs += 2 * (size_t)n_rows, k += 128, ahead += 128) {
        foreach (p, width) {
            fetch(ahead + 64 * p);
            key[p] = vb_load_pairs(k + 64 * p);
        }
        foreach (r, n_rows) {
            v16i query = vi_set_pair(pairs + 2 * r);

            foreach (p, width)
                acc[r][p] = vb_dot(query, key[p], acc[r][p]);
        }
    }
    foreach (r, n_rows) {
        foreach (p, width)
            v_store(s + ATTN_TILE * r + 16 * p, acc[r][p]);
    }
}
#endif

/* All panels of the tile for n_rows rows (a constant). */
V_INLINE void score_rows(enum kv_type type, const struct attn_tile *tile, const uint8_t *ahead,
                         const float *q, uint32_t d, float *s, uint32_t n_rows)
{
    const uint32_t width = ATTN_WIDTH(n_rows) < 2 ? 1 : 2;
    const uint32_t bytes = type == KV_TYPE_F16 ? 32 : type == KV_TYPE_I8 ? 32 : 64;
    const size_t panel = panel_bytes(type, d);

    for (uint32_t p = 0; 32 * p < tile->n; p++) {
        if (n_rows <= await_rows(type) && ahead != tile->k[0])
            await_keys(type, tile, ahead, d, p);
        for (uint32_t i = 0; i < 2; i += width) {
            const uint8_t *k = tile->k[p] + bytes * i, *next = ahead + panel * p;

            if (type == KV_TYPE_I8)
                score_block_int(k, next, q, d, tile->q_scale, tile->k_scale[p] + 16 * i,
                                s + 32 * p + 16 * i, n_rows, width);
#ifdef ATTN_DOT_BF16
            else if (type == KV_TYPE_BF16)
                score_block_dot(k, next, q, d, s + 32 * p + 16 * i, n_rows, width);
#endif
            else
                score_block(type, k, next, q, d, s + 32 * p + 16 * i, n_rows, width);
        }
    }
}

/* ---- Values ---------------------------------------------------------------------------------- */

struct value_acc {
    v16 v[ATTN_GROUP][8];
};

/* Sixteen elements (half 0 or 1 of pairs) of a token, or n < 16 of them. */
V_INLINE v16 value_load(enum kv_type type, const uint8_t *src, uint32_t half, uint32_t n)
{
    uint8_t tail[64];

    if (n < 16) {
        memset(tail, 0, sizeof tail);
        memcpy(tail, src, n * (type == KV_TYPE_F16 ? 2U : 4U));
        src = tail;
    }
    if (type == KV_TYPE_F16)
        return v_load_f16((const void *)src);
    if (type == KV_TYPE_F32)
        return v_load((const void *)src);
    return half == 0 ? v_load_pair0((const void *)src) : v_load_pair1((const void *)src);
}

V_INLINE void value_step(enum kv_type type, struct value_acc *acc, const uint8_t *src,
                         uint32_t half, const float *s, uint32_t n_rows, uint32_t width,
                         uint32_t n_left)
{
    const uint32_t bytes = type == KV_TYPE_F16 ? 32 : 64;
    v16 weight[ATTN_GROUP];

    foreach (r, n_rows)
        weight[r] = v_set1(s[ATTN_TILE * r]);
    foreach (w, width) {
        v16 value = value_load(type, src + bytes * w, half, width == 1 ? n_left : 16);

        foreach (r, n_rows)
            acc->v[r][w] = v_fma(weight[r], value, acc->v[r][w]);
    }
}

/* Up to 32 tokens of a panel. */
V_INLINE void value_panel(enum kv_type type, struct value_acc *acc, const uint8_t *v,
                          const uint8_t *ahead, uint32_t stride, uint32_t n, const float *s,
                          uint32_t n_rows, uint32_t width, uint32_t n_left)
{
    const uint32_t pair = type == KV_TYPE_BF16 ? 2 : 1;
    const uint32_t bytes = width * (type == KV_TYPE_F16 ? 32 : 64);

    for (uint32_t t = 0; t < n; t += pair, v += pair * stride, ahead += bytes) {
        for (uint32_t i = 0; i < bytes; i += 64)
            fetch(ahead + i);
        value_step(type, acc, v, 0, s + t, n_rows, width, n_left);
        if (pair == 2 && t + 1 < n)
            value_step(type, acc, v, 1, s + t + 1, n_rows, width, n_left);
    }
}

/* Elements 16c..16(c + width)-1 of n_rows rows over the tile's first n tokens. */
V_INLINE void value_block(enum kv_type type, const struct attn_tile *tile, const uint8_t *ahead,
                          const struct attn_out *out, uint32_t c, uint32_t n, uint32_t n_rows,
                          uint32_t width)
{
    const uint32_t left = out->dv - 16 * c < 16 ? out->dv - 16 * c : 16;
    const size_t at = (size_t)c * (type == KV_TYPE_F16 ? 32 : 64);
    const uint32_t pair = type == KV_TYPE_BF16 ? 2 : 1;
    const uint32_t bytes = width * (type == KV_TYPE_F16 ? 32 : 64); /* of all columns, a step */
    struct value_acc acc;

    foreach (r, n_rows) {
        v16 alpha = v_set1(out->alpha[r]);

        foreach (w, width)
            acc.v[r][w] = v_mul(v_load(out->o + r * out->ldo + 16 * (c + w)), alpha);
    }
    for (uint32_t t = 0; t < n; t += 32)
        value_panel(type, &acc, tile->v[t / 32] + at, ahead + at * (n / pair) + t / pair * bytes,
                    tile->v_stride, n - t < 32 ? n - t : 32, out->s + t, n_rows, width, left);
    foreach (r, n_rows) {
        foreach (w, width)
            v_store(out->o + r * out->ldo + 16 * (c + w), acc.v[r][w]);
    }
}

/* 0, or NaN if a scale of the tile's first n tokens is not finite: what its values then become. */
V_INLINE float value_spread(const struct attn_tile *tile, uint32_t n)
{
    v16 spread = v_set1(0.0f);
    float sum = 0.0f;
    uint32_t t = 0;

    for (; t + 16 <= n; t += 16)
        spread = v_fma(v_load(tile->v_scale[t / 32] + t % 32), v_set1(0.0f), spread);
    for (; t < n; t++)
        sum += tile->v_scale[t / 32][t % 32] * 0.0f;
    return sum + v_sum(spread);
}

/* The weights of one tile times the tokens' scales, as int16 of their largest; 0 from n on,
 * whatever the scales there are.  Returns the factor that undoes it. */
V_INLINE float value_weights_int(const struct attn_tile *tile, const float *s, uint32_t n,
                                 int16_t *w)
{
    v16 scaled[ATTN_TILE / 16], top, factor;
    float max;

    foreach (i, ATTN_TILE / 16)
        scaled[i] = v_mul(v_load(s + 16 * i), v_load(tile->v_scale[i / 2] + i % 2 * 16));
    if (n < ATTN_TILE) {
        float known[ATTN_TILE];

        foreach (i, ATTN_TILE / 16)
            v_store(known + 16 * i, scaled[i]);
        for (uint32_t t = n; t < ATTN_TILE; t++)
            known[t] = 0.0f;
        foreach (i, ATTN_TILE / 16)
            scaled[i] = v_load(known + 16 * i);
    }
    top = v_max(v_max(scaled[0], scaled[1]), v_max(scaled[2], scaled[3]));
    max = v_top(top);
    factor = v_set1(max > 0.0f ? 32767.0f / max : 0.0f);
    foreach (i, ATTN_TILE / 16)
        v_store_i16(w + 16 * i, v_mul(scaled[i], factor));
    return max / 32767.0f;
}

V_INLINE v16i value_load_int(const uint8_t *src, uint32_t n)
{
    uint8_t tail[32];

    if (n < 16) {
        memset(tail, 0, sizeof tail);
        memcpy(tail, src, 2 * n);
        src = tail;
    }
    return vi_load_pairs((const int8_t *)src);
}

V_INLINE void value_block_int(const struct attn_tile *tile, const uint8_t *ahead,
                              const struct attn_out *out, int16_t (*w)[ATTN_TILE],
                              const float *factor, uint32_t c, uint32_t n, uint32_t n_rows,
                              uint32_t width)
{
    const uint32_t left = out->dv - 16 * c < 16 ? out->dv - 16 * c : 16;
    v16i acc[ATTN_GROUP][8];

    foreach (r, n_rows) {
        foreach (i, width)
            acc[r][i] = vi_zero();
    }
    for (uint32_t t = 0; t < n; t += 2) {
        size_t at = (size_t)(t % 32) * tile->v_stride + (size_t)c * 32;
        v16i value[8];

        foreach (i, width) {
            if (i % 2 == 0)
                fetch(ahead + (size_t)c * 16 * n + (t / 2 * width + i) * 32);
            value[i] = value_load_int(tile->v[t / 32] + at + 32 * i, width == 1 ? left : 16);
        }
        foreach (r, n_rows) {
            v16i weight = vi_set_pair(&w[r][t]);

            foreach (i, width)
                acc[r][i] = vi_dot(weight, value[i], acc[r][i]);
        }
    }
    foreach (r, n_rows) {
        foreach (i, width) {
            float *o = out->o + r * out->ldo + 16 * (c + i);
            v16 before = v_mul(v_load(o), v_set1(out->alpha[r]));

            v_store(o, v_fma(vi_to_float(acc[r][i]), v_set1(factor[r]), before));
        }
    }
}

#ifdef ATTN_DOT_BF16
V_INLINE v16i value_load_dot(const uint8_t *src, uint32_t n)
{
    uint8_t tail[64];

    if (n < 16) {
        memset(tail, 0, sizeof tail);
        memcpy(tail, src, 4 * n);
        src = tail;
    }
    return vb_load_pairs(src);
}

/* A last token without partner: its neighbour's value may be anything and must not count. */
V_INLINE void value_block_dot(const struct attn_tile *tile, const uint8_t *ahead,
                              const struct attn_out *out, uint16_t (*weights)[ATTN_TILE],
                              uint32_t c, uint32_t n, uint32_t n_rows, uint32_t width)
{
    const uint32_t left = out->dv - 16 * c < 16 ? out->dv - 16 * c : 16;
    v16 acc[ATTN_GROUP][8];

    foreach (r, n_rows) {
        v16 alpha = v_set1(out->alpha[r]);

        foreach (i, width)
            acc[r][i] = v_mul(v_load(out->o + r * out->ldo + 16 * (c + i)), alpha);
    }
    for (uint32_t t = 0; t < n; t += 2) {
        const uint8_t *v = tile->v[t / 32] + (size_t)(t % 32) * tile->v_stride + (size_t)c * 64;
        v16i value[8];

        foreach (i, width) {
            fetch(ahead + (size_t)c * 32 * n + (t / 2 * width + i) * 64);
            value[i] = value_load_dot(v + 64 * i, width == 1 ? left : 16);
            if (t + 1 == n)
                value[i] = vb_first(value[i]);
        }
        foreach (r, n_rows) {
            v16i weight = vi_set_pair((const int16_t *)&weights[r][t]);

            foreach (i, width)
                acc[r][i] = vb_dot(weight, value[i], acc[r][i]);
        }
    }
    foreach (r, n_rows) {
        foreach (i, width)
            v_store(out->o + r * out->ldo + 16 * (c + i), acc[r][i]);
    }
}
#endif

/* Runs BLOCK over all columns, as wide as registers allow, then narrower over the rest. */
#define VALUE_COLUMNS(block, ...)                                                                  \
    do {                                                                                           \
        const uint32_t widest = ATTN_WIDTH(n_rows), n_vectors = (out->dv + 15) / 16;               \
        uint32_t c = 0;                                                                            \
                                                                                                   \
        for (; widest >= 8 && c + 8 <= out->dv / 16; c += 8)                                       \
            block(__VA_ARGS__, c, n, n_rows, 8);                                                   \
        for (; widest >= 4 && c + 4 <= out->dv / 16; c += 4)                                       \
            block(__VA_ARGS__, c, n, n_rows, 4);                                                   \
        for (; widest >= 2 && c + 2 <= out->dv / 16; c += 2)                                       \
            block(__VA_ARGS__, c, n, n_rows, 2);                                                   \
        for (; c < n_vectors; c++)                                                                 \
            block(__VA_ARGS__, c, n, n_rows, 1);                                                   \
    } while (0)

V_INLINE void value_rows(enum kv_type type, const struct attn_tile *tile, const uint8_t *ahead,
                         const struct attn_out *out, uint32_t n, uint32_t n_rows)
{
    if (n_rows <= await_rows(type) && ahead != tile->v[0])
        await_values(tile, ahead, n);
    if (type == KV_TYPE_I8) {
        int16_t w[ATTN_GROUP][ATTN_TILE];
        float factor[ATTN_GROUP], spread = value_spread(tile, n);

        for (uint32_t r = 0; r < n_rows; r++)
            factor[r] = value_weights_int(tile, out->s + ATTN_TILE * r, n, w[r]) + spread;
        VALUE_COLUMNS(value_block_int, tile, ahead, out, w, factor);
#ifdef ATTN_DOT_BF16
    } else if (type == KV_TYPE_BF16) {
        uint16_t w[ATTN_GROUP][ATTN_TILE];

        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t t = 0; t < n; t += 16)
                vb_store(w[r] + t, v_load(out->s + ATTN_TILE * r + t));
        VALUE_COLUMNS(value_block_dot, tile, ahead, out, w);
#endif
    } else {
        VALUE_COLUMNS(value_block, type, tile, ahead, out);
    }
}

#ifdef ATTN_HALF
#include "common/compute/attention_half_body.h"
#define SCORE_ROWS(type, ...)                                                                      \
    ((type) == KV_TYPE_F16 ? score_rows_half(__VA_ARGS__) : score_rows(type, __VA_ARGS__))
#define VALUE_ROWS(type, ...)                                                                      \
    ((type) == KV_TYPE_F16 ? value_rows_half(__VA_ARGS__) : value_rows(type, __VA_ARGS__))
#else
#define SCORE_ROWS(type, ...) score_rows(type, __VA_ARGS__)
#define VALUE_ROWS(type, ...) value_rows(type, __VA_ARGS__)
#endif
#ifdef ATTN_TILES
#include "common/compute/attention_tiles_body.h"
#endif

/* ---- One function per type and number of rows, so that each is compiled with constant bounds - */

typedef void score_fn(const struct attn_tile *tile, const uint8_t *ahead, const float *q,
                      uint32_t d, float *s);
typedef void value_fn(const struct attn_tile *tile, const uint8_t *ahead,
                      const struct attn_out *out, uint32_t n);

#define ATTN_N(suffix, type, n)                                                                    \
    static void score_##suffix##_##n(const struct attn_tile *tile, const uint8_t *ahead,           \
                                     const float *q, uint32_t d, float *s)                         \
    {                                                                                              \
        SCORE_ROWS(type, tile, ahead, q, d, s, n);                                                 \
    }                                                                                              \
    static void value_##suffix##_##n(const struct attn_tile *tile, const uint8_t *ahead,           \
                                     const struct attn_out *out, uint32_t n_tokens)                \
    {                                                                                              \
        VALUE_ROWS(type, tile, ahead, out, n_tokens, n);                                           \
    }
#if ATTN_GROUP == 12
#define ATTN_EACH(X, suffix, type)                                                                 \
    X(suffix, type, 1)                                                                             \
    X(suffix, type, 2)                                                                             \
    X(suffix, type, 3)                                                                             \
    X(suffix, type, 4)                                                                             \
    X(suffix, type, 5)                                                                             \
    X(suffix, type, 6)                                                                             \
    X(suffix, type, 7)                                                                             \
    X(suffix, type, 8)                                                                             \
    X(suffix, type, 9) X(suffix, type, 10) X(suffix, type, 11) X(suffix, type, 12)
#elif ATTN_GROUP == 6
#define ATTN_EACH(X, suffix, type)                                                                 \
    X(suffix, type, 1)                                                                             \
    X(suffix, type, 2) X(suffix, type, 3) X(suffix, type, 4) X(suffix, type, 5) X(suffix, type, 6)
#else
#define ATTN_EACH(X, suffix, type) X(suffix, type, 1) X(suffix, type, 2) X(suffix, type, 3)
#endif
#define SCORE_ENTRY(suffix, type, n) score_##suffix##_##n,
#define VALUE_ENTRY(suffix, type, n) value_##suffix##_##n,

/* The two kernels of one type over any number of rows, group by group; only the first asks. */
#define ATTN_TYPE(suffix, type)                                                                    \
    ATTN_EACH(ATTN_N, suffix, type)                                                                \
    static void attn_scores_##suffix(const struct attn_tile *tile, uint32_t n_rows, bool ask,      \
                                     const float *q, uint32_t d, float *s)                         \
    {                                                                                              \
        static score_fn *const table[ATTN_GROUP] = {ATTN_EACH(SCORE_ENTRY, suffix, type)};         \
                                                                                                   \
        table[n_rows - 1](tile, ask ? tile->ahead[0] : tile->k[0], q, d, s);                       \
    }                                                                                              \
    static void attn_values_##suffix(const struct attn_tile *tile, uint32_t n_rows, bool ask,      \
                                     const struct attn_out *out, uint32_t n)                       \
    {                                                                                              \
        static value_fn *const table[ATTN_GROUP] = {ATTN_EACH(VALUE_ENTRY, suffix, type)};         \
                                                                                                   \
        table[n_rows - 1](tile, ask ? tile->ahead[1] : tile->v[0], out, n);                        \
    }
ATTN_TYPE(f16, KV_TYPE_F16)
ATTN_TYPE(f32, KV_TYPE_F32)
ATTN_TYPE(i8, KV_TYPE_I8)
#ifndef ATTN_TILES
ATTN_TYPE(bf16, KV_TYPE_BF16)
#endif

/* ---- Rows ------------------------------------------------------------------------------------ */

/* What weights are rounded to, so that they add up to their sum as the products see them. */
enum rounding { ROUND_NOT, ROUND_BF16, ROUND_F16 };

V_INLINE v16 weight_round(v16 w, enum rounding to)
{
#if defined ATTN_DOT_BF16 || defined ATTN_TILES
    if (to == ROUND_BF16)
        return vb_round(w);
#endif
#ifdef ATTN_HALF
    if (to == ROUND_F16) {
        uint16_t rounded[16];

        v_store_f16(rounded, w);
        return v_load_f16(rounded);
    }
#endif
    (void)to;
    return w;
}

/* With nothing but -infinity so far, 0 stands in for the maximum: all weights are then 0, not NaN.
 * The comparison with the old maximum is one instruction; most tiles do not exceed it. */
V_INLINE float softmax_step(float *s, uint32_t n, float *m, float *l, enum rounding to)
{
    v16 top = v_load(s), sum = v_load(l), base;
    float alpha = 1.0f;

    for (uint32_t i = 16; i < n; i += 16)
        top = v_max(v_load(s + i), top);
    if (v_any_above(top, v_set1(*m))) {
        float max = v_top(top);

        alpha = attn_exp2_1(*m - max);
        sum = v_mul(sum, v_set1(alpha));
        *m = max;
    }
    base = v_set1(*m == -INFINITY ? 0.0f : *m);
    for (uint32_t i = 0; i < n; i += 16) {
        v16 w = v_exp2(v_sub(v_load(s + i), base));

        w = weight_round(w, to);
        sum = v_add(sum, w);
        v_store(s + i, w);
    }
    v_store(l, sum);
    return alpha;
}

static float attn_softmax(float *s, uint32_t n, float *m, float *l)
{
    return softmax_step(s, n, m, l, ROUND_NOT);
}

#ifdef ATTN_HALF
static float attn_softmax_half(float *s, uint32_t n, float *m, float *l)
{
    return softmax_step(s, n, m, l, ROUND_F16);
}
#endif

#if defined ATTN_DOT_BF16 || defined ATTN_TILES
static float attn_softmax_bf16(float *s, uint32_t n, float *m, float *l)
{
    return softmax_step(s, n, m, l, ROUND_BF16);
}
#endif

#ifdef ATTN_DOT_BF16

static void attn_q_bf16(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                        float *dst, float *scale)
{
    uint16_t *out = (uint16_t *)(void *)(dst + row);
    uint16_t rounded[16];

    for (uint32_t e = 0; e < d + d % 2; e++) {
        if (e % 16 == 0)
            vb_store(rounded,
                     v_mul(v_load_tail(q + e, d - e < 16 ? d - e : 16, 0.0f), v_set1(factor)));
        out[(size_t)(e / 2) * 2 * n_rows + e % 2] = rounded[e % 16];
    }
    *scale = 1.0f;
}
#endif

/* cap * tanh(s / cap), tanh(x) = 1 - 2 / (exp(2x) + 1); then the factor that makes exp exp2. */
static void attn_softcap(float *s, uint32_t n, float cap, float factor)
{
    for (uint32_t i = 0; i < n; i += 16) {
        v16 e = v_exp(v_mul(v_load(s + i), v_set1(2.0f / cap)));
        v16 t = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));

        v_store(s + i, v_mul(v_mul(t, v_set1(cap)), v_set1(factor)));
    }
}

static float attn_sum(const float *l)
{
    return v_sum(v_load(l));
}

static void attn_blend(float *o, float a, const float *p, float b, uint32_t n)
{
    v16 va = v_set1(a), vb = v_set1(b);

    for (uint32_t i = 0; i < n; i += 16)
        v_store(o + i, v_add(v_mul(v_load(o + i), va), v_mul(v_load(p + i), vb)));
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

#endif
