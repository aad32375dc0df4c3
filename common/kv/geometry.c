#include "common/kv/geometry.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "common/base/hash.h"

/* A geometry lies in every arena's header: where its fields are is a contract (KV_LAYOUT_ID). */
#define AT(type, field, off)                                                                       \
    static_assert(offsetof(struct type, field) == (off), #type "." #field " moved")
AT(kv_geometry, layout_id, 0);
AT(kv_geometry, type, 4);
AT(kv_geometry, block_tokens, 8);
AT(kv_geometry, n_layers, 12);
AT(kv_geometry, n_groups, 16);
AT(kv_geometry, rank, 20);
AT(kv_geometry, n_ranks, 24);
AT(kv_geometry, block_bytes, 28);
AT(kv_geometry, model_hash, 32);
AT(kv_geometry, hash, 40);
AT(kv_geometry, group_first, 48);
AT(kv_geometry, group_layers, 64);
AT(kv_geometry, layer, 80);

AT(kv_layer, attention, 0);
AT(kv_layer, group, 2);
AT(kv_layer, n_heads, 4);
AT(kv_layer, n_kv_heads, 6);
AT(kv_layer, dk, 8);
AT(kv_layer, dv, 10);
AT(kv_layer, window, 12);
AT(kv_layer, n_sinks, 16);
AT(kv_layer, scale, 20);
AT(kv_layer, softcap, 24);
AT(kv_layer, k_off, 28);
AT(kv_layer, v_off, 32);
AT(kv_layer, k_head_stride, 36);
AT(kv_layer, k_token_stride, 40);
AT(kv_layer, v_head_stride, 44);
AT(kv_layer, v_token_stride, 48);
AT(kv_layer, k_scale_off, 52);
AT(kv_layer, v_scale_off, 56);
AT(kv_layer, tile_stride, 60);
AT(kv_layer, tile_tokens, 64);
AT(kv_layer, reserved, 68);

uint32_t geometry_element_bytes(enum kv_type type)
{
    switch (type) {
    case KV_TYPE_F16:
    case KV_TYPE_BF16:
        return 2;
    case KV_TYPE_F32:
        return 4;
    case KV_TYPE_I8:
        return 1;
    }
    return 0;
}

uint32_t geometry_layer_token_bytes(const struct kv_geometry *g, uint32_t layer)
{
    const struct kv_layer *l = &g->layer[layer];
    uint32_t scales = g->type == KV_TYPE_I8 ? 2U * l->n_kv_heads * (uint32_t)sizeof(float) : 0;

    return (l->k_token_stride + l->v_token_stride) * l->n_kv_heads + scales;
}

static uint64_t geometry_hash(const struct kv_geometry *g)
{
    struct kv_geometry copy = *g;

    copy.hash = 0;
    return hash_bytes(HASH_SEED, &copy, sizeof copy);
}

/* The first value of the configuration that is out of bounds, or NULL. */
static const char *config_fault(const struct kv_geometry_config *c, uint32_t n_layers)
{
    if (n_layers == 0 || n_layers > KV_LAYERS_MAX)
        return "n_layers";
    if (geometry_element_bytes(c->type) == 0)
        return "kv type";
    if (c->block_tokens == 0 || c->block_tokens % KV_TILE_TOKENS != 0 || c->block_tokens > 4096)
        return "block_tokens";
    if (c->n_groups == 0 || c->n_groups > KV_GROUPS_MAX || c->n_groups > n_layers)
        return "n_groups";
    if (c->n_ranks == 0 || c->rank >= c->n_ranks)
        return "rank";
    return NULL;
}

static const char *layer_fault(const struct kv_layer_spec *s, uint32_t n_ranks)
{
    if (s->attention != KV_ATTENTION_FULL && s->attention != KV_ATTENTION_WINDOW)
        return "attention kind";
    if (s->n_kv_heads == 0 || s->n_kv_heads > KV_HEADS_MAX || s->n_kv_heads % n_ranks != 0)
        return "n_kv_heads";
    if (s->n_heads == 0 || s->n_heads > KV_HEADS_MAX || s->n_heads % s->n_kv_heads != 0)
        return "n_heads";
    if (s->dk == 0 || s->dk > KV_WIDTH_MAX || s->dv == 0 || s->dv > KV_WIDTH_MAX)
        return "head width";
    if (s->attention == KV_ATTENTION_WINDOW && s->window == 0)
        return "window";
    return NULL;
}

/* Lays the layer out from offset *off on (64-byte aligned) and moves *off past it. */
static void layer_place(struct kv_layer *l, const struct kv_geometry *g, uint64_t *off)
{
    uint32_t element = geometry_element_bytes((enum kv_type)g->type);
    uint32_t n = g->block_tokens % KV_TILE_TOKENS_MAX == 0 ? KV_TILE_TOKENS_MAX : KV_TILE_TOKENS;
    uint32_t scale_bytes = g->type == KV_TYPE_I8 ? n * (uint32_t)sizeof(float) : 0;

    l->k_token_stride = (l->dk + l->dk % kv_pair(g->type)) * element;
    l->v_token_stride = l->dv * element;
    l->tile_tokens = n;
    l->k_head_stride = n * (l->k_token_stride + l->v_token_stride) + 2 * scale_bytes;
    l->v_head_stride = l->k_head_stride;
    l->tile_stride = l->k_head_stride * l->n_kv_heads;
    l->k_off = (uint32_t)*off;
    l->v_off = l->k_off + n * l->k_token_stride;
    if (g->type == KV_TYPE_I8) {
        l->k_scale_off = l->v_off + n * l->v_token_stride;
        l->v_scale_off = l->k_scale_off + scale_bytes;
    }
    *off += (uint64_t)l->tile_stride * (g->block_tokens / n);
    *off = (*off + 63) & ~(uint64_t)63;
}

static void layer_fill(struct kv_layer *l, const struct kv_layer_spec *s, uint32_t group,
                       uint32_t n_ranks)
{
    l->attention = (uint16_t)s->attention;
    l->group = (uint16_t)group;
    l->n_heads = (uint16_t)(s->n_heads / n_ranks);
    l->n_kv_heads = (uint16_t)(s->n_kv_heads / n_ranks);
    l->dk = (uint16_t)s->dk;
    l->dv = (uint16_t)s->dv;
    l->window = s->attention == KV_ATTENTION_WINDOW ? s->window : 0;
    l->n_sinks = s->attention == KV_ATTENTION_WINDOW ? s->n_sinks : 0;
    l->scale = s->scale;
    l->softcap = s->softcap;
}

int geometry_init(struct kv_geometry *g, const struct kv_geometry_config *config,
                  const struct kv_layer_spec *layers, uint32_t n_layers, const char **field)
{
    uint64_t largest = 0;

    memset(g, 0, sizeof *g);
    *field = config_fault(config, n_layers);
    for (uint32_t i = 0; *field == NULL && i < n_layers; i++)
        *field = layer_fault(&layers[i], config->n_ranks);
    if (*field != NULL)
        return -EINVAL;
    g->layout_id = KV_LAYOUT_ID;
    g->type = config->type;
    g->block_tokens = config->block_tokens;
    g->n_layers = n_layers;
    g->n_groups = config->n_groups;
    g->rank = config->rank;
    g->n_ranks = config->n_ranks;
    g->model_hash = config->model_hash;
    for (uint32_t group = 0; group < g->n_groups; group++) {
        uint32_t first = group * n_layers / g->n_groups;
        uint32_t end = (group + 1) * n_layers / g->n_groups;
        uint64_t off = 0;

        g->group_first[group] = (uint16_t)first;
        g->group_layers[group] = (uint16_t)(end - first);
        for (uint32_t i = first; i < end; i++) {
            layer_fill(&g->layer[i], &layers[i], group, config->n_ranks);
            layer_place(&g->layer[i], g, &off);
        }
        largest = off > largest ? off : largest;
    }
    largest = (largest + KV_BLOCK_ALIGN - 1) & ~(uint64_t)(KV_BLOCK_ALIGN - 1);
    if (largest > UINT32_MAX) {
        *field = "block bytes";
        return -EINVAL;
    }
    g->block_bytes = (uint32_t)largest;
    g->hash = geometry_hash(g);
    return 0;
}

/* Everything that a kernel reads lies inside the block, by the same sums that it makes. */
static int layer_inside(const struct kv_geometry *g, const struct kv_layer *l)
{
    uint64_t n_tiles = l->tile_tokens == 0 ? 0 : g->block_tokens / l->tile_tokens;
    uint64_t end = l->k_off + l->tile_stride * n_tiles;
    uint64_t k_bytes = l->tile_tokens * (uint64_t)l->k_token_stride;
    uint64_t v_bytes = l->tile_tokens * (uint64_t)l->v_token_stride;
    uint64_t scale_bytes = g->type == KV_TYPE_I8 ? l->tile_tokens * sizeof(float) : 0;
    uint32_t element = geometry_element_bytes((enum kv_type)g->type);

    if (l->tile_tokens != KV_TILE_TOKENS && l->tile_tokens != KV_TILE_TOKENS_MAX)
        return 0;
    if (g->block_tokens % l->tile_tokens != 0 || l->group >= g->n_groups || l->n_kv_heads == 0 ||
        l->n_heads % l->n_kv_heads != 0 || end > g->block_bytes || !isfinite(l->scale) ||
        l->dk == 0 || l->dv == 0 || l->dk > KV_WIDTH_MAX || l->dv > KV_WIDTH_MAX)
        return 0;
    if (l->k_token_stride != (l->dk + l->dk % kv_pair(g->type)) * element ||
        l->v_token_stride != l->dv * element || l->v_off != l->k_off + k_bytes)
        return 0;
    if (scale_bytes != 0 &&
        (l->k_scale_off != l->v_off + v_bytes || l->v_scale_off != l->k_scale_off + scale_bytes))
        return 0;
    return l->k_head_stride >= k_bytes + v_bytes + 2 * scale_bytes &&
           l->v_head_stride == l->k_head_stride &&
           l->tile_stride >= (uint64_t)l->k_head_stride * l->n_kv_heads;
}

int geometry_check(const struct kv_geometry *g, const char **field)
{
    *field = NULL;
    if (g->layout_id != KV_LAYOUT_ID)
        *field = "layout_id";
    else if (geometry_element_bytes((enum kv_type)g->type) == 0)
        *field = "type";
    else if (g->n_layers == 0 || g->n_layers > KV_LAYERS_MAX)
        *field = "n_layers";
    else if (g->n_groups == 0 || g->n_groups > KV_GROUPS_MAX)
        *field = "n_groups";
    else if (g->block_tokens == 0 || g->block_tokens % KV_TILE_TOKENS != 0)
        *field = "block_tokens";
    else if (g->hash != geometry_hash(g))
        *field = "hash";
    for (uint32_t i = 0; *field == NULL && i < g->n_layers; i++)
        *field = layer_inside(g, &g->layer[i]) ? NULL : "layer";
    return *field == NULL ? 0 : -EINVAL;
}
