/* weight_convert.h - weights of any type of a model file to 16 bits, as they come from the file.
 *
 * The values are those of common/model/weight.h, rounded once more, to nearest, ties to even.
 *
 * Must move: the file's bytes read, 2 per value written.  Runs at load alone: not tuned beyond a
 * group of 32 values a thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_WEIGHT_CONVERT_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_WEIGHT_CONVERT_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weight_convert {
    uint16_t *out;        /* [n_values]; 64-byte aligned */
    const uint8_t *in;    /* whole storage units of the type; 4-byte aligned */
    uint64_t n_values;    /* a multiple of 32 */
    uint32_t weight_type; /* enum weight_type */
    uint32_t type;        /* of out: KV_TYPE_BF16 or KV_TYPE_F16 */
};

int weight_convert(const struct weight_convert *a, cuda_stream stream);
void weight_convert_ref(const struct weight_convert *a);

#ifdef __cplusplus
}
#endif
#endif
