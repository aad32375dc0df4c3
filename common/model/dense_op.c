#include "common/model/dense_op.h"

#include "common/base/invariant.h"
#include "common/model/model.h"

#include <math.h>

#define F32_BYTES 4.0

const char *dense_op_name(enum dense_op_kind kind)
{
    static const char *const names[DENSE_OP_KINDS] = {
        [DENSE_NORM] = "norm",           [DENSE_QKV] = "qkv",         [DENSE_BIAS] = "bias",
        [DENSE_HEAD_NORM] = "head norm", [DENSE_ROPE] = "rope",       [DENSE_PROJECT] = "project",
        [DENSE_GATED] = "gated",         [DENSE_EXPERTS] = "experts", [DENSE_LOGITS] = "logits",
    };

    invariant((unsigned)kind < DENSE_OP_KINDS);
    return names[kind];
}

static struct dense_cost cost(double flops, double weight_bytes_read, double values, double rows)
{
    return (struct dense_cost){.flops = flops * rows,
                               .bytes = weight_bytes_read + values * F32_BYTES * rows};
}

static double flops_of(const struct weight_view *w)
{
    return 2.0 * (double)w->n_rows * (double)w->n_cols;
}

static struct dense_cost cost_norm(const struct dense_op *op, double rows)
{
    const double n = (double)op->w[0]->n_cols;

    return cost(4 * n, (double)weight_bytes(op->w[0]), 2 * n, rows);
}

static struct dense_cost cost_qkv(const struct dense_op *op, double rows)
{
    double flops = 0, bytes = 0, values = (double)op->w[0]->n_cols;

    for (int i = 0; i < 3; i++) {
        flops += flops_of(op->w[i]);
        bytes += (double)weight_bytes(op->w[i]);
        values += (double)op->w[i]->n_rows;
    }
    return cost(flops, bytes, values, rows);
}

static struct dense_cost cost_bias(const struct dense_op *op, double rows)
{
    double values = 0, bytes = 0;

    for (int i = 0; i < 3; i++) {
        values += (double)op->w[i]->n_cols;
        bytes += (double)weight_bytes(op->w[i]);
    }
    return cost(values, bytes, 2 * values, rows);
}

static struct dense_cost cost_head_norm(const struct dense_op *op, double rows)
{
    const double values = (double)(op->attn->n_heads + op->attn->n_kv_heads) * op->attn->k_width;

    return cost(4 * values, (double)(weight_bytes(op->w[0]) + weight_bytes(op->w[1])), 2 * values,
                rows);
}

/* A pair costs four multiplications and two additions: three per value. */
static struct dense_cost cost_rope(const struct dense_op *op, double rows)
{
    const struct attention_desc *a = op->attn;
    const double values = (double)(a->n_heads + a->n_kv_heads) * a->rope.n_dims;

    return cost(3 * values, 0, 2 * values, rows);
}

/* The residual is read and written. */
static struct dense_cost cost_project(const struct dense_op *op, double rows)
{
    const double out = (double)op->w[0]->n_rows, in = (double)op->w[0]->n_cols;

    return cost(flops_of(op->w[0]) + out, (double)weight_bytes(op->w[0]), in + 2 * out, rows);
}

/* Per row, without the weights: gate, up and down of one gated MLP; silu and product count as six.
 */
static double gated_flops(const struct dense_op *op)
{
    const double n_ff = (double)op->w[0]->n_rows;

    return flops_of(op->w[0]) + flops_of(op->w[1]) + flops_of(op->w[2]) + 6 * n_ff;
}

static double gated_values(const struct dense_op *op)
{
    return 3 * (double)op->w[0]->n_cols + 3 * (double)op->w[0]->n_rows;
}

static double gated_weight_bytes(const struct dense_op *op)
{
    return (double)(op->w[0]->slice_bytes + op->w[1]->slice_bytes + op->w[2]->slice_bytes);
}

static struct dense_cost cost_gated(const struct dense_op *op, double rows)
{
    return cost(gated_flops(op), gated_weight_bytes(op), gated_values(op), rows);
}

static struct dense_cost cost_experts(const struct dense_op *op, double rows, double touched)
{
    const double used = op->mlp->n_used, n_experts = op->mlp->n_experts;
    const double router = flops_of(op->w[3]) + 4 * n_experts;

    return cost(router + used * gated_flops(op),
                (double)weight_bytes(op->w[3]) + touched * gated_weight_bytes(op),
                n_experts + used * gated_values(op), rows);
}

static struct dense_cost cost_logits(const struct dense_op *op, double rows)
{
    const double values = (double)(op->w[0]->n_rows + op->w[0]->n_cols);

    return cost(flops_of(op->w[0]), (double)weight_bytes(op->w[0]), values, rows);
}

struct dense_cost dense_op_cost_touched(const struct dense_op *op, uint64_t n_rows, double touched)
{
    const double rows = (double)n_rows;

    invariant((unsigned)op->kind < DENSE_OP_KINDS);
    if (n_rows == 0)
        return (struct dense_cost){0};
    switch (op->kind) {
    case DENSE_NORM:
        return cost_norm(op, rows);
    case DENSE_QKV:
        return cost_qkv(op, rows);
    case DENSE_BIAS:
        return cost_bias(op, rows);
    case DENSE_HEAD_NORM:
        return cost_head_norm(op, rows);
    case DENSE_ROPE:
        return cost_rope(op, rows);
    case DENSE_PROJECT:
        return cost_project(op, rows);
    case DENSE_GATED:
        return cost_gated(op, rows);
    case DENSE_EXPERTS:
        return cost_experts(op, rows, touched);
    case DENSE_LOGITS:
        return cost_logits(op, rows);
    case DENSE_OP_KINDS:
        break;
    }
    return (struct dense_cost){0};
}

struct dense_cost dense_op_cost(const struct dense_op *op, uint64_t n_rows)
{
    double touched = 0;

    if (op->kind == DENSE_EXPERTS) {
        const double n_experts = op->mlp->n_experts;

        touched = n_experts * (1 - pow(1 - op->mlp->n_used / n_experts, (double)n_rows));
    }
    return dense_op_cost_touched(op, n_rows, touched);
}

struct dense_cost dense_list_cost(const struct dense_op *ops, uint32_t n_ops, uint64_t n_rows)
{
    struct dense_cost sum = {0};

    for (uint32_t i = 0; i < n_ops; i++) {
        const struct dense_cost c = dense_op_cost(&ops[i], n_rows);

        sum.flops += c.flops;
        sum.bytes += c.bytes;
    }
    return sum;
}
