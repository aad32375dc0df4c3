/* One tiny model of every family: what the family has, in the smallest sizes that show it.
 * Contexts that were stretched begin at 64 positions, so that short prompts reach beyond. */
#include "common/model/model_random.h"

#include <string.h>

#define N_CTX_ORIG 64
#define WINDOW     48

struct family {
    const char *name;
    struct model_random_options o; /* what differs from `common` */
    uint32_t kv_heads, window;     /* of every layer */
};

static const struct family families[] = {
    {"llama2", {.theta = 1e4f}, 4, 0},
    {"llama3", {.theta = 5e5f, .rope_llama3 = true, .factor = 8, .n_ctx_orig = N_CTX_ORIG}, 2, 0},
    {"llama-linear", {.scaling = ROPE_LINEAR, .factor = 4}, 2, 0},
    {"yi", {.theta = 5e6f}, 1, 0},
    {"mistral", {.theta = 1e4f}, 2, WINDOW},
    {"smollm2", {.theta = 1e5f, .tied = true}, 1, 0},
    {"smollm3", {.arch = "smollm3", .theta = 5e6f, .tied = true}, 2, 0},
    {"qwen2", {.arch = "qwen2", .theta = 1e6f, .tied = true, .bias = true}, 2, 0},
    {"qwen2-yarn",
     {.arch = "qwen2",
      .theta = 1e6f,
      .bias = true,
      .scaling = ROPE_YARN,
      .factor = 4,
      .n_ctx_orig = N_CTX_ORIG},
     2,
     0},
    {"qwen3",
     {.arch = "qwen3", .theta = 1e6f, .head_norm = true, .k_width = 32, .v_width = 32},
     2,
     0},
    {"phi3", {.arch = "phi3", .fused = true}, 4, WINDOW},
    {"phi3-long",
     {.arch = "phi3", .fused = true, .rope_dims = 12, .rope_long = true, .n_ctx_orig = N_CTX_ORIG},
     2,
     0},
};

enum { N_FAMILIES = sizeof(families) / sizeof(families[0]) };

const char *model_random_family_name(uint32_t i)
{
    return i < N_FAMILIES ? families[i].name : NULL;
}

bool model_random_family(const char *name, struct model_random_options *out)
{
    for (uint32_t i = 0; i < N_FAMILIES; i++) {
        const struct family *f = &families[i];

        if (strcmp(f->name, name) != 0)
            continue;
        *out = f->o;
        out->seed = 1;
        out->n_layers = 4;
        out->n_embd = 64;
        out->n_heads = 4;
        out->n_ff = 128;
        out->n_ctx = 1024;
        out->n_vocab = 320;
        for (uint32_t l = 0; l < MODEL_RANDOM_LAYERS_MAX; l++) {
            out->kv_heads[l] = f->kv_heads;
            out->windows[l] = f->window;
        }
        return true;
    }
    return false;
}
