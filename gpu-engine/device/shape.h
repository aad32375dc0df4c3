/* shape.h - may a device be asked to measure this: one answer for those that do. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SHAPE_H
#define OMNI_GPU_ENGINE_DEVICE_SHAPE_H

#include "gpu-engine/device/device.h"

/* Is the shape within what a sweep of the configuration may hold, and its layers among n_layers? */
static inline bool device_shape_fits(const struct device_shape *s, const struct device_config *c,
                                     uint32_t n_layers)
{
    for (uint32_t i = 0; i < s->n_layers; i++) {
        if (s->layers[i] >= n_layers)
            return false;
    }
    switch (s->kind) {
    case DEVICE_SHAPE_DENSE:
        return s->n_layers > 0 && s->n > 0 && s->n <= c->rows_max;
    case DEVICE_SHAPE_DECODES:
        return s->n_layers > 0 && s->n > 0 && s->n <= c->seqs_max && s->ctx > 0 &&
               s->ctx <= c->context_max;
    case DEVICE_SHAPE_CHUNK:
        return s->n_layers > 0 && s->n > 0 && s->n <= c->rows_max &&
               (uint64_t)s->ctx + s->n <= c->context_max;
    case DEVICE_SHAPE_HEAD:
        return s->n > 0 && s->n <= c->seqs_max;
    case DEVICE_SHAPE_EMBED:
        return s->n > 0 && s->n <= c->rows_max;
    case DEVICE_SHAPE_KINDS:
        break;
    }
    return false;
}

#endif
