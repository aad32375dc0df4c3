/* attention_tiles_body.h - attention over bf16 KV by matrix tiles; included by attention_body.h
 * where ATTN_TILES is defined, after a header that defines T_* (tiles_amx.h).
 *
 * K lies as [dk / 2][32 tokens][2] and V as [tokens / 2][dv][2]: 16 rows of a pair's 16 columns are
 * a B tile as they lie.  A holds the queries, or the weights, of up to 12 rows.  Queries and weights
 * are rounded to bf16, as for dot products, but a tile adds its 32 elements before it adds them to
 * the rest, so the bits are its own.  One row of many is computed like one row alone.
 *
 * Tiles are for rows * columns that are whole: what lies behind a sequence's last token, or beside
 * a head's last column, is copied beside zeros first. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_TILES_BODY_H
#define OMNI_COMMON_COMPUTE_ATTENTION_TILES_BODY_H

enum {
    TILE_PAIRS = 16, /* rows of a B tile */
    TILE_ROW = 64,   /* bytes */
    /* Tiles: C of two column blocks; A and B of 16 pairs; A and B of the pairs left over. */
    TILE_C = 0,
    TILE_A = 2,
    TILE_B = 3,
    TILE_A_REST = 5,
    TILE_B_REST = 6,
    TILE_USED = 8
};

/* The thread's tiles as they are configured: rows of A and C, pairs of the rest; 0: not at all.
 * What the processor holds per thread can only be mirrored per thread. */
static _Thread_local uint32_t tiles_rows, tiles_rest;

static void tiles_shape(uint32_t n_rows, uint32_t rest)
{
    struct tile_config config = {.palette = 1};

    if (tiles_rows == n_rows && tiles_rest == rest)
        return;
    for (uint32_t t = 0; t < TILE_USED; t++) {
        bool is_rest = t >= TILE_A_REST, is_b = t == TILE_B || t == TILE_B + 1 || t >= TILE_B_REST;
        uint32_t pairs = is_rest ? (rest > 0 ? rest : 1) : TILE_PAIRS;

        config.rows[t] = (uint8_t)(is_b ? pairs : n_rows);
        config.row_bytes[t] = (uint16_t)(t == TILE_A || t == TILE_A_REST ? 4 * pairs : TILE_ROW);
    }
    tiles_configure(&config);
    tiles_rows = n_rows;
    tiles_rest = rest;
}

static void attn_tiles_end(void)
{
    if (tiles_rows == 0)
        return;
    tiles_release();
    tiles_rows = 0;
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* Bytes from a query to the next: whole A tiles. */
V_INLINE size_t tile_query_stride(uint32_t d)
{
    return (size_t)(d + 31) / 32 * TILE_ROW;
}

static void attn_q_tiles(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                         float *dst, float *scale)
{
    uint8_t *out = (uint8_t *)(void *)dst + row * tile_query_stride(d);

    (void)n_rows;
    for (uint32_t e = 0; e < (d + 31) / 32 * 32; e += 16) {
        uint32_t n = e >= d ? 0 : d - e < 16 ? d - e : 16;

        vb_store((uint16_t *)(void *)(out + 2 * (size_t)e),
                 v_mul(v_load_tail(q + e, n, 0.0f), v_set1(factor)));
    }
    *scale = 1.0f;
}

/* 32 tokens: two column blocks side by side, so that a query's tile is loaded once for both. */
static void score_panel_tiles(const uint8_t *k, const uint8_t *ahead, const float *q, uint32_t d,
                              float *s)
{
    const uint8_t *a = (const uint8_t *)(const void *)q;
    const size_t row = 2 * TILE_ROW; /* from pair to pair */
    uint32_t n_pairs = (d + 1) / 2, p = 0;

    T_ZERO(0);
    T_ZERO(1);
    for (; p + TILE_PAIRS <= n_pairs; p += TILE_PAIRS, k += TILE_PAIRS * row, a += TILE_ROW) {
        for (uint32_t i = 0; i < TILE_PAIRS * row; i += 64)
            fetch(ahead + p * row + i);
        T_LOAD(2, a, (int64_t)tile_query_stride(d));
        T_LOAD(3, k, row);
        T_LOAD(4, k + TILE_ROW, row);
        T_DOT(0, 2, 3);
        T_DOT(1, 2, 4);
    }
    if (p < n_pairs) {
        for (uint32_t i = 0; i < (n_pairs - p) * row; i += 64)
            fetch(ahead + p * row + i);
        T_LOAD(5, a, (int64_t)tile_query_stride(d));
        T_LOAD(6, k, row);
        T_LOAD(7, k + TILE_ROW, row);
        T_DOT(0, 5, 6);
        T_DOT(1, 5, 7);
    }
    T_STORE(0, s, ATTN_TILE * sizeof *s);
    T_STORE(1, s + 16, ATTN_TILE * sizeof *s);
}

static void attn_scores_tiles(const struct attn_tile *tile, uint32_t n_rows, bool ask,
                              const float *q, uint32_t d, float *s)
{
    const uint8_t *ahead = ask ? tile->ahead[0] : tile->k[0];
    const size_t panel = (size_t)((d + 1) / 2) * 2 * TILE_ROW;

    tiles_shape(n_rows, (d + 1) / 2 % TILE_PAIRS);
    for (uint32_t p = 0; 32 * p < tile->n; p++)
        score_panel_tiles(tile->k[p], ahead + panel * p, q, d, s + 32 * p);
}

/* ---- Values ---------------------------------------------------------------------------------- */

/* Weights [n_rows][ATTN_TILE] as bf16; 0 from n on. */
V_INLINE void tile_weights_bf16(const float *s, uint32_t n, uint32_t n_rows,
                                uint16_t (*w)[ATTN_TILE])
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t t = 0; t < ATTN_TILE; t += 16) {
            uint32_t left = t >= n ? 0 : n - t < 16 ? n - t : 16;

            vb_store(w[r] + t, v_load_tail(s + ATTN_TILE * r + t, left, 0.0f));
        }
    }
}

/* A panel's n tokens and n_columns columns, beside zeros, as a whole tile. */
static void tile_copy(uint8_t *dst, const uint8_t *src, size_t stride, uint32_t n,
                      uint32_t n_columns)
{
    memset(dst, 0, TILE_PAIRS * TILE_ROW);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t c = 0; c < n_columns; c++)
            memcpy(dst + t / 2 * TILE_ROW + 4 * c + t % 2 * 2,
                   src + t / 2 * stride + 4 * c + t % 2 * 2, 2);
}

/* Sixteen columns from c on of all rows over the tile's first n tokens. */
static void value_columns_tiles(const struct attn_tile *tile, const uint8_t *ahead,
                                const struct attn_out *out, uint16_t (*w)[ATTN_TILE], uint32_t c,
                                uint32_t n)
{
    const size_t stride = 2 * (size_t)tile->v_stride;
    uint32_t n_columns = out->dv - c < 16 ? out->dv - c : 16;
    _Alignas(64) uint8_t part[TILE_PAIRS * TILE_ROW];

    T_LOAD(0, out->o + c, (int64_t)(out->ldo * sizeof *out->o));
    for (uint32_t t = 0; t < n; t += 32) {
        const uint8_t *v = tile->v[t / 32] + 4 * (size_t)c;

        for (uint32_t i = 0; i < TILE_PAIRS; i++)
            fetch(ahead + ((size_t)c * n + t * 16U) * 2 + i * 64);
        if (n - t < 32 || n_columns < 16) {
            tile_copy(part, v, stride, n - t < 32 ? n - t : 32, n_columns);
            T_LOAD(3, part, TILE_ROW);
        } else {
            T_LOAD(3, v, (int64_t)stride);
        }
        T_LOAD(2, &w[0][t], sizeof w[0]);
        T_DOT(0, 2, 3);
    }
    T_STORE(0, out->o + c, (int64_t)(out->ldo * sizeof *out->o));
}

static void attn_values_tiles(const struct attn_tile *tile, uint32_t n_rows, bool ask,
                              const struct attn_out *out, uint32_t n)
{
    _Alignas(64) uint16_t w[ATTN_GROUP][ATTN_TILE];

    tiles_shape(n_rows, tiles_rows == n_rows ? tiles_rest : 0); /* A_REST and B_REST are not used */
    tile_weights_bf16(out->s, n, n_rows, w);
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t c = 0; c < out->dv; c += 16)
            v_store(out->o + r * out->ldo + c,
                    v_mul(v_load(out->o + r * out->ldo + c), v_set1(out->alpha[r])));
    for (uint32_t c = 0; c < out->dv; c += 16)
        value_columns_tiles(tile, ask ? tile->ahead[1] : tile->v[0], out, w, c, n);
}

#endif
