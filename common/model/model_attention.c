/* One layer's attention: heads, widths, window, and its matrices, separate or fused in one. */
#include "common/model/model_loader.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

static int load_heads(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    int rc =
        loader_layer_u32(l, "attention.head_count", layer, 1, HEADS_MAX, REQUIRED, &a->n_heads);

    if (!rc)
        rc = loader_layer_u32(l, "attention.head_count_kv", layer, 1, a->n_heads, a->n_heads,
                              &a->n_kv_heads);
    if (!rc && a->n_heads % a->n_kv_heads) {
        char key[96];

        (void)snprintf(key, sizeof(key), "%s.attention.head_count_kv", l->arch);
        gguf_error_at_key(l->err, l->gguf, key, "layer %u: %u does not divide %u heads", layer,
                          a->n_kv_heads, a->n_heads);
        rc = -EINVAL;
    }
    return rc;
}

static int load_widths(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    const uint32_t width = l->model->n_embd / a->n_heads;
    int rc = loader_layer_u32(l, "attention.key_length", layer, 1, WIDTH_MAX, width, &a->k_width);

    if (!rc)
        rc = loader_layer_u32(l, "attention.value_length", layer, 1, WIDTH_MAX, width, &a->v_width);
    if (!rc)
        rc = loader_f32(l, "attention.scale", 1.0f / sqrtf((float)a->k_width), &a->scale);
    return rc;
}

static int load_window(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    int rc = loader_layer_u32(l, "attention.sliding_window", layer, 0, CTX_MAX, 0, &a->window);

    if (!rc)
        rc = loader_layer_key_u32(l, "omni.attention.n_sinks", layer, 0, CTX_MAX, 0, &a->n_sinks);
    a->kind = a->window ? ATTENTION_WINDOW : ATTENTION_FULL;
    if (!a->window)
        a->n_sinks = 0;
    return rc;
}

/* Rows of q, then of k, then of v in one matrix (Phi-3): three views of its parts. */
static int load_fused(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const struct attention_desc *a = &y->attn;
    const uint64_t q = (uint64_t)a->n_heads * a->k_width, k = attention_k_values(a);
    const uint64_t v = attention_v_values(a);
    struct weight_view all;
    const int rc =
        loader_layer_view(l, layer, "attn_qkv.weight", 1, q + k + v, l->model->n_embd, &all);

    if (rc)
        return rc;
    y->attn_q = weight_rows(&all, 0, q);
    y->attn_k = weight_rows(&all, q, k);
    y->attn_v = weight_rows(&all, q + k, v);
    return 0;
}

static int load_qkv(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const struct attention_desc *a = &y->attn;
    const uint64_t n_embd = l->model->n_embd;
    int rc;

    if (loader_layer_has(l, layer, "attn_qkv.weight"))
        return load_fused(l, layer);
    rc = loader_layer_view(l, layer, "attn_q.weight", 1, (uint64_t)a->n_heads * a->k_width, n_embd,
                           &y->attn_q);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_k.weight", 1, attention_k_values(a), n_embd,
                               &y->attn_k);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_v.weight", 1, attention_v_values(a), n_embd,
                               &y->attn_v);
    return rc;
}

/* Qwen 2 has them; so have Llamas that were trained with attention_bias. */
static int load_biases(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const struct attention_desc *a = &y->attn;
    int rc;

    if (!loader_layer_has(l, layer, "attn_q.bias"))
        return 0;
    rc = loader_layer_view(l, layer, "attn_q.bias", 1, 1, (uint64_t)a->n_heads * a->k_width,
                           &y->attn_q_bias);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_k.bias", 1, 1, attention_k_values(a),
                               &y->attn_k_bias);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_v.bias", 1, 1, attention_v_values(a),
                               &y->attn_v_bias);
    return rc;
}

/* Qwen 3 norms every head of q and k. */
static int load_head_norms(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t width = y->attn.k_width;
    int rc;

    if (!loader_layer_has(l, layer, "attn_q_norm.weight"))
        return 0;
    rc = loader_layer_view(l, layer, "attn_q_norm.weight", 1, 1, width, &y->attn_q_norm);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_k_norm.weight", 1, 1, width, &y->attn_k_norm);
    return rc;
}

int model_attention_load(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    struct attention_desc *a = &y->attn;
    const uint64_t n_embd = l->model->n_embd;
    int rc = load_heads(l, layer, a);

    if (!rc)
        rc = load_widths(l, layer, a);
    if (!rc)
        rc = load_window(l, layer, a);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_norm.weight", 1, 1, n_embd, &y->attn_norm);
    if (!rc)
        rc = load_qkv(l, layer);
    if (!rc)
        rc = load_biases(l, layer);
    if (!rc)
        rc = load_head_norms(l, layer);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_output.weight", 1, n_embd,
                               (uint64_t)a->n_heads * a->v_width, &y->attn_output);
    return rc;
}
