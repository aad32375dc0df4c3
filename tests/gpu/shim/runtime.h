/* runtime.h - the stand-in for CUDA's runtime, seen from a test: a GPU's memory and queues.
 *
 * DESIGN.  Device memory is a range of its own that the host may touch only while something of the
 * GPU's runs: a pointer that the host follows, or a copy that was forgotten, is a segmentation fault.
 * Allocations are filled with 0xff bytes (not a number in every type), and lie apart, so that the
 * address sanitizer sees an access between them.  Memory that was not pinned cannot be copied
 * asynchronously.
 *
 * Work that is put on a stream waits there.  It runs when somebody waits for it, when somebody asks
 * (some steps, by the seed: a thing that is not waited for is not done, mostly), or on a thread of its
 * own while shim_runtime_background(true) holds; across streams in an order drawn from the seed, within
 * a stream in its own.  Events and graphs are what CUDA says; a captured stream records its launches
 * with copies of their arguments.
 *
 * One GPU.  Any host thread may call; one operation runs at a time.  A launch in no stream (NULL) runs
 * at once. */
#ifndef OMNI_TESTS_GPU_SHIM_RUNTIME_H
#define OMNI_TESTS_GPU_SHIM_RUNTIME_H
#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SHIM_DEVICE_BYTES = 256 << 20 };

/* Before the first call of a test: seed of the order; -1 device: none is there. */
void shim_runtime_reset(uint32_t seed, int n_devices);

/* Device memory that there is; SHIM_DEVICE_BYTES before. */
void shim_runtime_set_memory(size_t bytes);

/* A thread that runs what waits, as a GPU would. */
void shim_runtime_background(bool on);

/* The first failure since the reset: of a kernel, or of a call that CUDA would refuse; "" = none. */
const char *shim_runtime_error(void);

/* The next call of that name fails once, with this error. */
void shim_runtime_fail(const char *call, cudaError_t error);

/* What was asked for and not given back: allocations, pinned ranges, streams, events, graphs. */
uint32_t shim_runtime_n_live(void);

/* Operations that ran since the reset. */
uint64_t shim_runtime_n_run(void);

/* Puts fn(copy of arg) on the stream, as a library's kernel would be: captured, ordered, counted. */
cudaError_t shim_stream_run(cudaStream_t s, cudaError_t (*fn)(void *arg), const void *arg,
                            size_t bytes);

/* May a kernel touch these bytes: inside one live allocation, or one pinned range? */
bool shim_runtime_reaches(const void *memory, size_t bytes);

#ifdef __cplusplus
}
#include <functional>

/* 0 or an error, at once; a launch that fails in the queue shows at the next wait. */
cudaError_t shim_enqueue(cudaStream_t s, const std::function<cudaError_t()> &run);
#endif
#endif
