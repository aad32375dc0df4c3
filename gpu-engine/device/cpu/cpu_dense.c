#include "gpu-engine/device/cpu/cpu_dense.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "common/compute/ops.h"

/* What the row functions need; one per cpu_dense_run call. */
struct walk {
    const struct cpu_weights *w;
    struct team *team;
    struct cpu_buffers *b;
    const struct cpu_rows *rows;
    const struct cpu_op *op;
};

/* ---- Row loops: spread over the team when there are enough rows to pay for it ---------------- */

enum { ROWS_PER_GRAB = 4 };

typedef void row_fn(struct walk *k, uint32_t row);

struct row_loop {
    struct walk *walk;
    row_fn *fn;
    uint32_t n;
    _Atomic uint32_t next;
};

static void row_loop_thread(void *arg, uint32_t thread_idx)
{
    struct row_loop *loop = arg;
    uint32_t first;

    (void)thread_idx;
    while ((first = atomic_fetch_add_explicit(&loop->next, ROWS_PER_GRAB, memory_order_relaxed)) <
           loop->n) {
        uint32_t end = first + ROWS_PER_GRAB < loop->n ? first + ROWS_PER_GRAB : loop->n;
        for (uint32_t r = first; r < end; r++)
            loop->fn(loop->walk, r);
    }
}

static void for_rows(struct walk *k, row_fn *fn)
{
    struct row_loop loop = {.walk = k, .fn = fn, .n = k->rows->n};

    if (loop.n <= ROWS_PER_GRAB)
        row_loop_thread(&loop, 0);
    else
        team_run(k->team, row_loop_thread, &loop);
}

static float *row_of(float *buffer, uint32_t row, uint32_t width)
{
    return buffer + (size_t)row * width;
}

/* ---- The operations -------------------------------------------------------------------------- */

static void norm_row(struct walk *k, uint32_t r)
{
    ops_rmsnorm(k->w->isa, row_of(k->b->n, r, k->b->n_embd), k->rows->x[r], k->op->vector[0],
                k->b->n_embd, k->op->op->eps);
}

static void bias_row(struct walk *k, uint32_t r)
{
    const struct dense_op *op = k->op->op;

    ops_add(k->w->isa, row_of(k->b->q, r, k->b->q_width), k->op->vector[0],
            (uint32_t)op->w[0]->n_cols);
    ops_add(k->w->isa, row_of(k->b->k, r, k->b->k_width), k->op->vector[1],
            (uint32_t)op->w[1]->n_cols);
    ops_add(k->w->isa, row_of(k->b->v, r, k->b->v_width), k->op->vector[2],
            (uint32_t)op->w[2]->n_cols);
}

static void norm_heads(struct walk *k, float *x, uint32_t n_heads, const float *weight)
{
    const uint32_t width = k->op->op->attn->k_width;

    for (uint32_t h = 0; h < n_heads; h++, x += width)
        ops_rmsnorm(k->w->isa, x, x, weight, width, k->op->op->eps);
}

static void head_norm_row(struct walk *k, uint32_t r)
{
    const struct attention_desc *attn = k->op->op->attn;

    norm_heads(k, row_of(k->b->q, r, k->b->q_width), attn->n_heads, k->op->vector[0]);
    norm_heads(k, row_of(k->b->k, r, k->b->k_width), attn->n_kv_heads, k->op->vector[1]);
}

static void rope_row(struct walk *k, uint32_t r)
{
    cpu_rope_rotate(k->op->rope, k->rows->pos[r], k->op->op->attn,
                    row_of(k->b->q, r, k->b->q_width), row_of(k->b->k, r, k->b->k_width));
}

static void add_row(struct walk *k, uint32_t r)
{
    ops_add(k->w->isa, k->rows->x[r], row_of(k->b->y, r, k->b->n_embd), k->b->n_embd);
}

static void silu_row(struct walk *k, uint32_t r)
{
    float *gate = row_of(k->b->gate, r, k->b->n_ff);

    ops_silu_mul(k->w->isa, gate, gate, row_of(k->b->up, r, k->b->n_ff), k->op->op->mlp->n_ff);
}

static struct dense_job product(const struct dense_matrix *m, const float *x, uint32_t ldx,
                                float *y, uint32_t ldy, uint32_t n_rows)
{
    return (struct dense_job){
        .matrix = m, .x = x, .y = y, .ldx = ldx, .ldy = ldy, .n_rows = n_rows};
}

static void qkv(struct walk *k)
{
    struct cpu_buffers *b = k->b;
    uint32_t n = k->rows->n;
    struct dense_job jobs[3] = {
        product(k->op->matrix[0], b->n, b->n_embd, b->q, b->q_width, n),
        product(k->op->matrix[1], b->n, b->n_embd, b->k, b->k_width, n),
        product(k->op->matrix[2], b->n, b->n_embd, b->v, b->v_width, n),
    };

    dense_run(k->team, jobs, 3);
}

static void project(struct walk *k)
{
    struct dense_job job =
        product(k->op->matrix[0], k->b->a, k->b->a_width, k->b->y, k->b->n_embd, k->rows->n);

    dense_run(k->team, &job, 1);
    for_rows(k, add_row);
}

static void gated(struct walk *k)
{
    struct cpu_buffers *b = k->b;
    uint32_t n = k->rows->n;
    struct dense_job in[2] = {
        product(k->op->matrix[0], b->n, b->n_embd, b->gate, b->n_ff, n),
        product(k->op->matrix[1], b->n, b->n_embd, b->up, b->n_ff, n),
    };
    struct dense_job out = product(k->op->matrix[2], b->gate, b->n_ff, b->y, b->n_embd, n);

    dense_run(k->team, in, 2);
    for_rows(k, silu_row);
    dense_run(k->team, &out, 1);
    for_rows(k, add_row);
}

/* ---- Routed experts -------------------------------------------------------------------------- */

/* Chooses a row's experts and their weights from its scores. */
static void route_row(struct walk *k, uint32_t r)
{
    const struct mlp_desc *mlp = k->op->op->mlp;
    float *scores = row_of(k->b->scores, r, mlp->n_experts);
    uint32_t *chosen = k->b->chosen + (size_t)r * mlp->n_used;
    float *weight = row_of(k->b->chosen_w, r, mlp->n_used);

    if (mlp->order == EXPERTS_SOFTMAX_THEN_TOPK)
        ops_softmax(k->w->isa, scores, mlp->n_experts);
    ops_top_k(scores, mlp->n_experts, mlp->n_used, chosen);
    for (uint32_t i = 0; i < mlp->n_used; i++)
        weight[i] = scores[chosen[i]];
    if (mlp->order == EXPERTS_TOPK_THEN_SOFTMAX)
        ops_softmax(k->w->isa, weight, mlp->n_used);
}

/* Gathers the rows that chose expert e. */
static uint32_t gather_expert(struct walk *k, uint32_t e)
{
    uint32_t n_used = k->op->op->mlp->n_used, n = 0;

    for (uint32_t r = 0; r < k->rows->n; r++) {
        for (uint32_t i = 0; i < n_used; i++) {
            if (k->b->chosen[(size_t)r * n_used + i] != e)
                continue;
            memcpy(row_of(k->b->expert_n, n, k->b->n_embd), row_of(k->b->n, r, k->b->n_embd),
                   k->b->n_embd * sizeof(float));
            k->b->gathered[n++] = r;
        }
    }
    return n;
}

static float expert_weight(const struct walk *k, uint32_t row, uint32_t e)
{
    uint32_t n_used = k->op->op->mlp->n_used;
    const uint32_t *chosen = k->b->chosen + (size_t)row * n_used;

    for (uint32_t i = 0; i < n_used; i++) {
        if (chosen[i] == e)
            return k->b->chosen_w[(size_t)row * n_used + i];
    }
    return 0;
}

/* y[row] += weight * MLP_e(n[row]) over the gathered rows. */
static void run_expert(struct walk *k, uint32_t e, uint32_t n)
{
    struct cpu_buffers *b = k->b;
    uint32_t n_ff = k->op->op->mlp->n_ff;
    struct dense_job in[2] = {
        product(k->op->expert[0][e], b->expert_n, b->n_embd, b->gate, b->n_ff, n),
        product(k->op->expert[1][e], b->expert_n, b->n_embd, b->up, b->n_ff, n),
    };
    struct dense_job out =
        product(k->op->expert[2][e], b->gate, b->n_ff, b->expert_y, b->n_embd, n);

    dense_run(k->team, in, 2);
    for (uint32_t i = 0; i < n; i++) {
        float *gate = row_of(b->gate, i, b->n_ff);
        ops_silu_mul(k->w->isa, gate, gate, row_of(b->up, i, b->n_ff), n_ff);
    }
    dense_run(k->team, &out, 1);
    for (uint32_t i = 0; i < n; i++) {
        float weight = expert_weight(k, b->gathered[i], e);
        float *y = row_of(b->y, b->gathered[i], b->n_embd);
        const float *part = row_of(b->expert_y, i, b->n_embd);
        for (uint32_t j = 0; j < b->n_embd; j++)
            y[j] = fmaf(weight, part[j], y[j]);
    }
}

/* Experts are summed in ascending order, so that a row's sum does not depend on other rows. */
static void experts(struct walk *k)
{
    const struct mlp_desc *mlp = k->op->op->mlp;
    struct dense_job router =
        product(k->op->matrix[3], k->b->n, k->b->n_embd, k->b->scores, mlp->n_experts, k->rows->n);

    dense_run(k->team, &router, 1);
    for_rows(k, route_row);
    memset(k->b->y, 0, (size_t)k->rows->n * k->b->n_embd * sizeof(float));
    for (uint32_t e = 0; e < mlp->n_experts; e++) {
        uint32_t n = gather_expert(k, e);
        if (n > 0)
            run_expert(k, e, n);
    }
    for_rows(k, add_row);
}

static void logits(struct walk *k)
{
    struct dense_job job =
        product(k->op->matrix[0], k->b->n, k->b->n_embd, k->b->logits, k->b->n_vocab, k->rows->n);

    dense_run(k->team, &job, 1);
}

static void run_op(struct walk *k)
{
    switch (k->op->op->kind) {
    case DENSE_NORM:
        for_rows(k, norm_row);
        break;
    case DENSE_QKV:
        qkv(k);
        break;
    case DENSE_BIAS:
        for_rows(k, bias_row);
        break;
    case DENSE_HEAD_NORM:
        for_rows(k, head_norm_row);
        break;
    case DENSE_ROPE:
        for_rows(k, rope_row);
        break;
    case DENSE_PROJECT:
        project(k);
        break;
    case DENSE_GATED:
        gated(k);
        break;
    case DENSE_EXPERTS:
        experts(k);
        break;
    case DENSE_LOGITS:
        logits(k);
        break;
    case DENSE_OP_KINDS:
        break;
    }
}

void cpu_dense_run(const struct cpu_weights *w, struct team *team, struct cpu_buffers *b,
                   const struct cpu_op *ops, uint32_t n_ops, const struct cpu_rows *rows)
{
    struct walk k = {.w = w, .team = team, .b = b, .rows = rows};

    if (rows->n == 0)
        return;
    for (uint32_t i = 0; i < n_ops; i++) {
        k.op = &ops[i];
        run_op(&k);
    }
}
