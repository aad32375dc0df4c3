/* dense_body.h - the dense kernels over virtual lanes; included once by each kernels_<isa>.c, after
 * its v16 header, with
 *   ROWS_FEW, ROWS_TILE  rows whose accumulators fit the registers beside expanded weights
 *
 * Every accumulator is one chain of v_fma in ascending k: the register tile's shape decides how
 * many chains run side by side and never the order inside one.  Loops over rows and panels have
 * constant bounds once inlined, so that the accumulators are registers. */
#ifndef OMNI_COMMON_COMPUTE_DENSE_BODY_H
#define OMNI_COMMON_COMPUTE_DENSE_BODY_H

#include "common/compute/kernels.h"

/* One row alone has too few chains to cover the latency of a multiply-add: two panels at once. */
enum { FEW_PANELS = 2 };

/* The accumulators of up to ROWS_FEW rows; [row][panel * 2 + half]. */
struct few_acc {
    v16 v[ROWS_FEW][2 * FEW_PANELS];
};

/* Under the sanitizers a kernel per number of rows and type would take the compiler minutes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FEW_ONCE static __attribute__((noinline))
#else
#define FEW_ONCE V_INLINE
#endif

/* A loop over registers: it must be unrolled completely, or they would live in memory.  Not so in
 * plain C and under the sanitizers, where they do anyway and the compiler would take minutes. */
#if defined(V_IN_MEMORY) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define foreach(i, n) for (uint32_t i = 0; i < (n); i++)
#elif defined(__clang__)
#define foreach(i, n) _Pragma("unroll") for (uint32_t i = 0; i < (n); i++)
#else
#define foreach(i, n) _Pragma("GCC unroll 16") for (uint32_t i = 0; i < (n); i++)
#endif

V_INLINE void few_load(struct few_acc *a, const float *y, size_t ldy, uint32_t n_rows,
                       uint32_t n_halves)
{
    foreach (r, n_rows) {
        foreach (h, n_halves)
            a->v[r][h] = v_load(y + r * ldy + 16 * h);
    }
}

V_INLINE void few_store(const struct few_acc *a, float *y, size_t ldy, uint32_t n_rows,
                        uint32_t n_halves)
{
    foreach (r, n_rows) {
        foreach (h, n_halves)
            v_store(y + r * ldy + 16 * h, a->v[r][h]);
    }
}

/* One k: w holds its weights, x points at row 0's element. */
V_INLINE void few_step(struct few_acc *a, const v16 *w, const float *x, size_t ldx, uint32_t n_rows,
                       uint32_t n_halves)
{
    foreach (r, n_rows) {
        v16 xr = v_set1(x[r * ldx]);

        foreach (h, n_halves)
            a->v[r][h] = v_fma(xr, w[h], a->v[r][h]);
    }
}

/* Where half h (16 outputs) of panel group element h/2 begins, for `bytes` per 16 outputs. */
V_INLINE const uint8_t *half_at(const uint8_t *panels, size_t panel_bytes, uint32_t h, size_t bytes)
{
    return panels + (h / 2) * panel_bytes + (h % 2) * bytes;
}

V_INLINE void few_f32(struct few_acc *a, const uint8_t *p, size_t panel_bytes, uint32_t k,
                      const float *x, size_t ldx, uint32_t n_rows, uint32_t n_halves)
{
    v16 w[2 * FEW_PANELS];

    for (uint32_t i = 0; i < k; i++, p += 128) {
        foreach (h, n_halves)
            w[h] = v_load((const float *)(const void *)half_at(p, panel_bytes, h, 64));
        few_step(a, w, x + i, ldx, n_rows, n_halves);
    }
}

V_INLINE void few_f16(struct few_acc *a, const uint8_t *p, size_t panel_bytes, uint32_t k,
                      const float *x, size_t ldx, uint32_t n_rows, uint32_t n_halves)
{
    v16 w[2 * FEW_PANELS];

    for (uint32_t i = 0; i < k; i++, p += 64) {
        foreach (h, n_halves)
            w[h] = v_load_f16((const uint16_t *)(const void *)half_at(p, panel_bytes, h, 32));
        few_step(a, w, x + i, ldx, n_rows, n_halves);
    }
}

/* The 16 f16 scales of half h, and where its quantised values begin. */
V_INLINE v16 scales_at(const uint8_t *block, size_t panel_bytes, uint32_t h)
{
    return v_load_f16((const uint16_t *)(const void *)half_at(block, panel_bytes, h, 32));
}

/* Asks for what the next panels have where p is in these: two panels side by side are two streams
 * that begin anew every panel, too short for the hardware to follow.  From memory one row of Q4_1
 * reads 10 to 17 GB/s without, 24 to 30 with it; two rows 17, and 18 to 20.  Past the last panel
 * nothing is read. */
V_INLINE void few_prefetch(const uint8_t *p, size_t panel_bytes, size_t bytes, uint32_t n_halves)
{
    foreach (i, n_halves / 2) {
        const uint8_t *next = p + (i + n_halves / 2) * panel_bytes;

        for (size_t at = 0; at < bytes; at += 64)
            prefetch_line(next + at);
    }
}

V_INLINE void few_q8_0(struct few_acc *a, const uint8_t *p, size_t panel_bytes, uint32_t k,
                       const float *x, size_t ldx, uint32_t n_rows, uint32_t n_halves)
{
    v16 d[2 * FEW_PANELS], w[2 * FEW_PANELS];

    for (uint32_t b = 0; b < k; b += 32, p += PANEL_Q8_BYTES) {
        few_prefetch(p, panel_bytes, PANEL_Q8_BYTES, n_halves);
        foreach (h, n_halves)
            d[h] = scales_at(p, panel_bytes, h);
        for (uint32_t i = 0; i < 32; i++) {
            const uint8_t *q = p + 64 + 32 * i;

            foreach (h, n_halves)
                w[h] = v_mul(d[h], v_load_i8((const int8_t *)half_at(q, panel_bytes, h, 16)));
            few_step(a, w, x + b + i, ldx, n_rows, n_halves);
        }
    }
}

V_INLINE void few_bf16(struct few_acc *a, const uint8_t *p, size_t panel_bytes, uint32_t k,
                       const float *x, size_t ldx, uint32_t n_rows, uint32_t n_halves)
{
    v16 w[2 * FEW_PANELS];

    for (uint32_t i = 0; i < k; i++, p += 64) {
        foreach (h, n_halves)
            w[h] = v_load_bf16((const uint16_t *)(const void *)half_at(p, panel_bytes, h, 32));
        few_step(a, w, x + i, ldx, n_rows, n_halves);
    }
}

/* ---- The types of nibbles and more ----------------------------------------------------------- */

/* A value is d * q + m with whole q; `type` is a constant wherever these are called.  d * q has at
 * most 24 significant bits, so it is exact and the fused d * q + m rounds once, as multiplying and
 * then adding does.  An offset of q is -offset * d in m: exact as well, and the sum too. */
struct few_scales {
    v16 d[2 * FEW_PANELS], m[2 * FEW_PANELS];
};

/* Sixteen int8 of half h, as floats. */
V_INLINE v16 bytes_at(const uint8_t *p, size_t panel_bytes, uint32_t h)
{
    return v_load_i8((const int8_t *)half_at(p, panel_bytes, h, 16));
}

V_INLINE v16i words_at(const uint8_t *p, size_t panel_bytes, uint32_t h)
{
    return vi_load((const uint32_t *)(const void *)half_at(p, panel_bytes, h, 64));
}

/* Of half h of a block; part: which 16 k of a block of Q6_K.  super: where its 256 k begin. */
V_INLINE void quant_scales(enum weight_type type, const uint8_t *super, const uint8_t *block,
                           size_t panel_bytes, uint32_t part, uint32_t h, v16 *d, v16 *m)
{
    if (panel_super_bytes(type) == 0)
        *d = scales_at(block, panel_bytes, h);
    else
        *d = v_mul(scales_at(super, panel_bytes, h), bytes_at(block + 32 * part, panel_bytes, h));
    if (type == WEIGHT_Q4_0)
        *m = v_mul(*d, v_set1(-8));
    else if (type == WEIGHT_Q5_0)
        *m = v_mul(*d, v_set1(-16));
    else if (type == WEIGHT_Q6_K)
        *m = v_mul(*d, v_set1(-32));
    else if (panel_super_bytes(type) == 0)
        *m = scales_at(block + 64, panel_bytes, h);
    else
        *m = v_mul(scales_at(super + 64, panel_bytes, h), bytes_at(block + 32, panel_bytes, h));
}

/* The next value of 16 outputs; low and high move on by one k. */
V_INLINE v16 quant_next(enum weight_type type, v16i *low, v16i *high, v16 d, v16 m)
{
    v16 q = v_nibble(*low);

    *low = vi_shift4(*low);
    if (panel_high_bits(type) == 1) {
        q = v_fma(v_bit(*high), v_set1(16), q);
        *high = vi_shift1(*high);
    } else if (panel_high_bits(type) == 2) {
        q = v_fma(v_bit_pair(*high), v_set1(16), q);
        *high = vi_shift2(*high);
    }
    return v_fma(q, d, m);
}

/* Parts of a block with scales and high bits of their own, and words of eight nibbles in each. */
V_INLINE uint32_t quant_parts(enum weight_type type)
{
    return type == WEIGHT_Q6_K ? 2 : 1;
}

/* One part of a block: all its k. */
V_INLINE void few_part(enum weight_type type, struct few_acc *a, const struct few_scales *s,
                       const uint8_t *block, size_t panel_bytes, uint32_t part, const float *x,
                       size_t ldx, uint32_t n_rows, uint32_t n_halves)
{
    const uint32_t n_words = 4 / quant_parts(type);
    v16 w[2 * FEW_PANELS];
    v16i low[2 * FEW_PANELS], high[2 * FEW_PANELS];

    if (panel_high_bits(type) > 0) {
        foreach (h, n_halves)
            high[h] = words_at(block + panel_high_off(type) + 128 * part, panel_bytes, h);
    }
    for (uint32_t i = n_words * part; i < n_words * (part + 1); i++) {
        foreach (h, n_halves)
            low[h] = words_at(block + panel_low_off(type) + 128 * i, panel_bytes, h);
        foreach (j, 8) {
            foreach (h, n_halves)
                w[h] = quant_next(type, &low[h], &high[h], s->d[h], s->m[h]);
            few_step(a, w, x + 8 * i + j, ldx, n_rows, n_halves);
        }
    }
}

V_INLINE void few_quant(enum weight_type type, struct few_acc *a, const uint8_t *p,
                        size_t panel_bytes, uint32_t k, const float *x, size_t ldx, uint32_t n_rows,
                        uint32_t n_halves)
{
    const uint8_t *super = p;
    struct few_scales s;

    for (uint32_t b = 0; b < k; b += WEIGHT_BLOCK, p += panel_block_bytes(type)) {
        if (panel_super_bytes(type) > 0 && b % WEIGHT_SUPER_BLOCK == 0) {
            super = p;
            p += panel_super_bytes(type);
        }
        few_prefetch(p, panel_bytes, panel_block_bytes(type), n_halves);
        for (uint32_t part = 0; part < quant_parts(type); part++) {
            foreach (h, n_halves)
                quant_scales(type, super, p, panel_bytes, part, h, &s.d[h], &s.m[h]);
            few_part(type, a, &s, p, panel_bytes, part, x + b, ldx, n_rows, n_halves);
        }
    }
}

#define FEW_QUANT(type)                                                                            \
    case type:                                                                                     \
        few_quant(type, &a, p, panel_bytes, k, x, ldx, n_rows, n_halves);                          \
        break;

FEW_ONCE void few_block(enum weight_type type, const uint8_t *p, size_t panel_bytes, uint32_t k,
                        const float *x, size_t ldx, float *y, size_t ldy, uint32_t n_rows,
                        uint32_t n_halves)
{
    struct few_acc a;

    few_load(&a, y, ldy, n_rows, n_halves);
    switch (type) {
    case WEIGHT_F32:
        few_f32(&a, p, panel_bytes, k, x, ldx, n_rows, n_halves);
        break;
    case WEIGHT_F16:
        few_f16(&a, p, panel_bytes, k, x, ldx, n_rows, n_halves);
        break;
    case WEIGHT_BF16:
        few_bf16(&a, p, panel_bytes, k, x, ldx, n_rows, n_halves);
        break;
    case WEIGHT_Q8_0:
        few_q8_0(&a, p, panel_bytes, k, x, ldx, n_rows, n_halves);
        break;
        FEW_QUANT(WEIGHT_Q4_0)
        FEW_QUANT(WEIGHT_Q4_1)
        FEW_QUANT(WEIGHT_Q5_0)
        FEW_QUANT(WEIGHT_Q5_1)
        FEW_QUANT(WEIGHT_Q4_K)
        FEW_QUANT(WEIGHT_Q5_K)
        FEW_QUANT(WEIGHT_Q6_K)
    case WEIGHT_TYPES:
        break;
    }
    few_store(&a, y, ldy, n_rows, n_halves);
}

/* A function per type and number of rows: each is compiled with constant bounds, and with
 * accumulators of its own.  (With all types in one function GCC keeps them in memory: AVX2, two rows
 * of f32 at 40 instead of 92 GFLOP/s, one of Q4_1 at 26 instead of 30.) */
typedef void few_fn(const uint8_t *p, size_t panel_bytes, uint32_t k, const float *x, size_t ldx,
                    float *y, size_t ldy);

#define FEW_N(type, n)                                                                             \
    static void few_##type##_##n(const uint8_t *p, size_t panel_bytes, uint32_t k, const float *x, \
                                 size_t ldx, float *y, size_t ldy)                                 \
    {                                                                                              \
        few_block(type, p, panel_bytes, k, x, ldx, y, ldy, n, 2);                                  \
    }
#if ROWS_FEW == 8
#define FEW_EACH(X, type)                                                                          \
    X(type, 1) X(type, 2) X(type, 3) X(type, 4) X(type, 5) X(type, 6) X(type, 7) X(type, 8)
#else
#define FEW_EACH(X, type) X(type, 1) X(type, 2) X(type, 3)
#endif
#define FEW_TYPE(type)                                                                             \
    FEW_EACH(FEW_N, type)                                                                          \
    static void few_##type##_paired(const uint8_t *p, size_t panel_bytes, uint32_t k,              \
                                    const float *x, size_t ldx, float *y, size_t ldy)              \
    {                                                                                              \
        (void)ldx;                                                                                 \
        (void)ldy;                                                                                 \
        few_block(type, p, panel_bytes, k, x, 0, y, 0, 1, 2 * FEW_PANELS);                         \
    }
#define FEW_TYPES(X)                                                                               \
    X(WEIGHT_F32)                                                                                  \
    X(WEIGHT_F16)                                                                                  \
    X(WEIGHT_BF16)                                                                                 \
    X(WEIGHT_Q8_0)                                                                                 \
    X(WEIGHT_Q4_0)                                                                                 \
    X(WEIGHT_Q4_1)                                                                                 \
    X(WEIGHT_Q5_0) X(WEIGHT_Q5_1) X(WEIGHT_Q4_K) X(WEIGHT_Q5_K) X(WEIGHT_Q6_K)
FEW_TYPES(FEW_TYPE)

#define FEW_ENTRY(type, n) few_##type##_##n,
#define FEW_ROW(type)      [type] = {FEW_EACH(FEW_ENTRY, type)},
#define FEW_PAIR(type)     [type] = few_##type##_paired,

static few_fn *const few_table[WEIGHT_TYPES][ROWS_FEW] = {FEW_TYPES(FEW_ROW)};
static few_fn *const few_pairs[WEIGHT_TYPES] = {FEW_TYPES(FEW_PAIR)};

static void dense_few(enum weight_type type, const uint8_t *panels, size_t panel_bytes,
                      uint32_t n_panels, uint32_t k, const float *x, size_t ldx, uint32_t n_rows,
                      float *y, size_t ldy)
{
    uint32_t i = 0;

    if (n_rows == 1)
        for (; i + FEW_PANELS <= n_panels; i += FEW_PANELS)
            few_pairs[type](panels + i * panel_bytes, panel_bytes, k, x, 0, y + 32 * i, 0);
    for (; i < n_panels; i++)
        few_table[type][n_rows - 1](panels + i * panel_bytes, panel_bytes, k, x, ldx, y + 32 * i,
                                    ldy);
}

V_INLINE void expand_q8_0(const uint8_t *p, float *w)
{
    v16 d[2] = {scales_at(p, 0, 0), scales_at(p, 0, 1)};

    for (uint32_t i = 0; i < 32; i++)
        for (uint32_t h = 0; h < 2; h++)
            v_store(w + 32 * i + 16 * h,
                    v_mul(d[h], v_load_i8((const int8_t *)p + 64 + 32 * i + 16 * h)));
}

/* One block of 32 k. */
FEW_ONCE void expand_block(enum weight_type type, const uint8_t *super, const uint8_t *p, float *w)
{
    const uint32_t n_words = 4 / quant_parts(type);

    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t part = 0; part < quant_parts(type); part++) {
            v16 d, m;
            v16i low, high = words_at(p + panel_high_off(type) + 128 * part, 0, h);

            quant_scales(type, super, p, 0, part, h, &d, &m);
            for (uint32_t i = n_words * part; i < n_words * (part + 1); i++) {
                low = words_at(p + panel_low_off(type) + 128 * i, 0, h);
                for (uint32_t j = 0; j < 8; j++)
                    v_store(w + 32 * (8 * i + j) + 16 * h, quant_next(type, &low, &high, d, m));
            }
        }
}

/* k0 is a multiple of 256, so the panel's super-blocks (if any) begin there. */
V_INLINE void expand_quant(enum weight_type type, const uint8_t *panel, uint32_t k0, uint32_t n,
                           float *w)
{
    const uint8_t *p = panel + k0 / WEIGHT_BLOCK * panel_block_bytes(type) +
                       k0 / WEIGHT_SUPER_BLOCK * panel_super_bytes(type);
    const uint8_t *super = p;

    p += panel_super_bytes(type);
    for (uint32_t b = 0; b < n; b += WEIGHT_BLOCK, p += panel_block_bytes(type)) {
        if (panel_super_bytes(type) > 0 && b > 0 && b % WEIGHT_SUPER_BLOCK == 0) {
            super = p;
            p += panel_super_bytes(type);
        }
        expand_block(type, super, p, w + (size_t)b * 32);
    }
}

#define EXPAND_QUANT(type)                                                                         \
    case type:                                                                                     \
        expand_quant(type, panel, k0, n, w);                                                       \
        break;

static void dense_expand(enum weight_type type, const uint8_t *panel, uint32_t k0, uint32_t n,
                         float *w)
{
    const uint16_t *half = (const uint16_t *)(const void *)panel + 32 * (size_t)k0;

    switch (type) {
    case WEIGHT_F16:
        for (uint32_t i = 0; i < 2 * n; i++)
            v_store(w + 16 * i, v_load_f16(half + 16 * i));
        break;
    case WEIGHT_BF16:
        for (uint32_t i = 0; i < 2 * n; i++)
            v_store(w + 16 * i, v_load_bf16(half + 16 * i));
        break;
    case WEIGHT_Q8_0:
        for (uint32_t b = 0; b < n / 32; b++)
            expand_q8_0(panel + (k0 / 32 + b) * (size_t)PANEL_Q8_BYTES, w + 1024 * b);
        break;
        EXPAND_QUANT(WEIGHT_Q4_0)
        EXPAND_QUANT(WEIGHT_Q4_1)
        EXPAND_QUANT(WEIGHT_Q5_0)
        EXPAND_QUANT(WEIGHT_Q5_1)
        EXPAND_QUANT(WEIGHT_Q4_K)
        EXPAND_QUANT(WEIGHT_Q5_K)
        EXPAND_QUANT(WEIGHT_Q6_K)
    case WEIGHT_F32: /* lies there as it is needed */
    case WEIGHT_TYPES:
        break;
    }
}

V_INLINE void tile_block(const float *w, size_t ldw, uint32_t n, const float *x, size_t ldx,
                         float *y, size_t ldy, uint32_t n_rows)
{
    v16 acc[ROWS_TILE][2];

    foreach (r, n_rows) {
        acc[r][0] = v_load(y + r * ldy);
        acc[r][1] = v_load(y + r * ldy + 16);
    }
    for (uint32_t k = 0; k < n; k++, w += ldw) {
        v16 w0 = v_load(w), w1 = v_load(w + 16);

        foreach (r, n_rows) {
            v16 xr = v_set1(x[r * ldx + k]);

            acc[r][0] = v_fma(xr, w0, acc[r][0]);
            acc[r][1] = v_fma(xr, w1, acc[r][1]);
        }
    }
    foreach (r, n_rows) {
        v_store(y + r * ldy, acc[r][0]);
        v_store(y + r * ldy + 16, acc[r][1]);
    }
}

#define TILE_ROWS(rows)                                                                            \
    static void tile_##rows(const float *w, size_t ldw, uint32_t n, const float *x, size_t ldx,    \
                            float *y, size_t ldy)                                                  \
    {                                                                                              \
        tile_block(w, ldw, n, x, ldx, y, ldy, rows);                                               \
    }
TILE_ROWS(1)
TILE_ROWS(2)
TILE_ROWS(3)
#if ROWS_TILE > 3
TILE_ROWS(4)
TILE_ROWS(5)
TILE_ROWS(6)
TILE_ROWS(7)
TILE_ROWS(8)
TILE_ROWS(9)
TILE_ROWS(10)
TILE_ROWS(11)
TILE_ROWS(12)
#endif

typedef void tile_fn(const float *w, size_t ldw, uint32_t n, const float *x, size_t ldx, float *y,
                     size_t ldy);

static tile_fn *const tile_table[ROWS_TILE] = {
    tile_1, tile_2, tile_3,
#if ROWS_TILE > 3
    tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
#endif
};

static void dense_tile(uint32_t n_rows, const float *w, size_t ldw, uint32_t n, const float *x,
                       size_t ldx, float *y, size_t ldy)
{
    tile_table[n_rows - 1](w, ldw, n, x, ldx, y, ldy);
}

#endif
