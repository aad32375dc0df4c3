/* exchange_delay.h - an exchange that holds finished jobs back, for tests.
 *
 * Wraps another exchange.  A job that has come back stays invisible for a number of polls that is
 * a hash of (slot, generation), between 0 and polls_max: so some rows ride along, others are
 * parked, in a pattern that does not depend on the machine's speed.  Copies between staging and
 * arena take some looks as well.  Results must not change. */
#ifndef OMNI_GPU_ENGINE_EXCHANGE_DELAY_H
#define OMNI_GPU_ENGINE_EXCHANGE_DELAY_H

#include "gpu-engine/exchange.h"

/* Takes inner over: destroying the wrapper destroys it.  0 or -ENOMEM (inner is untouched). */
int exchange_delay_create(struct exchange **out, struct exchange *inner, uint32_t polls_max);

#endif
