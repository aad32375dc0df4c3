/* check.h - one kernel against its reference, over shapes and tails: on the shim and on a GPU alike.
 *
 * A check asks for memory that host and kernels both see, fills it from a seed, launches, waits, runs
 * the reference and compares.  Where memory comes from and how one waits is the runner's: malloc and
 * nothing on the shim (test_gpu_kernels.c), managed memory and a stream on a GPU (probe_kernels.cu).
 *
 * One host thread.  A check returns 0, or -1 after check_fail(); what it took is the runner's to give
 * back. */
#ifndef OMNI_TESTS_GPU_CHECKS_CHECK_H
#define OMNI_TESTS_GPU_CHECKS_CHECK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CHECK_OWNED_MAX = 512, CHECK_WHY_TEXT = 256 };

/* Memory of two kinds: pool (device memory on a GPU) and pinned (host memory that kernels reach). */
enum check_memory { CHECK_POOL, CHECK_PINNED };

struct check_run {
    void *(*alloc)(enum check_memory kind, size_t bytes); /* 256-byte aligned; NULL: none left */
    void (*release)(enum check_memory kind, void *memory);
    int (*sync)(void); /* waits for all launches; 0 or an error of the runner's */
    cuda_stream stream;
    char why[CHECK_WHY_TEXT];
    double worst; /* largest error seen, in tolerances */
    uint64_t random;
    int n_owned;
    void *owned[CHECK_OWNED_MAX];
    enum check_memory owned_kind[CHECK_OWNED_MAX];
};

struct check {
    const char *name;
    int (*run)(struct check_run *r);
};

extern const struct check CHECKS[];
extern const size_t N_CHECKS;

/* Seeds, runs, releases; 0 or -1 (r->why). */
int check_execute(struct check_run *r, const struct check *check);

int check_fail(struct check_run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Zeroed; NULL after check_fail. */
void *check_alloc(struct check_run *r, enum check_memory kind, size_t bytes);
/* A copy of n bytes, for the reference's output. */
void *check_copy(struct check_run *r, const void *of, size_t bytes);

uint32_t check_below(struct check_run *r, uint32_t n); /* 0..n-1 */
float check_uniform(struct check_run *r, float from, float to);
void check_fill(struct check_run *r, uint32_t type, uint16_t *out, size_t n, float span);
void check_fill_floats(struct check_run *r, float *out, size_t n, float span);

/* Waits for a launch that returned rc. */
int check_wait(struct check_run *r, const char *what, int rc);

/* |got - want| <= tolerance * max(|want|, floor) for all, and nothing else than a number. */
int check_elements(struct check_run *r, const char *what, uint32_t type, const uint16_t *got,
                   const uint16_t *want, size_t n, double tolerance, double floor);
int check_floats(struct check_run *r, const char *what, const float *got, const float *want,
                 size_t n, double tolerance, double floor);
int check_bytes(struct check_run *r, const char *what, const void *got, const void *want, size_t n);

/* A pool with room for n_seqs sequences of tokens_max, all of it not-a-number; tables of random,
 * distinct blocks.  Two layers lie in a block; the view is the second's. */
int check_kv(struct check_run *r, struct cuda_kv *kv, uint32_t n_seqs, uint32_t tokens_max);
/* Gives the first n tokens of a sequence keys and values. */
void check_kv_fill(struct check_run *r, const struct cuda_kv *kv, uint32_t seq, uint32_t n);

#define CHECK_DO(call)                                                                             \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            return -1;                                                                             \
    } while (0)
#define CHECK_ALLOC(r, out, kind, n)                                                               \
    do {                                                                                           \
        if (((out) = check_alloc(r, kind, (n) * sizeof *(out))) == NULL)                           \
            return -1;                                                                             \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
