/* runtime_memory.cpp - the stand-in's memory: see runtime.h. */
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/gpu/shim/runtime_private.h"

#ifdef SHIM_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace
{

enum : size_t { RESERVED_BYTES = (size_t)8 << 30, ALIGN = 256, GAP = 256, PAGE = 4096 };

uint8_t *base;       /* of the reserved range */
size_t opened_bytes; /* from base: what allocations have ever reached, whole pages */
size_t limit_bytes = SHIM_DEVICE_BYTES, used_bytes;
int n_opened;
std::map<size_t, size_t> live;             /* offset -> bytes, device */
std::map<uintptr_t, size_t> pinned, owned; /* address -> bytes; owned: of cudaHostAlloc */

void poison(const void *p, size_t bytes, bool on)
{
#ifdef SHIM_ASAN
    if (on)
        __asan_poison_memory_region(p, bytes);
    else
        __asan_unpoison_memory_region(p, bytes);
#else
    (void)p, (void)bytes, (void)on;
#endif
}

void protect(int how)
{
    if (opened_bytes > 0 && mprotect(base, opened_bytes, how) != 0) {
        perror("shim: device memory");
        abort();
    }
}

void reserve()
{
    if (base != NULL)
        return;
    base = (uint8_t *)mmap(NULL, RESERVED_BYTES, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        perror("shim: device memory");
        abort();
    }
}

/* First gap between allocations that holds it, with space behind. */
size_t place_for(size_t bytes)
{
    size_t at = 0;
    for (const auto &a : live) {
        if (at + bytes + GAP <= a.first)
            break;
        at = (a.first + a.second + GAP + ALIGN - 1) / ALIGN * ALIGN;
    }
    return at;
}

bool within(const std::map<uintptr_t, size_t> &ranges, const void *p, size_t bytes)
{
    auto after = ranges.upper_bound((uintptr_t)p);
    if (after == ranges.begin())
        return false;
    const auto &r = *--after;
    return (uintptr_t)p + bytes <= r.first + r.second;
}

bool in_range(const void *p)
{
    return base != NULL && (const uint8_t *)p >= base && (const uint8_t *)p < base + RESERVED_BYTES;
}

/* What a copy may name: device memory whole, pinned memory, or (at once only) any of the host's. */
bool copyable(const void *p, size_t bytes, bool at_once)
{
    if (in_range(p))
        return shim_memory_is_device(p, bytes);
    return at_once || shim_memory_is_pinned(p, bytes);
}

bool kind_fits(const void *to, const void *from, enum cudaMemcpyKind kind)
{
    const bool to_device = in_range(to), from_device = in_range(from);
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    case cudaMemcpyDefault:
        return true;
    }
    return false;
}

cudaError_t copy_check(const char *call, const void *to, const void *from, size_t bytes,
                       enum cudaMemcpyKind kind, bool at_once)
{
    if (!kind_fits(to, from, kind))
        return shim_runtime_refuse(cudaErrorInvalidValue, "%s: kind %d is not what it is given",
                                   call, (int)kind);
    if (!copyable(to, bytes, at_once) || !copyable(from, bytes, at_once))
        return shim_runtime_refuse(cudaErrorInvalidValue,
                                   "%s of %zu bytes: not inside an allocation, or not pinned", call,
                                   bytes);
    return cudaSuccess;
}

} // namespace

void shim_memory_open(void)
{
    if (n_opened++ == 0)
        protect(PROT_READ | PROT_WRITE);
}

void shim_memory_close(void)
{
    if (--n_opened == 0)
        protect(PROT_NONE);
}

void shim_memory_reset(void)
{
    limit_bytes = SHIM_DEVICE_BYTES;
}

uint32_t shim_memory_n_live(void)
{
    return (uint32_t)(live.size() + pinned.size());
}

bool shim_memory_is_device(const void *p, size_t bytes)
{
    if (!in_range(p))
        return false;
    const size_t at = (size_t)((const uint8_t *)p - base);
    auto after = live.upper_bound(at);
    if (after == live.begin())
        return false;
    const auto &a = *--after;
    return at + bytes <= a.first + a.second;
}

bool shim_memory_is_pinned(const void *p, size_t bytes)
{
    return within(pinned, p, bytes);
}

extern "C" bool shim_runtime_reaches(const void *memory, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    return shim_memory_is_device(memory, bytes) || shim_memory_is_pinned(memory, bytes);
}

extern "C" void shim_runtime_set_memory(size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);
    limit_bytes = bytes;
}

/* ---- Device memory -------------------------------------------------------------------------------- */

extern "C" cudaError_t cudaMalloc(void **out, size_t bytes)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaMalloc");
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > limit_bytes - used_bytes)
        return cudaErrorMemoryAllocation;
    reserve();
    const size_t at = place_for(bytes), end = (at + bytes + GAP + PAGE - 1) / PAGE * PAGE;
    if (end > RESERVED_BYTES)
        return cudaErrorMemoryAllocation;
    if (end > opened_bytes) {
        poison(base + opened_bytes, end - opened_bytes, true);
        opened_bytes = end;
    }
    live[at] = bytes;
    used_bytes += bytes;
    poison(base + at, bytes, false);
    n_opened++;
    protect(PROT_READ | PROT_WRITE);
    memset(base + at, 0xff, bytes);
    shim_memory_close();
    *out = base + at;
    return cudaSuccess;
}

extern "C" cudaError_t cudaFree(void *memory)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaFree");
    if (memory == NULL)
        return cudaSuccess;
    cudaDeviceSynchronize();
    const auto a = in_range(memory) ? live.find((size_t)((uint8_t *)memory - base)) : live.end();
    if (a == live.end())
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaFree of no allocation");
    poison(memory, a->second, true);
    used_bytes -= a->second;
    live.erase(a);
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    SHIM_CALL("cudaMemGetInfo");
    *total = limit_bytes;
    *free = limit_bytes - used_bytes;
    return cudaSuccess;
}

/* ---- Pinned memory -------------------------------------------------------------------------------- */

extern "C" cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaHostAlloc");
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    if (posix_memalign(out, PAGE, bytes) != 0)
        return cudaErrorMemoryAllocation;
    memset(*out, 0xff, bytes);
    pinned[(uintptr_t)*out] = owned[(uintptr_t)*out] = bytes;
    return cudaSuccess;
}

extern "C" cudaError_t cudaFreeHost(void *memory)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaFreeHost");
    if (memory == NULL)
        return cudaSuccess;
    cudaDeviceSynchronize();
    if (owned.erase((uintptr_t)memory) == 0)
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaFreeHost of no allocation");
    pinned.erase((uintptr_t)memory);
    free(memory);
    return cudaSuccess;
}

extern "C" cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned)
{
    SHIM_CALL("cudaHostRegister");
    if (memory == NULL || bytes == 0)
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaHostRegister of nothing");
    if (shim_memory_is_pinned(memory, 1))
        return shim_runtime_refuse(cudaErrorHostMemoryAlreadyRegistered, "cudaHostRegister twice");
    pinned[(uintptr_t)memory] = bytes;
    return cudaSuccess;
}

extern "C" cudaError_t cudaHostUnregister(void *memory)
{
    SHIM_CALL("cudaHostUnregister");
    if (owned.count((uintptr_t)memory) > 0 || pinned.erase((uintptr_t)memory) == 0)
        return shim_runtime_refuse(cudaErrorHostMemoryNotRegistered, "cudaHostUnregister");
    return cudaSuccess;
}

extern "C" cudaError_t cudaHostGetDevicePointer(void **out, void *memory, unsigned)
{
    SHIM_CALL("cudaHostGetDevicePointer");
    if (!shim_memory_is_pinned(memory, 1))
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaHostGetDevicePointer: not pinned");
    *out = memory;
    return cudaSuccess;
}

/* ---- Copies --------------------------------------------------------------------------------------- */

static cudaError_t move(void *to, const void *from, size_t bytes)
{
    memmove(to, from, bytes);
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes,
                                  enum cudaMemcpyKind kind)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaMemcpy");
    if (const cudaError_t rc = copy_check("cudaMemcpy", to, from, bytes, kind, true))
        return rc;
    shim_memory_open();
    memmove(to, from, bytes);
    shim_memory_close();
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                                       enum cudaMemcpyKind kind, cudaStream_t stream)
{
    SHIM_CALL("cudaMemcpyAsync");
    if (const cudaError_t rc = copy_check("cudaMemcpyAsync", to, from, bytes, kind, false))
        return rc;
    return shim_enqueue(stream, [=] { return move(to, from, bytes); });
}

static cudaError_t fill(void *to, int value, size_t bytes)
{
    memset(to, value, bytes);
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    SHIM_CALL_OUTSIDE_CAPTURE("cudaMemset");
    if (!shim_runtime_reaches(to, bytes))
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaMemset beyond an allocation");
    shim_memory_open();
    memset(to, value, bytes);
    shim_memory_close();
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    SHIM_CALL("cudaMemsetAsync");
    if (!shim_runtime_reaches(to, bytes))
        return shim_runtime_refuse(cudaErrorInvalidValue, "cudaMemsetAsync beyond an allocation");
    return shim_enqueue(stream, [=] { return fill(to, value, bytes); });
}
