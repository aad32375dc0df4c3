/* intake.h - what the control thread does with the router's messages: admission, cancel, stop.
 *
 * Runs on the control thread; touches the sequence table's locked part, the admission state and
 * the bell, and nothing else of the engine. */
#ifndef OMNI_GPU_ENGINE_INTAKE_H
#define OMNI_GPU_ENGINE_INTAKE_H

#include "gpu-engine/host.h"

/* Handlers for control_create; their argument is the host. */
struct control_handlers intake_handlers(struct host *h);

#endif
