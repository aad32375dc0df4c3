/* weight_block.h - the blocks of the quantised types as they lie in the file, and what is in them.
 *
 * Little endian, 2-byte alignment at least.  Every type comes down to the same form: groups of
 * WEIGHT_BLOCK values, each with whole numbers q (4, 5, 6 or 8 bits) and for every value
 *     value = d * (q - offset) + m
 * weight_block_group takes a group apart; the reference and the packing of the dense kernels both
 * start from there.  Pure functions, any thread. */
#ifndef OMNI_COMMON_MODEL_WEIGHT_BLOCK_H
#define OMNI_COMMON_MODEL_WEIGHT_BLOCK_H

#include "common/base/half.h"
#include "common/model/weight.h"

/* d, m: scale and minimum, f16.  Nibbles: values 0..15 in the low ones, 16..31 in the high ones.
 * qh: bit i is the fifth bit of value i. */
struct weight_q8_0 {
    uint16_t d;
    int8_t q[WEIGHT_BLOCK];
};
struct weight_q4_0 {
    uint16_t d;
    uint8_t q[WEIGHT_BLOCK / 2];
};
struct weight_q4_1 {
    uint16_t d, m;
    uint8_t q[WEIGHT_BLOCK / 2];
};
struct weight_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t q[WEIGHT_BLOCK / 2];
};
struct weight_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t q[WEIGHT_BLOCK / 2];
};

/* scales: eight 6-bit scales and eight 6-bit minima (weight_k_scale).  q: 32 bytes hold groups 2c
 * (low nibbles) and 2c + 1 (high).  qh[i]: bit g is the fifth bit of value i of group g. */
struct weight_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t q[WEIGHT_SUPER_BLOCK / 2];
};
struct weight_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[WEIGHT_SUPER_BLOCK / 8];
    uint8_t q[WEIGHT_SUPER_BLOCK / 2];
};

/* Two halves of 128 values.  In each, byte i of ql[64] holds value i low and value i + 64 high;
 * byte i of qh[32] two bits of values i, i + 32, i + 64, i + 96.  One scale per 16 values. */
struct weight_q6_k {
    uint8_t ql[WEIGHT_SUPER_BLOCK / 2];
    uint8_t qh[WEIGHT_SUPER_BLOCK / 4];
    int8_t scales[WEIGHT_SUPER_BLOCK / 16];
    uint16_t d;
};
_Static_assert(sizeof(struct weight_q8_0) == 34, "Q8_0 block");
_Static_assert(sizeof(struct weight_q4_0) == 18, "Q4_0 block");
_Static_assert(sizeof(struct weight_q4_1) == 20, "Q4_1 block");
_Static_assert(sizeof(struct weight_q5_0) == 22, "Q5_0 block");
_Static_assert(sizeof(struct weight_q5_1) == 24, "Q5_1 block");
_Static_assert(sizeof(struct weight_q4_k) == 144, "Q4_K super-block");
_Static_assert(sizeof(struct weight_q5_k) == 176, "Q5_K super-block");
_Static_assert(sizeof(struct weight_q6_k) == 210, "Q6_K super-block");

/* A group taken apart: d and m as the file has them, in f16, and the group's own whole numbers. */
struct weight_group {
    uint16_t d, m;           /* m: minimum (Q4_1, Q5_1), or dmin of Q4_K, Q5_K; else 0 */
    int8_t scale[2];         /* K types: of values 0..15 and 16..31 (Q4_K, Q5_K: equal) */
    int8_t minus;            /* Q4_K, Q5_K: 0..63; the minimum is -(dmin * minus) */
    uint8_t q[WEIGHT_BLOCK]; /* 0..15, 0..31 or 0..63; Q8_0: use weight_q8_0 itself */
};

/* Group g of a block of a type other than F32, F16, BF16 and Q8_0 (g = 0 unless a K type). */
void weight_block_group(enum weight_type type, const void *block, uint32_t g,
                        struct weight_group *out);

/* What is taken from q before it is multiplied: 8, 16, 32, or 0. */
int weight_offset(enum weight_type type);

/* Scale and minimum j (< 8) out of the 12 bytes of Q4_K and Q5_K, and the way back. */
void weight_k_scale(const uint8_t packed[12], uint32_t j, uint8_t *scale, uint8_t *minus);
void weight_k_scale_set(uint8_t packed[12], uint32_t j, uint8_t scale, uint8_t minus);

/* One storage unit of any type (weight_block_values values) to floats. */
void weight_dequant_block(enum weight_type type, const void *block, float *out);

#endif
