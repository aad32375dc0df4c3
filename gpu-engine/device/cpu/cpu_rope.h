/* cpu_rope.h - rotary angles of every position, for one setting of a layer (common/model/rope.h).
 *
 * Layers of one model may differ in their setting; those that agree share a table.  Immutable
 * after creation, any thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CPU_ROPE_H
#define OMNI_GPU_ENGINE_DEVICE_CPU_ROPE_H

#include <stdint.h>

#include "common/model/model.h"

struct cpu_rope;

/* 0, -EINVAL, -ENOMEM. */
int cpu_rope_create(struct cpu_rope **out, const struct rope_desc *desc, uint32_t n_positions);
void cpu_rope_destroy(struct cpu_rope *r); /* NULL is allowed */

int cpu_rope_matches(const struct cpu_rope *r, const struct rope_desc *desc);

/* Rotates the q and k rows of one position (< n_positions), in place. */
void cpu_rope_rotate(const struct cpu_rope *r, uint32_t pos, const struct attention_desc *attn,
                     float *q, float *k);

#endif
