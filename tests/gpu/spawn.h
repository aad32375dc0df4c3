/* spawn.h - runs this same program again as a child process, with a limit in time.
 *
 * Each part of the probe is a process of its own: a sticky CUDA error or a hang poisons one part
 * and not the rest.  fork and exec, so that the child has no inherited CUDA state (CUDA does not
 * survive a bare fork); the child dies with its parent.  Called from the main thread. */
#ifndef OMNI_TESTS_GPU_SPAWN_H
#define OMNI_TESTS_GPU_SPAWN_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum spawn_outcome {
    SPAWN_EXITED,   /* detail: exit status */
    SPAWN_SIGNALED, /* detail: signal number */
    SPAWN_TIMEOUT,  /* killed at the limit */
    SPAWN_FAILED,   /* detail: -errno; no child was started */
};

struct spawn_result {
    enum spawn_outcome outcome;
    int detail;
};

/* argv: NULL-terminated, argv[0] included.  out: NULL, or a buffer that gets what the child wrote
 * to stdout, NUL-terminated; the child may write at most a pipe's worth (64 KiB), the rest is cut.
 * Blocks until the child is gone. */
struct spawn_result spawn_self(const char *const argv[], int limit_ms, char *out, size_t out_bytes);

/* Writes "exit status 3", "killed by signal 11" ... into text. */
void spawn_describe(struct spawn_result result, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
