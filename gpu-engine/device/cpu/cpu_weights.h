/* cpu_weights.h - the model as the cpu device computes it: the same lists of dense operations as
 * the model's, with every matrix packed for the dense kernels and rotary angles tabulated.
 *
 * Built once at open from the model's typed views, immutable afterwards. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CPU_WEIGHTS_H
#define OMNI_GPU_ENGINE_DEVICE_CPU_WEIGHTS_H

#include <stdint.h>

#include "common/compute/dense.h"
#include "common/compute/isa.h"
#include "common/model/model.h"
#include "gpu-engine/device/cpu/cpu_rope.h"

/* One operation of a list; the meaning of each kind is in common/model/dense_op.h. */
struct cpu_op {
    const struct dense_op *op;
    struct dense_matrix *matrix[DENSE_OP_WEIGHTS]; /* NULL: no matrix, or one per expert */
    struct dense_matrix **expert[3];               /* DENSE_EXPERTS: [n_experts] each, else NULL */
    float
        *vector[3]; /* DENSE_NORM, DENSE_BIAS, DENSE_HEAD_NORM: the weights, as floats; else NULL */
    const struct cpu_rope *rope; /* DENSE_ROPE */
};

struct cpu_layer {
    uint32_t n_pre, n_post;
    struct cpu_op pre[MODEL_PRE_OPS], post[MODEL_POST_OPS];
};

struct cpu_weights {
    const struct model *model;
    enum isa isa;
    struct cpu_layer *layers; /* [model->n_layers] */
    struct cpu_op head[MODEL_HEAD_OPS];
    struct cpu_rope **ropes; /* distinct settings */
    uint32_t n_ropes;
};

/* 0, -ENOMEM, -EINVAL.  context_max: positions that need angles. */
int cpu_weights_create(struct cpu_weights **out, const struct model *model, enum isa isa,
                       uint32_t context_max);
void cpu_weights_destroy(struct cpu_weights *w);

#endif
