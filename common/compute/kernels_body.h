/* kernels_body.h - all kernel bodies and the table that names them; the last include of each
 * kernels_<isa>.c, after its v16 header and its register-tile constants. */
#ifndef OMNI_COMMON_COMPUTE_KERNELS_BODY_H
#define OMNI_COMMON_COMPUTE_KERNELS_BODY_H

#include "common/compute/dense_body.h"
#include "common/compute/ops_body.h"

#include "common/compute/attention_body.h" /* uses the exponential of ops_body.h */

#define ATTN_ENTRY(suffix, query)                                                                  \
    {                                                                                              \
        .load_q = query, .scores = attn_scores_##suffix, .softmax = attn_softmax,                  \
        .values = attn_values_##suffix,                                                            \
    }
#define ATTN_ROUNDED(suffix, rounding)                                                             \
    {                                                                                              \
        .load_q = attn_q_##rounding, .scores = attn_scores_##suffix,                               \
        .softmax = attn_softmax_##rounding, .values = attn_values_##suffix,                        \
    }
#if defined ATTN_TILES
#define ATTN_BF16                                                                                  \
    {                                                                                              \
        .load_q = attn_q_tiles, .scores = attn_scores_tiles, .softmax = attn_softmax_bf16,         \
        .values = attn_values_tiles,                                                               \
    }
#define ATTN_END attn_tiles_end
#elif defined ATTN_DOT_BF16
#define ATTN_BF16 ATTN_ROUNDED(bf16, bf16)
#else
#define ATTN_BF16 ATTN_ENTRY(bf16, attn_q_float)
#endif
#ifdef ATTN_HALF
#define ATTN_F16 ATTN_ROUNDED(f16, half)
#else
#define ATTN_F16 ATTN_ENTRY(f16, attn_q_float)
#endif
#ifndef ATTN_END
#define ATTN_END NULL
#endif

#define KERNELS_TABLE                                                                              \
    {                                                                                              \
        .rows_few = ROWS_FEW, .rows_tile = ROWS_TILE, .few = dense_few, .expand = dense_expand,    \
        .tile = dense_tile, .kv_store_f16 = attn_kv_store_f16, .attn_group = ATTN_GROUP,           \
        .attn = {[KV_TYPE_F16] = ATTN_F16,                                                         \
                 [KV_TYPE_BF16] = ATTN_BF16,                                                       \
                 [KV_TYPE_F32] = ATTN_ENTRY(f32, attn_q_float),                                    \
                 [KV_TYPE_I8] = ATTN_ENTRY(i8, attn_q_int)},                                       \
        .attn_softcap = attn_softcap, .attn_sum = attn_sum, .attn_blend = attn_blend,              \
        .attn_exp2_1 = attn_exp2_1, .attn_exp2 = attn_exp2, .rmsnorm = ops_body_rmsnorm,           \
        .add = ops_body_add, .silu_mul = ops_body_silu_mul, .softmax = ops_body_softmax,           \
        .divide = ops_body_divide, .attn_end = ATTN_END,                                           \
    }

#endif
