/* weight.h - typed views of weights (a loader hands them out, a device consumes them).
 *
 * A view says how to read a matrix that lies in a mapped model file; nothing is ever converted on
 * the way.  It owns nothing and is valid as long as the file stays open; views are copied by value.
 * The dequantised value of an element is defined here, once, so that every kernel and every
 * instruction set computes from the same numbers:
 *     F32   the float itself             F16   half_to_float(h)
 *     Q8_0  d * q                        Q4_1  d * q + m     (q in 0..15)
 * with d, m the f16 -> f32 values of the block, in fp32: one multiplication, then one addition.
 * Products are exact (11 bits of d times 8 or 4 bits of q fit into 24), so Q8_0 is exact, Q4_1 is
 * rounded once, and a fused multiply-add gives the same bits.  Pure functions, any thread. */
#ifndef OMNI_COMMON_MODEL_WEIGHT_H
#define OMNI_COMMON_MODEL_WEIGHT_H

#include "common/base/half.h"

#include <stdint.h>

enum weight_type { WEIGHT_F32, WEIGHT_F16, WEIGHT_Q8_0, WEIGHT_Q4_1, WEIGHT_TYPES };

/* Values in one quantised block: the unit along k in which Q8_0 and Q4_1 are stored. */
#define WEIGHT_BLOCK 32

/* The blocks as they lie in the file; little endian, 2-byte alignment at least. */
struct weight_q8_0 {
    uint16_t d;             /* scale, f16 */
    int8_t q[WEIGHT_BLOCK]; /* value i = d * q[i] */
};
struct weight_q4_1 {
    uint16_t d;                  /* scale, f16 */
    uint16_t m;                  /* minimum, f16 */
    uint8_t q[WEIGHT_BLOCK / 2]; /* values 0..15 in the low nibbles, 16..31 in the high ones */
};
_Static_assert(sizeof(struct weight_q8_0) == 34, "Q8_0 block");
_Static_assert(sizeof(struct weight_q4_1) == 20, "Q4_1 block");

/* A matrix of n_rows output features by n_cols input features (k); a vector is one row.  Expert
 * tensors are n_slices such matrices one behind the other (1 for everything else): weight_slice. */
struct weight_view {
    enum weight_type type;
    uint32_t n_slices;
    uint64_t n_rows, n_cols;
    uint64_t row_bytes;   /* distance of two rows */
    uint64_t slice_bytes; /* n_rows * row_bytes */
    const void *data;     /* row 0 of slice 0; aligned to the file's alignment (>= 8) */
    const char *name;     /* NUL-terminated, for messages; owned by the file */
};

/* "F32", "F16", "Q8_0", "Q4_1". */
const char *weight_type_name(enum weight_type type);

/* Values and bytes of one storage unit: 1 value for F32/F16, WEIGHT_BLOCK for the others. */
uint32_t weight_block_values(enum weight_type type);
uint32_t weight_block_bytes(enum weight_type type);

/* Bytes of a row of n_cols values; n_cols must be a multiple of weight_block_values(type). */
uint64_t weight_row_bytes(enum weight_type type, uint64_t n_cols);

/* A view of slice e (< n_slices) of an expert tensor. */
struct weight_view weight_slice(const struct weight_view *w, uint32_t e);

/* A view of rows first .. first + n_rows - 1 of a one-slice matrix: a rank's share of the output
 * columns, or a panel.  No sum over k crosses such a split. */
struct weight_view weight_rows(const struct weight_view *w, uint64_t first, uint64_t n_rows);

/* The address of a row of slice 0. */
static inline const void *weight_row(const struct weight_view *w, uint64_t row)
{
    return (const char *)w->data + row * w->row_bytes;
}

/* All bytes of the tensor, over all slices. */
static inline uint64_t weight_bytes(const struct weight_view *w)
{
    return w->slice_bytes * w->n_slices;
}

static inline void weight_dequant_q8_0(const struct weight_q8_0 *b, float out[WEIGHT_BLOCK])
{
    const float d = half_to_float(b->d);

    for (int i = 0; i < WEIGHT_BLOCK; i++)
        out[i] = d * (float)b->q[i];
}

static inline void weight_dequant_q4_1(const struct weight_q4_1 *b, float out[WEIGHT_BLOCK])
{
    const float d = half_to_float(b->d);
    const float m = half_to_float(b->m);

    for (int i = 0; i < WEIGHT_BLOCK / 2; i++) {
        const float low = d * (float)(b->q[i] & 0x0f);
        const float high = d * (float)(b->q[i] >> 4);

        out[i] = low + m;
        out[i + WEIGHT_BLOCK / 2] = high + m;
    }
}

/* One storage unit of any type (weight_block_values values) to floats. */
static inline void weight_dequant_block(enum weight_type type, const void *block, float *out)
{
    uint16_t h;

    switch (type) {
    case WEIGHT_F32:
        memcpy(out, block, sizeof(*out));
        break;
    case WEIGHT_F16:
        memcpy(&h, block, sizeof(h));
        out[0] = half_to_float(h);
        break;
    case WEIGHT_Q8_0:
        weight_dequant_q8_0((const struct weight_q8_0 *)block, out);
        break;
    case WEIGHT_Q4_1:
        weight_dequant_q4_1((const struct weight_q4_1 *)block, out);
        break;
    case WEIGHT_TYPES:
        break;
    }
}

/* Reference: row `row` of slice 0 as n_cols floats. */
void weight_dequant_row_ref(const struct weight_view *w, uint64_t row, float *out);

/* Encodes n_cols floats as one row of `type` into out (weight_row_bytes long).  For tests and
 * generated models: round to nearest, per-block scale by largest magnitude (Q8_0) or range (Q4_1).
 */
void weight_quantize_row(enum weight_type type, const float *in, uint64_t n_cols, void *out);

#endif
