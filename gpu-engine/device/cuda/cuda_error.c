#include "gpu-engine/device/cuda/cuda_error.h"

#include <cuda_runtime_api.h>
#include <errno.h>
#include <string.h>

#include "common/base/log.h"

int cuda_error_tell(int rc, const char *call, const char *file, int line)
{
    const char *base = strrchr(file, '/');

    log_error("cuda_call", "call=\"%s\" at=%s:%d error=%s reason=\"%s\"", call,
              base != NULL ? base + 1 : file, line, cudaGetErrorName((cudaError_t)rc),
              cudaGetErrorString((cudaError_t)rc));
    switch (rc) {
    case cudaErrorMemoryAllocation:
        return -ENOMEM;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
        return -ENODEV;
    case cudaErrorNotSupported:
        return -ENOTSUP;
    default:
        return -EIO;
    }
}
