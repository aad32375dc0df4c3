/* replay.h - what a finished sweep means for the sequences: tokens, KV, endings.
 *
 * Tokens of one sweep go to the router in one message.  For best effort the directory is written
 * in the order KV, token id, committed.  Engine thread, no sweep in flight. */
#ifndef OMNI_GPU_ENGINE_REPLAY_H
#define OMNI_GPU_ENGINE_REPLAY_H

#include "gpu-engine/engine.h"

void replay_sweep(struct engine *e, const struct device_done *done);

#endif
