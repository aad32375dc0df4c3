#include "gpu-engine/device/cuda/cuda_kv.h"

#include <errno.h>

/* K or V of a layer, without scales. */
static uint64_t half_bytes(const struct kv_geometry *g, uint32_t layer)
{
    const struct kv_layer *l = &g->layer[layer];

    return (uint64_t)g->block_tokens * l->n_kv_heads * l->dk * cuda_kv_element_bytes(g->type);
}

static uint64_t scale_bytes(const struct kv_geometry *g, uint32_t layer)
{
    return g->type == KV_TYPE_I8
               ? (uint64_t)g->block_tokens * g->layer[layer].n_kv_heads * sizeof(float)
               : 0;
}

static int is_covered(const struct kv_geometry *g, const struct kv_layer *l)
{
    static const uint32_t widths[] = {64, 80, 96, 128, 256};

    if ((g->type != KV_TYPE_F16 && g->type != KV_TYPE_BF16 && g->type != KV_TYPE_I8) ||
        l->dk != l->dv || l->n_heads / l->n_kv_heads > 16)
        return 0;
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        if (l->dk == widths[i])
            return 1;
    }
    return 0;
}

int cuda_kv_layer(struct cuda_kv *kv, const struct kv_geometry *g, uint32_t layer)
{
    const struct kv_layer *l = &g->layer[layer];
    uint64_t off = 0, half = half_bytes(g, layer);

    if (!is_covered(g, l))
        return -ENOTSUP;
    for (uint32_t i = g->group_first[l->group]; i < layer; i++)
        off += 2 * (half_bytes(g, i) + scale_bytes(g, i));
    kv->k_off = off;
    kv->v_off = off + half;
    kv->k_scale_off = off + 2 * half;
    kv->v_scale_off = kv->k_scale_off + scale_bytes(g, layer);
    kv->block_bytes = cuda_kv_block_bytes(g);
    kv->block_tokens = g->block_tokens;
    kv->n_kv_heads = l->n_kv_heads;
    kv->head_dim = l->dk;
    kv->type = g->type;
    return 0;
}

uint64_t cuda_kv_block_bytes(const struct kv_geometry *g)
{
    return g->block_bytes;
}
