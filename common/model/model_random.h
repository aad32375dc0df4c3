/* model_random.h - tiny random models as real GGUF files, for tests and for trying things out.
 *
 * Layers may differ in KV heads, window and MLP kind, and matrices in type, so that a program that
 * runs such a file by its path exercises what big models need.  The file has a small but real
 * byte-level BPE vocabulary (256 bytes, a few merges, ChatML tokens) and SmolLM2's chat template.
 * Weights are scaled so that logits spread and greedy output does not settle on one token.
 * The same options give the same file, byte for byte. */
#ifndef OMNI_COMMON_MODEL_MODEL_RANDOM_H
#define OMNI_COMMON_MODEL_MODEL_RANDOM_H

#include "common/model/rope.h"
#include "common/model/weight.h"

#include <stdbool.h>

#define MODEL_RANDOM_LAYERS_MAX 128

struct model_random_options {
    uint64_t seed;
    uint32_t n_layers, n_embd, n_heads, n_ff, n_ctx;
    uint32_t k_width, v_width; /* per head; 0: n_embd / n_heads */
    uint32_t n_vocab;          /* padded with unused words up to this; at least the built-in size */
    uint32_t n_experts, n_used; /* in the layers that have experts */
    uint32_t n_sinks;           /* in the layers that have a window */
    bool tied;                  /* no output.weight */
    uint32_t kv_heads[MODEL_RANDOM_LAYERS_MAX];
    uint32_t windows[MODEL_RANDOM_LAYERS_MAX]; /* 0: full attention */
    bool experts[MODEL_RANDOM_LAYERS_MAX];
    enum weight_type type;      /* of the layers' matrices ... */
    bool mixed;                 /* ... or all four types in turn */
    enum weight_type embd_type; /* of token_embd and output */
    const char *chat_template;  /* NULL: SmolLM2's */
    const char *arch;           /* NULL: "llama" */
    bool bias;                  /* of q, k, v */
    bool head_norm;             /* of q and k */
    bool fused;                 /* q, k, v in one matrix, gate and up in another */
    bool hollow;                /* matrices are holes of the file: a shape of any size, to be loaded
                                   with weights that the device makes */
    float theta;                /* 0: 10000 */
    uint32_t rope_dims;         /* 0: k_width */
    enum rope_scaling scaling;
    float factor;        /* unless ROPE_PLAIN; and of the table of rope_llama3 */
    uint32_t n_ctx_orig; /* 0: n_ctx */
    bool rope_llama3;    /* a table of Llama 3's form */
    bool rope_long;      /* two tables, for contexts within and beyond n_ctx_orig */
};

/* Six layers of 64, 4 heads, KV heads 2 1 4 in turn, every second layer a window of 64 with 4
 * sinks, every third layer 4 experts top-2, mixed types. */
struct model_random_options model_random_defaults(void);

/* Options of a family that is known by name, all F32: "qwen3", "mistral", ...; false: no such name.
 * model_random_family_name(i) gives the names, then NULL. */
bool model_random_family(const char *name, struct model_random_options *out);
const char *model_random_family_name(uint32_t i);

/* Writes the file (a temporary name, then rename).  0, -EINVAL (options that do not fit together),
 * or -errno. */
int model_random_write(const char *path, const struct model_random_options *o);

#endif
