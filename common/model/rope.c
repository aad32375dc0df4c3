#include "common/model/rope.h"

#include <math.h>
#include <stddef.h>

#define PI 3.14159265358979323846

/* The (fractional) pair that turns `turns` times in n_ctx_orig positions. */
static double pair_of_turns(const struct rope_desc *r, double turns)
{
    return (double)r->n_dims * log((double)r->n_ctx_orig / (turns * 2 * PI)) /
           (2 * log((double)r->theta));
}

/* How much of pair i's frequency is divided: 0 to 1. */
static double yarn_share(const struct rope_desc *r, uint32_t i)
{
    const double low = fmax(floor(pair_of_turns(r, (double)r->beta_fast)), 0);
    const double high = fmin(ceil(pair_of_turns(r, (double)r->beta_slow)), (double)r->n_dims - 1);
    const double width = fmax(high - low, 0.001);

    return fmin(fmax(((double)i - low) / width, 0), 1);
}

void rope_frequencies(const struct rope_desc *r, uint32_t n_positions, double *out)
{
    const float *factors =
        r->factors_long && n_positions > r->n_ctx_orig ? r->factors_long : r->factors;

    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        const double plain = pow((double)r->theta, -2.0 * i / r->n_dims);
        const double share = r->scaling == ROPE_YARN     ? yarn_share(r, i)
                             : r->scaling == ROPE_LINEAR ? 1
                                                         : 0;

        out[i] = plain * (1 - share) + plain / (double)r->factor * share;
        if (factors)
            out[i] /= (double)factors[i];
    }
}

static bool same(float a, float b)
{
    return a >= b && a <= b;
}

bool rope_equal(const struct rope_desc *a, const struct rope_desc *b)
{
    return a->n_dims == b->n_dims && a->style == b->style && a->scaling == b->scaling &&
           a->n_ctx_orig == b->n_ctx_orig && a->factors == b->factors &&
           a->factors_long == b->factors_long && same(a->theta, b->theta) &&
           same(a->factor, b->factor) && same(a->beta_fast, b->beta_fast) &&
           same(a->beta_slow, b->beta_slow) && same(a->magnitude, b->magnitude);
}
