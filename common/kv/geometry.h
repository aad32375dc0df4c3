/* geometry.h - where the keys and values of a token lie inside a KV block.
 *
 * The geometry is data, not code: it is computed once from the model's layers, copied into the
 * header of every KV arena and job segment, and compared by hash at attach.  Kernels take strides
 * from here, so that a worker needs no model file, and so that layers may differ (attention kind,
 * heads, widths) and be placed apart (layer groups).
 *
 *   block (block_bytes, a multiple of 4,096) = block_tokens tokens of one layer group
 *     layer 0 of the group:  tokens 0..n-1, tokens n..2n-1, ...   tile_stride bytes each;
 *     layer 1 of the group:  ...                                 n = tile_tokens (64; 32 where
 *                                                     block_tokens is no multiple of 64)
 *   tokens:  head 0, head 1, ...           k_head_stride bytes each
 *   head:    K  [n / 32][dk / p][32][p]    panels of 32 tokens, element-major
 *            V  [n / p][dv][p]
 *            I8 only: float scales [n] of K, [n] of V
 *   p = 1 for F16 and F32; 2 for BF16 and I8, whose dot products take pairs (dk then rounded up)
 *
 * So what attention reads of one layer of a block is one contiguous stream over all KV heads, in
 * the order in which it is read, and in the order in which vector registers want it: tokens' scores
 * side by side need no sum across lanes, and a pair is what a dot-product instruction multiplies.
 * Long streams matter: a Zen 5 core reads pieces of 8, 64 and 256 KiB, in random order and asked for
 * in time, at 0.57, 0.78 and 0.93 of what it reads in one sequence.
 * All blocks of a pool have the same size: that of the largest group.  Every field is of fixed
 * width and the struct holds no pointer: it is mapped by several processes.
 *
 * Plain data; geometry_init fills it, nobody changes it afterwards. */
#ifndef OMNI_COMMON_KV_GEOMETRY_H
#define OMNI_COMMON_KV_GEOMETRY_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KV_LAYERS_MAX = 128, /* Llama-2-70B has 80, the largest open dense models 126 */
    KV_GROUPS_MAX = 8,
    KV_HEADS_MAX = 1024, /* of a layer, query heads */
    KV_WIDTH_MAX = 1024, /* of a head, elements */
    KV_TILE_TOKENS = 32, /* block_tokens is a multiple of it */
    KV_TILE_TOKENS_MAX = 64,
    KV_BLOCK_ALIGN = 4096,
    KV_PANEL_TOKENS = 32, /* tokens whose K lies interleaved */
    KV_LAYOUT_ID = 3,     /* as drawn above; 2 had the heads of a block one behind the other */
};

enum kv_type { KV_TYPE_F16 = 1, KV_TYPE_BF16 = 2, KV_TYPE_F32 = 3, KV_TYPE_I8 = 4 };

enum kv_attention {
    KV_ATTENTION_FULL = 1,
    KV_ATTENTION_WINDOW,
    KV_ATTENTION_LATENT,
    KV_ATTENTION_RECURRENT
};

/* One layer, as attention sees it; the heads are those of this rank's shard. */
struct kv_layer {
    uint16_t attention; /* enum kv_attention */
    uint16_t group;     /* layer group that places this layer */
    uint16_t n_heads;   /* query heads */
    uint16_t n_kv_heads;
    uint16_t dk;      /* width of a query and key head, elements */
    uint16_t dv;      /* width of a value head, elements */
    uint32_t window;  /* a query at position p sees p-window+1..p; 0 = all */
    uint32_t n_sinks; /* and always positions 0..n_sinks-1 */
    float scale;      /* scores are multiplied by it, 1/sqrt(dk) as a rule */
    float softcap;    /* 0 = none */
    uint32_t k_off;   /* bytes from the block's start to K of head 0, token 0 */
    uint32_t v_off;
    uint32_t k_head_stride;  /* bytes from head to head of a tile */
    uint32_t k_token_stride; /* bytes a token takes: 32 of them are a panel */
    uint32_t v_head_stride;
    uint32_t v_token_stride;
    uint32_t k_scale_off; /* KV_TYPE_I8: from the block's start to head 0, token 0; else 0 */
    uint32_t v_scale_off;
    uint32_t tile_stride; /* bytes from tile to tile: all heads of a tile */
    uint32_t tile_tokens; /* KV_TILE_TOKENS or KV_TILE_TOKENS_MAX */
    uint32_t reserved;
};
static_assert(sizeof(struct kv_layer) == 72, "kv_layer is shared between processes");

struct kv_geometry {
    uint32_t layout_id;
    uint32_t type; /* enum kv_type */
    uint32_t block_tokens;
    uint32_t n_layers;
    uint32_t n_groups;
    uint32_t rank;
    uint32_t n_ranks;
    uint32_t block_bytes;
    uint64_t model_hash;                 /* of the model that the KV belongs to */
    uint64_t hash;                       /* of all other fields; what attach compares */
    uint16_t group_first[KV_GROUPS_MAX]; /* first layer of each group; groups are consecutive */
    uint16_t group_layers[KV_GROUPS_MAX];
    struct kv_layer layer[KV_LAYERS_MAX];
};
static_assert(sizeof(struct kv_geometry) == 80 + 72 * KV_LAYERS_MAX,
              "kv_geometry is shared between processes");

/* What geometry_init needs to know of a layer: the whole model's heads, before sharding. */
struct kv_layer_spec {
    enum kv_attention attention;
    uint32_t n_heads, n_kv_heads, dk, dv;
    uint32_t window, n_sinks;
    float scale, softcap;
};

struct kv_geometry_config {
    enum kv_type type;
    uint32_t block_tokens;  /* a multiple of KV_TILE_TOKENS */
    uint32_t n_groups;      /* layers are split into so many consecutive groups; 1 as a rule */
    uint32_t rank, n_ranks; /* heads are split over ranks; n_kv_heads must divide */
    uint64_t model_hash;
};

/* Fills *g.  0, or -EINVAL with *field naming the value that is out of bounds. */
int geometry_init(struct kv_geometry *g, const struct kv_geometry_config *config,
                  const struct kv_layer_spec *layers, uint32_t n_layers, const char **field);

/* Checks a geometry that came from another process's memory: bounds, offsets inside the block, and
 * the hash.  0 or -EINVAL with *field. */
int geometry_check(const struct kv_geometry *g, const char **field);

/* Bytes of one element (scales of KV_TYPE_I8 apart). */
uint32_t geometry_element_bytes(enum kv_type type);

/* KV bytes that one token of one layer occupies, scales included. */
uint32_t geometry_layer_token_bytes(const struct kv_geometry *g, uint32_t layer);

/* Blocks per group that hold n tokens. */
static inline uint32_t geometry_blocks_for(const struct kv_geometry *g, uint32_t n_tokens)
{
    return n_tokens / g->block_tokens + (n_tokens % g->block_tokens != 0);
}

/* Elements of one row of q (and of the output: n_heads x dv), k and v of a layer. */
static inline uint32_t kv_layer_q_width(const struct kv_layer *l)
{
    return (uint32_t)l->n_heads * l->dk;
}
static inline uint32_t kv_layer_out_width(const struct kv_layer *l)
{
    return (uint32_t)l->n_heads * l->dv;
}
static inline uint32_t kv_layer_k_width(const struct kv_layer *l)
{
    return (uint32_t)l->n_kv_heads * l->dk;
}
static inline uint32_t kv_layer_v_width(const struct kv_layer *l)
{
    return (uint32_t)l->n_kv_heads * l->dv;
}

/* The KV of one sequence at one layer: base + table[pos / block_tokens] * block_bytes is the block
 * that holds position pos.  Borrowed pointers; the table belongs to the sequence's owner. */
struct kv_view {
    uint8_t *base;
    const uint32_t *table;
    uint64_t block_bytes;
    uint32_t block_tokens;
    uint32_t n_blocks; /* entries of table */
    uint32_t type;     /* enum kv_type */
    const struct kv_layer *layer;
};

/* How many elements lie side by side: of a token's K, and of neighbouring tokens' V. */
static inline uint32_t kv_pair(uint32_t type)
{
    return type == KV_TYPE_BF16 || type == KV_TYPE_I8 ? 2 : 1;
}

/* Bytes from a block's start to the tile of a head that holds its token t (0..block_tokens-1). */
static inline size_t kv_tile_offset(const struct kv_layer *l, uint32_t head, uint32_t t)
{
    return l->k_off + (size_t)head * l->k_head_stride +
           (size_t)(t / l->tile_tokens) * l->tile_stride;
}

/* Bytes from a block's start to element e of K or V of a head's token t, and to its scales. */
static inline size_t kv_k_offset(const struct kv_layer *l, uint32_t type, uint32_t head, uint32_t t,
                                 uint32_t e)
{
    uint32_t pair = kv_pair(type), lane = t % KV_PANEL_TOKENS;
    size_t panel = (size_t)(t % l->tile_tokens - lane) * l->k_token_stride;
    size_t element = ((size_t)e / pair * KV_PANEL_TOKENS + lane) * pair + e % pair;

    return kv_tile_offset(l, head, t) + panel +
           element * geometry_element_bytes((enum kv_type)type);
}
static inline size_t kv_v_offset(const struct kv_layer *l, uint32_t type, uint32_t head, uint32_t t,
                                 uint32_t e)
{
    uint32_t pair = kv_pair(type);
    size_t row = (size_t)(t % l->tile_tokens / pair) * pair * l->v_token_stride;

    return kv_tile_offset(l, head, t) + (l->v_off - l->k_off) + row +
           ((size_t)e * pair + t % pair) * geometry_element_bytes((enum kv_type)type);
}
static inline size_t kv_scale_offset(const struct kv_layer *l, uint32_t scale_off, uint32_t head,
                                     uint32_t t)
{
    return kv_tile_offset(l, head, t) + (scale_off - l->k_off) +
           sizeof(float) * (t % l->tile_tokens);
}

static inline uint8_t *kv_view_block(const struct kv_view *v, uint32_t pos)
{
    return v->base + (uint64_t)v->table[pos / v->block_tokens] * v->block_bytes;
}

#endif
