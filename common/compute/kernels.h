/* kernels.h - the table of kernels of one instruction set; internal to common/compute.
 *
 * kernels_<isa>.c instantiate the bodies (dense_body.h, attention_body.h, ops_body.h) over the 16
 * virtual lanes of v16_<isa>.h.  A kernel works on one small piece that fits the first cache; how a
 * whole product or a whole context is cut into pieces is decided in dense.c and attention.c, which
 * are the same for all instruction sets. */
#ifndef OMNI_COMMON_COMPUTE_KERNELS_H
#define OMNI_COMMON_COMPUTE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compute/isa.h"
#include "common/compute/kernels_attention.h"
#include "common/model/weight.h"

/* A panel of DENSE_PANEL (32) outputs, as packed by dense_pack.c, along k:
 *   F32, F16, BF16  [k][32] values
 *   Q8_0            per 32 k: f16 d[32], int8 q[32 k][32]
 *   the others      per 256 k of a K type, once:  Q4_K, Q5_K f16 d[32], f16 dmin[32]; Q6_K f16 d[32]
 *                   then per 32 k, a block:
 *       scales  Q4_0, Q5_0 f16 d[32]; Q4_1, Q5_1 f16 d[32], f16 m[32];
 *               Q4_K, Q5_K int8 scale[32], int8 -minus[32]; Q6_K int8 scale[2][32], per 16 k
 *       high    fifth bits (Q5_*): uint32[32], bit i = k i; fifth and sixth (Q6_K): uint32[2][32],
 *               bits 2i, 2i + 1 of the j-th = k 16j + i
 *       low     uint32[4][32], nibble i of the s-th = k 8s + i
 * so every type takes the bits it has in the file, but that the K types' scales are bytes. */
enum { PANEL_Q8_BYTES = 64 + 32 * 32 };

/* High bits of a value beside its nibble; constant once inlined. */
static inline __attribute__((always_inline)) uint32_t panel_high_bits(enum weight_type type)
{
    return type == WEIGHT_Q6_K                                                 ? 2
           : type == WEIGHT_Q5_0 || type == WEIGHT_Q5_1 || type == WEIGHT_Q5_K ? 1
                                                                               : 0;
}

/* Where a block's high bits, its nibbles, and the next block begin. */
static inline __attribute__((always_inline)) size_t panel_high_off(enum weight_type type)
{
    return type == WEIGHT_Q4_1 || type == WEIGHT_Q5_1 ? 128 : 64;
}

static inline __attribute__((always_inline)) size_t panel_low_off(enum weight_type type)
{
    return panel_high_off(type) + 128 * (size_t)panel_high_bits(type);
}

static inline __attribute__((always_inline)) size_t panel_block_bytes(enum weight_type type)
{
    return panel_low_off(type) + 512;
}

/* What stands before the blocks of 256 k: 0 if the type has no super-blocks. */
static inline __attribute__((always_inline)) size_t panel_super_bytes(enum weight_type type)
{
    return type == WEIGHT_Q6_K ? 64 : type == WEIGHT_Q4_K || type == WEIGHT_Q5_K ? 128 : 0;
}

/* Asks for a line.  Assembler, because GCC 12 takes a function of prefetch builtins for one without
 * effect, and drops the call. */
static inline void prefetch_line(const uint8_t *p)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetcht0 %0" : : "m"(*p));
#else
    __builtin_prefetch(p);
#endif
}

struct kernels {
    uint32_t rows_few;  /* most rows of few() */
    uint32_t rows_tile; /* most rows of tile() */

    /* y[r][32g..32g+31] += x[r][0..k) * panel g, weights expanded in registers: what few rows want,
     * bound by reading the panels.  Panels lie panel_bytes apart. */
    void (*few)(enum weight_type type, const uint8_t *panels, size_t panel_bytes, uint32_t n_panels,
                uint32_t k, const float *x, size_t ldx, uint32_t n_rows, float *y, size_t ldy);
    /* w[0..n)[32] := the panel's values at k0..k0+n-1.  Quantised types: k0 is a multiple of 256, n
     * of 32.  The same values that few() computes with. */
    void (*expand)(enum weight_type type, const uint8_t *panel, uint32_t k0, uint32_t n, float *w);
    /* y[r][0..31] += x[r][0..n) * w[0..n)[0..31]: many rows over expanded weights. */
    void (*tile)(uint32_t n_rows, const float *w, size_t ldw, uint32_t n, const float *x,
                 size_t ldx, float *y, size_t ldy);

    /* dst[0..n) := x rounded to f16. */
    void (*kv_store_f16)(uint16_t *dst, const float *x, uint32_t n);

    uint32_t attn_group;                   /* most rows of attn_type's kernels */
    struct attn_type attn[KV_TYPE_I8 + 1]; /* by enum kv_type */
    /* Gives back what a thread holds of the processor between kernels; NULL: nothing. */
    void (*attn_end)(void);
    /* s := factor * cap * tanh(s / cap); n a multiple of 16. */
    void (*attn_softcap)(float *s, uint32_t n, float cap, float factor);
    float (*attn_sum)(const float *l); /* of 16 partial sums */
    /* o[0..n) := o * a + p * b; n is a multiple of 16. */
    void (*attn_blend)(float *o, float a, const float *p, float b, uint32_t n);
    float (*attn_exp2_1)(float x);
    void (*attn_exp2)(float *x, uint32_t n); /* in place; n a multiple of 16 */

    void (*rmsnorm)(float *y, const float *x, const float *weight, uint32_t n, float eps);
    void (*add)(float *y, const float *x, uint32_t n);
    void (*silu_mul)(float *y, const float *gate, const float *up, uint32_t n);
    void (*softmax)(float *x, uint32_t n);
    void (*divide)(float *y, const float *x, float by, uint32_t n);
};

extern const struct kernels kernels_ref;
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;
extern const struct kernels kernels_avx512bf16;
extern const struct kernels kernels_avx512fp16;
extern const struct kernels kernels_amx;

static inline const struct kernels *kernels_of(enum isa isa)
{
    static const struct kernels *const tables[ISA_COUNT] = {[ISA_REF] = &kernels_ref,
                                                            [ISA_AVX2] = &kernels_avx2,
                                                            [ISA_AVX512] = &kernels_avx512,
                                                            [ISA_AVX512BF16] = &kernels_avx512bf16,
                                                            [ISA_AVX512FP16] = &kernels_avx512fp16,
                                                            [ISA_AMX] = &kernels_amx};

    return tables[isa];
}

#endif
