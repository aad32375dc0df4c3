#include "common/model/model.h"

#include "common/base/invariant.h"
#include "common/model/model_loader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct architecture {
    const char *name;
    int (*load)(struct model_loader *l);
};

static const struct architecture architectures[] = {
    {"llama", model_decoder_load}, {"qwen2", model_decoder_load},   {"qwen3", model_decoder_load},
    {"phi3", model_decoder_load},  {"smollm3", model_decoder_load},
};
#define N_ARCHITECTURES (sizeof(architectures) / sizeof(architectures[0]))

static int unknown_architecture(const struct gguf *g, struct gguf_string name,
                                struct gguf_error *err)
{
    char known[128] = "";
    size_t used = 0;

    for (size_t i = 0; i < N_ARCHITECTURES && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                                 architectures[i].name);
    gguf_error_at_key(err, g, "general.architecture", "%.*s is not known (known: %s)",
                      (int)(name.len < 48 ? name.len : 48), name.data, known);
    return -ENOTSUP;
}

static int find_architecture(const struct gguf *g, const struct architecture **out,
                             struct gguf_error *err)
{
    struct gguf_string name;
    const int rc = gguf_get_string(g, "general.architecture", &name, err);

    if (rc)
        return rc == -ENOENT ? -EINVAL : rc;
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (name.len == strlen(architectures[i].name) &&
            memcmp(name.data, architectures[i].name, name.len) == 0) {
            *out = &architectures[i];
            return 0;
        }
    return unknown_architecture(g, name, err);
}

static struct dense_op norm_op(const struct weight_view *w, float eps)
{
    return (struct dense_op){.kind = DENSE_NORM, .eps = eps, .w = {w}};
}

static void build_layer_ops(struct model_layer *y, float eps)
{
    const struct attention_desc *a = &y->attn;

    y->pre[y->n_pre++] = norm_op(&y->attn_norm, eps);
    y->pre[y->n_pre++] =
        (struct dense_op){.kind = DENSE_QKV, .w = {&y->attn_q, &y->attn_k, &y->attn_v}, .attn = a};
    if (y->attn_q_bias.data)
        y->pre[y->n_pre++] =
            (struct dense_op){.kind = DENSE_BIAS,
                              .w = {&y->attn_q_bias, &y->attn_k_bias, &y->attn_v_bias},
                              .attn = a};
    if (y->attn_q_norm.data)
        y->pre[y->n_pre++] = (struct dense_op){.kind = DENSE_HEAD_NORM,
                                               .eps = eps,
                                               .w = {&y->attn_q_norm, &y->attn_k_norm},
                                               .attn = a};
    if (a->rope.n_dims)
        y->pre[y->n_pre++] = (struct dense_op){.kind = DENSE_ROPE, .attn = a};

    y->post[y->n_post++] =
        (struct dense_op){.kind = DENSE_PROJECT, .w = {&y->attn_output}, .attn = a};
    y->post[y->n_post++] = norm_op(&y->ffn_norm, eps);
    y->post[y->n_post++] =
        (struct dense_op){.kind = y->mlp.kind == MLP_EXPERTS ? DENSE_EXPERTS : DENSE_GATED,
                          .w = {&y->ffn_gate, &y->ffn_up, &y->ffn_down,
                                y->mlp.kind == MLP_EXPERTS ? &y->ffn_router : NULL},
                          .mlp = &y->mlp};
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void take_maxima(struct model *m, const struct model_layer *y)
{
    const struct attention_desc *a = &y->attn;

    m->q_width_max = max_u32(m->q_width_max, a->n_heads * a->k_width);
    m->k_width_max = max_u32(m->k_width_max, (uint32_t)attention_k_values(a));
    m->v_width_max = max_u32(m->v_width_max, (uint32_t)attention_v_values(a));
    m->a_width_max = max_u32(m->a_width_max, a->n_heads * a->v_width);
    m->n_ff_max = max_u32(m->n_ff_max, y->mlp.n_ff);
    m->n_experts_max = max_u32(m->n_experts_max, y->mlp.n_experts);
}

/* What follows from hyper-parameters and views. */
static void finish(struct model *m)
{
    struct gguf_string name;

    if (gguf_get_string(m->gguf, "general.name", &name, NULL) == 0)
        (void)snprintf(m->name, sizeof(m->name), "%.*s", (int)(name.len < 63 ? name.len : 63),
                       name.data);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        build_layer_ops(&m->layers[i], m->norm_eps);
        take_maxima(m, &m->layers[i]);
    }
    m->head[0] = norm_op(&m->output_norm, m->norm_eps);
    m->head[1] = (struct dense_op){.kind = DENSE_LOGITS, .w = {&m->output}};
    m->hash = model_hash(m);
}

static int load(struct model *m, struct gguf_error *err)
{
    const struct architecture *arch = NULL;
    struct model_loader l = {.model = m, .gguf = m->gguf, .err = err};
    int rc = find_architecture(m->gguf, &arch, err);

    if (rc)
        return rc;
    l.arch = arch->name;
    l.used = calloc((size_t)gguf_n_tensors(m->gguf) + 1, sizeof(*l.used));
    if (!l.used)
        return -ENOMEM;
    rc = arch->load(&l);
    if (!rc)
        rc = loader_check_all_used(&l);
    free(l.used);
    if (!rc)
        finish(m);
    return rc;
}

int model_create(struct gguf *g, struct model **out, struct gguf_error *err)
{
    struct model *m = calloc(1, sizeof(*m));
    int rc;

    *out = NULL;
    gguf_error_set(err, "out of memory");
    if (!m)
        return -ENOMEM;
    m->gguf = g;
    rc = load(m, err);
    if (rc) {
        m->gguf = NULL;
        model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

int model_open(const char *path, struct model **out, struct gguf_error *err)
{
    struct gguf *g;
    int rc = gguf_open(path, &g, err);

    *out = NULL;
    if (!rc)
        rc = model_create(g, out, err);
    if (rc)
        gguf_close(g);
    return rc;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    free(m->layers);
    gguf_close(m->gguf);
    free(m);
}

const char *attention_kind_name(enum attention_kind kind)
{
    static const char *const names[ATTENTION_KINDS] = {
        [ATTENTION_FULL] = "full",
        [ATTENTION_WINDOW] = "window",
        [ATTENTION_LATENT] = "latent",
        [ATTENTION_RECURRENT] = "recurrent",
    };

    invariant((unsigned)kind < ATTENTION_KINDS);
    return names[kind];
}

uint64_t model_token_bytes(const struct model *m, uint32_t value_bytes)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < m->n_layers; i++)
        sum += attention_token_bytes(&m->layers[i].attn, value_bytes);
    return sum;
}

void model_embed_ref(const struct model *m, uint32_t id, float *out)
{
    invariant(id < m->n_vocab);
    weight_dequant_row_ref(&m->token_embd, id, out);
}
