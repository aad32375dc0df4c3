/* gather.cu - see gather.h.  A block per row.  The pick step has seen the done words and fenced; it ended
 * before this kernel began, or this kernel waited for it. */
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/ptx.cuh"

enum { THREADS = 128, PIECE = 8 };

static __global__ void __launch_bounds__(THREADS) gather_kernel(const struct gather a)
{
    const uint32_t n_common = *a.n_common;
    if (n_common + blockIdx.x >= *a.n_live)
        return;
    const uint32_t slot = a.source[blockIdx.x] >> 8, row = a.source[blockIdx.x] & 0xff;
    const uint4 *from =
        (const uint4 *)(cuda_job_out(&a.jobs, slot) + (size_t)row * a.jobs.out_width * 2);
    uint4 *to = (uint4 *)(a.out + (size_t)(n_common + blockIdx.x) * a.width);
    for (uint32_t i = threadIdx.x; i < a.width / PIECE; i += THREADS)
        to[i] = load_relaxed_sys4(from + i);
}

int gather(const struct gather *a, cuda_stream stream)
{
    if (a->width % PIECE != 0 || a->jobs.out_width % PIECE != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->rows_max == 0)
        return 0;
    return launch(gather_kernel, dim3(a->rows_max), THREADS, 0, stream, *a);
}
