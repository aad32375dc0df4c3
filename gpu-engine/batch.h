/* batch.h - carries the policy's decision out: moves sequences, and makes and submits the sweep.
 *
 * In the order that scheduler.h gives: prefixes of rows that begin are shared, yields, moves in,
 * moves out, rows, entries.  Engine thread, no sweep in flight. */
#ifndef OMNI_GPU_ENGINE_BATCH_H
#define OMNI_GPU_ENGINE_BATCH_H

#include "gpu-engine/engine.h"

/* 0 or -ENOMEM; a failed init is safe to fini. */
int batch_init(struct engine *e);
void batch_fini(struct engine *e);

/* Carries e->decide.decision out and makes the next sweep in e->batch; false: there is nothing to
 * sweep for. */
bool batch_build(struct engine *e);

/* Submits what batch_build made. */
void batch_submit(struct engine *e);

#endif
