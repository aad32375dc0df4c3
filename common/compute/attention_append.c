/* The one rounding of K and V: f32 rows to the KV type, at their positions. */
#include <math.h>
#include <string.h>

#include "common/base/half.h"
#include "common/base/invariant.h"
#include "common/compute/attention.h"
#include "common/compute/kernels.h"

/* To nearest, ties to even; NaN stays NaN (quiet). */
static uint16_t float_to_bf16(float f)
{
    uint32_t bits = half_bits_from_float(f);

    if ((bits & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)(bits >> 16 | 0x40U);
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

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

static void store_bf16(uint8_t *dst, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t h = float_to_bf16(x[i]);

        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

static void store_i8(uint8_t *dst, uint8_t *scale_at, const float *x, uint32_t n)
{
    float scale = i8_scale(x, n);

    memcpy(scale_at, &scale, sizeof scale);
    for (uint32_t i = 0; i < n; i++)
        dst[i] = (uint8_t)float_to_i8(x[i], scale);
}

/* One head of one token. */
static void store_head(const struct kernels *kernels, enum kv_type type, uint8_t *dst,
                       uint8_t *scale_at, const float *x, uint32_t n)
{
    switch (type) {
    case KV_TYPE_F16:
        kernels->kv_store_f16((uint16_t *)(void *)dst, x, n);
        break;
    case KV_TYPE_BF16:
        store_bf16(dst, x, n);
        break;
    case KV_TYPE_F32:
        memcpy(dst, x, n * sizeof *x);
        break;
    case KV_TYPE_I8:
        store_i8(dst, scale_at, x, n);
        break;
    }
}

void attn_append(const struct kv_view *kv, uint32_t pos, uint32_t n, const float *k, size_t ldk,
                 const float *v, size_t ldv)
{
    const struct kv_layer *l = kv->layer;
    enum kv_type type = (enum kv_type)kv->type;
    /* Rounding has one result whatever computes it, so that no caller need choose. */
    const struct kernels *kernels = kernels_of(isa_supported(ISA_AVX2) ? ISA_AVX2 : ISA_REF);

    for (uint32_t i = 0; i < n; i++, pos++, k += ldk, v += ldv) {
        uint32_t t = pos % kv->block_tokens;
        uint8_t *block;

        invariant(pos / kv->block_tokens < kv->n_blocks);
        block = kv_view_block(kv, pos);
        for (uint32_t h = 0; h < l->n_kv_heads; h++) {
            size_t scale_off = sizeof(float) * ((size_t)h * kv->block_tokens + t);

            store_head(kernels, type,
                       block + l->k_off + (size_t)h * l->k_head_stride +
                           (size_t)t * l->k_token_stride,
                       block + l->k_scale_off + scale_off, k + (size_t)h * l->dk, l->dk);
            store_head(kernels, type,
                       block + l->v_off + (size_t)h * l->v_head_stride +
                           (size_t)t * l->v_token_stride,
                       block + l->v_scale_off + scale_off, v + (size_t)h * l->dv, l->dv);
        }
    }
}
