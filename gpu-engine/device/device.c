#include "gpu-engine/device/device.h"

#include <string.h>

#include "gpu-engine/device/sim/device_sim.h"

#ifdef OMNI_WITH_CUDA
#include "gpu-engine/device/cuda/device_cuda.h"

static const struct device_ops *const devices[] = {&device_cpu, &device_cuda, &device_sim};
#define KNOWN "cpu, cuda, sim"
#else
static const struct device_ops *const devices[] = {&device_cpu, &device_sim};
#define KNOWN "cpu, sim"
#endif

const struct device_ops *device_find(const char *name, const char **known)
{
    *known = KNOWN;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        if (strcmp(name, devices[i]->name) == 0)
            return devices[i];
    }
    return NULL;
}
