/* tiles_amx.h - matrix tiles of bf16 pairs, as AMX has them; included by kernels_amx.c alone, after
 * v16_avx512.h.
 *
 * A tile is up to 16 rows of up to 64 bytes.  T_DOT(c, a, b): row i, column j of c (float) gains the
 * sum over k of the pairs a[i][k] and b[k][j]; every element by itself, in one order of k. */
#ifndef OMNI_COMMON_COMPUTE_TILES_AMX_H
#define OMNI_COMMON_COMPUTE_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* The intrinsics name no memory: the barriers keep the compiler from moving stores across them.
 * The first argument must be a plain number. */
#define T_BARRIER() __asm__ volatile("" : : : "memory")
#define T_ZERO(t)   _tile_zero(t)
#define T_LOAD(t, p, stride)                                                                       \
    do {                                                                                           \
        T_BARRIER();                                                                               \
        _tile_loadd(t, p, stride);                                                                 \
    } while (0)
#define T_STORE(t, p, stride)                                                                      \
    do {                                                                                           \
        _tile_stored(t, p, stride);                                                                \
        T_BARRIER();                                                                               \
    } while (0)
#define T_DOT(c, a, b) _tile_dpbf16ps(c, a, b)

static inline void tiles_configure(const struct tile_config *config)
{
    T_BARRIER();
    _tile_loadconfig(config);
}

/* Tiles in use keep a core from deep sleep and cost 8 KiB at every switch of threads. */
static inline void tiles_release(void)
{
    _tile_release();
}

#endif
