#include "gpu-engine/device/cuda/cuda_kv.h"

#include <errno.h>

static uint64_t layer_bytes(const struct kv_geometry *g, uint32_t layer)
{
    const struct kv_layer *l = &g->layer[layer];

    return (uint64_t)g->block_tokens * l->n_kv_heads * ((uint64_t)l->dk + l->dv) * 2;
}

int cuda_kv_layer(struct cuda_kv *kv, const struct kv_geometry *g, uint32_t layer)
{
    const struct kv_layer *l = &g->layer[layer];
    uint64_t off = 0;

    if (g->type != KV_TYPE_F16 && g->type != KV_TYPE_BF16)
        return -ENOTSUP;
    if (l->dk != l->dv || (l->dk != 64 && l->dk != 128) || l->softcap != 0 || l->n_sinks != 0)
        return -ENOTSUP;
    for (uint32_t i = g->group_first[l->group]; i < layer; i++)
        off += layer_bytes(g, i);
    kv->k_off = off;
    kv->v_off = off + layer_bytes(g, layer) / 2;
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
