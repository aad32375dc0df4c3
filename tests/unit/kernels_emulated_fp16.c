/* The table of kernels_avx512fp16.c over emulated f16 and bf16. */
#include "tests/unit/kernels_emulated.h"

#define ROWS_FEW      3
#define ROWS_TILE     3
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) 2
#define ATTN_DOT_BF16 1
#define ATTN_HALF     1

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx512fp16 = KERNELS_TABLE;
