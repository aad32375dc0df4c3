#include "gpu-engine/device/cuda/cuda_clock.h"

#include <cuda_runtime_api.h>

#include "common/base/clock.h"
#include "gpu-engine/device/cuda/cuda_error.h"
#include "gpu-engine/device/cuda/sweep_steps.h"

enum { TRIES = 30 };

int cuda_clock_measure(struct cuda_clock *c, uint64_t *word, cuda_stream stream)
{
    uint64_t shortest = UINT64_MAX;

    for (int i = 0; i < TRIES; i++) {
        uint64_t from = clock_now_ns();

        CUDA_TRY(sweep_stamp(word, stream));
        CUDA_TRY(cudaStreamSynchronize(stream));
        uint64_t span = clock_now_ns() - from;
        if (span >= shortest)
            continue;
        shortest = span;
        c->offset_ns = from + span / 2 - *(volatile uint64_t *)word;
    }
    c->error_ns = shortest / 2;
    return 0;
}

void cuda_clock_bound(struct cuda_clock *c, uint64_t submitted_ns, uint64_t start_gpu_ns,
                      uint64_t end_gpu_ns, uint64_t seen_ns)
{
    uint64_t start = cuda_clock_of(c, start_gpu_ns), end = cuda_clock_of(c, end_gpu_ns);

    if (start < submitted_ns)
        c->offset_ns += submitted_ns - start;
    else if (end > seen_ns)
        c->offset_ns -= end - seen_ns;
}
