/* deadline.h - the deadline of a job: when the sweep will want it back.
 *
 * Predicted is the time from a sweep's start to each layer's output projection.  A sweep that is a
 * hundredth slower than predicted is a whole layer late before its end: by what was predicted, jobs
 * of later layers would have missed their deadlines before they are posted, workers would run
 * whatever is oldest, and next to no row would ride along.  So the prediction is moved by how late,
 * or early, the sweep got to the last projection that it has reached. */
#ifndef OMNI_GPU_ENGINE_DEVICE_DEADLINE_H
#define OMNI_GPU_ENGINE_DEVICE_DEADLINE_H

#include "gpu-engine/device/device.h"

/* Of jobs of layer l.  layer: the sweep's log, proj_ns 0 for layers not reached; arrival_ns: its
 * prediction, batch A's, whose projections these are; own_ns: the same for the batch that posts. */
static inline uint64_t deadline_ns(uint64_t start_ns, const struct device_layer_log *layer,
                                   const uint64_t *arrival_ns, const uint64_t *own_ns, uint32_t l)
{
    uint64_t deadline = start_ns + own_ns[l];

    for (uint32_t at = l; at-- > 0;) {
        if (layer[at].proj_ns != 0)
            return deadline + layer[at].proj_ns - (start_ns + arrival_ns[at]);
    }
    return deadline;
}

#endif
