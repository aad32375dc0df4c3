/* bare_device.h - a model on the engine's device, with the engine's settings, without a group.
 *
 * Same threads on the same cores, same KV pool, same sizes as engine 0 would have; no exchange, no
 * sockets, no shared memory.  One owner. */
#ifndef OMNI_GPU_ENGINE_SIM_BARE_DEVICE_H
#define OMNI_GPU_ENGINE_SIM_BARE_DEVICE_H

#include "common/base/config.h"
#include "gpu-engine/profile.h"

struct bare_device {
    struct model *model;
    struct kv_geometry geometry;
    struct profile_subject subject; /* names the device, the model and the sizes */
};

/* 0, or -errno with *err; a failed open is safe to close. */
int bare_device_open(struct bare_device *b, const struct omni_config *config, struct error *err);
void bare_device_close(struct bare_device *b);

#endif
