/* rouse.h - wakes the workers that a sweep will post to, ahead of its first job: one function for the
 * devices that walk a sweep on the host.
 *
 * Those are the workers of rows that enter, and of rows whose jobs are out: picked, they post again. */
#ifndef OMNI_GPU_ENGINE_DEVICE_ROUSE_H
#define OMNI_GPU_ENGINE_DEVICE_ROUSE_H

#include <stdint.h>

#include "gpu-engine/device/device.h"
#include "gpu-engine/device/pick.h"

/* slots: [n_slots] of the device, of which n_out have a job that is out or back.  Device thread. */
void device_rouse(struct exchange *x, const struct device_sweep *in, const struct pick_slot *slots,
                  uint32_t n_slots, uint32_t n_out);

#endif
