/* Plans: read and refused by line; made ones have the rate and lengths that were asked for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bench/load_plan.h"

/* Writes text to a file and reads it as a plan. */
static int read_text(struct load_plan *plan, const char *text, struct error *err)
{
    char path[] = "/tmp/omni-plan.XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int rc = plan_read(plan, path, err);
    unlink(path);
    return rc;
}

static void a_file_is_sorted_by_time_and_its_backlog_is_not(void **state)
{
    struct load_plan plan;

    (void)state;
    assert_int_equal(
        read_text(&plan, "# comment\n\n2.5 ls 10 4\n- be 100 7\n0.25 be 20 5\n- be 50 8\n", NULL),
        0);
    assert_int_equal(plan.arrivals.n, 2);
    assert_int_equal(plan.arrivals.asks[0].at_ns, 250000000);
    assert_false(ask_is_ls(&plan.arrivals.asks[0]));
    assert_true(ask_is_ls(&plan.arrivals.asks[1]));
    assert_int_equal(plan.backlog.n, 2);
    assert_int_equal(plan.backlog.asks[0].prompt, 100);
    assert_int_equal(plan.backlog.asks[1].output, 8);
    plan_fini(&plan);
}

static void a_bad_line_is_named(void **state)
{
    static const char *const BAD[] = {"x ls 10 4\n",      "1 ls 10\n",    "1 ls 0 4\n",
                                      "1 ls 10 0\n",      "-1 ls 10 4\n", "nan ls 10 4\n",
                                      "1 ls 9999999 4\n", "1 ls 10 4 5\n"};

    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct load_plan plan;
        struct error err = {.text = ""};
        char text[64];

        snprintf(text, sizeof text, "# first\n%s", BAD[i]);
        assert_int_equal(read_text(&plan, text, &err), -EINVAL);
        assert_non_null(strstr(err.text, ":2:"));
    }
}

static void a_made_plan_has_its_rate_and_lengths(void **state)
{
    struct load_recipe r = {.ls_rate = 50,
                            .seconds = 200,
                            .seed = 3,
                            .n_be = 4,
                            .ls_prompt = 160,
                            .ls_output = 64,
                            .be_prompt = 600,
                            .be_output = 96};
    struct load_plan plan;
    double prompt = 0;

    (void)state;
    assert_int_equal(plan_make(&plan, &r), 0);
    assert_in_range(plan.arrivals.n, 9500, 10500); /* five deviations of a Poisson count */
    for (uint32_t i = 0; i < plan.arrivals.n; i++) {
        const struct load_ask *ask = &plan.arrivals.asks[i];

        assert_true(i == 0 || ask->at_ns >= ask[-1].at_ns);
        assert_in_range(ask->prompt, 120, 200);
        prompt += ask->prompt;
    }
    assert_in_range((unsigned)(prompt / plan.arrivals.n), 158, 162);
    assert_true(plan.backlog.asks[0].output < plan.backlog.asks[3].output);
    plan_fini(&plan);
}

static void ls_does_not_depend_on_be(void **state)
{
    struct load_recipe r = {.ls_rate = 5,
                            .seconds = 20,
                            .seed = 1,
                            .ls_prompt = 160,
                            .ls_output = 64,
                            .be_prompt = 600,
                            .be_output = 96};
    struct load_plan alone, beside;

    (void)state;
    assert_int_equal(plan_make(&alone, &r), 0);
    r.n_be = 4;
    assert_int_equal(plan_make(&beside, &r), 0);
    assert_int_equal(alone.backlog.n, 0);
    assert_int_equal(alone.arrivals.n, beside.arrivals.n);
    assert_memory_equal(alone.arrivals.asks, beside.arrivals.asks,
                        alone.arrivals.n * sizeof alone.arrivals.asks[0]);
    plan_fini(&alone);
    plan_fini(&beside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_sorted_by_time_and_its_backlog_is_not),
        cmocka_unit_test(a_bad_line_is_named),
        cmocka_unit_test(a_made_plan_has_its_rate_and_lengths),
        cmocka_unit_test(ls_does_not_depend_on_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
