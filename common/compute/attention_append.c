/* The one rounding of K and V: f32 rows to the KV type, at their positions. */
#include <math.h>
#include <string.h>

#include "common/base/half.h"
#include "common/base/invariant.h"
#include "common/compute/attention.h"
#include "common/compute/kernels.h"

/* Largest magnitude / 127; elements that are not finite do not count (and are stored as 0). */
static float i8_scale(const float *x, uint32_t n)
{
    float top = 0.0f;

    for (uint32_t i = 0; i < n; i++)
        if (isfinite(x[i]) && fabsf(x[i]) > top)
            top = fabsf(x[i]);
    return top / 127.0f;
}

static int8_t float_to_i8(float x, float scale)
{
    float q = scale > 0.0f ? rintf(x / scale) : 0.0f;

    if (!isfinite(q))
        return 0;
    q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
    return (int8_t)q;
}

/* Rounds n values (n of one head of one token) into `row`, elements of the type side by side. */
static void round_head(const struct kernels *kernels, enum kv_type type, uint8_t *row,
                       uint8_t *scale_at, const float *x, uint32_t n)
{
    float scale;

    switch (type) {
    case KV_TYPE_F16:
        kernels->kv_store_f16((uint16_t *)(void *)row, x, n);
        break;
    case KV_TYPE_BF16:
        for (uint32_t i = 0; i < n; i++)
            ((uint16_t *)(void *)row)[i] = float_to_bf16(x[i]);
        break;
    case KV_TYPE_F32:
        memcpy(row, x, n * sizeof *x);
        break;
    case KV_TYPE_I8:
        scale = i8_scale(x, n);
        memcpy(scale_at, &scale, sizeof scale);
        for (uint32_t i = 0; i < n; i++)
            row[i] = (uint8_t)float_to_i8(x[i], scale);
        break;
    }
}

/* Copies n elements to places `stride` bytes apart; a loop per size, so that a copy is one store. */
#define SCATTER(bytes)                                                                             \
    for (uint32_t i = 0; i < n; i++)                                                               \
    memcpy(dst + i * stride, row + (size_t)i * (bytes), (bytes))
static void scatter(uint8_t *dst, size_t stride, const uint8_t *row, uint32_t n, uint32_t bytes)
{
    if (stride == bytes)
        memcpy(dst, row, (size_t)n * bytes);
    else if (bytes == 1)
        SCATTER(1);
    else if (bytes == 2)
        SCATTER(2);
    else
        SCATTER(4);
}

/* Elements that lie side by side (a pair of K's) move together. */
static void store_k(const struct kv_view *kv, const struct kernels *kernels, uint8_t *block,
                    uint32_t head, uint32_t t, const float *x)
{
    const struct kv_layer *l = kv->layer;
    uint32_t bytes = kv_pair(kv->type) * geometry_element_bytes((enum kv_type)kv->type);
    size_t scale = kv_scale_offset(l, l->k_scale_off, head, t);
    _Alignas(64) uint8_t row[4 * (KV_WIDTH_MAX + 1)];

    row[l->dk] = row[2 * l->dk] = row[2 * l->dk + 1] = 0; /* the second half of an odd pair */
    round_head(kernels, (enum kv_type)kv->type, row, block + scale, x, l->dk);
    scatter(block + kv_k_offset(l, kv->type, head, t, 0), (size_t)KV_PANEL_TOKENS * bytes, row,
            (l->dk + kv_pair(kv->type) - 1) / kv_pair(kv->type), bytes);
}

static void store_v(const struct kv_view *kv, const struct kernels *kernels, uint8_t *block,
                    uint32_t head, uint32_t t, const float *x)
{
    const struct kv_layer *l = kv->layer;
    uint32_t bytes = geometry_element_bytes((enum kv_type)kv->type);
    size_t scale = kv_scale_offset(l, l->v_scale_off, head, t);
    _Alignas(64) uint8_t row[4 * (KV_WIDTH_MAX + 1)];

    round_head(kernels, (enum kv_type)kv->type, row, block + scale, x, l->dv);
    scatter(block + kv_v_offset(l, kv->type, head, t, 0), (size_t)kv_pair(kv->type) * bytes, row,
            l->dv, bytes);
}

void attn_append(const struct kv_view *kv, uint32_t pos, uint32_t n, const float *k, size_t ldk,
                 const float *v, size_t ldv)
{
    const struct kv_layer *l = kv->layer;
    /* Rounding has one result whatever computes it, so that no caller need choose. */
    const struct kernels *kernels = kernels_of(isa_supported(ISA_AVX2) ? ISA_AVX2 : ISA_REF);

    invariant(l->dk <= KV_WIDTH_MAX && l->dv <= KV_WIDTH_MAX);
    for (uint32_t i = 0; i < n; i++, pos++, k += ldk, v += ldv) {
        uint32_t t = pos % kv->block_tokens;
        uint8_t *block;

        invariant(pos / kv->block_tokens < kv->n_blocks);
        block = kv_view_block(kv, pos);
        for (uint32_t h = 0; h < l->n_kv_heads; h++) {
            store_k(kv, kernels, block, h, t, k + (size_t)h * l->dk);
            store_v(kv, kernels, block, h, t, v + (size_t)h * l->dv);
        }
    }
}
