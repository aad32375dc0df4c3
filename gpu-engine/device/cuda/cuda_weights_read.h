/* cuda_weights_read.h - a model file's bytes into buffers, several reads at a time; private to
 * cuda_weights*.c.
 *
 * io_uring where the build and the kernel have it; pread, one after another, where a container forbids
 * it; memcpy where the model has no file.  Reads are asked for and waited for in the same order.  One
 * thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_READ_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weights_reader;

/* depth: reads under way at most.  0 or -ENOMEM. */
int weights_reader_create(struct weights_reader **out, uint32_t depth, bool no_uring);

/* Waits for what is under way: the kernel still writes into the buffers.  NULL is allowed. */
void weights_reader_destroy(struct weights_reader *r);

/* "io_uring", "pread". */
const char *weights_reader_name(const struct weights_reader *r);

/* A read of all bytes at file_off, or, fd -1, of those at data. */
struct weights_read {
    void *to;
    int fd;
    uint64_t file_off;
    const void *data;
    size_t bytes;
};

/* Never more than depth under way.  0 or -errno. */
int weights_reader_ask(struct weights_reader *r, const struct weights_read *read);

/* Waits for the oldest; 0, -EIO where the file is shorter than it was, or -errno. */
int weights_reader_wait(struct weights_reader *r);

#endif
