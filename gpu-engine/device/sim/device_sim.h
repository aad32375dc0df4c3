/* device_sim.h - the simulated device, for those who drive it: device_config.sim says its timing.
 *
 * Time stands still until somebody moves the clock: a simulation sets clock->now_ns to the next
 * thing that happens, and lets the engine step. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_DEVICE_SIM_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_DEVICE_SIM_H

#include "gpu-engine/device/device.h"
#include "gpu-engine/device/sim/sim_timing.h"

extern const struct device_ops device_sim;

/* Time that it has computed so far. */
uint64_t device_sim_busy_ns(const struct device *d);

/* When the sweep or copy under way that ends next does so; UINT64_MAX: there is none. */
uint64_t device_sim_next_ns(const struct device *d);

#endif
