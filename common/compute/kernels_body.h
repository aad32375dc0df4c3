/* kernels_body.h - all kernel bodies and the table that names them; the last include of each
 * kernels_<isa>.c, after its v16 header and its register-tile constants. */
#ifndef OMNI_COMMON_COMPUTE_KERNELS_BODY_H
#define OMNI_COMMON_COMPUTE_KERNELS_BODY_H

#include "common/compute/dense_body.h"
#include "common/compute/ops_body.h"

#include "common/compute/attention_body.h" /* uses the exponential of ops_body.h */

#define KERNELS_TABLE                                                                              \
    {                                                                                              \
        .rows_few = ROWS_FEW, .rows_tile = ROWS_TILE, .few = dense_few, .expand = dense_expand,    \
        .tile = dense_tile, .kv_load = attn_kv_load, .kv_store_f16 = attn_kv_store_f16,            \
        .scores = attn_scores, .softmax_step = attn_softmax_step, .blend = attn_blend,             \
        .exp1 = ops_exp1, .rmsnorm = ops_body_rmsnorm, .add = ops_body_add,                        \
        .silu_mul = ops_body_silu_mul, .softmax = ops_body_softmax, .divide = ops_body_divide,     \
    }

#endif
