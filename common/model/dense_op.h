/* dense_op.h - what a layer does with its weights, as a list of operations with costs.
 *
 * A layer's dense part is two lists, `pre` (up to q, k, v) and `post` (from the attention output to
 * the next layer's input), and the model has a third, `head`.  A device walks a list and switches
 * on the kind; a scheduler sums the costs.  So a layer with routed experts, or one without rotary
 * embedding, differs in its list and nowhere else.
 *
 * The operations work on named row buffers, one row per token, all fp32 (widths in brackets):
 *     x [n_embd]        the residual stream: layer input and output
 *     n [n_embd]        the normalised row
 *     q [n_heads * k_width]   k [n_kv_heads * k_width]   v [n_kv_heads * v_width]
 *     a [n_heads * v_width]   the attention output
 * Pure data and pure functions; owned by struct model; any thread. */
#ifndef OMNI_COMMON_MODEL_DENSE_OP_H
#define OMNI_COMMON_MODEL_DENSE_OP_H

#include "common/model/weight.h"

struct attention_desc;
struct mlp_desc;

enum dense_op_kind {
    DENSE_NORM,      /* n = x / sqrt(mean(x^2) + eps) * w[0] */
    DENSE_QKV,       /* q = w[0] n, k = w[1] n, v = w[2] n */
    DENSE_BIAS,      /* q += w[0], k += w[1], v += w[2] */
    DENSE_HEAD_NORM, /* the norm of each head of q with w[0], of k with w[1] (k_width values) */
    DENSE_ROPE,      /* rotates q and k by the row's position (attn->rope) */
    DENSE_PROJECT,   /* x += w[0] a */
    DENSE_GATED,     /* x += w[2] (silu(w[0] n) * (w[1] n)): gate, up, down */
    DENSE_EXPERTS,   /* w[3] n gives a score per expert; x += sum over the n_used best of
                      weight_e * gated MLP of slice e of w[0..2] (mlp->order says how weight_e is
                      made) */
    DENSE_LOGITS,    /* logits = w[0] n */
    DENSE_OP_KINDS
};

#define DENSE_OP_WEIGHTS 4

struct dense_op {
    enum dense_op_kind kind;
    float eps;                                     /* DENSE_NORM, DENSE_HEAD_NORM */
    const struct weight_view *w[DENSE_OP_WEIGHTS]; /* unused ones are NULL */
    const struct attention_desc *attn;             /* DENSE_QKV to DENSE_PROJECT */
    const struct mlp_desc *mlp;                    /* DENSE_GATED, DENSE_EXPERTS */
};

struct dense_cost {
    double flops; /* multiply and add count as two */
    double bytes; /* weights once per call, activations in and out once per row (fp32) */
};

/* "norm", "qkv", ... */
const char *dense_op_name(enum dense_op_kind kind);

/* Cost of op over n_rows rows at once.  Experts: the weights of the expected number of experts
 * touched if every row picks n_used of n_experts uniformly: E * (1 - (1 - n_used/E)^n_rows). */
struct dense_cost dense_op_cost(const struct dense_op *op, uint64_t n_rows);

/* The same with the number of experts touched given (ignored by other kinds). */
struct dense_cost dense_op_cost_touched(const struct dense_op *op, uint64_t n_rows, double touched);

/* Sum over a list. */
struct dense_cost dense_list_cost(const struct dense_op *ops, uint32_t n_ops, uint64_t n_rows);

#endif
