/* Rotary embedding from a table: the angles of a position are computed once, in double, so that a
 * row's bits depend on its position alone and the sweep does no trigonometry.  A model's magnitude
 * is part of the cosines and sines. */
#include <errno.h>
#include <stdlib.h>

#include "common/compute/ops.h"
#include "gpu-engine/device/cpu/cpu_rope.h"

struct cpu_rope {
    struct rope rope;
    struct rope_desc desc;
    uint32_t n_positions;
    float *angles; /* [n_positions][n_dims] */
};

static void fill_position(struct cpu_rope *r, uint32_t pos)
{
    float *angles = r->angles + (size_t)pos * r->desc.n_dims;

    rope_angles(&r->rope, pos, angles);
    for (uint32_t i = 0; i < r->desc.n_dims; i++)
        angles[i] *= r->desc.magnitude;
}

int cpu_rope_create(struct cpu_rope **out, const struct rope_desc *desc, uint32_t n_positions)
{
    struct cpu_rope *r = calloc(1, sizeof *r);
    enum rope_pairing pairing = desc->style == ROPE_NEOX ? ROPE_HALVES : ROPE_PAIRS;
    int rc = r == NULL ? -ENOMEM : 0;

    if (rc == 0)
        rc = rope_init(&r->rope, pairing, desc->n_dims, (double)desc->theta, 1.0, NULL);
    if (rc == 0) {
        r->desc = *desc;
        r->n_positions = n_positions;
        r->angles = calloc((size_t)n_positions * desc->n_dims, sizeof *r->angles);
        rc = r->angles == NULL ? -ENOMEM : 0;
    }
    if (rc != 0) {
        cpu_rope_destroy(r);
        return rc;
    }
    rope_frequencies(desc, n_positions, r->rope.inv_freq);
    for (uint32_t pos = 0; pos < n_positions; pos++)
        fill_position(r, pos);
    *out = r;
    return 0;
}

void cpu_rope_destroy(struct cpu_rope *r)
{
    if (r == NULL)
        return;
    free(r->angles);
    free(r);
}

int cpu_rope_matches(const struct cpu_rope *r, const struct rope_desc *desc)
{
    return rope_equal(&r->desc, desc);
}

void cpu_rope_rotate(const struct cpu_rope *r, uint32_t pos, const struct attention_desc *attn,
                     float *q, float *k)
{
    const float *angles = r->angles + (size_t)pos * r->desc.n_dims;

    rope_apply(&r->rope, angles, q, attn->n_heads, attn->k_width);
    rope_apply(&r->rope, angles, k, attn->n_kv_heads, attn->k_width);
}
