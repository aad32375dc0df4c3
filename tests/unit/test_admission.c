/* The admission answer: what is refused, with which code, and what a promise holds. */
#include "cmocka_all.h"
#include "gpu-engine/admission.h"

static const struct admission_limits limits = {.context_max = 1000,
                                               .block_tokens = 32,
                                               .n_groups = 1,
                                               .device_blocks = 10,
                                               .arena_blocks = 20};

static struct admission_answer ask(struct admission *a, bool ls, uint32_t n_prompt,
                                   uint32_t max_output)
{
    struct admission_answer answer;

    admission_decide(a, ls, n_prompt, max_output, &answer);
    return answer;
}

static void assert_refused(struct admission_answer answer, enum error_code code, bool later)
{
    assert_false(answer.accepted);
    assert_int_equal(answer.code, code);
    assert_int_equal(answer.retry_after_ms > 0, later);
    assert_true(answer.message[0] != 0);
}

static void test_what_can_never_succeed(void **state)
{
    (void)state;
    struct admission a;

    admission_init(&a, &limits);
    assert_refused(ask(&a, true, 0, 10), ERROR_BAD_REQUEST, false);
    assert_refused(ask(&a, true, 500, 501), ERROR_TOO_LONG, false);
    assert_refused(ask(&a, false, UINT32_MAX, UINT32_MAX), ERROR_TOO_LONG, false);
    /* 320 positions on the device, 640 in an arena; a prompt's first token needs one more. */
    assert_refused(ask(&a, true, 300, 21), ERROR_NO_CAPACITY, false);
    assert_refused(ask(&a, false, 320, 1), ERROR_NO_CAPACITY, false);
    assert_refused(ask(&a, false, 319, 322), ERROR_NO_CAPACITY, false);
    assert_true(ask(&a, false, 319, 321).accepted);
    assert_int_equal(a.ls_blocks, 0);
    admission_fini(&a);
}

static void test_promises_to_latency_sensitive_requests(void **state)
{
    (void)state;
    struct admission a;

    admission_init(&a, &limits);
    assert_true(ask(&a, true, 100, 60).accepted); /* 5 blocks */
    assert_true(ask(&a, true, 33, 95).accepted);  /* 4 blocks */
    assert_refused(ask(&a, true, 33, 1), ERROR_OVERLOADED, true);
    assert_true(ask(&a, false, 300, 10).accepted); /* best effort yields: no promise */
    assert_true(ask(&a, true, 31, 1).accepted);
    assert_refused(ask(&a, true, 1, 1), ERROR_OVERLOADED, true);
    admission_release(&a, 33, 95);
    assert_true(ask(&a, true, 64, 64).accepted);
    admission_release(&a, 64, 64);
    admission_release(&a, 31, 1);
    admission_release(&a, 100, 60);
    assert_int_equal(a.ls_blocks, 0);
    admission_fini(&a);
}

static void test_best_effort_by_where_it_may_decode(void **state)
{
    (void)state;
    struct admission_limits l = limits;
    struct admission a;

    l.arena_blocks = 4;
    admission_init(&a, &l);
    assert_true(ask(&a, false, 200, 100).accepted); /* on the device, which is larger */
    admission_fini(&a);
    l.must_offload = true;
    admission_init(&a, &l);
    assert_refused(ask(&a, false, 200, 100), ERROR_NO_CAPACITY, false);
    assert_true(ask(&a, false, 100, 28).accepted);
    admission_fini(&a);
}

static void test_layer_groups_multiply_blocks(void **state)
{
    (void)state;
    struct admission_limits l = limits;
    struct admission a;

    l.n_groups = 2;
    admission_init(&a, &l);
    assert_refused(ask(&a, true, 160, 1), ERROR_NO_CAPACITY, false);
    assert_true(ask(&a, true, 159, 1).accepted);
    assert_int_equal(a.ls_blocks, 10);
    admission_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_can_never_succeed),
        cmocka_unit_test(test_promises_to_latency_sensitive_requests),
        cmocka_unit_test(test_best_effort_by_where_it_may_decode),
        cmocka_unit_test(test_layer_groups_multiply_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
