/* One number that two processes compare before they share memory, or a cache file before it is
 * used. It guards against mistakes (another model, another quantisation), not against forgery. */
#include "common/model/model_loader.h"

#include <string.h>

/* Data bytes looked at per tensor: enough to tell two fine-tunes of one shape apart, without
 * reading the whole file at start. */
#define SAMPLES      16
#define SAMPLE_BYTES 64

#define FNV_BASIS UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * FNV_PRIME;
    return h;
}

static uint64_t hash_u64(uint64_t h, uint64_t value)
{
    return hash_bytes(h, &value, sizeof(value));
}

static uint64_t hash_f32(uint64_t h, float value)
{
    return hash_bytes(h, &value, sizeof(value));
}

static uint64_t hash_layer(uint64_t h, const struct model_layer *y)
{
    const struct attention_desc *a = &y->attn;
    const uint64_t fields[] = {a->kind,       a->n_heads,   a->n_kv_heads,   a->k_width,
                               a->v_width,    a->window,    a->n_sinks,      a->rope.n_dims,
                               a->rope.style, y->mlp.kind,  y->mlp.n_ff,     y->mlp.n_experts,
                               y->mlp.n_used, y->mlp.order, a->rope.scaling, a->rope.n_ctx_orig};
    const float numbers[] = {a->scale,          a->rope.theta,     a->rope.factor,
                             a->rope.beta_fast, a->rope.beta_slow, a->rope.magnitude};

    h = hash_bytes(h, fields, sizeof(fields));
    return hash_bytes(h, numbers, sizeof(numbers));
}

static uint64_t hash_tensor(uint64_t h, const struct gguf_tensor *t)
{
    const uint64_t n = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;

    h = hash_bytes(h, t->name, strlen(t->name));
    h = hash_u64(h, t->type);
    h = hash_bytes(h, t->dims, sizeof(t->dims));
    for (uint64_t i = 0; i < SAMPLES; i++) {
        const uint64_t off = (t->bytes - n) / (SAMPLES - 1) * i;

        h = hash_bytes(h, (const char *)t->data + off, (size_t)n);
    }
    return h;
}

uint64_t model_hash(const struct model *m)
{
    uint64_t h = FNV_BASIS;

    h = hash_u64(h, m->n_layers);
    h = hash_u64(h, m->n_embd);
    h = hash_u64(h, m->n_vocab);
    h = hash_f32(h, m->norm_eps);
    for (uint32_t i = 0; i < m->n_layers; i++)
        h = hash_layer(h, &m->layers[i]);
    for (uint64_t i = 0; i < gguf_n_tensors(m->gguf); i++)
        h = hash_tensor(h, gguf_tensor_at(m->gguf, i));
    return h;
}
