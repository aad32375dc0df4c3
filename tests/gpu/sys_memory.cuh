/* sys_memory.cuh - loads and stores that the host takes part in, and the device's wall clock.
 *
 * Inline PTX rather than volatile: the scope (sys: host and all devices) and the order are what is
 * being measured, so they are spelled out.  Names: R = release, A = acquire; the host's other ends
 * are
 * __atomic_store_n(RELEASE) and __atomic_load_n(ACQUIRE) on the same 32-bit word.
 *
 * Rule of this folder: a kernel that waits takes a budget in nanoseconds and gives up by
 * %globaltimer; it leaves a mark of having done so, which the host turns into an error. */
#ifndef OMNI_TESTS_GPU_SYS_MEMORY_CUH
#define OMNI_TESTS_GPU_SYS_MEMORY_CUH
#include <cuda_runtime.h>
#include <stdint.h>

static __device__ __forceinline__ uint64_t globaltimer_ns(void)
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

static __device__ __forceinline__ uint32_t load_acquire_sys(const uint32_t *word)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}

static __device__ __forceinline__ uint32_t load_relaxed_sys(const uint32_t *word)
{
    uint32_t value;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
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

static __device__ __forceinline__ void store_release_sys(uint32_t *word, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

static __device__ __forceinline__ void store_relaxed_sys(uint32_t *word, uint32_t value)
{
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

/* Waits until *word == want (acquire) or the deadline has passed; whether it was seen. */
static __device__ __forceinline__ bool wait_word(const uint32_t *word, uint32_t want,
                                                 uint64_t deadline_ns)
{
    while (load_acquire_sys(word) != want)
        if (globaltimer_ns() > deadline_ns)
            return false;
    return true;
}

#endif
