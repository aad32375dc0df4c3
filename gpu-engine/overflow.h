/* overflow.h - what happens when latency-sensitive outputs outgrow the device's KV.
 *
 * Admission keeps KV for predicted output, and predictions err.  When even all that best effort could
 * give up would not let the decodes go on, the newest latency-sensitive sequence loses its KV and
 * waits until there is room for it again; its KV is computed anew, and it counts as a missed
 * objective.  The oldest always goes on, so that all end.  Engine thread. */
#ifndef OMNI_GPU_ENGINE_OVERFLOW_H
#define OMNI_GPU_ENGINE_OVERFLOW_H

#include "gpu-engine/engine.h"

/* Before a sweep is decided: drops those that must go, lets those wait on that have no room yet
 * (sequence.held_back). */
void overflow_step(struct engine *e);

#endif
