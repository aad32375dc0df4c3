/* Rotary embedding of all layers: what keys, tables and the architecture's name say.
 *
 * Keys <arch>.rope.*: freq_base, dimension_count (number or array; 0: no rotation), and scaling.*:
 * type (none, linear, yarn, longrope), factor, original_context_length, attn_factor,
 * yarn_beta_fast, yarn_beta_slow; scale_linear is an older word for factor.  Tables are tensors:
 * rope_freqs.weight (Llama 3.1 and later), rope_factors_short.weight and rope_factors_long.weight. */
#include "common/model/model_loader.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* SmolLM3: every fourth layer does not rotate; no key says so. */
#define SMOLLM3_STEP 4

static bool arch_is(const struct model_loader *l, const char *name)
{
    return strcmp(l->arch, name) == 0;
}

static enum rope_style style_of(const struct model_loader *l)
{
    return arch_is(l, "llama") || arch_is(l, "smollm3") ? ROPE_INTERLEAVED : ROPE_NEOX;
}

/* What position scaling a file names; one that is not known would compute every token wrongly. */
static int read_type(struct model_loader *l, struct rope_desc *r)
{
    static const struct {
        const char *name;
        enum rope_scaling scaling;
    } types[] = {{"none", ROPE_PLAIN},
                 {"linear", ROPE_LINEAR},
                 {"yarn", ROPE_YARN},
                 {"longrope", ROPE_PLAIN}};
    char key[96];
    struct gguf_string type = {"linear", 6}; /* where there is a factor */
    int rc;

    (void)snprintf(key, sizeof(key), "%s.rope.scaling.type", l->arch);
    rc = gguf_get_string(l->gguf, key, &type, l->err);
    if (rc && rc != -ENOENT)
        return rc;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (type.len == strlen(types[i].name) && memcmp(type.data, types[i].name, type.len) == 0) {
            r->scaling = types[i].scaling;
            return 0;
        }
    gguf_error_at_key(l->err, l->gguf, key,
                      "%.*s is not supported (none, linear, yarn, longrope are)",
                      (int)(type.len < 32 ? type.len : 32), type.data);
    return -ENOTSUP;
}

static int read_factor(struct model_loader *l, struct rope_desc *r)
{
    const char *suffix =
        loader_has(l, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
    float factor;
    const int rc = loader_f32(l, suffix, 1.0f, &factor);

    if (rc)
        return rc;
    r->factor = r->scaling == ROPE_PLAIN ? 1.0f : factor;
    return 0;
}

/* attn_factor belongs to every kind of scaling; YaRN's own comes on top of it. */
static int read_magnitude(struct model_loader *l, struct rope_desc *r)
{
    int rc = loader_f32(l, "rope.scaling.attn_factor", 1.0f, &r->magnitude);

    if (!rc)
        rc = loader_f32(l, "rope.scaling.yarn_beta_fast", 32.0f, &r->beta_fast);
    if (!rc)
        rc = loader_f32(l, "rope.scaling.yarn_beta_slow", 1.0f, &r->beta_slow);
    if (!rc && r->scaling == ROPE_YARN && r->factor > 1)
        r->magnitude *= (float)(0.1 * log((double)r->factor) + 1);
    return rc;
}

/* What is the same for all layers. */
static int read_common(struct model_loader *l, struct rope_desc *r)
{
    int rc = loader_f32(l, "rope.freq_base", 10000.0f, &r->theta);

    r->style = style_of(l);
    if (!rc)
        rc = read_type(l, r);
    if (!rc)
        rc = read_factor(l, r);
    if (!rc)
        rc = loader_u32(l, "rope.scaling.original_context_length", 1, CTX_MAX, l->model->n_ctx,
                        &r->n_ctx_orig);
    return rc ? rc : read_magnitude(l, r);
}

/* A table of n values, all above 0; *out stays NULL if the file has none. */
static int read_table(struct model_loader *l, const char *name, uint32_t n, const float **out)
{
    struct weight_view v;
    int rc;

    if (!gguf_find_tensor(l->gguf, name))
        return 0;
    rc = loader_view(l, name, 1, 1, n, &v);
    if (rc)
        return rc;
    *out = v.data;
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite((*out)[i]) || !((*out)[i] > 0)) {
            gguf_error_set(l->err, "tensor %s: value %u: expected a finite number above 0", name,
                           i);
            return -EINVAL;
        }
    return 0;
}

static int read_tables(struct model_loader *l, struct rope_desc *r, uint32_t n)
{
    int rc = read_table(l, "rope_freqs.weight", n, &r->factors);

    if (!rc && !r->factors)
        rc = read_table(l, "rope_factors_short.weight", n, &r->factors);
    if (!rc)
        rc = read_table(l, "rope_factors_long.weight", n, &r->factors_long);
    return rc;
}

static int read_dims(struct model_loader *l, uint32_t layer, uint32_t *n_dims)
{
    const uint32_t width = l->model->layers[layer].attn.k_width;
    char key[96];
    const int rc = loader_layer_u32(l, "rope.dimension_count", layer, 0, width, width, n_dims);

    if (rc)
        return rc;
    (void)snprintf(key, sizeof(key), "%s.rope.dimension_count", l->arch);
    if (arch_is(l, "smollm3") && !gguf_is_array(l->gguf, key) && (layer + 1) % SMOLLM3_STEP == 0)
        *n_dims = 0;
    if (*n_dims % 2 == 0)
        return 0;
    gguf_error_at_key(l->err, l->gguf, key, "expected an even number, found %u", *n_dims);
    return -EINVAL;
}

int model_rope_load(struct model_loader *l)
{
    struct model *m = l->model;
    struct rope_desc common = {0};
    uint32_t n_widest = 0;
    int rc = read_common(l, &common);

    for (uint32_t i = 0; !rc && i < m->n_layers; i++) {
        struct rope_desc *r = &m->layers[i].attn.rope;

        *r = common;
        rc = read_dims(l, i, &r->n_dims);
        n_widest = r->n_dims > n_widest ? r->n_dims : n_widest;
    }
    if (!rc && n_widest)
        rc = read_tables(l, &common, n_widest / 2);
    for (uint32_t i = 0; !rc && i < m->n_layers; i++) {
        struct rope_desc *r = &m->layers[i].attn.rope;

        r->factors = r->n_dims ? common.factors : NULL;
        r->factors_long = r->n_dims ? common.factors_long : NULL;
    }
    return rc;
}
