/* batch.h - who is in the next sweep.
 *
 * Order: latency-sensitive decodes, latency-sensitive prefill chunks, best-effort chunks,
 * best-effort decodes on the device; beside them the resident sequences that begin a token enter
 * their slots.  Within each group oldest first.  Rows are bounded by engine.batch_tokens_max,
 * prefill rows by engine.chunk_tokens, entering and returned rows by engine.p_max.
 * Engine thread, no sweep in flight. */
#ifndef OMNI_GPU_ENGINE_BATCH_H
#define OMNI_GPU_ENGINE_BATCH_H

#include "gpu-engine/engine.h"

/* 0 or -ENOMEM; a failed init is safe to fini. */
int batch_init(struct engine *e);
void batch_fini(struct engine *e);

/* Builds the next sweep in e->batch; false: there is nothing to sweep for. */
bool batch_build(struct engine *e);

/* Submits what batch_build made. */
void batch_submit(struct engine *e);

#endif
