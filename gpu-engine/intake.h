/* intake.h - what the control thread does with the router's messages: admission, cancel, stop.
 *
 * Runs on the control thread; touches the sequence table's locked part, the admission state and
 * the bell, and nothing else of the engine. */
#ifndef OMNI_GPU_ENGINE_INTAKE_H
#define OMNI_GPU_ENGINE_INTAKE_H

#include "gpu-engine/engine.h"

/* Handlers for control_create; arg is the engine. */
struct control_handlers intake_handlers(struct engine *e);

#endif
