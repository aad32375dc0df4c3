/* runtime_private.h - between the two halves of the stand-in runtime: memory and queues. */
#ifndef OMNI_TESTS_GPU_SHIM_RUNTIME_PRIVATE_H
#define OMNI_TESTS_GPU_SHIM_RUNTIME_PRIVATE_H
#include <mutex>

#include "tests/gpu/shim/runtime.h"

/* Guards everything of the runtime; held while an operation runs. */
extern std::recursive_mutex shim_runtime_lock;

/* Notes why, once; returns e. */
cudaError_t shim_runtime_refuse(cudaError_t e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* An error that a test planted for this call; cudaSuccess: none. */
cudaError_t shim_runtime_planted(const char *call);

/* Between the two the calling thread may touch device memory; nest. */
void shim_memory_open(void);
void shim_memory_close(void);

void shim_memory_reset(void);
uint32_t shim_memory_n_live(void);
bool shim_memory_is_device(const void *p, size_t bytes);
bool shim_memory_is_pinned(const void *p, size_t bytes);

/* Is a capture under way, which forbids calls that synchronise? */
bool shim_stream_any_capture(void);

#define SHIM_CALL(name)                                                                            \
    std::lock_guard<std::recursive_mutex> guard(shim_runtime_lock);                                \
    if (const cudaError_t planted = shim_runtime_planted(name))                                    \
    return planted
#define SHIM_CALL_OUTSIDE_CAPTURE(name)                                                            \
    SHIM_CALL(name);                                                                               \
    if (shim_stream_any_capture())                                                                 \
    return shim_runtime_refuse(cudaErrorStreamCaptureUnsupported, "%s during a capture", name)

#endif
