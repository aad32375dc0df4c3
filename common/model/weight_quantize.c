/* From floats to blocks, for tests and generated models: each scale is the smallest that covers its
 * values, rounded to what the type can hold; values are rounded to nearest.  Real quantisers search
 * for better scales; nothing here depends on how good these are. */
#include "common/base/invariant.h"
#include "common/model/weight_block.h"

#include <math.h>

static int round_clamped(float x, int low, int high)
{
    const int q = (int)lrintf(x);

    return q < low ? low : q > high ? high : q;
}

static float largest_of(const float *in, int n)
{
    float largest = 0;

    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(in[i]));
    return largest;
}

/* q[i] = (in[i] - m) / d, to nearest, within low..high; 0 where there is no scale. */
static void round_values(const float *in, int n, float d, float m, int low, int high, int8_t *q)
{
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)(d > 0 ? round_clamped((in[i] - m) / d, low, high) : 0);
}

static void put_nibbles(const int8_t q[WEIGHT_BLOCK], uint8_t out[WEIGHT_BLOCK / 2])
{
    for (int i = 0; i < WEIGHT_BLOCK / 2; i++)
        out[i] = (uint8_t)((q[i] & 15) | (q[i + WEIGHT_BLOCK / 2] & 15) << 4);
}

static void put_fifth_bits(const int8_t q[WEIGHT_BLOCK], uint8_t qh[4])
{
    memset(qh, 0, 4);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        qh[i / 8] |= (uint8_t)((q[i] >> 4 & 1) << (i % 8));
}

static void quantize_q8_0(const float *in, struct weight_q8_0 *b)
{
    b->d = float_to_half(largest_of(in, WEIGHT_BLOCK) / 127);
    round_values(in, WEIGHT_BLOCK, half_to_float(b->d), 0, -127, 127, b->q);
}

/* The two types without a minimum, `half` = 8 or 16: whole numbers 0..2 * half - 1, zero at half. */
static uint16_t quantize_around_zero(const float *in, int half, int8_t q[WEIGHT_BLOCK])
{
    const uint16_t d = float_to_half(largest_of(in, WEIGHT_BLOCK) / (float)(half - 1));

    round_values(in, WEIGHT_BLOCK, half_to_float(d), 0, -half, half - 1, q);
    for (int i = 0; i < WEIGHT_BLOCK; i++)
        q[i] = (int8_t)(q[i] + half);
    return d;
}

/* The two types with a minimum: whole numbers 0..top. */
static void quantize_range(const float *in, int top, uint16_t *d, uint16_t *m,
                           int8_t q[WEIGHT_BLOCK])
{
    float low = in[0], high = in[0];

    for (int i = 1; i < WEIGHT_BLOCK; i++) {
        low = fminf(low, in[i]);
        high = fmaxf(high, in[i]);
    }
    *d = float_to_half((high - low) / (float)top);
    *m = float_to_half(low);
    round_values(in, WEIGHT_BLOCK, half_to_float(*d), half_to_float(*m), 0, top, q);
}

static void quantize_q4_0(const float *in, struct weight_q4_0 *b)
{
    int8_t q[WEIGHT_BLOCK];

    b->d = quantize_around_zero(in, 8, q);
    put_nibbles(q, b->q);
}

static void quantize_q4_1(const float *in, struct weight_q4_1 *b)
{
    int8_t q[WEIGHT_BLOCK];

    quantize_range(in, 15, &b->d, &b->m, q);
    put_nibbles(q, b->q);
}

static void quantize_q5_0(const float *in, struct weight_q5_0 *b)
{
    int8_t q[WEIGHT_BLOCK];

    b->d = quantize_around_zero(in, 16, q);
    put_nibbles(q, b->q);
    put_fifth_bits(q, b->qh);
}

static void quantize_q5_1(const float *in, struct weight_q5_1 *b)
{
    int8_t q[WEIGHT_BLOCK];

    quantize_range(in, 31, &b->d, &b->m, q);
    put_nibbles(q, b->q);
    put_fifth_bits(q, b->qh);
}

/* ---- Super-blocks ---------------------------------------------------------------------------- */

struct k_range {
    float step, low; /* of a group: values low + step * q; low <= 0 */
};

/* Minima are subtracted, so that they can only lie at or below zero. */
static struct k_range range_of(const float *in, int top)
{
    float low = 0, high = 0;

    for (int i = 0; i < WEIGHT_BLOCK; i++) {
        low = fminf(low, in[i]);
        high = fmaxf(high, in[i]);
    }
    return (struct k_range){.step = (high - low) / (float)top, .low = low};
}

/* Scales and whole numbers of Q4_K (top 15) and Q5_K (top 31); q: [8][32]. */
static void quantize_k(const float *in, int top, uint16_t *d, uint16_t *dmin, uint8_t scales[12],
                       int8_t q[8][WEIGHT_BLOCK])
{
    float step = 0, low = 0;

    for (int g = 0; g < 8; g++) {
        const struct k_range r = range_of(in + g * WEIGHT_BLOCK, top);

        step = fmaxf(step, r.step);
        low = fminf(low, r.low);
    }
    *d = float_to_half(step / 63);
    *dmin = float_to_half(-low / 63);
    memset(scales, 0, 12);
    const float fd = half_to_float(*d), fm = half_to_float(*dmin);

    for (uint32_t g = 0; g < 8; g++) {
        const struct k_range r = range_of(in + g * WEIGHT_BLOCK, top);
        const int s = fd > 0 ? round_clamped(ceilf(r.step / fd), 0, 63) : 0;
        const int t = fm > 0 ? round_clamped(-r.low / fm, 0, 63) : 0;

        weight_k_scale_set(scales, g, (uint8_t)s, (uint8_t)t);
        round_values(in + g * WEIGHT_BLOCK, WEIGHT_BLOCK, fd * (float)s, -(fm * (float)t), 0, top,
                     q[g]);
    }
}

static void put_k_nibbles(int8_t q[8][WEIGHT_BLOCK], uint8_t *out)
{
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < WEIGHT_BLOCK; i++)
            out[c * WEIGHT_BLOCK + i] = (uint8_t)((q[2 * c][i] & 15) | (q[2 * c + 1][i] & 15) << 4);
}

static void quantize_q4_k(const float *in, struct weight_q4_k *b)
{
    int8_t q[8][WEIGHT_BLOCK];

    quantize_k(in, 15, &b->d, &b->dmin, b->scales, q);
    put_k_nibbles(q, b->q);
}

static void quantize_q5_k(const float *in, struct weight_q5_k *b)
{
    int8_t q[8][WEIGHT_BLOCK];

    quantize_k(in, 31, &b->d, &b->dmin, b->scales, q);
    put_k_nibbles(q, b->q);
    memset(b->qh, 0, sizeof(b->qh));
    for (int g = 0; g < 8; g++)
        for (int i = 0; i < WEIGHT_BLOCK; i++)
            b->qh[i] |= (uint8_t)((q[g][i] >> 4 & 1) << g);
}

/* Value i of the super-block becomes q (0..63). */
static void put_six_bits(struct weight_q6_k *b, int i, unsigned q)
{
    const int half = i / 128, part = i % 128 / 32, k = i % 32;

    b->ql[64 * half + 32 * (part % 2) + k] |= (uint8_t)((q & 15) << (part < 2 ? 0 : 4));
    b->qh[32 * half + k] |= (uint8_t)((q >> 4) << 2 * part);
}

static void quantize_q6_k(const float *in, struct weight_q6_k *b)
{
    int8_t q[16];

    memset(b, 0, sizeof(*b));
    b->d = float_to_half(largest_of(in, WEIGHT_SUPER_BLOCK) / (31.0f * 127.0f));
    const float d = half_to_float(b->d);

    for (int g = 0; g < 16; g++) {
        const float step = largest_of(in + 16 * g, 16) / 31;
        const int s = d > 0 ? round_clamped(ceilf(step / d), 0, 127) : 0;

        b->scales[g] = (int8_t)s;
        round_values(in + 16 * g, 16, d * (float)s, 0, -32, 31, q);
        for (int i = 0; i < 16; i++)
            put_six_bits(b, 16 * g + i, (unsigned)(q[i] + 32));
    }
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* One storage unit; the inverse of weight_dequant_block. */
static void quantize_block(enum weight_type type, const float *in, void *out)
{
    const uint16_t half = type == WEIGHT_F16 ? float_to_half(*in) : float_to_bf16(*in);

    switch (type) {
    case WEIGHT_F32:
        memcpy(out, in, sizeof(*in));
        break;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        memcpy(out, &half, sizeof(half));
        break;
    case WEIGHT_Q8_0:
        quantize_q8_0(in, out);
        break;
    case WEIGHT_Q4_0:
        quantize_q4_0(in, out);
        break;
    case WEIGHT_Q4_1:
        quantize_q4_1(in, out);
        break;
    case WEIGHT_Q5_0:
        quantize_q5_0(in, out);
        break;
    case WEIGHT_Q5_1:
        quantize_q5_1(in, out);
        break;
    case WEIGHT_Q4_K:
        quantize_q4_k(in, out);
        break;
    case WEIGHT_Q5_K:
        quantize_q5_k(in, out);
        break;
    case WEIGHT_Q6_K:
        quantize_q6_k(in, out);
        break;
    case WEIGHT_TYPES:
        break;
    }
}

void weight_quantize_row(enum weight_type type, const float *in, uint64_t n_cols, void *out)
{
    const uint32_t values = weight_block_values(type);
    char *block = out;

    invariant(n_cols % values == 0);
    for (uint64_t i = 0; i < n_cols; i += values, block += weight_block_bytes(type))
        quantize_block(type, in + i, block);
}
