/* The kernels in AVX2, FMA and F16C: 16 registers of 8 lanes. */
#include "common/compute/v16_avx2.h"

/* 3 rows x 32 outputs = 12 accumulators of 16 registers. */
#define ROWS_FEW  3
#define ROWS_TILE 3
/* 3 rows beside 2 vectors of 16 would be 12 accumulators, and spill (20 instead of 23 GB/s). */
#define ATTN_GROUP    6
#define ATTN_WIDTH(n) ((n) <= 1 ? 4 : (n) <= 2 ? 2 : 1)

/* int8 and groups are bound by arithmetic here. */
#define ATTN_AWAIT      1
#define ATTN_AWAIT_BF16 1
#define ATTN_AWAIT_I8   0

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx2 = KERNELS_TABLE;
