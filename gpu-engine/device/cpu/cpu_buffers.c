#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/device/cpu/cpu_dense.h"

static float *floats(uint32_t rows, uint32_t width)
{
    size_t bytes = ((size_t)rows * width * sizeof(float) + 63) & ~(size_t)63;

    return aligned_alloc(64, bytes > 0 ? bytes : 64);
}

static uint32_t experts_used_max(const struct model *model)
{
    uint32_t used = 0;

    for (uint32_t l = 0; l < model->n_layers; l++) {
        if (model->layers[l].mlp.n_used > used)
            used = model->layers[l].mlp.n_used;
    }
    return used;
}

int cpu_buffers_init(struct cpu_buffers *b, const struct model *model, uint32_t rows_max,
                     uint32_t logit_rows)
{
    uint32_t n_used = experts_used_max(model);

    memset(b, 0, sizeof *b);
    b->rows_max = rows_max;
    b->logit_rows = logit_rows;
    b->n_embd = model->n_embd;
    b->q_width = model->q_width_max;
    b->k_width = model->k_width_max;
    b->v_width = model->v_width_max;
    b->a_width = model->a_width_max;
    b->n_ff = model->n_ff_max;
    b->n_vocab = model->n_vocab;
    b->n = floats(rows_max, b->n_embd);
    b->q = floats(rows_max, b->q_width);
    b->k = floats(rows_max, b->k_width);
    b->v = floats(rows_max, b->v_width);
    b->a = floats(rows_max, b->a_width);
    b->y = floats(rows_max, b->n_embd);
    b->gate = floats(rows_max, b->n_ff);
    b->up = floats(rows_max, b->n_ff);
    b->scores = floats(rows_max, model->n_experts_max);
    b->expert_n = floats(n_used > 0 ? rows_max : 0, b->n_embd);
    b->expert_y = floats(n_used > 0 ? rows_max : 0, b->n_embd);
    b->chosen_w = floats(rows_max, n_used);
    b->logits = floats(logit_rows, b->n_vocab);
    b->chosen = calloc((size_t)rows_max * n_used + 1, sizeof *b->chosen);
    b->gathered = calloc(rows_max, sizeof *b->gathered);
    if (b->n == NULL || b->q == NULL || b->k == NULL || b->v == NULL || b->a == NULL ||
        b->y == NULL || b->gate == NULL || b->up == NULL || b->scores == NULL ||
        b->expert_n == NULL || b->expert_y == NULL || b->chosen_w == NULL || b->logits == NULL ||
        b->chosen == NULL || b->gathered == NULL)
        return -ENOMEM;
    return 0;
}

void cpu_buffers_fini(struct cpu_buffers *b)
{
    float *all[] = {b->n,  b->q,      b->k,        b->v,        b->a,        b->y,     b->gate,
                    b->up, b->scores, b->expert_n, b->expert_y, b->chosen_w, b->logits};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(b->chosen);
    free(b->gathered);
    memset(b, 0, sizeof *b);
}

int cpu_buffers_share(struct cpu_buffers *b, const struct cpu_buffers *of)
{
    *b = *of;
    b->q = floats(of->rows_max, of->q_width);
    b->k = floats(of->rows_max, of->k_width);
    b->v = floats(of->rows_max, of->v_width);
    return b->q == NULL || b->k == NULL || b->v == NULL ? -ENOMEM : 0;
}

void cpu_buffers_unshare(struct cpu_buffers *b)
{
    free(b->q);
    free(b->k);
    free(b->v);
    memset(b, 0, sizeof *b);
}
