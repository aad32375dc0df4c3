/* kernels_attention.h - the part of the table of kernels that is attention's: what a call is given,
 * and what it does, for one type of KV.  Included by kernels.h. */
#ifndef OMNI_COMMON_COMPUTE_KERNELS_ATTENTION_H
#define OMNI_COMMON_COMPUTE_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/kv/geometry.h"

enum { ATTN_TILE = 64, ATTN_PANELS = ATTN_TILE / KV_PANEL_TOKENS };

/* One KV head's tokens t0..t0+n-1: where each panel of 32 lies.  Ahead: the two halves of what
 * comes next, for which the kernels ask line by line (whatever follows is asked for where they are
 * not contiguous or shorter; a request for an address that is not there does nothing). */
struct attn_tile {
    const uint8_t *k[ATTN_PANELS], *v[ATTN_PANELS];
    const uint8_t *ahead[2];
    const float *k_scale[ATTN_PANELS], *v_scale[ATTN_PANELS]; /* KV_TYPE_I8 */
    const float *q_scale; /* what load_q returned for the rows of the call; KV_TYPE_I8 */
    uint32_t n;           /* 1..ATTN_TILE */
    uint32_t v_stride;    /* bytes a token's values take */
};

/* What weighted values are added to: o[r][0..dv) := o * alpha[r] + sum of s[r][t] * V[t]. */
struct attn_out {
    const float *s; /* weights, rows ATTN_TILE apart */
    const float *alpha;
    float *o; /* rows ldo apart, dv rounded up to 16 of each */
    size_t ldo;
    uint32_t dv;
};

/* Attention over KV of one type, for up to attn_group rows; ask: request the tile ahead. */
struct attn_type {
    /* A query times factor as one of n_rows rows of dst, element-major: [d][n_rows], or what scores
     * wants instead.  *scale: for tile->q_scale. */
    void (*load_q)(const float *q, uint32_t d, float factor, uint32_t n_rows, uint32_t row,
                   float *dst, float *scale);
    /* s[r][t] := q[r] . K[t] for t < n, scales included (up to 31 more are written, of any bits).
     */
    void (*scores)(const struct attn_tile *tile, uint32_t n_rows, bool ask, const float *q,
                   uint32_t d, float *s);
    /* Online softmax to base 2 of one row: s[0..n) (n a multiple of 16; masked: -infinity) become
     * weights relative to the new maximum *m; l[16] := l * alpha + the weights, lane by lane.
     * Returns alpha: what everything before is to be multiplied by. */
    float (*softmax)(float *s, uint32_t n, float *m, float *l);
    /* out := ... over the tile's first n tokens; those behind are not read into any result. */
    void (*values)(const struct attn_tile *tile, uint32_t n_rows, bool ask,
                   const struct attn_out *out, uint32_t n);
};

#endif
