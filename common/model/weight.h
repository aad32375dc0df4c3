/* weight.h - typed views of weights (a loader hands them out, a device consumes them).
 *
 * A view says how to read a matrix that lies in a mapped model file; nothing is ever converted on
 * the way.  It owns nothing and is valid as long as the file stays open; views are copied by value.
 * The dequantised value of an element is defined by the types, once, so that every kernel and every
 * instruction set computes from the same numbers:
 *     F32, F16, BF16            the number itself
 *     Q8_0                      d * q                    (q in -128..127)
 *     Q4_0, Q5_0                d * (q - 8), d * (q - 16)
 *     Q4_1, Q5_1                d * q + m
 *     Q4_K, Q5_K                (d * s) * q - (dmin * t) (s, t in 0..63, one pair per 32 values)
 *     Q6_K                      (d * s) * (q - 32)       (s in -128..127, one per 16 values)
 * with d, m, dmin the f16 -> f32 values of the block, in fp32.  Every product is exact (11 bits of
 * d times at most 13 of the whole numbers fit into 24), so a value is rounded once, by the last
 * addition if there is one, and a fused multiply-add gives the same bits.  weight_block.h has the
 * blocks as they lie in the file.  Pure functions, any thread. */
#ifndef OMNI_COMMON_MODEL_WEIGHT_H
#define OMNI_COMMON_MODEL_WEIGHT_H

#include <stdbool.h>
#include <stdint.h>

enum weight_type {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_Q8_0,
    WEIGHT_Q4_0,
    WEIGHT_Q4_1,
    WEIGHT_Q5_0,
    WEIGHT_Q5_1,
    WEIGHT_Q4_K,
    WEIGHT_Q5_K,
    WEIGHT_Q6_K,
    WEIGHT_TYPES
};

/* Values in one quantised block, the unit along k in which the types are stored; the K types have
 * super-blocks of eight of them. */
#define WEIGHT_BLOCK       32
#define WEIGHT_SUPER_BLOCK 256

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

/* "F32", "Q4_K", ... */
const char *weight_type_name(enum weight_type type);

/* The type's number in a GGUF file, and back: false for one that is not known here. */
uint32_t weight_type_number(enum weight_type type);
bool weight_type_of_number(uint32_t number, enum weight_type *out);

/* The names of all types, "F32, F16, ...", for messages. */
const char *weight_type_names(void);

/* Values and bytes of one storage unit: 1 value, WEIGHT_BLOCK or WEIGHT_SUPER_BLOCK. */
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

/* Reference: row `row` of slice 0 as n_cols floats. */
void weight_dequant_row_ref(const struct weight_view *w, uint64_t row, float *out);

/* Encodes n_cols floats as one row of `type` into out (weight_row_bytes long).  For tests and
 * generated models: round to nearest, scales by largest magnitude or by range, nothing searched. */
void weight_quantize_row(enum weight_type type, const float *in, uint64_t n_cols, void *out);

#endif
