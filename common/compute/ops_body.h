/* ops_body.h - the row operations over virtual lanes, and the exponential that they and attention
 * share; included once by each kernels_<isa>.c, after its v16 header.
 *
 * A row's tail of fewer than 16 elements is computed as a vector filled up with zeros (softmax:
 * with what contributes nothing), so that an element's bits do not depend on where the row ends. */
#ifndef OMNI_COMMON_COMPUTE_OPS_BODY_H
#define OMNI_COMMON_COMPUTE_OPS_BODY_H

#include <math.h>
#include <string.h>

#include "common/compute/kernels.h"

/* Below it exp(x) is subnormal; the kernels return 0 there (also for -infinity). */
#define EXP_LOW  -87.33654f
#define EXP_HIGH 88.37626f

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, a polynomial of degree 6 (Cephes
 * expf; relative error below 2^-23).  Above EXP_HIGH the value at EXP_HIGH; NaN stays NaN. */
V_INLINE v16 v_exp(v16 x)
{
    const v16 magic = v_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const v16 low = v_set1(EXP_LOW);
    v16 c = v_min(v_set1(EXP_HIGH), v_max(low, x));
    v16 n = v_sub(v_fma(c, v_set1(1.44269504088896341f), magic), magic);
    v16 r = v_fma(n, v_set1(-0.693359375f), c);
    v16 p = v_set1(1.9875691500e-4f);

    r = v_fma(n, v_set1(2.12194440e-4f), r);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_set1(1.0f)));
    return v_zero_below(v_mul(p, v_pow2(n)), x, low);
}

/* The first n < 16 elements, the rest `fill`. */
V_INLINE v16 v_load_tail(const float *p, uint32_t n, float fill)
{
    float full[16];

    for (uint32_t i = 0; i < 16; i++)
        full[i] = i < n ? p[i] : fill;
    return v_load(full);
}

V_INLINE void v_store_tail(float *p, v16 a, uint32_t n)
{
    float full[16];

    v_store(full, a);
    memcpy(p, full, n * sizeof full[0]);
}

/* Runs `vector` over x in steps of 16, then once over the tail; the loads and stores inside are
 * written through LOAD and STORE, which know which of the two it is. */
#define LOAD(p, fill) (i + 16 <= n ? v_load((p) + i) : v_load_tail((p) + i, n - i, fill))
#define STORE(p, a)                                                                                \
    do {                                                                                           \
        if (i + 16 <= n)                                                                           \
            v_store((p) + i, a);                                                                   \
        else                                                                                       \
            v_store_tail((p) + i, a, n - i);                                                       \
    } while (0)

static void ops_body_rmsnorm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    v16 squares = v_set1(0.0f);
    float factor;

    for (uint32_t i = 0; i < n; i += 16) {
        v16 a = LOAD(x, 0.0f);

        squares = v_fma(a, a, squares);
    }
    factor = 1.0f / sqrtf(v_sum(squares) / (float)n + eps);
    for (uint32_t i = 0; i < n; i += 16) {
        v16 a = v_mul(LOAD(x, 0.0f), v_set1(factor));

        if (weight != NULL)
            a = v_mul(a, LOAD(weight, 0.0f));
        STORE(y, a);
    }
}

static void ops_body_add(float *y, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        STORE(y, v_add(LOAD(y, 0.0f), LOAD(x, 0.0f)));
}

static void ops_body_silu_mul(float *y, const float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        v16 g = LOAD(gate, 0.0f);
        v16 e = v_exp(v_sub(v_set1(0.0f), g));

        STORE(y, v_mul(v_div(g, v_add(v_set1(1.0f), e)), LOAD(up, 0.0f)));
    }
}

static void ops_body_divide(float *y, const float *x, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        STORE(y, v_div(LOAD(x, 0.0f), v_set1(by)));
}

static void ops_body_softmax(float *x, uint32_t n)
{
    v16 top = v_set1(-INFINITY), sum = v_set1(0.0f);
    float max, total;

    for (uint32_t i = 0; i < n; i += 16)
        top = v_max(top, LOAD(x, -INFINITY));
    max = v_top(top);
    for (uint32_t i = 0; i < n; i += 16) {
        v16 e = v_exp(v_sub(LOAD(x, -INFINITY), v_set1(max)));

        sum = v_add(sum, e);
        STORE(x, e);
    }
    total = v_sum(sum);
    ops_body_divide(x, x, total, n);
}

#undef LOAD
#undef STORE

#endif
