/* The kernels in AVX-512 F, BW, VL, DQ: 32 registers of 16 lanes. */
#include "common/compute/v16_avx512.h"

/* 12 rows x 32 outputs = 24 accumulators of 32 registers; 8 rows leave room for scales. */
#define ROWS_FEW     8
#define ROWS_TILE    12
#define SCORE_ROWS   4
#define SCORE_TOKENS 4

#include "common/compute/kernels_body.h"

const struct kernels kernels_avx512 = KERNELS_TABLE;
