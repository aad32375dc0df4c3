/* ipc.h - the second process of the CUDA IPC part. */
#ifndef OMNI_TESTS_GPU_IPC_H
#define OMNI_TESTS_GPU_IPC_H

/* probe ipc-open HANDLE BYTES XOR FREE: opens the memory that HANDLE (hexadecimal) names in the
 * parent process, measures, checks that its words fold to XOR, and prints key=value lines to
 * stdout.  FREE: the free device memory before this process had a context.  Returns the exit
 * status; 1 with ipc=error:... */
int ipc_child_main(char **argv);

#endif
