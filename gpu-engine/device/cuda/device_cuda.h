/* device_cuda.h - the CUDA device, as the table of devices sees it: built in where nvcc was. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_DEVICE_CUDA_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_DEVICE_CUDA_H

#include "gpu-engine/device/device.h"

extern const struct device_ops device_cuda;

/* 0, or -ENODEV, -ENOENT with why: no driver, no card, no cuBLASLt. */
int device_cuda_present(char *why, size_t n);

#endif
