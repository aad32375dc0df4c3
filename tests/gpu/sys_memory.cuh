/* sys_memory.cuh - loads and stores that the host takes part in: the engine's (ptx.cuh), and a
 * load and a wait with acquire.
 *
 * Inline PTX rather than volatile: the scope (sys: host and all devices) and the order are what is
 * being measured, so they are spelled out.  Names: R = release, A = acquire; the host's other ends are
 * __atomic_store_n(RELEASE) and __atomic_load_n(ACQUIRE) on the same 32-bit word.
 *
 * Rule of this folder: a kernel that waits takes a budget in nanoseconds and gives up by
 * %globaltimer; it leaves a mark of having done so, which the host turns into an error. */
#ifndef OMNI_TESTS_GPU_SYS_MEMORY_CUH
#define OMNI_TESTS_GPU_SYS_MEMORY_CUH
#include "gpu-engine/device/cuda/ptx.cuh"

static __device__ __forceinline__ uint32_t load_acquire_sys(const uint32_t *word)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
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
