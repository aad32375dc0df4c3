/* Costs against numbers worked out by hand from the shapes of a random model. */
#include "model_test.h"

#include <math.h>
#include <string.h>

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static struct model *open_f32(void)
{
    struct model_random_options o = model_random_defaults();

    o.mixed = false;
    o.type = WEIGHT_F32;
    o.embd_type = WEIGHT_F32;
    return model_test_open_random(&o);
}

/* Layer 1: 4 heads of 16, one KV head, gated MLP of 128. */
static void test_gated_layer(void **state)
{
    struct model *m = open_f32();
    const struct model_layer *y = &m->layers[1];
    struct dense_cost c;

    (void)state;
    assert_int_equal(y->n_pre, 3);
    assert_int_equal(y->n_post, 3);
    assert_int_equal(y->pre[1].kind, DENSE_QKV);
    c = dense_op_cost(&y->pre[1], 10);
    assert_true(near(c.flops, 10 * 2.0 * 64 * (64 + 16 + 16)));
    assert_true(near(c.bytes, 4.0 * 64 * (64 + 16 + 16) + 10 * 4.0 * (64 + 64 + 16 + 16)));
    c = dense_op_cost(&y->post[2], 1);
    assert_true(near(c.flops, 3 * 2.0 * 64 * 128 + 6 * 128));
    assert_true(near(c.bytes, 4.0 * 3 * 64 * 128 + 4.0 * (3 * 64 + 3 * 128)));
    c = dense_op_cost(&y->pre[2], 2);
    assert_string_equal(dense_op_name(y->pre[2].kind), "rope");
    assert_true(near(c.flops, 2 * 3.0 * (4 + 1) * 16));
    model_close(m);
}

/* Layer 2: 4 experts, 2 used.  One row touches 2 experts; many rows touch all; between, the
 * expectation. */
static void test_expert_layer(void **state)
{
    struct model *m = open_f32();
    const struct dense_op *op = &m->layers[2].post[2];
    const double slice = 4.0 * 3 * 64 * 128, router = 4.0 * 4 * 64;
    const double row = 4.0 * (4 + 2 * (3 * 64 + 3 * 128));

    (void)state;
    assert_int_equal(op->kind, DENSE_EXPERTS);
    assert_true(near(dense_op_cost(op, 1).bytes, router + 2 * slice + row));
    assert_true(near(dense_op_cost(op, 2).bytes, router + 3 * slice + 2 * row));
    assert_true(near(dense_op_cost(op, 1000).bytes, router + 4 * slice + 1000 * row));
    assert_true(near(dense_op_cost_touched(op, 2, 4).bytes, router + 4 * slice + 2 * row));
    assert_true(
        near(dense_op_cost(op, 1).flops, 2.0 * 4 * 64 + 16 + 2 * (3 * 2.0 * 64 * 128 + 6 * 128)));
    model_close(m);
}

static void test_list_is_the_sum(void **state)
{
    struct model *m = open_f32();
    const struct model_layer *y = &m->layers[0];
    struct dense_cost sum = dense_list_cost(y->post, y->n_post, 7);

    (void)state;
    for (uint32_t i = 0; i < y->n_post; i++) {
        const struct dense_cost c = dense_op_cost(&y->post[i], 7);

        sum.flops -= c.flops;
        sum.bytes -= c.bytes;
    }
    assert_true(fabs(sum.flops) < 1 && fabs(sum.bytes) < 1);
    assert_true(dense_list_cost(y->pre, y->n_pre, 0).bytes == 0);
    assert_int_equal(m->head[1].kind, DENSE_LOGITS);
    assert_true(near(dense_op_cost(&m->head[1], 3).flops, 3 * 2.0 * 320 * 64));
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gated_layer),
        cmocka_unit_test(test_expert_layer),
        cmocka_unit_test(test_list_is_the_sum),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
