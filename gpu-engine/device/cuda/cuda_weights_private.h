/* cuda_weights_private.h - the plan of a load; private to cuda_weights*.c.
 *
 * cuda_weights.c walks the model once to know how much memory it takes, and once more, with the memory
 * there, to say what goes where; cuda_weights_load.c carries the second list out. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_PRIVATE_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_PRIVATE_H

#include "gpu-engine/device/cuda/cuda_weights.h"

/* Matrix data: one view's rows, at a place of the device's memory. */
struct weights_piece {
    struct weight_view view;
    uint16_t *to;
    uint64_t n_values;
    float span; /* of a dummy load */
};

/* f32 values that the host makes: norms, biases, angles.  Owned. */
struct weights_floats {
    float *values;
    uint64_t n;
    float *to;      /* or NULL */
    uint16_t *to16; /* or NULL: a bias once more, for cuBLASLt */
};

struct weights_plan {
    const struct model *model;
    const struct cuda_weights_options *options;
    struct error *err;
    uint32_t type;
    char *memory;  /* NULL while it is only measured */
    uint64_t used; /* bytes placed so far */
    struct weights_piece *pieces;
    struct weights_floats *floats;
    uint32_t n_pieces, n_floats, pieces_max, floats_max;
};

/* Brings pieces and floats to their places and waits for it.  0, -EIO, -ENOMEM with plan->err. */
int cuda_weights_load(const struct weights_plan *plan);

/* error_set with the text of a cudaError_t: -ENOMEM where it says so, else -EIO. */
int cuda_weights_error(struct error *err, const char *what, int cuda_error);

#endif
