/* rope.h - rotary embedding of one layer: which elements turn together, and how fast.
 *
 * The definition, once, for every device: pair i of the first n_dims of a head turns by
 * position * frequency i.  Plain, frequency i is theta^(-2i/n_dims).  Models that were stretched to
 * longer contexts turn slower:
 *     linear   every frequency / factor
 *     yarn     pairs that turn more than beta_fast times in n_ctx_orig positions keep their
 *              frequency, those that turn less than beta_slow times get frequency / factor, between
 *              a linear ramp over the pair's index (arXiv 2309.00071)
 *     tables   frequency i / factors[i]; llama3's, and longrope's for contexts within and beyond
 *              n_ctx_orig
 * A plain description; the tables belong to the model's file.  Pure functions, any thread. */
#ifndef OMNI_COMMON_MODEL_ROPE_H
#define OMNI_COMMON_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

enum rope_style {
    ROPE_INTERLEAVED, /* pairs (2i, 2i+1): GGUF "norm", the llama family */
    ROPE_NEOX         /* pairs (i, i + n_dims/2) */
};

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_YARN };

struct rope_desc {
    float theta;
    uint32_t n_dims; /* even, <= k_width; the rest of the head passes through; 0: no rotation */
    enum rope_style style;
    enum rope_scaling scaling;
    float factor;               /* >= 1; 1 for ROPE_PLAIN */
    uint32_t n_ctx_orig;        /* the context that the model was made for */
    float beta_fast, beta_slow; /* ROPE_YARN */
    float magnitude;            /* of the rotated pair, times its own: 1 for ROPE_PLAIN */
    const float *factors;       /* [n_dims / 2], or NULL */
    const float *factors_long;  /* likewise: in the place of factors beyond n_ctx_orig */
};

/* Frequencies in radians per position, out[n_dims / 2], of a device that serves contexts of up to
 * n_positions: that choice cannot change while KV of earlier tokens is there. */
void rope_frequencies(const struct rope_desc *rope, uint32_t n_positions, double *out);

bool rope_equal(const struct rope_desc *a, const struct rope_desc *b);

#endif
