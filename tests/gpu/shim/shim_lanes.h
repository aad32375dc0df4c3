/* shim_lanes.h - part of the stand-in cuda_runtime.h: lanes of a warp, atomics, arithmetic.
 *
 * Masks name all 32 lanes, or the launch fails (shim.h).  Shuffles order no memory between lanes, as
 * NVIDIA's do not; __syncwarp does. */
#ifndef OMNI_TESTS_GPU_SHIM_SHIM_LANES_H
#define OMNI_TESTS_GPU_SHIM_SHIM_LANES_H
#include <cuda_runtime.h>

/* ---- Lanes of a warp ----------------------------------------------------------------------- */

template <typename T> static inline T shim_lane_value(shim_op op, unsigned mask, T v, int from)
{
    T out;
    const shim_exchange *x = shim_warp(op, mask, &v, sizeof v);
    shim_lane(x, from, &out, sizeof out);
    return out;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int from, int width = 32)
{
    const int lane = shim_current->lane;
    return shim_lane_value(SHIM_SHUFFLE, mask, v, (lane & ~(width - 1)) | (from & (width - 1)));
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int = 32)
{
    return shim_lane_value(SHIM_SHUFFLE, mask, v, shim_current->lane ^ bits);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T v, int by, int width = 32)
{
    const int lane = shim_current->lane, in = lane & (width - 1);
    return shim_lane_value(SHIM_SHUFFLE, mask, v, in + by < width ? lane + by : lane);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T v, int by, int width = 32)
{
    const int lane = shim_current->lane, in = lane & (width - 1);
    return shim_lane_value(SHIM_SHUFFLE, mask, v, in >= by ? lane - by : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    unsigned bits = 0;
    const unsigned mine = predicate != 0;
    const shim_exchange *x = shim_warp(SHIM_BALLOT, mask, &mine, sizeof mine);
    for (int i = 0; i < 32; i++) {
        unsigned bit;
        shim_lane(x, i, &bit, sizeof bit);
        bits |= bit << i;
    }
    return bits;
}
static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) == ~0u;
}

/* ---- Atomics: relaxed, as CUDA's -------------------------------------------------------------- */

template <typename T> static inline T atomicAdd(T *at, T v)
{
    return __atomic_fetch_add(at, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicMax(T *at, T v)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < v &&
           !__atomic_compare_exchange_n(at, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        continue;
    return old;
}
template <typename T> static inline T atomicOr(T *at, T v)
{
    return __atomic_fetch_or(at, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicExch(T *at, T v)
{
    return __atomic_exchange_n(at, v, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicCAS(T *at, T expected, T v)
{
    __atomic_compare_exchange_n(at, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

/* ---- Arithmetic -------------------------------------------------------------------------------- */

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __uint_as_float(unsigned bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
