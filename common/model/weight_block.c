#include "common/model/weight_block.h"

#include "common/base/invariant.h"

void weight_k_scale(const uint8_t packed[12], uint32_t j, uint8_t *scale, uint8_t *minus)
{
    if (j < 4) {
        *scale = packed[j] & 63;
        *minus = packed[j + 4] & 63;
        return;
    }
    *scale = (uint8_t)((packed[j + 4] & 15) | packed[j - 4] >> 6 << 4);
    *minus = (uint8_t)(packed[j + 4] >> 4 | packed[j] >> 6 << 4);
}

/* Sets bits in bytes that were zero before. */
void weight_k_scale_set(uint8_t packed[12], uint32_t j, uint8_t scale, uint8_t minus)
{
    if (j < 4) {
        packed[j] |= scale;
        packed[j + 4] |= minus;
        return;
    }
    packed[j + 4] = (uint8_t)((scale & 15) | (minus & 15) << 4);
    packed[j - 4] |= (uint8_t)(scale >> 4 << 6);
    packed[j] |= (uint8_t)(minus >> 4 << 6);
}

int weight_offset(enum weight_type type)
{
    switch (type) {
    case WEIGHT_Q4_0:
        return 8;
    case WEIGHT_Q5_0:
        return 16;
    case WEIGHT_Q6_K:
        return 32;
    default:
        return 0;
    }
}

static void take_nibbles(const uint8_t bytes[WEIGHT_BLOCK / 2], uint8_t q[WEIGHT_BLOCK])
{
    for (int i = 0; i < WEIGHT_BLOCK / 2; i++) {
        q[i] = bytes[i] & 15;
        q[i + WEIGHT_BLOCK / 2] = bytes[i] >> 4;
    }
}

static void add_fifth_bits(const uint8_t qh[4], uint8_t q[WEIGHT_BLOCK])
{
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        q[i] |= (uint8_t)((qh[i / 8] >> (i % 8) & 1) << 4);
}

static void take_q4_0(const struct weight_q4_0 *b, struct weight_group *out)
{
    out->d = b->d;
    take_nibbles(b->q, out->q);
}

static void take_q4_1(const struct weight_q4_1 *b, struct weight_group *out)
{
    out->d = b->d;
    out->m = b->m;
    take_nibbles(b->q, out->q);
}

static void take_q5_0(const struct weight_q5_0 *b, struct weight_group *out)
{
    out->d = b->d;
    take_nibbles(b->q, out->q);
    add_fifth_bits(b->qh, out->q);
}

static void take_q5_1(const struct weight_q5_1 *b, struct weight_group *out)
{
    out->d = b->d;
    out->m = b->m;
    take_nibbles(b->q, out->q);
    add_fifth_bits(b->qh, out->q);
}

/* Low nibbles of 32 bytes for an even group, high ones for an odd group. */
static void take_k_nibbles(const uint8_t *q, uint32_t g, uint8_t out[WEIGHT_BLOCK])
{
    q += g / 2 * WEIGHT_BLOCK;
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        out[i] = g % 2 ? q[i] >> 4 : q[i] & 15;
}

static void take_k_scale(const uint8_t scales[12], uint32_t g, struct weight_group *out)
{
    uint8_t scale, minus;

    weight_k_scale(scales, g, &scale, &minus);
    out->scale[0] = out->scale[1] = (int8_t)scale;
    out->minus = (int8_t)minus;
}

static void take_q4_k(const struct weight_q4_k *b, uint32_t g, struct weight_group *out)
{
    out->d = b->d;
    out->m = b->dmin;
    take_k_scale(b->scales, g, out);
    take_k_nibbles(b->q, g, out->q);
}

static void take_q5_k(const struct weight_q5_k *b, uint32_t g, struct weight_group *out)
{
    out->d = b->d;
    out->m = b->dmin;
    take_k_scale(b->scales, g, out);
    take_k_nibbles(b->q, g, out->q);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        out->q[i] |= (uint8_t)((b->qh[i] >> g & 1) << 4);
}

static void take_q6_k(const struct weight_q6_k *b, uint32_t g, struct weight_group *out)
{
    const uint32_t half = g / 4, part = g % 4;
    const uint8_t *ql = b->ql + 64 * half + 32 * (part % 2), *qh = b->qh + 32 * half;

    out->d = b->d;
    out->scale[0] = b->scales[2 * g];
    out->scale[1] = b->scales[2 * g + 1];
    for (int i = 0; i < WEIGHT_BLOCK; i++) {
        const unsigned low = part < 2 ? ql[i] & 15u : (unsigned)ql[i] >> 4;

        out->q[i] = (uint8_t)(low | ((unsigned)qh[i] >> 2 * part & 3u) << 4);
    }
}

void weight_block_group(enum weight_type type, const void *block, uint32_t g,
                        struct weight_group *out)
{
    invariant(type > WEIGHT_Q8_0 && type < WEIGHT_TYPES);
    out->m = 0;
    out->scale[0] = out->scale[1] = 1;
    out->minus = 0;
    switch (type) {
    case WEIGHT_Q4_0:
        take_q4_0(block, out);
        break;
    case WEIGHT_Q4_1:
        take_q4_1(block, out);
        break;
    case WEIGHT_Q5_0:
        take_q5_0(block, out);
        break;
    case WEIGHT_Q5_1:
        take_q5_1(block, out);
        break;
    case WEIGHT_Q4_K:
        take_q4_k(block, g, out);
        break;
    case WEIGHT_Q5_K:
        take_q5_k(block, g, out);
        break;
    case WEIGHT_Q6_K:
        take_q6_k(block, g, out);
        break;
    default:
        break;
    }
}

static void dequant_group(enum weight_type type, const struct weight_group *g, float *out)
{
    const bool is_k = weight_block_values(type) == WEIGHT_SUPER_BLOCK;
    const int offset = weight_offset(type);
    const float m = half_to_float(g->m) * (is_k ? -(float)g->minus : 1.0f);

    for (int i = 0; i < WEIGHT_BLOCK; i++) {
        const int8_t scale = g->scale[i / 16];
        const float d = half_to_float(g->d) * (float)scale;
        const float product = d * (float)((int)g->q[i] - offset);

        out[i] = offset ? product : product + m;
    }
}

static void dequant_q8_0(const struct weight_q8_0 *b, float out[WEIGHT_BLOCK])
{
    const float d = half_to_float(b->d);

    for (int i = 0; i < WEIGHT_BLOCK; i++)
        out[i] = d * (float)b->q[i];
}

/* BF16 is the upper half of a float. */
static float dequant_half(enum weight_type type, const void *at)
{
    uint16_t h;

    memcpy(&h, at, sizeof(h));
    return type == WEIGHT_F16 ? half_to_float(h) : half_float_from_bits((uint32_t)h << 16);
}

void weight_dequant_block(enum weight_type type, const void *block, float *out)
{
    struct weight_group g;

    if (type == WEIGHT_F32) {
        memcpy(out, block, sizeof(*out));
    } else if (type == WEIGHT_F16 || type == WEIGHT_BF16) {
        out[0] = dequant_half(type, block);
    } else if (type == WEIGHT_Q8_0) {
        dequant_q8_0(block, out);
    } else {
        for (uint32_t i = 0; i < weight_block_values(type) / WEIGHT_BLOCK; i++) {
            weight_block_group(type, block, i, &g);
            dequant_group(type, &g, out + (size_t)i * WEIGHT_BLOCK);
        }
    }
}
