/* sampling.h - draws a token from each row of logits: what device/sampler.h does, on the device.
 *
 * The same generator (Philox4x32-10 of seed and position), filters and order, so the same token, but
 * where the random number falls within some 1e-6 of the border between two tokens: the CPU adds in
 * double and in one order, here sums are in fixed point (44 bits below the best token's weight), which
 * no order of adding changes.
 *
 * Must move: 4 bytes of logits per vocabulary entry; here they are read again, from L2, at each of 2
 * (greedy) to 16 passes (top-k and top-p), by one block a row: made for rows by the dozen, not tuned. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sampling_row {
    uint64_t seed;
    uint32_t pos;      /* of the token that is drawn */
    float temperature; /* 0 = greedy */
    float top_p;       /* 1 = off */
    float min_p;       /* 0 = off */
    uint32_t top_k;    /* 0 = off */
};

struct sampling {
    uint32_t *tokens;               /* [rows] */
    float *logprobs;                /* [rows] natural, under the unmodified distribution */
    const float *logits;            /* [rows][n_vocab] */
    const struct sampling_row *row; /* [rows] */
    struct cuda_rows rows;
    uint32_t n_vocab;
};

int sampling(const struct sampling *a, cuda_stream stream);

#ifdef __cplusplus
}
#endif
#endif
