/* shim_thread.h - what a running kernel needs of the shim: who am I, and meeting others.
 *
 * Private to the stand-in headers.  The code of kernels is instrumented by the sanitizers, shim.cpp
 * is not: so whatever stands for a kernel's own access to memory (ldmatrix, cp.async) is written in
 * headers, and only the meeting of threads is in shim.cpp. */
#ifndef OMNI_TESTS_GPU_SHIM_SHIM_THREAD_H
#define OMNI_TESTS_GPU_SHIM_SHIM_THREAD_H
#include <stddef.h>
#include <stdint.h>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

enum { SHIM_WARP = 32, SHIM_THREADS_MAX = 1024, SHIM_LANE_WORDS = 12, SHIM_COPIES_MAX = 256 };

/* What a warp does together; threads that meet must do the same. */
enum shim_op { SHIM_NOTHING, SHIM_SYNC, SHIM_SHUFFLE, SHIM_BALLOT, SHIM_LDMATRIX, SHIM_MMA };

/* What the lanes brought to a meeting, or what was made of it. */
struct shim_exchange {
    uint32_t lane[SHIM_WARP][SHIM_LANE_WORDS];
};

struct shim_copy { /* a cp.async that is under way */
    void *to;
    const void *from; /* NULL: zeros */
    unsigned group;
};

struct shim_thread {
    uint3 thread_idx, block_idx;
    dim3 block_dim, grid_dim;
    int lane;
    unsigned group; /* of copies that are issued now: grows with each commit */
    int n_copies;
    struct shim_copy copies[SHIM_COPIES_MAX]; /* oldest first */
};

struct shim_body {
    void (*call)(void *arg);
    void *arg;
};

extern struct shim_thread *shim_current;

/* 0, or -1: shim_error() says why. */
int shim_launch(dim3 grid, dim3 block, size_t shared_bytes, struct shim_body body);

/* Waits for all threads of the block. */
void shim_block_barrier(void);

/* Waits for all lanes of the warp, each of which brings `bytes` of data; the result is valid until
 * the next but one meeting.  For SHIM_MMA lanes bring a[4] b[2] c[4] and the type, and find d[4].
 * SHIM_SYNC orders memory between the lanes, the others do not (thread sanitizer). */
const struct shim_exchange *shim_warp(enum shim_op op, unsigned mask, const void *data,
                                      size_t bytes);

/* What a lane brought or finds there; bytes: a multiple of 4. */
void shim_lane(const struct shim_exchange *x, int lane, void *out, size_t bytes);

/* Lets the others run. */
void shim_yield(void);

void *shim_shared_memory(void);
int shim_lands_early(void);

/* Ends the launch with an error. */
[[noreturn]] void shim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
