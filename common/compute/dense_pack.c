#include "common/compute/dense_pack.h"

#include <string.h>

#include "common/base/invariant.h"
#include "common/compute/dense.h"
#include "common/compute/kernels.h"
#include "common/model/weight_block.h"

size_t dense_pack_panel_bytes(enum weight_type type, uint32_t k)
{
    if (type == WEIGHT_Q8_0)
        return (size_t)k / WEIGHT_BLOCK * PANEL_Q8_BYTES;
    if (weight_block_values(type) == 1)
        return (size_t)k * DENSE_PANEL * weight_block_bytes(type);
    return (size_t)k / WEIGHT_BLOCK * panel_block_bytes(type) +
           k / WEIGHT_SUPER_BLOCK * panel_super_bytes(type);
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

/* Column c's words of a block: eight nibbles each. */
static void pack_low(const uint8_t q[WEIGHT_BLOCK], uint32_t c, uint8_t *out)
{
    for (uint32_t s = 0; s < 4; s++) {
        uint32_t word = 0;

        for (uint32_t i = 0; i < 8; i++)
            word |= (q[8 * s + i] & 15U) << (4 * i);
        memcpy(out + 128 * s + 4 * c, &word, 4);
    }
}

/* What is above the nibbles, `bits` (1 or 2) of each value. */
static void pack_high(const uint8_t q[WEIGHT_BLOCK], uint32_t bits, uint32_t c, uint8_t *out)
{
    const uint32_t per_word = 32 / bits;

    for (uint32_t s = 0; s < bits; s++) {
        uint32_t word = 0;

        for (uint32_t i = 0; i < per_word; i++)
            word |= (uint32_t)(q[per_word * s + i] >> 4) << (bits * i);
        memcpy(out + 128 * s + 4 * c, &word, 4);
    }
}

static void pack_scales(enum weight_type type, const struct weight_group *g, uint32_t c,
                        uint8_t *out)
{
    const int8_t minus = (int8_t)-g->minus;

    if (panel_super_bytes(type) == 0) {
        memcpy(out + 2 * c, &g->d, 2);
        if (panel_high_off(type) == 128)
            memcpy(out + 64 + 2 * c, &g->m, 2);
        return;
    }
    memcpy(out + c, &g->scale[0], 1);
    memcpy(out + 32 + c, type == WEIGHT_Q6_K ? &g->scale[1] : &minus, 1);
}

static void pack_super(enum weight_type type, const struct weight_group *g, uint32_t c,
                       uint8_t *out)
{
    memcpy(out + 2 * c, &g->d, 2);
    if (panel_super_bytes(type) == 128)
        memcpy(out + 64 + 2 * c, &g->m, 2);
}

static void pack_groups(enum weight_type type, const uint8_t *row, uint64_t k, uint32_t c,
                        uint8_t *out)
{
    const uint32_t per_block = weight_block_values(type) / WEIGHT_BLOCK;
    struct weight_group g;

    for (uint64_t i = 0; i < k / WEIGHT_BLOCK; i++, out += panel_block_bytes(type)) {
        weight_block_group(type, row + i / per_block * weight_block_bytes(type),
                           (uint32_t)(i % per_block), &g);
        if (i % per_block == 0 && per_block > 1) {
            pack_super(type, &g, c, out);
            out += panel_super_bytes(type);
        }
        pack_scales(type, &g, c, out);
        if (panel_high_bits(type) > 0)
            pack_high(g.q, panel_high_bits(type), c, out + panel_high_off(type));
        pack_low(g.q, c, out + panel_low_off(type));
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
        else if (weight_block_values(view->type) == 1)
            pack_plain(row, view->n_cols, weight_block_bytes(view->type), c, out);
        else
            pack_groups(view->type, row, view->n_cols, c, out);
    }
}
