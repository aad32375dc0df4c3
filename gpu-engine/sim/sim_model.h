/* sim_model.h - shapes of known models: what their time and memory are worked out from.
 *
 * Dense decoders with a gated MLP; weights in 16 bits.  Constants; any thread. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_MODEL_H
#define OMNI_GPU_ENGINE_SIM_SIM_MODEL_H

#include <stdbool.h>

#include "common/kv/geometry.h"

struct sim_model {
    const char *name;
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_width, n_ff, n_vocab;
    bool tied; /* the LM head is the embedding */
};

/* NULL: unknown; *known lists the names. */
const struct sim_model *sim_model_find(const char *name, const char **known);

/* Weights of a layer: what the QKV products read, and all the others. */
double sim_model_pre_params(const struct sim_model *m);
double sim_model_post_params(const struct sim_model *m);

/* Bytes of all weights. */
double sim_model_weight_bytes(const struct sim_model *m);

/* KV bytes of a token over all layers. */
double sim_model_token_bytes(const struct sim_model *m, enum kv_type type);

/* The whole model's KV, whatever ranks share it.  0 or -EINVAL. */
int sim_model_geometry(const struct sim_model *m, enum kv_type type, uint32_t block_tokens,
                       struct kv_geometry *g);

#endif
