/* shim_sys.h - stand-ins for PTX (shim_ptx.h): the clock, shared memory, words shared with the host. */
#ifndef OMNI_TESTS_GPU_SHIM_SHIM_SYS_H
#define OMNI_TESTS_GPU_SHIM_SHIM_SYS_H
#include <cuda_runtime.h>
#include <time.h>

static inline uint64_t globaltimer_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void *shared_memory(void)
{
    return shim_shared_memory();
}

/* ---- Words that the host takes part in ---------------------------------------------------------- */

static inline uint32_t load_relaxed_sys(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
static inline uint4 load_streamed16(const void *at)
{
    return *(const uint4 *)at;
}
static inline uint4 load_relaxed_sys4(const uint4 *at)
{
    const uint32_t *word = (const uint32_t *)at;
    return make_uint4(load_relaxed_sys(word), load_relaxed_sys(word + 1),
                      load_relaxed_sys(word + 2), load_relaxed_sys(word + 3));
}
static inline void store_relaxed_sys4(uint4 *at, uint4 v)
{
    uint32_t *word = (uint32_t *)at;
    __atomic_store_n(word, v.x, __ATOMIC_RELAXED);
    __atomic_store_n(word + 1, v.y, __ATOMIC_RELAXED);
    __atomic_store_n(word + 2, v.z, __ATOMIC_RELAXED);
    __atomic_store_n(word + 3, v.w, __ATOMIC_RELAXED);
}
static inline void store_relaxed_sys(uint32_t *word, uint32_t v)
{
    __atomic_store_n(word, v, __ATOMIC_RELAXED);
}
static inline void store_release_sys(uint32_t *word, uint32_t v)
{
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
}
static inline void store_release_sys(uint64_t *word, uint64_t v)
{
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
}
static inline void fence_acquire_sys(void)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

#endif
