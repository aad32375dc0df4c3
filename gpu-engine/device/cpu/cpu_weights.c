#include "gpu-engine/device/cpu/cpu_weights.h"

#include <errno.h>
#include <stdlib.h>

/* ---- One operation --------------------------------------------------------------------------- */

static int op_pack_vectors(struct cpu_op *o)
{
    for (int i = 0; i < 3 && o->op->w[i] != NULL; i++) {
        const struct weight_view *w = o->op->w[i];

        o->vector[i] = calloc(w->n_cols, sizeof *o->vector[i]);
        if (o->vector[i] == NULL)
            return -ENOMEM;
        weight_dequant_row_ref(w, 0, o->vector[i]);
    }
    return 0;
}

static int op_pack_experts(struct cpu_weights *w, struct cpu_op *o)
{
    uint32_t n = o->op->mlp->n_experts;
    int rc = dense_matrix_create(&o->matrix[3], w->isa, o->op->w[3]);

    for (int i = 0; i < 3 && rc == 0; i++) {
        o->expert[i] = calloc(n, sizeof *o->expert[i]);
        rc = o->expert[i] == NULL ? -ENOMEM : 0;
        for (uint32_t e = 0; e < n && rc == 0; e++) {
            struct weight_view slice = weight_slice(o->op->w[i], e);
            rc = dense_matrix_create(&o->expert[i][e], w->isa, &slice);
        }
    }
    return rc;
}

static int op_find_rope(struct cpu_weights *w, struct cpu_op *o, uint32_t context_max)
{
    const struct rope_desc *desc = &o->op->attn->rope;

    for (uint32_t i = 0; i < w->n_ropes; i++) {
        if (cpu_rope_matches(w->ropes[i], desc)) {
            o->rope = w->ropes[i];
            return 0;
        }
    }
    int rc = cpu_rope_create(&w->ropes[w->n_ropes], desc, context_max);
    if (rc == 0)
        o->rope = w->ropes[w->n_ropes++];
    return rc;
}

static int op_pack_matrices(struct cpu_weights *w, struct cpu_op *o)
{
    int rc = 0;

    for (int i = 0; i < DENSE_OP_WEIGHTS && rc == 0; i++) {
        if (o->op->w[i] != NULL)
            rc = dense_matrix_create(&o->matrix[i], w->isa, o->op->w[i]);
    }
    return rc;
}

static int op_pack(struct cpu_weights *w, struct cpu_op *o, const struct dense_op *op,
                   uint32_t context_max)
{
    o->op = op;
    switch (op->kind) {
    case DENSE_NORM:
    case DENSE_BIAS:
    case DENSE_HEAD_NORM:
        return op_pack_vectors(o);
    case DENSE_ROPE:
        return op_find_rope(w, o, context_max);
    case DENSE_EXPERTS:
        return op_pack_experts(w, o);
    case DENSE_QKV:
    case DENSE_PROJECT:
    case DENSE_GATED:
    case DENSE_LOGITS:
        return op_pack_matrices(w, o);
    case DENSE_OP_KINDS:
        break;
    }
    return -EINVAL;
}

static void op_free(struct cpu_op *o)
{
    for (int i = 0; i < DENSE_OP_WEIGHTS; i++)
        dense_matrix_destroy(o->matrix[i]);
    for (int i = 0; i < 3; i++) {
        for (uint32_t e = 0; o->expert[i] != NULL && e < o->op->mlp->n_experts; e++)
            dense_matrix_destroy(o->expert[i][e]);
        free(o->expert[i]);
        free(o->vector[i]);
    }
}

/* ---- The model ------------------------------------------------------------------------------- */

static int list_pack(struct cpu_weights *w, struct cpu_op *out, const struct dense_op *ops,
                     uint32_t n, uint32_t context_max)
{
    int rc = 0;

    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = op_pack(w, &out[i], &ops[i], context_max);
    return rc;
}

static int layer_pack(struct cpu_weights *w, uint32_t l, uint32_t context_max)
{
    const struct model_layer *from = &w->model->layers[l];
    struct cpu_layer *to = &w->layers[l];

    to->n_pre = from->n_pre;
    to->n_post = from->n_post;
    int rc = list_pack(w, to->pre, from->pre, from->n_pre, context_max);
    if (rc == 0)
        rc = list_pack(w, to->post, from->post, from->n_post, context_max);
    return rc;
}

int cpu_weights_create(struct cpu_weights **out, const struct model *model, enum isa isa,
                       uint32_t context_max)
{
    struct cpu_weights *w = calloc(1, sizeof *w);
    int rc = w == NULL ? -ENOMEM : 0;

    if (rc == 0) {
        w->model = model;
        w->isa = isa;
        w->layers = calloc(model->n_layers, sizeof *w->layers);
        w->ropes = calloc(model->n_layers, sizeof *w->ropes);
        rc = w->layers == NULL || w->ropes == NULL ? -ENOMEM : 0;
    }
    for (uint32_t l = 0; rc == 0 && l < model->n_layers; l++)
        rc = layer_pack(w, l, context_max);
    if (rc == 0)
        rc = list_pack(w, w->head, model->head, MODEL_HEAD_OPS, context_max);
    if (rc != 0) {
        cpu_weights_destroy(w);
        return rc;
    }
    *out = w;
    return 0;
}

static void layer_free(struct cpu_layer *layer)
{
    for (int i = 0; i < MODEL_PRE_OPS; i++)
        op_free(&layer->pre[i]);
    for (int i = 0; i < MODEL_POST_OPS; i++)
        op_free(&layer->post[i]);
}

void cpu_weights_destroy(struct cpu_weights *w)
{
    if (w == NULL)
        return;
    for (uint32_t l = 0; w->layers != NULL && l < w->model->n_layers; l++)
        layer_free(&w->layers[l]);
    for (int i = 0; i < MODEL_HEAD_OPS; i++)
        op_free(&w->head[i]);
    for (uint32_t i = 0; i < w->n_ropes; i++)
        cpu_rope_destroy(w->ropes[i]);
    free(w->ropes);
    free(w->layers);
    free(w);
}
