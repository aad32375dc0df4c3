/* Logits changed before a token is drawn.  In this order: repetition penalty (Keskar et al.,
 * "CTRL", 2019; over prompt and output), presence and frequency penalties (as in OpenAI's API; over
 * the output), bias, and stop tokens that may not come yet.
 *
 * Nothing is kept from token to token: the log is counted anew for each.  That costs a pass over
 * the context, little beside a pass over the vocabulary, and makes a token a function of the log:
 * the same after a move, a restart or a recomputation. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/sampler.h"

/* In a token's count: it is in the log, maybe in the prompt alone. */
#define COUNT_SEEN (UINT32_C(1) << 31)

static void count_log(struct sampler *s, const struct device_adjust *how, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *count = &s->counts[how->log[i]];

        *count = (*count | COUNT_SEEN) + (i >= how->n_prompt);
    }
}

static float penalised(const struct device_adjust *how, float logit, uint32_t n_output)
{
    logit = logit > 0 ? logit / how->repetition : logit * how->repetition;
    if (n_output > 0)
        logit -= how->presence + how->frequency * (float)n_output;
    return logit;
}

/* Each id of the log once; leaves the counts at zero. */
static void penalise(struct sampler *s, const struct device_adjust *how, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = how->log[i], count = s->counts[id];

        if (count != 0)
            s->adjusted[id] = penalised(how, s->adjusted[id], count & ~COUNT_SEEN);
        s->counts[id] = 0;
    }
}

const float *sampler_adjust(struct sampler *s, const float *logits, const struct device_adjust *how,
                            uint32_t pos)
{
    bool penalties = how->repetition != 1 || how->presence != 0 || how->frequency != 0;

    memcpy(s->adjusted, logits, s->n_vocab * sizeof *logits);
    if (penalties) {
        count_log(s, how, pos);
        penalise(s, how, pos);
    }
    for (uint32_t i = 0; i < how->n_biases; i++)
        s->adjusted[how->biases[i].token] += how->biases[i].bias;
    if (pos - how->n_prompt < how->min_tokens) {
        for (uint32_t i = 0; i < how->n_stops; i++)
            s->adjusted[how->stops[i]] = -INFINITY;
    }
    return s->adjusted;
}
