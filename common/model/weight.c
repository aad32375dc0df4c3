#include "common/model/weight.h"

#include "common/base/invariant.h"

#include <math.h>

struct type_info {
    const char *name;
    uint32_t values, bytes;
};

static const struct type_info types[WEIGHT_TYPES] = {
    [WEIGHT_F32] = {"F32", 1, 4},
    [WEIGHT_F16] = {"F16", 1, 2},
    [WEIGHT_Q8_0] = {"Q8_0", WEIGHT_BLOCK, sizeof(struct weight_q8_0)},
    [WEIGHT_Q4_1] = {"Q4_1", WEIGHT_BLOCK, sizeof(struct weight_q4_1)},
};

const char *weight_type_name(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].name;
}

uint32_t weight_block_values(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].values;
}

uint32_t weight_block_bytes(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].bytes;
}

uint64_t weight_row_bytes(enum weight_type type, uint64_t n_cols)
{
    invariant(n_cols % weight_block_values(type) == 0);
    return n_cols / types[type].values * types[type].bytes;
}

struct weight_view weight_slice(const struct weight_view *w, uint32_t e)
{
    struct weight_view slice = *w;

    invariant(e < w->n_slices);
    slice.n_slices = 1;
    slice.data = (const char *)w->data + e * w->slice_bytes;
    return slice;
}

struct weight_view weight_rows(const struct weight_view *w, uint64_t first, uint64_t n_rows)
{
    struct weight_view part = *w;

    invariant(w->n_slices == 1 && first <= w->n_rows && n_rows <= w->n_rows - first);
    part.n_rows = n_rows;
    part.slice_bytes = n_rows * w->row_bytes;
    part.data = weight_row(w, first);
    return part;
}

void weight_dequant_row_ref(const struct weight_view *w, uint64_t row, float *out)
{
    const uint32_t values = weight_block_values(w->type);
    const uint32_t bytes = weight_block_bytes(w->type);
    const char *block = weight_row(w, row);

    invariant(row < w->n_rows);
    for (uint64_t i = 0; i < w->n_cols; i += values, block += bytes)
        weight_dequant_block(w->type, block, out + i);
}

static int round_clamped(float x, int low, int high)
{
    const int q = (int)lrintf(x);

    return q < low ? low : q > high ? high : q;
}

static void quantize_q8_0(const float *in, struct weight_q8_0 *b)
{
    float largest = 0;

    for (int i = 0; i < WEIGHT_BLOCK; i++)
        largest = fmaxf(largest, fabsf(in[i]));
    b->d = float_to_half(largest / 127);

    const float d = half_to_float(b->d);

    for (int i = 0; i < WEIGHT_BLOCK; i++)
        b->q[i] = (int8_t)(d > 0 ? round_clamped(in[i] / d, -127, 127) : 0);
}

static void quantize_q4_1(const float *in, struct weight_q4_1 *b)
{
    float low = in[0], high = in[0];

    for (int i = 1; i < WEIGHT_BLOCK; i++) {
        low = fminf(low, in[i]);
        high = fmaxf(high, in[i]);
    }
    b->d = float_to_half((high - low) / 15);
    b->m = float_to_half(low);

    const float d = half_to_float(b->d), m = half_to_float(b->m);

    for (int i = 0; i < WEIGHT_BLOCK / 2; i++) {
        const int first = d > 0 ? round_clamped((in[i] - m) / d, 0, 15) : 0;
        const int second = d > 0 ? round_clamped((in[i + WEIGHT_BLOCK / 2] - m) / d, 0, 15) : 0;

        b->q[i] = (uint8_t)(first | second << 4);
    }
}

/* One storage unit; the inverse of weight_dequant_block. */
static void quantize_block(enum weight_type type, const float *in, void *out)
{
    uint16_t h;

    switch (type) {
    case WEIGHT_F32:
        memcpy(out, in, sizeof(*in));
        break;
    case WEIGHT_F16:
        h = float_to_half(*in);
        memcpy(out, &h, sizeof(h));
        break;
    case WEIGHT_Q8_0:
        quantize_q8_0(in, out);
        break;
    case WEIGHT_Q4_1:
        quantize_q4_1(in, out);
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
    for (uint64_t i = 0; i < n_cols; i += values, block += types[type].bytes)
        quantize_block(type, in + i, block);
}
