#include "common/model/weight.h"

#include "common/base/invariant.h"
#include "common/model/weight_block.h"

struct type_info {
    const char *name;
    uint32_t number; /* in a GGUF file */
    uint32_t values, bytes;
};

static const struct type_info types[WEIGHT_TYPES] = {
    [WEIGHT_F32] = {"F32", 0, 1, 4},
    [WEIGHT_F16] = {"F16", 1, 1, 2},
    [WEIGHT_BF16] = {"BF16", 30, 1, 2},
    [WEIGHT_Q8_0] = {"Q8_0", 8, WEIGHT_BLOCK, sizeof(struct weight_q8_0)},
    [WEIGHT_Q4_0] = {"Q4_0", 2, WEIGHT_BLOCK, sizeof(struct weight_q4_0)},
    [WEIGHT_Q4_1] = {"Q4_1", 3, WEIGHT_BLOCK, sizeof(struct weight_q4_1)},
    [WEIGHT_Q5_0] = {"Q5_0", 6, WEIGHT_BLOCK, sizeof(struct weight_q5_0)},
    [WEIGHT_Q5_1] = {"Q5_1", 7, WEIGHT_BLOCK, sizeof(struct weight_q5_1)},
    [WEIGHT_Q4_K] = {"Q4_K", 12, WEIGHT_SUPER_BLOCK, sizeof(struct weight_q4_k)},
    [WEIGHT_Q5_K] = {"Q5_K", 13, WEIGHT_SUPER_BLOCK, sizeof(struct weight_q5_k)},
    [WEIGHT_Q6_K] = {"Q6_K", 14, WEIGHT_SUPER_BLOCK, sizeof(struct weight_q6_k)},
};

const char *weight_type_name(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].name;
}

const char *weight_type_names(void)
{
    return "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";
}

uint32_t weight_type_number(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].number;
}

bool weight_type_of_number(uint32_t number, enum weight_type *out)
{
    for (int i = 0; i < WEIGHT_TYPES; i++)
        if (types[i].number == number) {
            *out = (enum weight_type)i;
            return true;
        }
    return false;
}

uint32_t weight_block_values(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].values;
}

uint32_t weight_block_bytes(enum weight_type type)
{
    invariant((unsigned)type < WEIGHT_TYPES);
    return types[type].bytes;
}

uint64_t weight_row_bytes(enum weight_type type, uint64_t n_cols)
{
    invariant(n_cols % weight_block_values(type) == 0);
    return n_cols / types[type].values * types[type].bytes;
}

struct weight_view weight_slice(const struct weight_view *w, uint32_t e)
{
    struct weight_view slice = *w;

    invariant(e < w->n_slices);
    slice.n_slices = 1;
    slice.data = (const char *)w->data + e * w->slice_bytes;
    return slice;
}

struct weight_view weight_rows(const struct weight_view *w, uint64_t first, uint64_t n_rows)
{
    struct weight_view part = *w;

    invariant(w->n_slices == 1 && first <= w->n_rows && n_rows <= w->n_rows - first);
    part.n_rows = n_rows;
    part.slice_bytes = n_rows * w->row_bytes;
    part.data = weight_row(w, first);
    return part;
}

void weight_dequant_row_ref(const struct weight_view *w, uint64_t row, float *out)
{
    const uint32_t values = weight_block_values(w->type);
    const uint32_t bytes = weight_block_bytes(w->type);
    const char *block = weight_row(w, row);

    invariant(row < w->n_rows);
    for (uint64_t i = 0; i < w->n_cols; i += values, block += bytes)
        weight_dequant_block(w->type, block, out + i);
}
