#include "common/compute/dense_pack.h"

#include <string.h>

#include "common/base/invariant.h"
#include "common/compute/dense.h"
#include "common/compute/kernels.h"

size_t dense_pack_panel_bytes(enum weight_type type, uint32_t k)
{
    switch (type) {
    case WEIGHT_F32:
        return (size_t)k * DENSE_PANEL * 4;
    case WEIGHT_F16:
        return (size_t)k * DENSE_PANEL * 2;
    case WEIGHT_Q8_0:
        return (size_t)k / WEIGHT_BLOCK * PANEL_Q8_BYTES;
    case WEIGHT_Q4_1:
        return (size_t)k / WEIGHT_BLOCK * PANEL_Q4_BYTES;
    case WEIGHT_TYPES:
        break;
    }
    invariant(type < WEIGHT_TYPES);
    return 0;
}

/* Values of `size` bytes from a row into column c of [k][32]. */
static void pack_plain(const uint8_t *row, uint64_t k, size_t size, uint32_t c, uint8_t *out)
{
    for (uint64_t i = 0; i < k; i++)
        memcpy(out + (i * DENSE_PANEL + c) * size, row + i * size, size);
}

static void pack_q8_0(const struct weight_q8_0 *row, uint64_t k, uint32_t c, uint8_t *out)
{
    for (uint64_t b = 0; b < k / WEIGHT_BLOCK; b++, out += PANEL_Q8_BYTES) {
        memcpy(out + 2 * c, &row[b].d, 2);
        for (uint32_t i = 0; i < WEIGHT_BLOCK; i++)
            memcpy(out + 64 + 32 * i + c, &row[b].q[i], 1);
    }
}

/* Nibble i of a block as the file has it: values 0..15 low, 16..31 high. */
static uint32_t q4_1_value(const struct weight_q4_1 *b, uint32_t i)
{
    return i < 16 ? b->q[i] & 15U : (uint32_t)b->q[i - 16] >> 4;
}

static void pack_q4_1(const struct weight_q4_1 *row, uint64_t k, uint32_t c, uint8_t *out)
{
    for (uint64_t b = 0; b < k / WEIGHT_BLOCK; b++, out += PANEL_Q4_BYTES) {
        memcpy(out + 2 * c, &row[b].d, 2);
        memcpy(out + 64 + 2 * c, &row[b].m, 2);
        for (uint32_t s = 0; s < 4; s++) {
            uint32_t word = 0;

            for (uint32_t i = 0; i < 8; i++)
                word |= q4_1_value(&row[b], 8 * s + i) << (4 * i);
            memcpy(out + 128 + 128 * s + 4 * c, &word, 4);
        }
    }
}

void dense_pack_panel(const struct weight_view *view, uint32_t panel, uint8_t *out)
{
    uint64_t first = (uint64_t)panel * DENSE_PANEL, left = view->n_rows - first;
    uint32_t n = left < DENSE_PANEL ? (uint32_t)left : DENSE_PANEL;

    if (n < DENSE_PANEL)
        memset(out, 0, dense_pack_panel_bytes(view->type, (uint32_t)view->n_cols));
    for (uint32_t c = 0; c < n; c++) {
        const void *row = weight_row(view, first + c);

        if (view->type == WEIGHT_Q8_0)
            pack_q8_0(row, view->n_cols, c, out);
        else if (view->type == WEIGHT_Q4_1)
            pack_q4_1(row, view->n_cols, c, out);
        else
            pack_plain(row, view->n_cols, view->type == WEIGHT_F32 ? 4 : 2, c, out);
    }
}
