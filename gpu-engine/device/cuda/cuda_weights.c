/* cuda_weights.c - which weights go where: see cuda_weights.h and cuda_weights_private.h. */
#include "gpu-engine/device/cuda/cuda_weights.h"

#include <cuda_runtime_api.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/cuda/cuda_kv.h"
#include "gpu-engine/device/cuda/cuda_weights_private.h"

enum { ALIGN = 256, COLS_MULTIPLE = 32, LIST_MIN = 64 };

int cuda_weights_error(struct error *err, const char *what, int cuda_error)
{
    return error_set(err, cuda_error == cudaErrorMemoryAllocation ? -ENOMEM : -EIO, "%s: %s", what,
                     cudaGetErrorString((cudaError_t)cuda_error));
}

/* ---- Places and lists --------------------------------------------------------------------------- */

/* Where the next n bytes go: NULL plus an offset while the plan is only measured. */
static void *place(struct weights_plan *p, uint64_t bytes)
{
    void *at = p->memory == NULL ? NULL : p->memory + p->used;

    p->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* Makes room for one more; 0 or -ENOMEM. */
static int list_grow(void **list, uint32_t n, uint32_t *max, size_t each)
{
    uint32_t want = *max < LIST_MIN ? LIST_MIN : 2 * *max;

    if (n < *max)
        return 0;
    void *grown = reallocarray(*list, want, each);
    if (grown == NULL)
        return -ENOMEM;
    *list = grown;
    *max = want;
    return 0;
}

static int piece_add(struct weights_plan *p, const struct weight_view *view, uint16_t *to)
{
    void *list = p->pieces;
    int rc =
        p->memory == NULL ? 0 : list_grow(&list, p->n_pieces, &p->pieces_max, sizeof *p->pieces);

    p->pieces = list;
    if (rc == 0 && p->memory != NULL)
        p->pieces[p->n_pieces++] =
            (struct weights_piece){.view = *view,
                                   .to = to,
                                   .n_values = view->n_rows * view->n_cols,
                                   .span = sqrtf(3.0f / (float)view->n_cols)};
    return rc;
}

/* The next n floats, to be filled in by the caller; *out NULL while the plan is only measured. */
static int floats_add(struct weights_plan *p, uint64_t n, bool also16, struct weights_floats **out)
{
    float *to = place(p, n * sizeof *to);
    uint16_t *to16 = also16 ? place(p, n * sizeof *to16) : NULL;
    void *list = p->floats;

    *out = NULL;
    if (p->memory == NULL)
        return 0;
    int rc = list_grow(&list, p->n_floats, &p->floats_max, sizeof *p->floats);
    p->floats = list;
    if (rc != 0)
        return rc;
    struct weights_floats *f = &p->floats[p->n_floats];
    *f = (struct weights_floats){.values = calloc(n, sizeof *f->values), .n = n};
    if (f->values == NULL)
        return -ENOMEM;
    p->n_floats++;
    f->to = to;
    f->to16 = to16;
    *out = f;
    return 0;
}

/* ---- Vectors and matrices ----------------------------------------------------------------------- */

/* A dummy load reads nothing: norms are 1, biases 0. */
static void values_take(const struct weights_plan *p, const struct weight_view *v, float *out,
                        float dummy)
{
    if (!p->options->dummy) {
        weight_dequant_row_ref(v, 0, out);
        return;
    }
    for (uint64_t i = 0; i < v->n_cols; i++)
        out[i] = dummy;
}

/* A norm's weights; NULL where the family has none. */
static int vector_plan(struct weights_plan *p, const struct weight_view *v, const float **out)
{
    struct weights_floats *f;

    *out = NULL;
    if (v->data == NULL)
        return 0;
    int rc = floats_add(p, v->n_cols, false, &f);
    if (rc == 0 && f != NULL) {
        values_take(p, v, f->values, 1.0f);
        *out = f->to;
    }
    return rc;
}

/* Views of equal width, one below the other. */
static int matrix_plan(struct weights_plan *p, const struct weight_view *const *views, uint32_t n,
                       struct cuda_matrix *out)
{
    uint64_t n_rows = 0, n_cols = views[0]->n_cols;
    int rc = 0;

    for (uint32_t i = 0; i < n; i++) {
        invariant(views[i]->n_cols == n_cols);
        n_rows += views[i]->n_rows;
    }
    if (n_cols % COLS_MULTIPLE != 0)
        return error_set(p->err, -ENOTSUP,
                         "%s: rows of %llu values; the GPU's products take multiples of %d",
                         views[0]->name, (unsigned long long)n_cols, COLS_MULTIPLE);
    uint16_t *w = place(p, n_rows * n_cols * sizeof *w);
    *out = (struct cuda_matrix){.w = w, .n_out = (uint32_t)n_rows, .n_in = (uint32_t)n_cols};
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = piece_add(p, views[i], w);
        if (w != NULL)
            w += views[i]->n_rows * n_cols;
    }
    return rc;
}

/* q, k and v's biases behind each other, if the family has them. */
static int bias_plan(struct weights_plan *p, const struct model_layer *l, struct cuda_matrix *qkv)
{
    const struct weight_view *const views[3] = {&l->attn_q_bias, &l->attn_k_bias, &l->attn_v_bias};
    struct weights_floats *f;
    uint64_t at = 0;

    if (l->attn_q_bias.data == NULL)
        return 0;
    int rc = floats_add(p, qkv->n_out, true, &f);
    for (int i = 0; i < 3 && rc == 0 && f != NULL; i++) {
        values_take(p, views[i], f->values + at, 0.0f);
        at += views[i]->n_cols;
    }
    if (rc == 0 && f != NULL) {
        qkv->bias = f->to;
        qkv->bias16 = f->to16;
    }
    return rc;
}

/* ---- Rotary angles ------------------------------------------------------------------------------ */

static void angles_fill(const struct rope_desc *rope, uint32_t n_positions, double *frequency,
                        float *out)
{
    uint32_t n = rope->n_dims / 2;

    rope_frequencies(rope, n_positions, frequency);
    for (uint32_t pos = 0; pos < n_positions; pos++) {
        for (uint32_t i = 0; i < n; i++, out += 2) {
            double angle = pos * frequency[i];
            out[0] = (float)cos(angle) * rope->magnitude;
            out[1] = (float)sin(angle) * rope->magnitude;
        }
    }
}

/* The table of an earlier layer with the same setting, or a new one. */
static int rope_plan(struct weights_plan *p, struct cuda_weights *w, uint32_t layer)
{
    const struct rope_desc *rope = &p->model->layers[layer].attn.rope;
    struct cuda_rope *out = &w->layers[layer].rope;
    uint32_t n_positions = p->options->context_max;
    struct weights_floats *f;

    *out = (struct cuda_rope){.n_dims = rope->n_dims, .is_neox = rope->style == ROPE_NEOX};
    for (uint32_t l = 0; l < layer; l++) {
        if (rope_equal(rope, &p->model->layers[l].attn.rope)) {
            *out = w->layers[l].rope;
            return 0;
        }
    }
    if (rope->n_dims == 0)
        return 0;
    int rc = floats_add(p, (uint64_t)n_positions * rope->n_dims, false, &f);
    if (rc != 0 || f == NULL)
        return rc;
    double *frequency = calloc(rope->n_dims / 2, sizeof *frequency);
    if (frequency == NULL)
        return -ENOMEM;
    angles_fill(rope, n_positions, frequency, f->values);
    free(frequency);
    out->angles = f->to;
    return 0;
}

/* ---- The model ---------------------------------------------------------------------------------- */

static float norm_eps(const struct dense_op *ops, uint32_t n, enum dense_op_kind kind)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ops[i].kind == kind)
            return ops[i].eps;
    }
    return 0.0f;
}

static int layer_check(const struct weights_plan *p, uint32_t layer)
{
    const struct model_layer *l = &p->model->layers[layer];

    if (l->mlp.kind != MLP_GATED)
        return error_set(p->err, -ENOTSUP, "layer %u: the GPU's device has no routed experts",
                         layer);
    if (l->attn.k_width != l->attn.v_width)
        return error_set(p->err, -ENOTSUP, "layer %u: K of %u and V of %u values a head", layer,
                         l->attn.k_width, l->attn.v_width);
    return 0;
}

static int layer_matrices(struct weights_plan *p, const struct model_layer *l,
                          struct cuda_layer_weights *out)
{
    const struct weight_view *const qkv[] = {&l->attn_q, &l->attn_k, &l->attn_v};
    const struct weight_view *const output[] = {&l->attn_output};
    const struct weight_view *const gate_up[] = {&l->ffn_gate, &l->ffn_up};
    const struct weight_view *const down[] = {&l->ffn_down};
    int rc = matrix_plan(p, qkv, 3, &out->qkv);

    if (rc == 0)
        rc = bias_plan(p, l, &out->qkv);
    if (rc == 0)
        rc = matrix_plan(p, output, 1, &out->output);
    if (rc == 0)
        rc = matrix_plan(p, gate_up, 2, &out->gate_up);
    if (rc == 0)
        rc = matrix_plan(p, down, 1, &out->down);
    return rc;
}

static int layer_plan(struct weights_plan *p, struct cuda_weights *w, uint32_t layer)
{
    const struct model_layer *l = &p->model->layers[layer];
    struct cuda_layer_weights *out = &w->layers[layer];
    int rc = layer_check(p, layer);

    out->attn_eps = norm_eps(l->pre, l->n_pre, DENSE_NORM);
    out->head_eps = norm_eps(l->pre, l->n_pre, DENSE_HEAD_NORM);
    out->ffn_eps = norm_eps(l->post, l->n_post, DENSE_NORM);
    if (rc == 0)
        rc = vector_plan(p, &l->attn_norm, &out->attn_norm);
    if (rc == 0)
        rc = vector_plan(p, &l->attn_q_norm, &out->q_norm);
    if (rc == 0)
        rc = vector_plan(p, &l->attn_k_norm, &out->k_norm);
    if (rc == 0)
        rc = vector_plan(p, &l->ffn_norm, &out->ffn_norm);
    return rc == 0 ? layer_matrices(p, l, out) : rc;
}

/* The table is read a row a token; as the head of a tied model it is swept like a matrix. */
static int ends_plan(struct weights_plan *p, struct cuda_weights *w)
{
    const struct model *m = p->model;
    const struct weight_view *const embd[] = {&m->token_embd}, *const head[] = {&m->output};
    bool tied = m->output.data == m->token_embd.data;
    struct cuda_matrix table;
    uint64_t before = p->used;
    int rc = matrix_plan(p, embd, 1, &table);

    if (!tied)
        w->swept_bytes -= p->used - before;
    w->token_embd = table.w;
    w->head = table;
    if (rc == 0 && !tied)
        rc = matrix_plan(p, head, 1, &w->head);
    if (rc == 0)
        rc = vector_plan(p, &m->output_norm, &w->output_norm);
    w->output_eps = norm_eps(m->head, MODEL_HEAD_OPS, DENSE_NORM);
    return rc;
}

/* Angles come last, so that swept_bytes is what lies before them. */
static int model_plan(struct weights_plan *p, struct cuda_weights *w)
{
    int rc;

    p->used = 0;
    w->swept_bytes = 0;
    rc = ends_plan(p, w);
    for (uint32_t l = 0; l < p->model->n_layers && rc == 0; l++)
        rc = layer_plan(p, w, l);
    w->swept_bytes += p->used;
    for (uint32_t l = 0; l < p->model->n_layers && rc == 0; l++)
        rc = rope_plan(p, w, l);
    w->bytes = p->used;
    return rc;
}

/* ---- Life --------------------------------------------------------------------------------------- */

static bool all_f16(const struct model *m)
{
    bool f16 = m->token_embd.type == WEIGHT_F16 && m->output.type == WEIGHT_F16;

    for (uint32_t l = 0; l < m->n_layers; l++) {
        const struct model_layer *layer = &m->layers[l];
        const struct weight_view *const views[] = {
            &layer->attn_q,   &layer->attn_k, &layer->attn_v,  &layer->attn_output,
            &layer->ffn_gate, &layer->ffn_up, &layer->ffn_down};
        for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
            f16 = f16 && views[i]->type == WEIGHT_F16;
    }
    return f16;
}

/* A description without memory, and how much it takes. */
static int describe(struct cuda_weights **out, struct weights_plan *p)
{
    const struct model *m = p->model;
    struct cuda_weights *w = calloc(1, sizeof *w);

    *out = w;
    if (w == NULL || (w->layers = calloc(m->n_layers, sizeof *w->layers)) == NULL)
        return error_set(p->err, -ENOMEM, "no memory for %u layers", m->n_layers);
    p->type = p->options->type != 0 ? p->options->type : all_f16(m) ? KV_TYPE_F16 : KV_TYPE_BF16;
    if (p->type != KV_TYPE_F16 && p->type != KV_TYPE_BF16)
        return error_set(p->err, -ENOTSUP, "weights on a GPU are f16 or bf16");
    w->type = p->type;
    w->n_layers = m->n_layers;
    w->n_embd = m->n_embd;
    w->n_vocab = m->n_vocab;
    return model_plan(p, w);
}

static int memory_take(struct cuda_weights *w, struct error *err)
{
    size_t available = 0, total = 0;
    cudaError_t rc = cudaMemGetInfo(&available, &total);

    if (rc != cudaSuccess)
        return cuda_weights_error(err, "cudaMemGetInfo", rc);
    if (w->bytes > available || cudaMalloc(&w->memory, w->bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        w->memory = NULL;
        return error_set(
            err, -ENOMEM,
            "weights take %llu MiB of GPU memory, %zu MiB are free: a smaller model, or "
            "what else runs on the GPU ended",
            (unsigned long long)(w->bytes >> 20) + 1, available >> 20);
    }
    return 0;
}

static void plan_free(struct weights_plan *p)
{
    for (uint32_t i = 0; i < p->n_floats; i++)
        free(p->floats[i].values);
    free(p->floats);
    free(p->pieces);
}

int cuda_weights_bytes(const struct model *model, const struct cuda_weights_options *options,
                       uint64_t *bytes, struct error *err)
{
    struct weights_plan plan = {.model = model, .options = options, .err = err};
    struct cuda_weights *w;
    int rc = describe(&w, &plan);

    if (rc == 0)
        *bytes = w->bytes;
    cuda_weights_destroy(w);
    return rc;
}

int cuda_weights_create(struct cuda_weights **out, const struct model *model,
                        const struct cuda_weights_options *options, struct error *err)
{
    struct weights_plan plan = {.model = model, .options = options, .err = err};
    struct cuda_weights *w;
    int rc = describe(&w, &plan);

    if (rc == 0)
        rc = memory_take(w, err);
    if (rc == 0) {
        plan.memory = w->memory;
        rc = model_plan(&plan, w);
        if (rc == -ENOMEM)
            error_set(err, rc, "no host memory for norms and rotary angles");
    }
    if (rc == 0)
        rc = cuda_weights_load(&plan);
    plan_free(&plan);
    if (rc != 0) {
        cuda_weights_destroy(w);
        return rc;
    }
    *out = w;
    return 0;
}

void cuda_weights_destroy(struct cuda_weights *w)
{
    if (w == NULL)
        return;
    if (w->memory != NULL)
        (void)cudaFree(w->memory);
    free(w->layers);
    free(w);
}
