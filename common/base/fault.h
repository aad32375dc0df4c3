/* fault.h - labelled places where a test kills or stops the process.
 *
 *   fault_point("worker.after_output");
 *
 * OMNI_FAULT=label[:n][:kill|stop|exit] (comma-separated for several) acts at the n-th pass (1 by
 * default) of that label: kill = SIGKILL, stop = SIGSTOP, exit = _exit(70).  "kill" is the default.
 * Compiled out without OMNI_FAULTS; compiled in but not asked for, a point costs one relaxed load.
 * Any thread.  Every label is listed in tests, where each is hit. */
#ifndef OMNI_COMMON_BASE_FAULT_H
#define OMNI_COMMON_BASE_FAULT_H

#include <stdatomic.h>

#ifdef OMNI_FAULTS
extern _Atomic int fault_armed; /* 0 = not parsed yet, 1 = nothing asked for, 2 = look */
void fault_pass(const char *label);
static inline void fault_point(const char *label)
{
    if (__builtin_expect(atomic_load_explicit(&fault_armed, memory_order_relaxed) != 1, 0))
        fault_pass(label);
}
/* Tests: acts as if OMNI_FAULT held spec (NULL = nothing); resets the counts. */
void fault_set(const char *spec);
/* Tests: calls hook at every pass of every point, in the passing thread (NULL = no more).  With it
 * a test decides the order in which threads go on. */
void fault_set_hook(void (*hook)(const char *label));
#else
static inline void fault_point(const char *label)
{
    (void)label;
}
#endif

#endif
