/* The decoder-only families: Llama (2, 3, Mistral, Yi, SmolLM2), Qwen 2 and 3, Phi-3, SmolLM3.
 *
 * They differ in tensors that are there or not (biases, norms of heads, fused matrices) and in
 * rotary embedding (model_rope.c): one loader takes what a file has, and the architecture's name
 * says what no key says.  Three ways to say that layers differ: a key may hold an array with one
 * value per layer; a layer with a router tensor has experts; and keys of our own say what GGUF has
 * no word for:
 *     omni.attention.n_sinks   first positions that a windowed layer keeps (number or array)
 *     omni.attention.kind      array of "full" | "window" | "latent" | "recurrent" */
#include "common/model/model_loader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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
        gguf_error_at_key(l->err, l->gguf, "tokenizer.ggml.tokens",
                          "%" PRIu64 " tokens, but token_embd.weight has %u rows", tokens.n,
                          m->n_vocab);
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

static int check_kind(struct model_loader *l, uint32_t layer, struct gguf_string kind,
                      const struct attention_desc *a)
{
    const int shown = (int)(kind.len < 32 ? kind.len : 32);
    const char *name = attention_kind_name(a->kind);

    if (kind.len == strlen(name) && memcmp(kind.data, name, kind.len) == 0)
        return 0;
    gguf_error_at_key(l->err, l->gguf, "omni.attention.kind",
                      "layer %u: %.*s, but the other keys say %s (full and "
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
        gguf_error_at_key(l->err, l->gguf, "omni.attention.kind", "expected %u strings",
                          l->model->n_layers);
        rc = -EINVAL;
    }
    for (uint32_t i = 0; !rc && gguf_array_next(&kinds, &cursor, &kind); i++)
        rc = check_kind(l, i, kind, &l->model->layers[i].attn);
    return rc;
}

int model_decoder_load(struct model_loader *l)
{
    struct model *m = l->model;
    int rc = load_sizes(l);

    if (!rc)
        rc = load_ends(l);
    if (rc)
        return rc;
    m->layers = calloc(m->n_layers, sizeof(*m->layers));
    if (!m->layers) {
        gguf_error_set(l->err, "out of memory for %u layers", m->n_layers);
        return -ENOMEM;
    }
    for (uint32_t i = 0; !rc && i < m->n_layers; i++) {
        rc = model_attention_load(l, i);
        if (!rc)
            rc = model_mlp_load(l, i);
    }
    if (!rc)
        rc = model_rope_load(l);
    return rc ? rc : check_kinds(l);
}
