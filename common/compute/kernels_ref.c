/* The kernels in plain C: the reference, and any x86-64. */
#include "common/compute/v16_ref.h"

#define ROWS_FEW      3
#define ROWS_TILE     3
#define ATTN_GROUP    3
#define ATTN_WIDTH(n) 2

#include "common/compute/kernels_body.h"

const struct kernels kernels_ref = KERNELS_TABLE;
