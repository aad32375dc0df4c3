/* cuda_runtime.h - stand-in for NVIDIA's, for kernels that run on the CPU (shim.h); the host's side of
 * it is cuda_runtime_api.h.
 *
 * It has what the kernels of this project use, under NVIDIA's names and with NVIDIA's meaning; a
 * kernel that needs more does not compile here, which is the time to add it.  Functions that a warp
 * executes together go through shim_warp. */
#ifndef OMNI_TESTS_GPU_SHIM_CUDA_RUNTIME_H
#define OMNI_TESTS_GPU_SHIM_CUDA_RUNTIME_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/gpu/shim/runtime.h"
#include "tests/gpu/shim/shim_thread.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__   static /* blocks run one after the other */

struct __align__(8) uint2
{
    unsigned x, y;
};
struct __align__(16) uint4
{
    unsigned x, y, z, w;
};
struct __align__(8) float2
{
    float x, y;
};
struct __align__(16) float4
{
    float x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

template <typename F> static inline cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}

/* Arguments are copied as a launch copies them: a graph replays them. */
template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *c, void (*kernel)(P...),
                                             A... args)
{
    const cudaLaunchConfig_t config = *c;
    return shim_enqueue(c->stream, [=] {
        auto body = [&] { kernel(args...); };
        const shim_body call = {[](void *b) { (*(decltype(body) *)b)(); }, &body};
        return shim_launch(config.gridDim, config.blockDim, config.dynamicSmemBytes, call) == 0
                   ? cudaSuccess
                   : cudaErrorLaunchFailure;
    });
}

/* threadIdx and its like: objects whose parts are looked up when they are read. */
#define SHIM_BUILTIN(name, field)                                                                  \
    static const struct {                                                                          \
        struct {                                                                                   \
            operator unsigned() const                                                              \
            {                                                                                      \
                return shim_current->field.x;                                                      \
            }                                                                                      \
        } x;                                                                                       \
        struct {                                                                                   \
            operator unsigned() const                                                              \
            {                                                                                      \
                return shim_current->field.y;                                                      \
            }                                                                                      \
        } y;                                                                                       \
        struct {                                                                                   \
            operator unsigned() const                                                              \
            {                                                                                      \
                return shim_current->field.z;                                                      \
            }                                                                                      \
        } z;                                                                                       \
    } name __attribute__((unused)) = {}
SHIM_BUILTIN(threadIdx, thread_idx);
SHIM_BUILTIN(blockIdx, block_idx);
SHIM_BUILTIN(blockDim, block_dim);
SHIM_BUILTIN(gridDim, grid_dim);

static inline void __syncthreads()
{
    shim_block_barrier();
}
static inline void __syncwarp(unsigned mask = ~0u)
{
    shim_warp(SHIM_SYNC, mask, NULL, 0);
}
static inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
static inline void __threadfence_system()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
static inline void __nanosleep(unsigned)
{
    shim_yield();
}

#include "tests/gpu/shim/shim_lanes.h"

#endif
