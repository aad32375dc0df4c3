/* cuda_copy.h - KV blocks between the GPU's pool and an arena, beside the sweeps.
 *
 * The copy engine moves blocks through a pinned ring; threads of ours put each into its place in the
 * arena, or fetch it from there, because elements lie differently (cuda_place.h).  Arenas are not
 * pinned.  Each thread has a stream, and two pieces of the ring, so that one is copied while the other
 * is placed; a piece is some blocks, COPY_PIECE_BYTES together.
 *
 * Tickets are given out in ascending order and end in any. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_COPY_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_COPY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct device;
struct device_copy;

enum { CUDA_COPY_THREADS_MAX = 4 };

/* A copy that was asked for. */
struct cuda_copy {
    uint64_t ticket; /* 0: the place is free */
    int is_out;
    uint32_t n_blocks;
    uint32_t n_taken, n_done; /* blocks that a thread has, and that are there */
    uint32_t *blocks;
    void **staging;
};

struct cuda_copy_thread {
    struct device *device;
    pthread_t thread;
    bool up;
    void *stream;   /* cudaStream_t */
    void *event[2]; /* cudaEvent_t of each piece's copies */
    uint8_t *ring;  /* pinned, two pieces */
};

struct cuda_copies {
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    struct cuda_copy *all; /* [copies_max] */
    uint32_t n_under_way;
    uint32_t piece_blocks; /* of a piece */
    uint64_t n_tickets;
    bool stopping;
    int error; /* of a thread: all copies end, with it */
    struct cuda_copy_thread threads[CUDA_COPY_THREADS_MAX];
    uint32_t n_threads;
};

/* 0 or -errno; a failed open is safe to close. */
int cuda_copies_open(struct device *d);
void cuda_copies_close(struct device *d);

/* 0, -EAGAIN, -EINVAL. */
int cuda_copy_submit(struct device *d, const struct device_copy *copy, uint64_t *ticket);
int cuda_copy_done(struct device *d, uint64_t ticket);
/* Waits until none is under way. */
void cuda_copies_sync(struct device *d);

#endif
