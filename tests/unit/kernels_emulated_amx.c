/* The table of kernels_amx.c over emulated tiles. */
#include "tests/unit/kernels_emulated.h"
#include "tests/unit/tiles_emulated.h"

#define ROWS_FEW      3
#define ROWS_TILE     3
#define ATTN_GROUP    12
#define ATTN_WIDTH(n) 2
#define ATTN_TILES    1

#include "common/compute/kernels_body.h"

const struct kernels kernels_amx = KERNELS_TABLE;
