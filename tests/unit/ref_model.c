#include "ref_model.h"

#include "common/base/invariant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ref_model {
    const struct model *m;
    uint32_t n_ctx, pos;
    float *x, *n, *q, *k, *v, *a; /* the row buffers of dense_op.h */
    float *gate, *up, *scores, *row, *logits, *weights;
    float **k_cache, **v_cache; /* [layer][pos * values] */
};

static float *floats(uint64_t n)
{
    float *p = calloc(n + 1, sizeof(*p));

    invariant(p);
    return p;
}

struct ref_model *ref_model_create(const struct model *m, uint32_t n_ctx)
{
    struct ref_model *r = calloc(1, sizeof(*r));

    invariant(r);
    r->m = m;
    r->n_ctx = n_ctx;
    r->x = floats(m->n_embd);
    r->n = floats(m->n_embd);
    r->q = floats(m->q_width_max);
    r->k = floats(m->k_width_max);
    r->v = floats(m->v_width_max);
    r->a = floats(m->a_width_max);
    r->gate = floats(m->n_ff_max);
    r->up = floats(m->n_ff_max);
    r->scores = floats(m->n_experts_max);
    r->row = floats(m->n_embd + m->n_ff_max + m->a_width_max + m->q_width_max + m->v_width_max);
    r->logits = floats(m->n_vocab);
    r->weights = floats(n_ctx);
    r->k_cache = calloc(m->n_layers, sizeof(*r->k_cache));
    r->v_cache = calloc(m->n_layers, sizeof(*r->v_cache));
    invariant(r->k_cache && r->v_cache);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        r->k_cache[i] = floats(attention_k_values(&m->layers[i].attn) * n_ctx);
        r->v_cache[i] = floats(attention_v_values(&m->layers[i].attn) * n_ctx);
    }
    return r;
}

void ref_model_destroy(struct ref_model *r)
{
    float *const buffers[] = {r->x,    r->n,  r->q,      r->k,   r->v,      r->a,
                              r->gate, r->up, r->scores, r->row, r->logits, r->weights};

    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        free(buffers[i]);
    for (uint32_t i = 0; i < r->m->n_layers; i++) {
        free(r->k_cache[i]);
        free(r->v_cache[i]);
    }
    free(r->k_cache);
    free(r->v_cache);
    free(r);
}

/* out = w in, or out += scale * w in. */
static void product(struct ref_model *r, const struct weight_view *w, const float *in, float *out,
                    float add_scale)
{
    for (uint64_t i = 0; i < w->n_rows; i++) {
        double sum = 0;

        weight_dequant_row_ref(w, i, r->row);
        for (uint64_t c = 0; c < w->n_cols; c++)
            sum += (double)r->row[c] * (double)in[c];
        out[i] = add_scale != 0 ? out[i] + add_scale * (float)sum : (float)sum;
    }
}

static void run_norm(struct ref_model *r, const struct dense_op *op)
{
    const uint64_t n = op->w[0]->n_cols;
    double sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += (double)r->x[i] * (double)r->x[i];
    weight_dequant_row_ref(op->w[0], 0, r->row);
    for (uint64_t i = 0; i < n; i++)
        r->n[i] = (float)((double)r->x[i] / sqrt(sum / (double)n + (double)op->eps)) * r->row[i];
}

/* x of a head, normed like a row. */
static void norm_heads(struct ref_model *r, const struct dense_op *op, const struct weight_view *w,
                       float *x, uint32_t n_heads)
{
    const uint32_t n = op->attn->k_width;

    weight_dequant_row_ref(w, 0, r->row);
    for (uint32_t h = 0; h < n_heads; h++, x += n) {
        double sum = 0;

        for (uint32_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)x[i];
        for (uint32_t i = 0; i < n; i++)
            x[i] = (float)((double)x[i] / sqrt(sum / n + (double)op->eps)) * r->row[i];
    }
}

static void add_bias(struct ref_model *r, const struct weight_view *w, float *x)
{
    weight_dequant_row_ref(w, 0, r->row);
    for (uint64_t i = 0; i < w->n_cols; i++)
        x[i] += r->row[i];
}

static void rotate(const struct ref_model *r, const struct rope_desc *rope, float *head)
{
    double frequency[256];

    invariant(rope->n_dims / 2 <= 256);
    rope_frequencies(rope, r->n_ctx, frequency);
    for (uint32_t i = 0; i < rope->n_dims / 2; i++) {
        const double angle = r->pos * frequency[i];
        const double c = cos(angle) * (double)rope->magnitude;
        const double s = sin(angle) * (double)rope->magnitude;
        const bool neox = rope->style == ROPE_NEOX;
        float *a = head + (neox ? i : 2 * i);
        float *b = head + (neox ? i + rope->n_dims / 2 : 2 * i + 1);
        const double x = (double)*a, y = (double)*b;

        *a = (float)(x * c - y * s);
        *b = (float)(x * s + y * c);
    }
}

static void run_rope(struct ref_model *r, const struct dense_op *op)
{
    for (uint32_t h = 0; h < op->attn->n_heads; h++)
        rotate(r, &op->attn->rope, r->q + h * op->attn->k_width);
    for (uint32_t h = 0; h < op->attn->n_kv_heads; h++)
        rotate(r, &op->attn->rope, r->k + h * op->attn->k_width);
}

/* x += scale * the gated MLP of slice e. */
static void run_gated(struct ref_model *r, const struct dense_op *op, uint32_t e, float scale)
{
    const struct weight_view gate = weight_slice(op->w[0], e), up = weight_slice(op->w[1], e),
                             down = weight_slice(op->w[2], e);

    product(r, &gate, r->n, r->gate, 0);
    product(r, &up, r->n, r->up, 0);
    for (uint64_t i = 0; i < gate.n_rows; i++)
        r->gate[i] = (float)((double)r->gate[i] / (1 + exp(-(double)r->gate[i]))) * r->up[i];
    product(r, &down, r->gate, r->x, scale);
}

static double sum_exp(const float *scores, uint32_t n, float largest)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)(scores[i] - largest));
    return sum;
}

static void run_experts(struct ref_model *r, const struct dense_op *op)
{
    const struct mlp_desc *mlp = op->mlp;
    uint32_t chosen[64];
    float weight[64];
    double sum;

    invariant(mlp->n_used <= 64);
    product(r, op->w[3], r->n, r->scores, 0);
    sum =
        sum_exp(r->scores, mlp->n_experts, r->scores[ref_model_argmax(r->scores, mlp->n_experts)]);
    for (uint32_t i = 0; i < mlp->n_used; i++) {
        chosen[i] = ref_model_argmax(r->scores, mlp->n_experts);
        weight[i] = r->scores[chosen[i]];
        r->scores[chosen[i]] = -INFINITY;
    }
    if (mlp->order == EXPERTS_TOPK_THEN_SOFTMAX)
        sum = sum_exp(weight, mlp->n_used, weight[0]);
    for (uint32_t i = mlp->n_used; i-- > 0;)
        weight[i] = (float)(exp((double)(weight[i] - weight[0])) / sum);
    for (uint32_t i = 0; i < mlp->n_used; i++)
        run_gated(r, op, chosen[i], weight[i]);
}

static void run_op(struct ref_model *r, const struct dense_op *op)
{
    switch (op->kind) {
    case DENSE_NORM:
        run_norm(r, op);
        break;
    case DENSE_QKV:
        product(r, op->w[0], r->n, r->q, 0);
        product(r, op->w[1], r->n, r->k, 0);
        product(r, op->w[2], r->n, r->v, 0);
        break;
    case DENSE_BIAS:
        add_bias(r, op->w[0], r->q);
        add_bias(r, op->w[1], r->k);
        add_bias(r, op->w[2], r->v);
        break;
    case DENSE_HEAD_NORM:
        norm_heads(r, op, op->w[0], r->q, op->attn->n_heads);
        norm_heads(r, op, op->w[1], r->k, op->attn->n_kv_heads);
        break;
    case DENSE_ROPE:
        run_rope(r, op);
        break;
    case DENSE_PROJECT:
        product(r, op->w[0], r->a, r->x, 1);
        break;
    case DENSE_GATED:
        run_gated(r, op, 0, 1);
        break;
    case DENSE_EXPERTS:
        run_experts(r, op);
        break;
    case DENSE_LOGITS:
        product(r, op->w[0], r->n, r->logits, 0);
        break;
    case DENSE_OP_KINDS:
        break;
    }
}

static bool visible(const struct attention_desc *a, uint32_t pos, uint32_t j)
{
    return a->kind == ATTENTION_FULL || pos - j < a->window || j < a->n_sinks;
}

static void attend_head(struct ref_model *r, const struct attention_desc *a, uint32_t layer,
                        uint32_t h)
{
    const uint32_t kv = h / (a->n_heads / a->n_kv_heads);
    const float *q = r->q + h * a->k_width;
    float *out = r->a + h * a->v_width;
    double largest = -INFINITY, sum = 0;

    for (uint32_t j = 0; j <= r->pos; j++) {
        const float *k = r->k_cache[layer] + j * attention_k_values(a) + kv * a->k_width;
        double dot = 0;

        for (uint32_t i = 0; i < a->k_width; i++)
            dot += (double)q[i] * (double)k[i];
        r->weights[j] = visible(a, r->pos, j) ? (float)dot * a->scale : -INFINITY;
        largest = fmax(largest, (double)r->weights[j]);
    }
    memset(out, 0, a->v_width * sizeof(*out));
    for (uint32_t j = 0; j <= r->pos; j++)
        sum += exp((double)r->weights[j] - largest);
    for (uint32_t j = 0; j <= r->pos; j++) {
        const float *v = r->v_cache[layer] + j * attention_v_values(a) + kv * a->v_width;
        const float p = (float)(exp((double)r->weights[j] - largest) / sum);

        for (uint32_t i = 0; i < a->v_width; i++)
            out[i] += p * v[i];
    }
}

static void attend(struct ref_model *r, uint32_t layer)
{
    const struct attention_desc *a = &r->m->layers[layer].attn;

    memcpy(r->k_cache[layer] + r->pos * attention_k_values(a), r->k,
           attention_k_values(a) * sizeof(float));
    memcpy(r->v_cache[layer] + r->pos * attention_v_values(a), r->v,
           attention_v_values(a) * sizeof(float));
    for (uint32_t h = 0; h < a->n_heads; h++)
        attend_head(r, a, layer, h);
}

const float *ref_model_step(struct ref_model *r, uint32_t token)
{
    const struct model *m = r->m;

    invariant(r->pos < r->n_ctx);
    model_embed_ref(m, token, r->x);
    for (uint32_t l = 0; l < m->n_layers; l++) {
        for (uint32_t i = 0; i < m->layers[l].n_pre; i++)
            run_op(r, &m->layers[l].pre[i]);
        attend(r, l);
        for (uint32_t i = 0; i < m->layers[l].n_post; i++)
            run_op(r, &m->layers[l].post[i]);
    }
    for (uint32_t i = 0; i < MODEL_HEAD_OPS; i++)
        run_op(r, &m->head[i]);
    r->pos++;
    return r->logits;
}

uint32_t ref_model_argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}
