/* sim_group.h - a configured group in virtual time: its sizes, KV, policy and objectives are those
 * of its configuration and its model file, and its times are those that were measured on it.
 *
 * A machine by its name (sim_machine.h) is worked out; this one is there.  What is measured: the
 * device's modules (its profile), what its workers read, the engine's own time between sweeps.
 * Plain data, borrowed by a run until it is destroyed. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_GROUP_H
#define OMNI_GPU_ENGINE_SIM_SIM_GROUP_H

#include "common/base/config.h"
#include "common/model/model.h"
#include "gpu-engine/device/sim/sim_timing.h"

struct sim_group {
    const struct omni_config *config;
    const struct model *model;
    const struct sim_timing *timing; /* without noise and seed, which are the run's */
};

#endif
