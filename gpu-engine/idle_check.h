/* idle_check.h - are the books right?  Asked whenever the engine has become idle.
 *
 * With no request there, every KV block of device and arenas, every job slot and every residual is
 * free; the free lists are whole; and the owners of arena blocks, recomputed from the sequence
 * directory, are what the pools say: nobody's.  A difference is a leak or a theft: it is logged with
 * its place and counted (idle_faults), and the engine goes on.
 *
 * Engine thread, between sweeps, never while a request is there; its memory is taken at init. */
#ifndef OMNI_GPU_ENGINE_IDLE_CHECK_H
#define OMNI_GPU_ENGINE_IDLE_CHECK_H

#include "gpu-engine/engine.h"

/* 0 or -ENOMEM; a failed init is safe to fini.  Nothing without a directory. */
int idle_check_init(struct engine *e);
void idle_check_fini(struct engine *e);

/* Checks once in each time of idleness; cheap when there is nothing to do. */
void idle_check(struct engine *e);

#endif
