/* Which device an engine gets: by name, or, for auto, the best that is here. */
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/setup.h"

static struct omni_config config;

static const struct device_ops *device_of(const char *setting)
{
    struct error err = {.text = ""};

    config_defaults(&config);
    assert_int_equal(config_set(&config, setting, &err), 0);
    const struct device_ops *ops = setup_device(&config, &err);
    if (ops == NULL)
        assert_non_null(strstr(err.text, "is not built in"));
    return ops;
}

static void test_by_name(void **state)
{
    const char *known;

    (void)state;
    assert_ptr_equal(device_of("engine.device=cpu"), &device_cpu);
    assert_string_equal(device_of("engine.device=sim")->name, "sim");
    assert_ptr_equal(device_of("engine.device=cuda"), device_find("cuda", &known));
    assert_null(device_find("abacus", &known));
    assert_non_null(strstr(known, "cpu"));
}

/* A binary with CUDA's runtime on a machine without a GPU says so, refuses to open, and auto takes the
 * cpu device; one with a GPU takes that. */
static void test_auto_takes_what_is_here(void **state)
{
    const char *known;
    const struct device_ops *cuda = device_find("cuda", &known);
    const struct device_ops *ops = device_of("engine.device=auto");
    char why[256] = "";

    (void)state;
    if (cuda == NULL) {
        assert_ptr_equal(ops, &device_cpu);
        return;
    }
    bool present = cuda->present(why, sizeof why) == 0;
    assert_ptr_equal(ops, present ? cuda : &device_cpu);
    if (present)
        return;
    assert_string_not_equal(why, "");
    static const struct kv_geometry geometry = {.n_layers = 1, .block_tokens = 32};
    const struct device_config c = {.geometry = &geometry};
    struct device *device;
    assert_true(cuda->open(&device, &c) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_name),
        cmocka_unit_test(test_auto_takes_what_is_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
