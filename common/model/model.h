/* model.h - a model: hyper-parameters, a descriptor per layer, and weights as typed views.
 *
 * Everything that depends on a layer comes from its descriptor: layers of one model may differ in
 * attention kind, window, KV heads, widths and MLP kind.  A model is immutable after model_open and
 * may be read by any thread; it owns the mapped file that its views point into.  It holds no
 * tokenizer and no KV, and knows nothing of devices. */
#ifndef OMNI_COMMON_MODEL_MODEL_H
#define OMNI_COMMON_MODEL_MODEL_H

#include "common/model/dense_op.h"
#include "common/model/gguf.h"
#include "common/model/rope.h"

enum attention_kind {
    ATTENTION_FULL,      /* all positions <= p */
    ATTENTION_WINDOW,    /* position j <= p is seen if p - j < window or j < n_sinks */
    ATTENTION_LATENT,    /* compressed KV; refused at load */
    ATTENTION_RECURRENT, /* a state instead of KV; refused at load */
    ATTENTION_KINDS
};

struct attention_desc {
    enum attention_kind kind;
    uint32_t n_heads, n_kv_heads; /* head h reads KV head h / (n_heads / n_kv_heads) */
    uint32_t k_width, v_width;    /* values per head */
    uint32_t window;              /* ATTENTION_WINDOW: > 0; else 0 */
    uint32_t n_sinks;             /* first positions that stay visible; 0 unless windowed */
    float scale;                  /* of q . k, before softmax */
    struct rope_desc rope;
};

enum mlp_kind { MLP_GATED, MLP_EXPERTS };

enum expert_order {
    EXPERTS_TOPK_THEN_SOFTMAX, /* weights: softmax over the n_used best scores; they sum to 1 */
    EXPERTS_SOFTMAX_THEN_TOPK  /* weights: softmax over all, the n_used best kept as they are */
};

/* Ties in the scores go to the lower expert index. */
struct mlp_desc {
    enum mlp_kind kind;
    uint32_t n_ff;              /* hidden width (of one expert) */
    uint32_t n_experts, n_used; /* 0 unless MLP_EXPERTS */
    enum expert_order order;
};

#define MODEL_PRE_OPS  5
#define MODEL_POST_OPS 4
#define MODEL_HEAD_OPS 2

struct model_layer {
    struct attention_desc attn;
    struct mlp_desc mlp;
    struct weight_view attn_norm;   /* [n_embd] */
    struct weight_view attn_q;      /* [n_heads * k_width, n_embd] */
    struct weight_view attn_k;      /* [n_kv_heads * k_width, n_embd] */
    struct weight_view attn_v;      /* [n_kv_heads * v_width, n_embd] */
    struct weight_view attn_output; /* [n_embd, n_heads * v_width] */
    /* Not in every family; data NULL if not there. */
    struct weight_view attn_q_bias, attn_k_bias, attn_v_bias; /* [rows of attn_q, ...] */
    struct weight_view attn_q_norm, attn_k_norm;              /* [k_width] */
    struct weight_view ffn_norm;                              /* [n_embd] */
    struct weight_view ffn_gate;   /* [n_ff, n_embd], n_experts slices if routed */
    struct weight_view ffn_up;     /* [n_ff, n_embd], likewise */
    struct weight_view ffn_down;   /* [n_embd, n_ff], likewise */
    struct weight_view ffn_router; /* [n_experts, n_embd]; data NULL if not routed */
    uint32_t n_pre, n_post;
    struct dense_op pre[MODEL_PRE_OPS];   /* norm, qkv, bias, head norm, rope */
    struct dense_op post[MODEL_POST_OPS]; /* project, norm, gated or experts */
};

struct model {
    struct gguf *gguf; /* owned; the mapping under all views */
    char name[64];     /* general.name, cut; "" if absent */
    uint32_t n_layers, n_embd, n_vocab, n_ctx;
    float norm_eps;
    uint64_t hash; /* hyper-parameters, tensor names, types, shapes and sampled bytes */
    struct weight_view token_embd;  /* [n_vocab, n_embd] */
    struct weight_view output_norm; /* [n_embd] */
    struct weight_view output;      /* [n_vocab, n_embd]; the same data as token_embd if tied */
    struct dense_op head[MODEL_HEAD_OPS]; /* norm, logits */
    struct model_layer *layers;           /* [n_layers] */
    /* Largest widths over all layers, for sizing buffers. */
    uint32_t q_width_max, k_width_max, v_width_max, a_width_max, n_ff_max, n_experts_max;
};

/* Opens a GGUF file of a known architecture.  0 and *out (close it with model_close), or -errno
 * with err filled in: the tensor or key, what was expected and what was found. */
int model_open(const char *path, struct model **out, struct gguf_error *err);

/* The same over a file that is open already.  Success: the model owns g.  Failure: the caller does.
 */
int model_create(struct gguf *g, struct model **out, struct gguf_error *err);

/* NULL is allowed. */
void model_close(struct model *m);

/* "full", "window", "latent", "recurrent". */
const char *attention_kind_name(enum attention_kind kind);

/* Values of K and V that one token adds to a layer, over all its KV heads. */
static inline uint64_t attention_k_values(const struct attention_desc *a)
{
    return (uint64_t)a->n_kv_heads * a->k_width;
}

static inline uint64_t attention_v_values(const struct attention_desc *a)
{
    return (uint64_t)a->n_kv_heads * a->v_width;
}

/* Bytes that one token adds to a layer's KV when a value takes value_bytes (2 for f16). */
static inline uint64_t attention_token_bytes(const struct attention_desc *a, uint32_t value_bytes)
{
    return (attention_k_values(a) + attention_v_values(a)) * value_bytes;
}

/* The same over all layers. */
uint64_t model_token_bytes(const struct model *m, uint32_t value_bytes);

/* Token id's embedding row (id < n_vocab) as n_embd floats. */
void model_embed_ref(const struct model *m, uint32_t id, float *out);

#endif
