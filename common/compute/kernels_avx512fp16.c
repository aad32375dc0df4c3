/* The kernels in AVX-512 with BF16, VNNI and FP16: as kernels_avx512bf16.c, but attention over f16 KV
 * computes in f16. */
#include "common/compute/v16_avx512.h"
#include "common/compute/v32h_avx512fp16.h"

#define ROWS_FEW      8
#define ROWS_TILE     12
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) ((n) <= 3 ? 8 : (n) <= 6 ? 4 : 2)
#define ATTN_DOT_BF16 1
#define ATTN_HALF     1

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx512fp16 = KERNELS_TABLE;
