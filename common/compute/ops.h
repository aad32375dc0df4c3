/* ops.h - the operations of a dense sweep that are not products: norms, rotary embedding,
 * activations, softmax, selection.
 *
 * Each works on one row and depends on that row (and its position) alone, in a fixed order, so the
 * bits do not depend on the batch.  The caller loops over rows, or spreads them over a team.
 * Pure functions; any thread; nothing is allocated (rope tables apart). */
#ifndef OMNI_COMMON_COMPUTE_OPS_H
#define OMNI_COMMON_COMPUTE_OPS_H

#include <stdint.h>

#include "common/compute/isa.h"

/* y = x / sqrt(mean(x^2) + eps) * weight (weight NULL = 1).  y may be x.  n >= 1. */
void ops_rmsnorm(enum isa isa, float *y, const float *x, const float *weight, uint32_t n,
                 float eps);

/* y += x. */
void ops_add(enum isa isa, float *y, const float *x, uint32_t n);

/* y = silu(gate) * up, silu(a) = a / (1 + exp(-a)).  y may be gate or up. */
void ops_silu_mul(enum isa isa, float *y, const float *gate, const float *up, uint32_t n);

/* x = exp(x - max) / sum, in place.  n >= 1. */
void ops_softmax(enum isa isa, float *x, uint32_t n);

/* Index of the largest value; the lowest index wins ties, NaN never wins (0 if all are NaN). */
uint32_t ops_argmax(const float *x, uint32_t n);

/* The k largest values' indices in descending order, ties to the lower index; k <= n. */
void ops_top_k(const float *x, uint32_t n, uint32_t k, uint32_t *idx);

/* Rotary embedding.  Which elements of a head form a pair:
 *   ROPE_PAIRS  2i and 2i+1 (llama GGUF files, whose q and k rows are permuted for it)
 *   ROPE_HALVES i and i + n_dims/2 ("neox"; Qwen, GPT-NeoX) */
enum rope_pairing { ROPE_PAIRS, ROPE_HALVES };

enum { ROPE_DIMS_MAX = 512 };

struct rope {
    enum rope_pairing style;
    uint32_t n_dims;                    /* rotated elements at a head's start; even */
    double inv_freq[ROPE_DIMS_MAX / 2]; /* radians per position of each pair */
};

/* inv_freq[i] = freq_scale * theta^(-2i/n_dims) / factors[i]; factors: n_dims/2 values or NULL.
 * 0, or -EINVAL (n_dims odd, 0 or too large; theta or freq_scale not positive and finite). */
int rope_init(struct rope *rope, enum rope_pairing style, uint32_t n_dims, double theta,
              double freq_scale, const float *factors);

/* angles[0..n_dims/2) = cosines, angles[n_dims/2..n_dims) = sines of a position.  A function of the
 * position alone, computed in double; once per row and sweep serves all layers. */
void rope_angles(const struct rope *rope, uint32_t pos, float *angles);

/* Rotates n_heads heads of head_dim >= n_dims elements each, in place. */
void rope_apply(const struct rope *rope, const float *angles, float *x, uint32_t n_heads,
                uint32_t head_dim);

#endif
