/* head.h - the lines of a results file that say where and when it was made. */
#ifndef OMNI_TESTS_GPU_HEAD_H
#define OMNI_TESTS_GPU_HEAD_H
#include "tests/gpu/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Appends date (UTC), commit, host_cpu, host_cores, host_memory_mib, kernel, shmem_huge and, where
 * the machine has the file, the NVIDIA driver's version.  What cannot be read is "unknown". */
void head_host(struct report *report, const char *commit);

#ifdef __cplusplus
}
#endif
#endif
