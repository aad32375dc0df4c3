/* weight_convert.cu - see weight_convert.h.  A thread takes a group of 32 values apart: what
 * common/model/weight_block.c says of the types, byte for byte. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/weight_convert.h"

extern "C" {
#include "common/model/weight.h"
}

enum { THREADS = 128, GROUP = WEIGHT_BLOCK, HALF = GROUP / 2 };

/* ---- Storage units: 2-byte aligned ----------------------------------------------------------------- */

static __device__ __forceinline__ float half_at(const uint8_t *at)
{
    return f16_to_float(*(const uint16_t *)at);
}

/* value = d[i / 16] * (q - offset) + m */
struct group {
    float d[2], m;
    int offset;
    int q[GROUP];
};

static __device__ __forceinline__ void take_nibbles(struct group &g, const uint8_t *q)
{
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        g.q[i] = q[i] & 15;
        g.q[i + HALF] = q[i] >> 4;
    }
}

static __device__ __forceinline__ void add_fifth_bits(struct group &g, const uint8_t *qh)
{
#pragma unroll
    for (int i = 0; i < GROUP; i++)
        g.q[i] |= (qh[i / 8] >> (i % 8) & 1) << 4;
}

/* Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: a unit is a group. */
template <int W>
static __device__ __forceinline__ void take_block(struct group &g, const uint8_t *b)
{
    const bool has_min = W == WEIGHT_Q4_1 || W == WEIGHT_Q5_1;
    const bool has_fifth = W == WEIGHT_Q5_0 || W == WEIGHT_Q5_1;
    const uint8_t *qh = b + (has_min ? 4 : 2), *q = qh + (has_fifth ? 4 : 0);
    g.d[0] = g.d[1] = half_at(b);
    g.m = has_min ? half_at(b + 2) : 0.0f;
    g.offset = W == WEIGHT_Q4_0 ? 8 : W == WEIGHT_Q5_0 ? 16 : 0;
    if (W == WEIGHT_Q8_0) {
#pragma unroll
        for (int i = 0; i < GROUP; i++)
            g.q[i] = (int8_t)q[i];
        return;
    }
    take_nibbles(g, q);
    if (has_fifth)
        add_fifth_bits(g, qh);
}

/* Group j of a Q4_K or Q5_K: d, dmin, 12 bytes of scales, (fifth bits,) nibbles. */
template <int W>
static __device__ __forceinline__ void take_k(struct group &g, const uint8_t *b, uint32_t j)
{
    const uint8_t *packed = b + 4, *qh = b + 16, *q = qh + (W == WEIGHT_Q5_K ? 32 : 0) + j / 2 * 32;
    const uint32_t low = j & 3;
    const int scale = j < 4 ? packed[j] & 63 : (packed[low + 8] & 15) | packed[low] >> 6 << 4;
    const int minus = j < 4 ? packed[j + 4] & 63 : packed[low + 8] >> 4 | packed[low + 4] >> 6 << 4;
    g.d[0] = g.d[1] = half_at(b) * (float)scale;
    g.m = half_at(b + 2) * -(float)minus;
    g.offset = 0;
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        g.q[i] = j % 2 ? q[i] >> 4 : q[i] & 15;
        if (W == WEIGHT_Q5_K)
            g.q[i] |= (qh[i] >> j & 1) << 4;
    }
}

/* Group j of a Q6_K: low nibbles, two high bits, a scale per 16 values, d. */
static __device__ __forceinline__ void take_q6_k(struct group &g, const uint8_t *b, uint32_t j)
{
    const uint32_t half = j / 4, part = j % 4;
    const uint8_t *ql = b + 64 * half + 32 * (part % 2), *qh = b + 128 + 32 * half;
    const float d = half_at(b + 208);
    g.d[0] = d * (float)(int8_t)b[192 + 2 * j];
    g.d[1] = d * (float)(int8_t)b[193 + 2 * j];
    g.m = 0.0f;
    g.offset = 32;
#pragma unroll
    for (int i = 0; i < GROUP; i++)
        g.q[i] = (part < 2 ? ql[i] & 15 : ql[i] >> 4) | (qh[i] >> 2 * part & 3) << 4;
}

template <int W>
static __device__ __forceinline__ void group_take(float x[GROUP], const uint8_t *in, uint64_t n)
{
    const bool has_min =
        W == WEIGHT_Q4_1 || W == WEIGHT_Q5_1 || W == WEIGHT_Q4_K || W == WEIGHT_Q5_K;
    struct group g;
    if (W == WEIGHT_Q4_K)
        take_k<W>(g, in + n / 8 * 144, (uint32_t)(n % 8));
    else if (W == WEIGHT_Q5_K)
        take_k<W>(g, in + n / 8 * 176, (uint32_t)(n % 8));
    else if (W == WEIGHT_Q6_K)
        take_q6_k(g, in + n / 8 * 210, (uint32_t)(n % 8));
    else
        take_block<W>(g, in + n * (W == WEIGHT_Q8_0   ? 34
                                   : W == WEIGHT_Q4_0 ? 18
                                   : W == WEIGHT_Q4_1 ? 20
                                   : W == WEIGHT_Q5_0 ? 22
                                                      : 24));
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        const float product = g.d[i / HALF] * (float)(g.q[i] - g.offset);
        x[i] = has_min ? product + g.m : product; /* adding 0 would turn a zero's sign */
    }
}

template <int W>
static __device__ __forceinline__ void values_take(float x[GROUP], const uint8_t *in, uint64_t n)
{
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        const uint64_t at = n * GROUP + i;
        if (W == WEIGHT_F32)
            x[i] = ((const float *)in)[at];
        else
            x[i] = W == WEIGHT_F16 ? f16_to_float(((const uint16_t *)in)[at])
                                   : __uint_as_float((uint32_t)((const uint16_t *)in)[at] << 16);
    }
}

/* ---- The kernel --------------------------------------------------------------------------------------- */

template <int W, int TYPE>
static __global__ void __launch_bounds__(THREADS)
    weight_convert_kernel(const struct weight_convert a)
{
    const uint64_t n = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    float x[GROUP];
    if (n >= a.n_values / GROUP)
        return;
    if (W == WEIGHT_F32 || W == WEIGHT_F16 || W == WEIGHT_BF16)
        values_take<W>(x, a.in, n);
    else
        group_take<W>(x, a.in, n);
    uint4 *out = (uint4 *)(a.out + n * GROUP);
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++)
        out[i] = element_pack8<TYPE>(x + 8 * i);
}

template <int W> static int convert_launch(const struct weight_convert *a, cuda_stream stream)
{
    const dim3 grid((unsigned)((a->n_values / GROUP + THREADS - 1) / THREADS));
    return a->type == KV_TYPE_BF16
               ? launch(weight_convert_kernel<W, KV_TYPE_BF16>, grid, THREADS, 0, stream, *a)
               : launch(weight_convert_kernel<W, KV_TYPE_F16>, grid, THREADS, 0, stream, *a);
}

int weight_convert(const struct weight_convert *a, cuda_stream stream)
{
    if (a->n_values % GROUP != 0 || a->n_values / GROUP / THREADS >= 0x7fffffffu)
        return CUDA_NOT_SUPPORTED;
    if (a->n_values == 0)
        return 0;
    switch ((enum weight_type)a->weight_type) {
#define CONVERT_CASE(name)                                                                         \
    case name:                                                                                     \
        return convert_launch<name>(a, stream)
        CONVERT_CASE(WEIGHT_F32);
        CONVERT_CASE(WEIGHT_F16);
        CONVERT_CASE(WEIGHT_BF16);
        CONVERT_CASE(WEIGHT_Q8_0);
        CONVERT_CASE(WEIGHT_Q4_0);
        CONVERT_CASE(WEIGHT_Q4_1);
        CONVERT_CASE(WEIGHT_Q5_0);
        CONVERT_CASE(WEIGHT_Q5_1);
        CONVERT_CASE(WEIGHT_Q4_K);
        CONVERT_CASE(WEIGHT_Q5_K);
        CONVERT_CASE(WEIGHT_Q6_K);
#undef CONVERT_CASE
    case WEIGHT_TYPES:
        break;
    }
    return CUDA_NOT_SUPPORTED;
}
