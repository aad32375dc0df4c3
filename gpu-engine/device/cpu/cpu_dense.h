/* cpu_dense.h - walks a list of dense operations over the active rows of a sweep.
 *
 * The active rows are named by pointers to their residuals, which never move; everything else
 * (normed row, q, k, v, attention output) lives in row buffers indexed by the row's place among
 * the active rows.  One GEMM covers all rows, whoever they belong to. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CPU_DENSE_H
#define OMNI_GPU_ENGINE_DEVICE_CPU_DENSE_H

#include <stdint.h>

#include "common/compute/team.h"
#include "gpu-engine/device/cpu/cpu_weights.h"

/* The active rows at one layer. */
struct cpu_rows {
    uint32_t n;
    float **x;     /* [n] residual of each row, n_embd floats */
    uint32_t *pos; /* [n] position of each row */
};

/* Row buffers, [rows_max][width] each; widths are the model's largest. */
struct cpu_buffers {
    uint32_t rows_max;
    uint32_t n_embd, q_width, k_width, v_width, a_width, n_ff, n_vocab;
    float *n, *q, *k, *v, *a;
    float *y;           /* [rows_max][n_embd] a product before it is added to the residual */
    float *gate, *up;   /* [rows_max][n_ff] */
    float *scores;      /* [rows_max][n_experts] */
    float *expert_n;    /* [rows_max][n_embd] rows gathered for one expert */
    float *expert_y;    /* [rows_max][n_embd] */
    uint32_t *chosen;   /* [rows_max][n_used] experts of a row */
    float *chosen_w;    /* [rows_max][n_used] */
    uint32_t *gathered; /* [rows_max] rows of one expert */
    float *logits;      /* [logit_rows][n_vocab] */
    uint32_t logit_rows;
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int cpu_buffers_init(struct cpu_buffers *b, const struct model *model, uint32_t rows_max,
                     uint32_t logit_rows);
void cpu_buffers_fini(struct cpu_buffers *b);

/* The same buffers with q, k, v of their own: for a second batch, whose products run between those
 * of the first.  0 or -ENOMEM; unshare is safe after both, and before fini of `of`. */
int cpu_buffers_share(struct cpu_buffers *b, const struct cpu_buffers *of);
void cpu_buffers_unshare(struct cpu_buffers *b);

/* Runs the list over rows->n <= rows_max rows (logit_rows for a list with logits). */
void cpu_dense_run(const struct cpu_weights *w, struct team *team, struct cpu_buffers *b,
                   const struct cpu_op *ops, uint32_t n_ops, const struct cpu_rows *rows);

#endif
