/* cuda_error.h - every call of the CUDA runtime is checked; one that fails is logged with its text and
 * place, once, where it happened, and becomes an errno. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_ERROR_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_ERROR_H

/* rc: a cudaError_t, or what a launcher returned.  -ENOMEM, -ENODEV, -ENOTSUP, else -EIO. */
int cuda_error_tell(int rc, const char *call, const char *file, int line);

/* Returns from the calling function where the call fails. */
#define CUDA_TRY(call)                                                                             \
    do {                                                                                           \
        int cuda_rc = (int)(call);                                                                 \
        if (cuda_rc != 0)                                                                          \
            return cuda_error_tell(cuda_rc, #call, __FILE__, __LINE__);                            \
    } while (0)

/* Where nobody can do anything about it: closing. */
#define CUDA_NOTE(call)                                                                            \
    do {                                                                                           \
        int cuda_rc = (int)(call);                                                                 \
        if (cuda_rc != 0)                                                                          \
            (void)cuda_error_tell(cuda_rc, #call, __FILE__, __LINE__);                             \
    } while (0)

#endif
