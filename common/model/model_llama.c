/* Architecture "llama": Llama 2, Mistral, SmolLM2 and the shapes between, with layers that may
 * differ.
 *
 * The usual keys, and three ways to say that layers differ: a key may hold an array with one value
 * per layer; a layer with a router tensor has experts; and keys of our own say what GGUF has no
 * word for:
 *     omni.attention.n_sinks   first positions that a windowed layer keeps (number or array)
 *     omni.attention.kind      array of "full" | "window" | "latent" | "recurrent" */
#include "common/model/model_loader.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bounds that keep every product of two of them in 32 bits or of three in 64. */
#define LAYERS_MAX  1024u
#define EMBD_MAX    (1u << 20)
#define HEADS_MAX   (1u << 14)
#define WIDTH_MAX   (1u << 12)
#define FF_MAX      (1u << 22)
#define EXPERTS_MAX 4096u
#define VOCAB_MAX   (1u << 24)
#define CTX_MAX     (1u << 28)
#define REQUIRED    UINT32_MAX

static int load_sizes(struct model_loader *l)
{
    struct model *m = l->model;
    int rc = loader_u32(l, "block_count", 1, LAYERS_MAX, REQUIRED, &m->n_layers);

    if (!rc)
        rc = loader_u32(l, "embedding_length", 1, EMBD_MAX, REQUIRED, &m->n_embd);
    if (!rc)
        rc = loader_u32(l, "context_length", 1, CTX_MAX, REQUIRED, &m->n_ctx);
    if (!rc)
        rc = loader_f32(l, "attention.layer_norm_rms_epsilon", 0, &m->norm_eps);
    return rc;
}

/* Position scaling changes what every token computes: refuse rather than ignore. */
static int check_rope_scaling(struct model_loader *l)
{
    struct gguf_string type;
    float linear = 1;
    const int rc = gguf_get_string(l->gguf, "llama.rope.scaling.type", &type, l->err);

    if (rc == 0 && !(type.len == 4 && memcmp(type.data, "none", 4) == 0)) {
        gguf_error_set(l->err, "llama.rope.scaling.type: %.*s is not supported (none is)",
                       (int)(type.len < 32 ? type.len : 32), type.data);
        return -ENOTSUP;
    }
    if (rc && rc != -ENOENT)
        return rc;
    if (gguf_get_f32(l->gguf, "llama.rope.scale_linear", &linear, NULL) == 0 && linear != 1) {
        gguf_error_set(l->err, "llama.rope.scale_linear: only 1 is supported, found %g",
                       (double)linear);
        return -ENOTSUP;
    }
    return 0;
}

static int load_rope(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    int rc = loader_f32(l, "rope.freq_base", 10000.0f, &a->rope.theta);

    a->rope.style = ROPE_INTERLEAVED;
    if (!rc)
        rc = loader_layer_u32(l, "llama.rope.dimension_count", layer, 0, a->k_width, a->k_width,
                              &a->rope.n_dims);
    if (!rc && a->rope.n_dims % 2) {
        gguf_error_set(l->err, "llama.rope.dimension_count: expected an even number, found %u",
                       a->rope.n_dims);
        rc = -EINVAL;
    }
    return rc;
}

static int load_heads(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    int rc = loader_layer_u32(l, "llama.attention.head_count", layer, 1, HEADS_MAX, REQUIRED,
                              &a->n_heads);

    if (!rc)
        rc = loader_layer_u32(l, "llama.attention.head_count_kv", layer, 1, a->n_heads, a->n_heads,
                              &a->n_kv_heads);
    if (!rc && a->n_heads % a->n_kv_heads) {
        gguf_error_set(l->err,
                       "llama.attention.head_count_kv: layer %u: %u does not divide %u heads",
                       layer, a->n_kv_heads, a->n_heads);
        rc = -EINVAL;
    }
    return rc;
}

static int load_widths(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    const uint32_t width = l->model->n_embd / a->n_heads;
    int rc =
        loader_layer_u32(l, "llama.attention.key_length", layer, 1, WIDTH_MAX, width, &a->k_width);

    if (!rc)
        rc = loader_layer_u32(l, "llama.attention.value_length", layer, 1, WIDTH_MAX, width,
                              &a->v_width);
    if (!rc)
        rc = loader_f32(l, "attention.scale", 1.0f / sqrtf((float)a->k_width), &a->scale);
    return rc;
}

static int load_window(struct model_loader *l, uint32_t layer, struct attention_desc *a)
{
    int rc =
        loader_layer_u32(l, "llama.attention.sliding_window", layer, 0, CTX_MAX, 0, &a->window);

    if (!rc)
        rc = loader_layer_u32(l, "omni.attention.n_sinks", layer, 0, CTX_MAX, 0, &a->n_sinks);
    a->kind = a->window ? ATTENTION_WINDOW : ATTENTION_FULL;
    if (!a->window)
        a->n_sinks = 0;
    return rc;
}

static int check_kind(struct model_loader *l, uint32_t layer, struct gguf_string kind,
                      const struct attention_desc *a)
{
    const int shown = (int)(kind.len < 32 ? kind.len : 32);
    const char *name = attention_kind_name(a->kind);

    if (kind.len == strlen(name) && memcmp(kind.data, name, kind.len) == 0)
        return 0;
    gguf_error_set(l->err,
                   "omni.attention.kind: layer %u: %.*s, but the other keys say %s (full and "
                   "window are supported)",
                   layer, shown, kind.data, name);
    return -ENOTSUP;
}

static int check_kinds(struct model_loader *l)
{
    struct gguf_array kinds;
    struct gguf_cursor cursor = {0};
    struct gguf_string kind;
    int rc = gguf_get_array(l->gguf, "omni.attention.kind", &kinds, l->err);

    if (rc == -ENOENT)
        return 0;
    if (!rc && (kinds.type != GGUF_STRING || kinds.n != l->model->n_layers)) {
        gguf_error_set(l->err, "omni.attention.kind: expected %u strings", l->model->n_layers);
        rc = -EINVAL;
    }
    for (uint32_t i = 0; !rc && gguf_array_next(&kinds, &cursor, &kind); i++)
        rc = check_kind(l, i, kind, &l->model->layers[i].attn);
    return rc;
}

static int load_attention(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    struct attention_desc *a = &y->attn;
    const uint64_t n_embd = l->model->n_embd;
    int rc = load_heads(l, layer, a);

    if (!rc)
        rc = load_widths(l, layer, a);
    if (!rc)
        rc = load_rope(l, layer, a);
    if (!rc)
        rc = load_window(l, layer, a);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_norm.weight", 1, 1, n_embd, &y->attn_norm);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_q.weight", 1, (uint64_t)a->n_heads * a->k_width,
                               n_embd, &y->attn_q);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_k.weight", 1, attention_k_values(a), n_embd,
                               &y->attn_k);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_v.weight", 1, attention_v_values(a), n_embd,
                               &y->attn_v);
    if (!rc)
        rc = loader_layer_view(l, layer, "attn_output.weight", 1, n_embd,
                               (uint64_t)a->n_heads * a->v_width, &y->attn_output);
    return rc;
}

static int load_gated(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t n_embd = l->model->n_embd;
    int rc;

    y->mlp.kind = MLP_GATED;
    rc = loader_layer_u32(l, "llama.feed_forward_length", layer, 1, FF_MAX, REQUIRED, &y->mlp.n_ff);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_gate.weight", 1, y->mlp.n_ff, n_embd, &y->ffn_gate);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_up.weight", 1, y->mlp.n_ff, n_embd, &y->ffn_up);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_down.weight", 1, n_embd, y->mlp.n_ff, &y->ffn_down);
    return rc;
}

/* The hidden width of an expert has a key of its own; where it is missing, the common one counts.
 */
static int load_expert_sizes(struct model_loader *l, uint32_t layer, struct mlp_desc *mlp)
{
    const char *const own = "llama.expert_feed_forward_length";
    const char *key = gguf_has(l->gguf, own) ? own : "llama.feed_forward_length";
    bool normalised = true;
    int rc = loader_layer_u32(l, key, layer, 1, FF_MAX, REQUIRED, &mlp->n_ff);

    mlp->kind = MLP_EXPERTS;
    if (!rc)
        rc = loader_u32(l, "expert_count", 2, EXPERTS_MAX, REQUIRED, &mlp->n_experts);
    if (!rc)
        rc = loader_u32(l, "expert_used_count", 1, mlp->n_experts, REQUIRED, &mlp->n_used);
    if (!rc) {
        rc = gguf_get_bool(l->gguf, "llama.expert_weights_norm", &normalised, l->err);
        rc = rc == -ENOENT ? 0 : rc;
    }
    mlp->order = normalised ? EXPERTS_TOPK_THEN_SOFTMAX : EXPERTS_SOFTMAX_THEN_TOPK;
    return rc;
}

static int load_experts(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    const uint64_t n_embd = l->model->n_embd;
    const struct mlp_desc *mlp = &y->mlp;
    int rc = load_expert_sizes(l, layer, &y->mlp);

    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_gate_inp.weight", 1, mlp->n_experts, n_embd,
                               &y->ffn_router);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_gate_exps.weight", mlp->n_experts, mlp->n_ff, n_embd,
                               &y->ffn_gate);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_up_exps.weight", mlp->n_experts, mlp->n_ff, n_embd,
                               &y->ffn_up);
    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_down_exps.weight", mlp->n_experts, n_embd, mlp->n_ff,
                               &y->ffn_down);
    return rc;
}

static int load_layer(struct model_loader *l, uint32_t layer)
{
    struct model_layer *y = &l->model->layers[layer];
    int rc = load_attention(l, layer);

    if (!rc)
        rc = loader_layer_view(l, layer, "ffn_norm.weight", 1, 1, l->model->n_embd, &y->ffn_norm);
    if (rc)
        return rc;
    return loader_layer_has(l, layer, "ffn_gate_inp.weight") ? load_experts(l, layer)
                                                             : load_gated(l, layer);
}

/* The vocabulary's size is the embedding's; every token id that the tokenizer can make needs a row.
 */
static int load_vocab(struct model_loader *l)
{
    struct model *m = l->model;
    const struct gguf_tensor *t = gguf_find_tensor(l->gguf, "token_embd.weight");
    struct gguf_array tokens;

    if (!t || t->dims[1] > VOCAB_MAX) {
        gguf_error_set(l->err, "tensor token_embd.weight: %s",
                       t ? "too many rows" : "missing (a vocabulary-only file?)");
        return -EINVAL;
    }
    m->n_vocab = (uint32_t)t->dims[1];
    if (gguf_get_array(l->gguf, "tokenizer.ggml.tokens", &tokens, NULL) == 0 &&
        tokens.n > m->n_vocab) {
        gguf_error_set(
            l->err, "tokenizer.ggml.tokens: %" PRIu64 " tokens, but token_embd.weight has %u rows",
            tokens.n, m->n_vocab);
        return -EINVAL;
    }
    return loader_u32(l, "vocab_size", m->n_vocab, m->n_vocab, m->n_vocab, &m->n_vocab);
}

static int load_ends(struct model_loader *l)
{
    struct model *m = l->model;
    int rc = load_vocab(l);

    if (!rc)
        rc = loader_view(l, "token_embd.weight", 1, m->n_vocab, m->n_embd, &m->token_embd);
    if (!rc)
        rc = loader_view(l, "output_norm.weight", 1, 1, m->n_embd, &m->output_norm);
    if (rc)
        return rc;
    if (!gguf_find_tensor(l->gguf, "output.weight")) {
        m->output = m->token_embd;
        return 0;
    }
    return loader_view(l, "output.weight", 1, m->n_vocab, m->n_embd, &m->output);
}

int model_llama_load(struct model_loader *l)
{
    struct model *m = l->model;
    int rc = load_sizes(l);

    if (!rc)
        rc = check_rope_scaling(l);
    if (!rc)
        rc = load_ends(l);
    if (rc)
        return rc;
    m->layers = calloc(m->n_layers, sizeof(*m->layers));
    if (!m->layers) {
        gguf_error_set(l->err, "out of memory for %u layers", m->n_layers);
        return -ENOMEM;
    }
    for (uint32_t i = 0; !rc && i < m->n_layers; i++)
        rc = load_layer(l, i);
    return rc ? rc : check_kinds(l);
}
