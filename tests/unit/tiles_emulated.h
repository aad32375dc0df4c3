/* tiles_emulated.h - matrix tiles in plain C, under the names of tiles_amx.h; see
 * kernels_emulated.h. */
#ifndef OMNI_TESTS_UNIT_TILES_EMULATED_H
#define OMNI_TESTS_UNIT_TILES_EMULATED_H

#include "tests/unit/kernels_emulated.h"

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

struct emulated_tiles {
    struct tile_config config;
    uint8_t data[8][16][64];
};
static _Thread_local struct emulated_tiles emulated_tiles;

#define T_ZERO(t)             memset(emulated_tiles.data[t], 0, sizeof emulated_tiles.data[t])
#define T_LOAD(t, p, stride)  emulated_load(t, p, (size_t)(stride))
#define T_STORE(t, p, stride) emulated_store(t, (uint8_t *)(void *)(p), (size_t)(stride))
#define T_DOT(c, a, b)        emulated_dot(c, a, b)

V_INLINE void tiles_configure(const struct tile_config *config)
{
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles.config = *config;
}
V_INLINE void tiles_release(void)
{
    memset(&emulated_tiles, 0, sizeof emulated_tiles); /* what is used unconfigured has no rows */
}
V_INLINE void emulated_load(int t, const void *p, size_t stride)
{
    const struct tile_config *c = &emulated_tiles.config;

    T_ZERO(t);
    for (size_t i = 0; i < c->rows[t]; i++)
        memcpy(emulated_tiles.data[t][i], (const uint8_t *)p + i * stride, c->row_bytes[t]);
}
V_INLINE void emulated_store(int t, uint8_t *p, size_t stride)
{
    const struct tile_config *c = &emulated_tiles.config;

    for (size_t i = 0; i < c->rows[t]; i++)
        memcpy(p + i * stride, emulated_tiles.data[t][i], c->row_bytes[t]);
}
V_INLINE float emulated_element(int t, size_t row, size_t i)
{
    uint16_t b;

    memcpy(&b, &emulated_tiles.data[t][row][2 * i], sizeof b);
    return eb_float(b);
}
/* The first and the second of the pairs are added up apart, then together, then to c. */
V_INLINE void emulated_dot(int c, int a, int b)
{
    const struct tile_config *config = &emulated_tiles.config;
    size_t n_pairs = config->row_bytes[a] / 4U;

    for (size_t m = 0; m < config->rows[c]; m++) {
        for (size_t n = 0; n < config->row_bytes[c] / 4U; n++) {
            float first = 0, second = 0, sum;

            for (size_t k = 0; k < n_pairs; k++) {
                first = emulated_fma(emulated_element(a, m, 2 * k), emulated_element(b, k, 2 * n),
                                     first);
                second = emulated_fma(emulated_element(a, m, 2 * k + 1),
                                      emulated_element(b, k, 2 * n + 1), second);
            }
            memcpy(&sum, &emulated_tiles.data[c][m][4 * n], sizeof sum);
            sum += first + second;
            memcpy(&emulated_tiles.data[c][m][4 * n], &sum, sizeof sum);
        }
    }
}

#endif
