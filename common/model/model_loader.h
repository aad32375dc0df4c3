/* model_loader.h - what the loaders of the architectures share; private to model*.c.
 *
 * A loader lives for one model_open.  It hands out views after checking their shape, marks every
 * tensor it handed out (a tensor that nobody asked for means that the file needs something this
 * system does not do), and reads hyper-parameters that may be one number or one per layer.
 * All functions return 0 or -errno with the message in err. */
#ifndef OMNI_COMMON_MODEL_MODEL_LOADER_H
#define OMNI_COMMON_MODEL_MODEL_LOADER_H

#include "common/model/model.h"

struct model_loader {
    struct model *model;
    const struct gguf *gguf;
    const char *arch; /* prefix of the keys */
    struct gguf_error *err;
    bool *used; /* [gguf_n_tensors] */
};

/* Reads <arch>.<suffix>, which must lie in [low, high].  A missing key gives fallback, or is an
 * error if fallback is UINT32_MAX. */
int loader_u32(struct model_loader *l, const char *suffix, uint32_t low, uint32_t high,
               uint32_t fallback, uint32_t *out);

/* The same for one layer: the value is one number for all layers, or an array with one per layer. */
int loader_layer_u32(struct model_loader *l, const char *suffix, uint32_t layer, uint32_t low,
                     uint32_t high, uint32_t fallback, uint32_t *out);

/* The same under a full key. */
int loader_layer_key_u32(struct model_loader *l, const char *key, uint32_t layer, uint32_t low,
                         uint32_t high, uint32_t fallback, uint32_t *out);

/* Reads <arch>.<suffix>; must be finite and > 0.  A missing key gives fallback (0: an error). */
int loader_f32(struct model_loader *l, const char *suffix, float fallback, float *out);

/* Reads <arch>.<suffix>; a missing key gives fallback. */
int loader_bool(struct model_loader *l, const char *suffix, bool fallback, bool *out);

/* The view of a tensor of n_slices x n_rows x n_cols.  A vector has n_rows = 1 and must be F32. */
int loader_view(struct model_loader *l, const char *name, uint64_t n_slices, uint64_t n_rows,
                uint64_t n_cols, struct weight_view *out);

/* The same for blk.<layer>.<part>. */
int loader_layer_view(struct model_loader *l, uint32_t layer, const char *part, uint64_t n_slices,
                      uint64_t n_rows, uint64_t n_cols, struct weight_view *out);

bool loader_layer_has(const struct model_loader *l, uint32_t layer, const char *part);

/* Fails if the file has a tensor that was not asked for. */
int loader_check_all_used(struct model_loader *l);

/* Is there <arch>.<suffix>? */
bool loader_has(const struct model_loader *l, const char *suffix);

/* The architectures; each fills hyper-parameters, layers and views. */
int model_decoder_load(struct model_loader *l);

/* Their parts: one layer's attention but for rotary embedding, one layer's MLP, and rotary
 * embedding of all layers (k_width and n_ctx are known by then). */
int model_attention_load(struct model_loader *l, uint32_t layer);
int model_mlp_load(struct model_loader *l, uint32_t layer);
int model_rope_load(struct model_loader *l);

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

/* Hash of everything that decides what the model computes. */
uint64_t model_hash(const struct model *m);

#endif
