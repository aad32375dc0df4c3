/* The kernels in AVX-512 F, BW, VL, DQ: 32 registers of 16 lanes. */
#include "common/compute/v16_avx512.h"

/* 12 rows x 32 outputs = 24 accumulators of 32 registers; 8 rows leave room for scales. */
#define ROWS_FEW      8
#define ROWS_TILE     12
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) ((n) <= 3 ? 8 : (n) <= 6 ? 4 : 2)

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx512 = KERNELS_TABLE;
