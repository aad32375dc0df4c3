/* shim_ptx.h - stand-ins for the PTX that gpu-engine/device/cuda/ptx.cuh spells out.
 *
 * Register layouts are those of the PTX manual (ldmatrix; mma.m16n8k16), written out here from the
 * manual and not from the kernels: a kernel with another layout in mind computes nonsense. */
#ifndef OMNI_TESTS_GPU_SHIM_SHIM_PTX_H
#define OMNI_TESTS_GPU_SHIM_SHIM_PTX_H
#include <cuda_runtime.h>

#include "common/base/half.h"
#include "tests/gpu/shim/shim_sys.h"

/* ---- Copies that land when they are waited for --------------------------------------------------- */

static inline void shim_copy_land(const struct shim_copy *c)
{
    if (c->from)
        memcpy(c->to, c->from, 16);
    else
        memset(c->to, 0, 16);
}

static inline void cp_async16(void *to, const void *from, bool valid)
{
    const struct shim_copy copy = {to, valid ? from : NULL, shim_current->group};
    if ((uintptr_t)to % 16 || (valid && (uintptr_t)from % 16))
        shim_fail("cp.async: an address is not a multiple of 16");
    if (shim_current->n_copies == SHIM_COPIES_MAX)
        shim_fail("cp.async: more than %d under way", SHIM_COPIES_MAX);
    if (shim_lands_early())
        shim_copy_land(&copy);
    shim_current->copies[shim_current->n_copies++] = copy;
}

static inline void cp_async_commit(void)
{
    shim_current->group++;
}

/* All but the n_left youngest groups have landed; what was not committed counts as the youngest. */
template <int n_left> static inline void cp_async_wait(void)
{
    struct shim_thread *t = shim_current;
    int n_landed = 0;
    while (n_landed < t->n_copies && (int)(t->copies[n_landed].group - t->group) < -n_left) {
        if (!shim_lands_early())
            shim_copy_land(&t->copies[n_landed]);
        n_landed++;
    }
    t->n_copies -= n_landed;
    memmove(t->copies, t->copies + n_landed, (size_t)t->n_copies * sizeof t->copies[0]);
}

/* ---- Tensor cores ---------------------------------------------------------------------------------- */

static inline void shim_ldmatrix_rows(const void *row, const uint16_t *rows[SHIM_WARP])
{
    if ((uintptr_t)row % 16)
        shim_fail("ldmatrix: a row's address is not a multiple of 16");
    const shim_exchange *x = shim_warp(SHIM_LDMATRIX, ~0u, &row, sizeof row);
    for (int i = 0; i < SHIM_WARP; i++)
        shim_lane(x, i, &rows[i], sizeof rows[i]);
}

/* Lane 8i+r names row r of matrix i; lane l gets elements 2(l%4), 2(l%4)+1 of row l/4. */
static inline void ldmatrix_x4(uint32_t r[4], const void *row)
{
    const uint16_t *rows[SHIM_WARP];
    const int lane = shim_current->lane;
    shim_ldmatrix_rows(row, rows);
    for (int i = 0; i < 4; i++) {
        const uint16_t *m = rows[8 * i + lane / 4] + 2 * (lane % 4);
        r[i] = (uint32_t)m[0] | (uint32_t)m[1] << 16;
    }
}

/* Transposed: lane l gets element l/4 of rows 2(l%4) and 2(l%4)+1. */
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    const uint16_t *rows[SHIM_WARP];
    const int lane = shim_current->lane;
    shim_ldmatrix_rows(row, rows);
    for (int i = 0; i < 4; i++)
        r[i] = (uint32_t)rows[8 * i + 2 * (lane % 4)][lane / 4] |
               (uint32_t)rows[8 * i + 2 * (lane % 4) + 1][lane / 4] << 16;
}

static inline void shim_mma(float d[4], const uint32_t a[4], const uint32_t b[2], uint32_t is_bf16)
{
    uint32_t mine[11];
    memcpy(mine, a, 16);
    memcpy(mine + 4, b, 8);
    memcpy(mine + 6, d, 16);
    mine[10] = is_bf16;
    const shim_exchange *x = shim_warp(SHIM_MMA, ~0u, mine, sizeof mine);
    shim_lane(x, shim_current->lane, d, 16);
}
static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma(d, a, b, 1);
}
static inline void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma(d, a, b, 0);
}

/* ---- Conversions ------------------------------------------------------------------------------------ */

static inline uint16_t float_to_f16(float f)
{
    return float_to_half(f);
}
static inline float f16_to_float(uint16_t h)
{
    return half_to_float(h);
}
template <int I, int J> static inline uint32_t i8_pair_to_f16(uint32_t bytes)
{
    return (uint32_t)float_to_half((float)(int8_t)(bytes >> 8 * I)) |
           (uint32_t)float_to_half((float)(int8_t)(bytes >> 8 * J)) << 16;
}

#endif
