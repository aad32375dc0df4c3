/* team.h - a pinned team of threads that runs one function at a time, together.
 *
 *   team_run(team, fn, ctx)   calls fn(ctx, i) once for i = 0..n-1, at the same time, and returns
 *                             when all have returned.  Thread 0 is the caller.
 *
 * Inside fn the threads share work through an atomic cursor in ctx; which thread does what must not
 * change the result.  Between runs a worker spins for at most spin_us and then sleeps on a futex,
 * so an idle team uses no CPU.  A team of one thread is a plain call, with no atomics.
 *
 * One caller at a time: a team belongs to one thread.  fn must not call team_run on the same team.
 * Memory written by the caller before team_run is visible in fn, and what fn wrote is visible to
 * the caller afterwards. */
#ifndef OMNI_COMMON_COMPUTE_TEAM_H
#define OMNI_COMMON_COMPUTE_TEAM_H

#include <stdint.h>

enum { TEAM_THREADS_MAX = 256 };

struct team;

typedef void team_fn(void *ctx, uint32_t thread_idx);

/* cpus: n_threads CPU numbers (operating system index), or NULL for no pinning; cpus[0] pins the
 * calling thread.  spin_us: 0 when the threads may share a core.
 * 0, -EINVAL (n_threads is 0 or too large), -ENOMEM, or the error of thread creation or pinning. */
int team_create(struct team **out, uint32_t n_threads, const int *cpus, uint32_t spin_us);

/* Wakes and joins the workers.  NULL is allowed. */
void team_destroy(struct team *team);

void team_run(struct team *team, team_fn *fn, void *ctx);

uint32_t team_n_threads(const struct team *team);

#endif
