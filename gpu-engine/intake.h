/* intake.h - what the control thread does with the router's messages: admission, cancel, stop.
 *
 * Runs on the control thread; touches the sequence table's locked part, the admission state and
 * the bell, and nothing else of the engine. */
#ifndef OMNI_GPU_ENGINE_INTAKE_H
#define OMNI_GPU_ENGINE_INTAKE_H

#include "gpu-engine/host.h"

/* Handlers for control_create; their argument is the host. */
struct control_handlers intake_handlers(struct host *h);

/* Answers through the engine's sink, and hands an accepted request over; true: accepted.  For whoever
 * stands in for the router without a socket. */
bool intake_submit(struct engine *e, const struct message_submit *m);

#endif
