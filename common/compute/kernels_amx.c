/* The kernels in AVX-512 with BF16, VNNI and AMX: as kernels_avx512bf16.c, but attention over bf16 KV
 * multiplies by matrix tiles. */
#include "common/compute/tiles_amx.h"
#include "common/compute/v16_avx512.h"

#define ROWS_FEW      8
#define ROWS_TILE     12
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) ((n) <= 3 ? 8 : (n) <= 6 ? 4 : 2)
#define ATTN_TILES    1

#include "common/compute/kernels_body.h"

const struct kernels kernels_amx = KERNELS_TABLE;
