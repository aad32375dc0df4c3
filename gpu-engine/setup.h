/* setup.h - what follows from configuration and model alone: KV geometry and sizes.
 *
 * Shared by the engine and by omni-sim, which opens the same device without a group around it. */
#ifndef OMNI_GPU_ENGINE_SETUP_H
#define OMNI_GPU_ENGINE_SETUP_H

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/kv/geometry.h"
#include "common/model/model.h"
#include "gpu-engine/device/device.h"

struct setup_sizes {
    uint32_t context_max; /* tokens of a sequence */
    uint32_t table_max;   /* blocks of a full context, per layer group */
    uint32_t rows_max, seqs_max, returned_max;
    uint32_t device_blocks;
};

/* 0, or -EINVAL with *err naming what is out of bounds. */
int setup_geometry(struct kv_geometry *g, const struct omni_config *c, const struct model *model,
                   struct error *err);

void setup_sizes(struct setup_sizes *s, const struct omni_config *c, const struct model *model,
                 const struct kv_geometry *g);

/* The device that engine.device names, or, for auto, the best that is here; NULL with *err if it is not
 * built in. */
const struct device_ops *setup_device(const struct omni_config *c, struct error *err);

#endif
