#include "gpu-engine/sim/sim_model.h"

#include <math.h>
#include <string.h>

enum { WEIGHT_BYTES = 2 };

/* clang-format off */
static const struct sim_model models[] = {
    /* name           layers  embd heads kv  head    ff   vocab   tied */
    {"llama-2-70b",       80, 8192,   64,  8,  128, 28672,  32000, false},
    {"llama-2-7b",        32, 4096,   32, 32,  128, 11008,  32000, false},
    {"llama-3-8b",        32, 4096,   32,  8,  128, 14336, 128256, false},
    {"llama-3-70b",       80, 8192,   64,  8,  128, 28672, 128256, false},
    {"codellama-34b",     48, 8192,   64,  8,  128, 22016,  32000, false},
    {"yi-34b",            60, 7168,   56,  8,  128, 20480,  64000, false},
    {"qwen3-32b",         64, 5120,   64,  8,  128, 25600, 151936, false},
    {"qwen3-8b",          36, 4096,   32,  8,  128, 12288, 151936, false},
    {"smollm2-135m",      30,  576,    9,  3,   64,  1536,  49152, true},
};
static const char known_names[] =
    "llama-2-70b, llama-2-7b, llama-3-8b, llama-3-70b, codellama-34b, yi-34b, qwen3-32b, qwen3-8b, "
    "smollm2-135m";
/* clang-format on */

const struct sim_model *sim_model_find(const char *name, const char **known)
{
    *known = known_names;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(name, models[i].name) == 0)
            return &models[i];
    }
    return NULL;
}

double sim_model_pre_params(const struct sim_model *m)
{
    return (double)m->n_embd * (m->n_heads + 2 * m->n_kv_heads) * m->head_width;
}

double sim_model_post_params(const struct sim_model *m)
{
    return (double)m->n_embd * m->n_heads * m->head_width + 3.0 * m->n_embd * m->n_ff;
}

double sim_model_weight_bytes(const struct sim_model *m)
{
    double embeddings = (m->tied ? 1.0 : 2.0) * m->n_vocab * m->n_embd;

    return WEIGHT_BYTES *
           (embeddings + m->n_layers * (sim_model_pre_params(m) + sim_model_post_params(m)));
}

double sim_model_token_bytes(const struct sim_model *m, enum kv_type type)
{
    return 2.0 * m->n_layers * m->n_kv_heads * m->head_width * geometry_element_bytes(type);
}

int sim_model_geometry(const struct sim_model *m, enum kv_type type, uint32_t block_tokens,
                       struct kv_geometry *g)
{
    const struct kv_geometry_config config = {
        .type = type, .block_tokens = block_tokens, .n_groups = 1, .rank = 0, .n_ranks = 1};
    struct kv_layer_spec layers[KV_LAYERS_MAX];
    const char *field;

    for (uint32_t l = 0; l < m->n_layers; l++)
        layers[l] = (struct kv_layer_spec){.attention = KV_ATTENTION_FULL,
                                           .n_heads = m->n_heads,
                                           .n_kv_heads = m->n_kv_heads,
                                           .dk = m->head_width,
                                           .dv = m->head_width,
                                           .scale = 1 / sqrtf((float)m->head_width)};
    return geometry_init(g, &config, layers, m->n_layers, &field);
}
