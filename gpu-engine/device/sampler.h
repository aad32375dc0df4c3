/* sampler.h - draws one token from a row of logits.
 *
 * Before anything else the logits are adjusted, where the request wants it (sampler_adjust.c):
 * repetition penalty, presence and frequency penalties, bias, stop tokens that may not come yet.
 *
 * Order of the filters: temperature, min-p, top-k, top-p, draw (as vLLM applies them; min-p and
 * top-k commute because both keep a head of the sorted list).  Greedy (temperature 0) takes the
 * highest logit, the lowest id among equals.
 *
 * The random number is Philox4x32-10 keyed by the request's seed, with the token's position as
 * counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a token does
 * not depend on what was drawn before, on the batch, or on which process drew it.
 *
 * One sampler per thread; it owns scratch for n_vocab candidates, logits and counts.  No allocation per token. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SAMPLER_H
#define OMNI_GPU_ENGINE_DEVICE_SAMPLER_H

#include <stdint.h>

#include "gpu-engine/device/device.h"

struct sampler_candidate {
    float weight; /* exp((logit - max) / temperature) */
    uint32_t id;
};

struct sampler {
    struct sampler_candidate *candidates; /* [n_vocab] */
    float *adjusted;                      /* [n_vocab] */
    uint32_t *counts;                     /* [n_vocab], all zero between draws */
    uint32_t n_vocab;
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int sampler_init(struct sampler *s, uint32_t n_vocab);
void sampler_fini(struct sampler *s);

/* Draws the token of position `pos`, which follows those below; *logprob is its natural log-probability under the
 * unmodified distribution (temperature 1, no filter). */
uint32_t sampler_draw(struct sampler *s, const float *logits, const struct device_sampling *how,
                      uint32_t pos, float *logprob);

/* The n_top most likely tokens under the unmodified distribution, most likely first, the lowest id
 * among equals; n_top <= DEVICE_TOP_MAX.  Returns their number. */
uint32_t sampler_top(const struct sampler *s, const float *logits, uint32_t n_top,
                     struct device_logprob *out);

/* Logits as adjusted for the token of position `pos`, in the sampler's scratch. */
const float *sampler_adjust(struct sampler *s, const float *logits, const struct device_adjust *how,
                            uint32_t pos);

/* Uniform in [0, 1), 53 bits, of (seed, counter). */
double sampler_uniform(uint64_t seed, uint64_t counter);

#endif
