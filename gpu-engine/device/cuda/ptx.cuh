/* ptx.cuh - the instructions that CUDA C has no name for, spelled out, and how kernels are launched.
 *
 * Names: relaxed, acquire, release as in PTX; sys = the host and all devices take part.  Without nvcc
 * the same names come from the tests' stand-ins (shim_ptx.h), so a kernel uses PTX through here only.
 * Elements are 16 bits, f16 or bf16, and travel as uint16_t or in pairs as uint32_t (low half first). */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_PTX_CUH
#define OMNI_GPU_ENGINE_DEVICE_CUDA_PTX_CUH
#include <cuda_runtime.h>
#include <stdint.h>

#include "common/kv/geometry.h"

#ifdef __CUDACC__

static __device__ __forceinline__ uint64_t globaltimer_ns(void)
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

/* The launch's shared memory.  All of a kernel's shared memory is here. */
static __device__ __forceinline__ void *shared_memory(void)
{
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
    return dynamic_shared_memory;
}

static __device__ __forceinline__ uint32_t load_relaxed_sys(const uint32_t *word)
{
    uint32_t v;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(word) : "memory");
    return v;
}
static __device__ __forceinline__ uint4 load_relaxed_sys4(const uint4 *at)
{
    uint4 v;
    asm volatile("ld.relaxed.sys.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at)
                 : "memory");
    return v;
}
static __device__ __forceinline__ void store_relaxed_sys(uint32_t *word, uint32_t v)
{
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(v) : "memory");
}
static __device__ __forceinline__ void store_relaxed_sys4(uint4 *at, uint4 v)
{
    asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(at), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}
static __device__ __forceinline__ void store_release_sys(uint32_t *word, uint32_t v)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(v) : "memory");
}
static __device__ __forceinline__ void store_release_sys(uint64_t *word, uint64_t v)
{
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(v) : "memory");
}
/* After relaxed loads that saw a release: what was written before it is seen from here on. */
static __device__ __forceinline__ void fence_acquire_sys(void)
{
    asm volatile("fence.acq_rel.sys;" ::: "memory");
}

/* 16 bytes that no kernel writes and nobody reads again soon: weights.  Volatile keeps loads where they
 * are written, several ahead of their use. */
static __device__ __forceinline__ uint4 load_streamed16(const void *at)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}

/* 16 bytes to shared memory, past the registers; zeros where not valid. */
static __device__ __forceinline__ void cp_async16(void *to, const void *from, bool valid)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* This thread's copies are there, but for the n_left youngest groups; others see them after a barrier. */
template <int n_left> static __device__ __forceinline__ void cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(n_left) : "memory");
}

static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ uint16_t float_to_f16(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
static __device__ __forceinline__ float f16_to_float(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

/* Bytes I and J of four signed ones, as two halves.  1024 + n has n in its lowest bits; n is the byte
 * plus 128. */
template <int I, int J> static __device__ __forceinline__ uint32_t i8_pair_to_f16(uint32_t bytes)
{
    uint32_t pair = __byte_perm(bytes ^ 0x80808080u, 0x64646464u, I | 4 << 4 | J << 8 | 4 << 12);
    const uint32_t offset = 0x64806480u; /* 1152 */
    asm("sub.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(offset));
    return pair;
}

#else
#include <shim_ptx.h>
#endif

/* ---- 16-bit elements of a type that is known when the kernel is compiled --------------------------- */

static __device__ __forceinline__ uint16_t f32_to_bf16(float f)
{
    const uint32_t bits = __float_as_uint(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
template <int TYPE> static __device__ __forceinline__ float element_load(uint32_t bits)
{
    return TYPE == KV_TYPE_BF16 ? __uint_as_float(bits << 16) : f16_to_float((uint16_t)bits);
}
template <int TYPE> static __device__ __forceinline__ uint16_t element_round(float f)
{
    return TYPE == KV_TYPE_BF16 ? f32_to_bf16(f) : float_to_f16(f);
}
template <int TYPE> static __device__ __forceinline__ uint32_t element_pair(float low, float high)
{
#ifdef __CUDACC__
    uint32_t pair;
    if (TYPE == KV_TYPE_BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)element_round<TYPE>(low) | (uint32_t)element_round<TYPE>(high) << 16;
#endif
}
/* The same where the type is known to the launch. */
static __device__ __forceinline__ float element_load_as(uint32_t type, uint32_t bits)
{
    return type == KV_TYPE_BF16 ? __uint_as_float(bits << 16) : f16_to_float((uint16_t)bits);
}
static __device__ __forceinline__ uint32_t element_pair_as(uint32_t type, float low, float high)
{
    return type == KV_TYPE_BF16 ? element_pair<KV_TYPE_BF16>(low, high)
                                : element_pair<KV_TYPE_F16>(low, high);
}
/* A pair of another type, rounded to this one. */
template <int TYPE>
static __device__ __forceinline__ uint32_t pair_convert(uint32_t pair, uint32_t from)
{
    return element_pair<TYPE>(element_load_as(from, pair & 0xffffu),
                              element_load_as(from, pair >> 16));
}
template <int TYPE> static __device__ __forceinline__ void element_unpack8(float out[8], uint4 in)
{
    const uint32_t word[4] = {in.x, in.y, in.z, in.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = element_load<TYPE>(word[i] & 0xffffu);
        out[2 * i + 1] = element_load<TYPE>(word[i] >> 16);
    }
}
template <int TYPE> static __device__ __forceinline__ uint4 element_pack8(const float in[8])
{
    return make_uint4(element_pair<TYPE>(in[0], in[1]), element_pair<TYPE>(in[2], in[3]),
                      element_pair<TYPE>(in[4], in[5]), element_pair<TYPE>(in[6], in[7]));
}
template <int TYPE>
static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    if (TYPE == KV_TYPE_BF16)
        mma_bf16(d, a, b);
    else
        mma_f16(d, a, b);
}

/* ---- Sums over a block -------------------------------------------------------------------------------- */

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2)
        v += __shfl_xor_sync(~0u, v, bits);
    return v;
}
/* The same sum in every thread, in an order that depends on blockDim alone; scratch: 32 floats of
 * shared memory, free again after the caller's next barrier. */
static __device__ __forceinline__ float block_sum(float v, float *scratch)
{
    float sum = 0.0f;
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = v;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / 32; w++)
        sum += scratch[w];
    return sum;
}

/* ---- Launching ------------------------------------------------------------------------------------------ */

/* Queues kernel(args...); 0 or a cudaError_t. */
template <typename... P, typename... A>
static inline int launch(void (*kernel)(P...), dim3 grid, unsigned n_threads, size_t shared_bytes,
                         cudaStream_t stream, A... args)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(n_threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    if (shared_bytes > 48u << 10) {
        const cudaError_t rc = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (rc != cudaSuccess)
            return rc;
    }
    return cudaLaunchKernelEx(&config, kernel, args...);
}

#endif
