#include "common/compute/ops.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "common/base/invariant.h"
#include "common/compute/kernels.h"

void ops_rmsnorm(enum isa isa, float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    kernels_of(isa)->rmsnorm(y, x, weight, n, eps);
}

void ops_add(enum isa isa, float *y, const float *x, uint32_t n)
{
    kernels_of(isa)->add(y, x, n);
}

void ops_silu_mul(enum isa isa, float *y, const float *gate, const float *up, uint32_t n)
{
    kernels_of(isa)->silu_mul(y, gate, up, n);
}

void ops_softmax(enum isa isa, float *x, uint32_t n)
{
    kernels_of(isa)->softmax(x, n);
}

uint32_t ops_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;

    while (best < n && isnan(x[best]))
        best++;
    if (best == n)
        return 0;
    for (uint32_t i = best + 1; i < n; i++)
        if (x[i] > x[best]) /* false for NaN, and for a tie: the lower index stays */
            best = i;
    return best;
}

/* Is a better than b: larger, or as large and earlier?  NaN is worse than any number. */
static bool ranks_before(const float *x, uint32_t a, uint32_t b)
{
    bool nan_a = isnan(x[a]), nan_b = isnan(x[b]);

    if (nan_a || nan_b)
        return nan_a == nan_b ? a < b : nan_b;
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

/* Insertion into a sorted list of k: k is the handful of experts of a token. */
void ops_top_k(const float *x, uint32_t n, uint32_t k, uint32_t *idx)
{
    uint32_t found = 0;

    invariant(k <= n);
    for (uint32_t i = 0; i < n && k > 0; i++) {
        uint32_t at = found;

        while (at > 0 && ranks_before(x, i, idx[at - 1]))
            at--;
        if (at == k)
            continue;
        found += found < k;
        for (uint32_t j = found - 1; j > at; j--)
            idx[j] = idx[j - 1];
        idx[at] = i;
    }
}

int rope_init(struct rope *rope, enum rope_pairing style, uint32_t n_dims, double theta,
              double freq_scale, const float *factors)
{
    if (n_dims == 0 || n_dims % 2 != 0 || n_dims > ROPE_DIMS_MAX)
        return -EINVAL;
    if (!(theta > 0) || !isfinite(theta) || !(freq_scale > 0) || !isfinite(freq_scale))
        return -EINVAL;
    rope->style = style;
    rope->n_dims = n_dims;
    for (uint32_t i = 0; i < n_dims / 2; i++) {
        double factor = factors == NULL ? 1.0 : (double)factors[i];

        rope->inv_freq[i] = freq_scale * pow(theta, -2.0 * i / n_dims) / factor;
    }
    return 0;
}

void rope_angles(const struct rope *rope, uint32_t pos, float *angles)
{
    uint32_t half = rope->n_dims / 2;

    for (uint32_t i = 0; i < half; i++) {
        double angle = pos * rope->inv_freq[i];

        angles[i] = (float)cos(angle);
        angles[half + i] = (float)sin(angle);
    }
}

void rope_apply(const struct rope *rope, const float *angles, float *x, uint32_t n_heads,
                uint32_t head_dim)
{
    uint32_t half = rope->n_dims / 2;
    uint32_t step = rope->style == ROPE_PAIRS ? 2 : 1;     /* from pair to pair */
    uint32_t other = rope->style == ROPE_PAIRS ? 1 : half; /* from a pair's first to its second */

    for (uint32_t h = 0; h < n_heads; h++, x += head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            float *a = x + step * i, *b = a + other;
            float first = *a, second = *b, c = angles[i], s = angles[half + i];

            *a = first * c - second * s;
            *b = first * s + second * c;
        }
    }
}
