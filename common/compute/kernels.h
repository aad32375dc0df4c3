/* kernels.h - the table of kernels of one instruction set; internal to common/compute.
 *
 * kernels_<isa>.c instantiate the bodies (dense_body.h, attention_body.h, ops_body.h) over the 16
 * virtual lanes of v16_<isa>.h.  A kernel works on one small piece that fits the first cache; how a
 * whole product or a whole context is cut into pieces is decided in dense.c and attention.c, which
 * are the same for all instruction sets. */
#ifndef OMNI_COMMON_COMPUTE_KERNELS_H
#define OMNI_COMMON_COMPUTE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "common/compute/isa.h"
#include "common/kv/geometry.h"
#include "common/model/weight.h"

/* A panel of DENSE_PANEL (32) outputs, as packed by dense_pack.c, along k:
 *   F32, F16  [k][32] values
 *   Q8_0      per 32 k: f16 d[32], int8 q[32 k][32]
 *   Q4_1      per 32 k: f16 d[32], f16 m[32], uint32 q[4][32], nibble i of q[s] = value of k 8s+i
 */
enum {
    PANEL_Q8_BYTES = 64 + 32 * 32,
    PANEL_Q4_BYTES = 64 + 64 + 32 * 16,
};

struct kernels {
    uint32_t rows_few;  /* most rows of few() */
    uint32_t rows_tile; /* most rows of tile() */

    /* y[r][32g..32g+31] += x[r][0..k) * panel g, weights expanded in registers: what few rows want,
     * bound by reading the panels.  Panels lie panel_bytes apart. */
    void (*few)(enum weight_type type, const uint8_t *panels, size_t panel_bytes, uint32_t n_panels,
                uint32_t k, const float *x, size_t ldx, uint32_t n_rows, float *y, size_t ldy);
    /* w[0..n)[32] := the panel's values at k0..k0+n-1; k0 and n are multiples of 32 for Q8_0, Q4_1.
     * The same values that few() computes with. */
    void (*expand)(enum weight_type type, const uint8_t *panel, uint32_t k0, uint32_t n, float *w);
    /* y[r][0..31] += x[r][0..n) * w[0..n)[0..31]: many rows over expanded weights, or softmax
     * weights over values. */
    void (*tile)(uint32_t n_rows, const float *w, size_t ldw, uint32_t n, const float *x,
                 size_t ldx, float *y, size_t ldy);

    /* dst[t][0..d) := n tokens' elements as floats; dst is zero-filled up to a multiple of 16.
     * scales: one per token (KV_TYPE_I8), else ignored. */
    void (*kv_load)(enum kv_type type, const uint8_t *src, size_t stride, const float *scales,
                    uint32_t n, uint32_t d, float *dst, size_t ld);
    /* dst[0..n) := x rounded to f16. */
    void (*kv_store_f16)(uint16_t *dst, const float *x, uint32_t n);
    /* s[r][t] := scale * (q[r] . k[t]) for t < n (up to 15 more are written); softcap 0 = none.
     * d is a multiple of 16, n <= 32, s rows are 32 apart. */
    void (*scores)(const float *q, size_t ldq, uint32_t n_rows, const float *k, size_t ldk,
                   uint32_t d, uint32_t n, float scale, float softcap, float *s);
    /* Online softmax of one row of a tile: s[0..31] (masked: -infinity) become weights relative to
     * the new maximum *m; *l := *l * alpha + their sum; returns alpha. */
    float (*softmax_step)(float *s, float *m, float *l);
    /* o[0..n) := o * a + p * b; p NULL: o * a.  n is a multiple of 16. */
    void (*blend)(float *o, float a, const float *p, float b, uint32_t n);
    float (*exp1)(float x);

    void (*rmsnorm)(float *y, const float *x, const float *weight, uint32_t n, float eps);
    void (*add)(float *y, const float *x, uint32_t n);
    void (*silu_mul)(float *y, const float *gate, const float *up, uint32_t n);
    void (*softmax)(float *x, uint32_t n);
    void (*divide)(float *y, const float *x, float by, uint32_t n);
};

extern const struct kernels kernels_ref;
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;

static inline const struct kernels *kernels_of(enum isa isa)
{
    static const struct kernels *const tables[ISA_COUNT] = {
        [ISA_REF] = &kernels_ref, [ISA_AVX2] = &kernels_avx2, [ISA_AVX512] = &kernels_avx512};

    return tables[isa];
}

#endif
