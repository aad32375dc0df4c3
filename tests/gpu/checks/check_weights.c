/* Weights as a load makes them: every type of a file, over random storage units, and dummy values.
 * Bytes: a value is rounded as the reference rounds it. */
#include <string.h>

#include "common/model/weight.h"
#include "gpu-engine/device/cuda/weight_convert.h"
#include "gpu-engine/device/cuda/weight_fill.h"
#include "tests/gpu/checks/checks.h"

/* Random units of a type: encoded from floats, so that scales are numbers. */
static int units_make(struct check_run *r, struct weight_convert *a, uint32_t n_values)
{
    const enum weight_type type = (enum weight_type)a->weight_type;
    float *values;
    uint8_t *units;

    CHECK_ALLOC(r, values, CHECK_PINNED, n_values);
    CHECK_ALLOC(r, units, CHECK_POOL, weight_row_bytes(type, n_values));
    check_fill_floats(r, values, n_values, 2.0f);
    weight_quantize_row(type, values, n_values, units);
    a->in = units;
    a->n_values = n_values;
    return 0;
}

static int convert_type(struct check_run *r, uint32_t weight_type, uint32_t type)
{
    struct weight_convert a = {.weight_type = weight_type, .type = type}, want;

    CHECK_DO(units_make(r, &a, 5 * WEIGHT_SUPER_BLOCK));
    CHECK_ALLOC(r, a.out, CHECK_POOL, a.n_values);
    want = a;
    if ((want.out = check_copy(r, a.out, a.n_values * sizeof *a.out)) == NULL)
        return -1;
    weight_convert_ref(&want);
    CHECK_DO(check_wait(r, "weight_convert", weight_convert(&a, r->stream)));
    return check_bytes(r, weight_type_name((enum weight_type)weight_type), a.out, want.out,
                       a.n_values * sizeof *a.out);
}

int check_weight_convert(struct check_run *r)
{
    for (uint32_t w = 0; w < WEIGHT_TYPES; w++) {
        CHECK_DO(convert_type(r, w, KV_TYPE_BF16));
        CHECK_DO(convert_type(r, w, KV_TYPE_F16));
    }
    return 0;
}

/* A fill in two pieces is the fill in one. */
int check_weight_fill(struct check_run *r)
{
    const uint32_t n = 5003, cut = 1600;

    for (uint32_t type = KV_TYPE_F16; type <= KV_TYPE_BF16; type++) {
        struct weight_fill a = {
            .n_values = cut, .first = 77, .seed = 5, .span = 0.3f, .type = type};
        struct weight_fill rest, want = a;

        CHECK_ALLOC(r, a.out, CHECK_POOL, n);
        CHECK_ALLOC(r, want.out, CHECK_PINNED, n);
        rest = a;
        rest.out += cut;
        rest.first += cut;
        rest.n_values = n - cut;
        want.n_values = n;
        weight_fill_ref(&want);
        CHECK_DO(check_wait(r, "weight_fill", weight_fill(&a, r->stream)));
        CHECK_DO(check_wait(r, "weight_fill", weight_fill(&rest, r->stream)));
        CHECK_DO(check_bytes(r, "weight_fill", a.out, want.out, n * sizeof *a.out));
    }
    return 0;
}
