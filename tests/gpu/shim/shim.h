/* shim.h - runs CUDA kernels on the CPU, for tests: one fiber per CUDA thread.
 *
 * DESIGN.  A .cu file of ours is compiled as C++ against this folder's <cuda_runtime.h>, and every
 * PTX instruction that it uses has a stand-in (shim_ptx.h).  A launch runs its blocks one after the
 * other; the threads of a block are fibers that run until they meet a barrier or a warp-wide
 * instruction.  What the GPU would leave to chance is chosen here, and tests run every choice:
 *
 *   order     which thread goes first from barrier to barrier: a missing barrier lets a thread read
 *             what was not written yet, or write over what was not read yet, in one of the orders
 *   landing   when a cp.async arrives: as late as allowed (when its thread waits for it), or at once;
 *             late shows a missing wait, early shows a stage that is filled before it was read
 *
 * Shared memory is filled with not-a-numbers before each block, and is exactly as long as the launch
 * said (the address sanitizer sees beyond).  Under the thread sanitizer each fiber is a thread and
 * only barriers (and __syncwarp) order them: it then reports races that no order happened to show.
 *
 * These are errors, and end the launch: threads that wait for each other for ever, that meet at
 * different instructions, that end while others wait at a barrier or while their copies are under
 * way; a launch that takes longer than a limit.
 *
 * Not modelled: blocks at the same time, partial warp masks (an error), caches, bank conflicts,
 * memory orders weaker than the CPU's.  One host thread at a time. */
#ifndef OMNI_TESTS_GPU_SHIM_SHIM_H
#define OMNI_TESTS_GPU_SHIM_SHIM_H
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum shim_order {
    SHIM_FORWARD,
    SHIM_REVERSE,
    SHIM_SHUFFLED, /* by seed; another permutation at each turn */
    SHIM_ORDERS,
};

enum shim_landing { SHIM_LATE, SHIM_EARLY, SHIM_LANDINGS };

struct shim_schedule {
    enum shim_order order;
    enum shim_landing landing;
    uint32_t seed;
    uint32_t limit_ms; /* of one launch; 0: 60 s */
};

/* Holds for the launches that follow. */
void shim_set_schedule(struct shim_schedule schedule);

/* Why the last launch failed; "" when it did not. */
const char *shim_error(void);

/* Gives all stacks back. */
void shim_fini(void);

#ifdef __cplusplus
}
#endif
#endif
