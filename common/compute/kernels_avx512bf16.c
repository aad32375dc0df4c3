/* The kernels in AVX-512 with the dot products of BF16 and VNNI: as kernels_avx512.c, but attention
 * over bf16 KV rounds queries and weights to bf16 and multiplies pairs, and int8 KV takes one
 * instruction a pair instead of two. */
#include "common/compute/v16_avx512.h"

#define ROWS_FEW      8
#define ROWS_TILE     12
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) ((n) <= 3 ? 8 : (n) <= 6 ? 4 : 2)
#define ATTN_DOT_BF16 1

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx512bf16 = KERNELS_TABLE;
