/* Configuration: one table; defaults < file < command line; errors that help. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/config.h"

static char path[64];

static void write_file(const char *text)
{
    FILE *f;

    snprintf(path, sizeof path, "/tmp/omni-test-config-%d.ini", (int)getpid());
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int load(struct omni_config *c, const char *text, struct error *err)
{
    int rc;

    write_file(text);
    config_defaults(c);
    rc = config_load(c, path, err);
    unlink(path);
    return rc;
}

static void defaults_are_valid(void **state)
{
    struct omni_config c;
    struct error err;

    (void)state;
    config_defaults(&c);
    assert_int_equal(config_check(&c, &err), 0);
    assert_int_equal(c.worker_late_ms, 200);
    assert_int_equal(c.worker_kill_ms, 10000);
    assert_int_equal(c.router_sessions_max, 448);
    assert_int_equal(c.engine_p_max, 16);
    assert_true(c.engine_numa_bind);
    assert_string_equal(c.group_classes, "ls,be");
}

static void a_file_overrides_defaults(void **state)
{
    struct omni_config c;
    struct error err;

    (void)state;
    assert_int_equal(
        load(&c,
             "; comment\n[engine]\noffload = never ; inline\n  kv_blocks=4k\n"
             "[worker]\nspin_us: 7\n[group]\nname = my-group\n[engine]\nnuma_bind=No\n",
             &err),
        0);
    assert_int_equal(c.engine_offload, CONFIG_OFFLOAD_NEVER);
    assert_int_equal(c.engine_kv_blocks, 4096);
    assert_int_equal(c.worker_spin_us, 7);
    assert_string_equal(c.group_name, "my-group");
    assert_false(c.engine_numa_bind);
}

static void bad_files_name_line_and_reason(void **state)
{
    static const struct {
        const char *text, *said;
    } bad[] = {
        {"[engine]\n\nkv_blcks = 3\n",
         ":3: engine.kv_blcks: unknown option; the nearest is engine.kv_blocks"},
        {"[enigne]\noffload = auto\n",
         ":2: enigne.offload: unknown option; the nearest is engine.offload"},
        {"[engine]\np_max = 9999999\n",
         ":2: engine.p_max: expected a number from 0 to 4096 rows, found \"9999999\""},
        {"[engine]\np_max = -1\n", ":2: engine.p_max: expected a number"},
        {"[engine]\np_max = 3x\n", ":2: engine.p_max: expected a number"},
        {"[engine]\np_max =\n", ":2: engine.p_max: expected a number"},
        {"[engine]\noffload = sometimes\n", ":2: engine.offload: expected auto|always|never"},
        {"[engine]\noffload = al\n", ":2: engine.offload: expected auto|always|never"},
        {"[engine]\nnuma_bind = maybe\n", ":2: engine.numa_bind: expected yes or no"},
        {"[group]\nname =\n", ":2: group.name: expected 1 to 32 characters"},
        {"[group]\nnonsense\n", ":2: expected [section] or key = value"},
    };
    struct omni_config c;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_true(load(&c, bad[i].text, &err) < 0);
        if (strstr(err.text, bad[i].said) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.text, bad[i].said);
    }
    assert_int_equal(config_load(&c, "/nonexistent/x.ini", &err), -ENOENT);
}

static void long_lines_are_refused_not_cut(void **state)
{
    struct omni_config c;
    struct error err;
    char text[400] = "[model]\npath = ";

    (void)state;
    memset(text + strlen(text), 'x', 300);
    assert_int_equal(load(&c, text, &err), -EINVAL);
    assert_non_null(strstr(err.text, "line longer than"));
}

static void checks_that_concern_several(void **state)
{
    static const struct {
        const char *set, *said;
    } bad[] = {{"engine.block_tokens=48", "multiple of 32"},
               {"engine.chunk_tokens=1024", "above engine.batch_tokens_max"},
               {"worker.kill_ms=150", "must be above worker.late_ms"},
               {"group.classes=ls,ls", "twice"},
               {"group.classes=ls,,be", "expected 1 to 8 names"},
               {"group.classes=l/s,be", "bad name"},
               {"group.name=a/b", "group.name"},
               {"group.name=..", "group.name"},
               {"router.queue_max=10,x", "router.queue_max"},
               {"worker.engine_shares=0", "worker.engine_shares: expected numbers"},
               {"worker.engine_shares=1;2", "worker.engine_shares: expected numbers"},
               {"worker.engine_shares=1,", "worker.engine_shares: expected numbers"},
               {"worker.engine_shares=1,2", "2 shares for 1 engines"},
               {"worker.cpus=0;1", "separated by '|'"},
               {"engine.cpus=0-", "engine.cpus: expected lists of cpus"},
               {"engine.cpus=1024", "below 1024"},
               {"worker.cpus=0|", "worker.cpus: expected lists of cpus"},
               {"worker.cpus=0|1", "2 lists of cpus for 1 processes"},
               {"router.tcp_ports=9-3", "router.tcp_ports"},
               {"router.tcp_port=7600", "lies in router.tcp_ports"}};
    struct omni_config c;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config_defaults(&c);
        assert_int_equal(config_set(&c, bad[i].set, &err), 0);
        assert_int_equal(config_check(&c, &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i].said));
    }
    assert_int_equal(config_set(&c, "engine.offload=always", &err), 0);
    assert_int_equal(config_set(&c, "nonsense", &err), -EINVAL);
    assert_int_equal(config_set(&c, "worker.slot=3", &err), -ENOENT);
    assert_non_null(strstr(err.text, "nearest is worker.slots"));
    assert_int_equal(config_set(&c, "worker.spin=3", &err), -ENOENT);
    assert_non_null(strstr(err.text, "nearest is worker.spin_us")); /* worker.cpus is as near */
}

static void what_is_printed_can_be_read(void **state)
{
    struct omni_config c, again;
    struct error err;
    char text[32768] = "";
    FILE *f = fmemopen(text, sizeof text, "w");

    (void)state;
    config_defaults(&c);
    assert_int_equal(config_set(&c, "engine.offload=always", &err), 0);
    assert_int_equal(config_set(&c, "group.n_workers=2", &err), 0);
    assert_int_equal(config_set(&c, "worker.cpus=1-2|3", &err), 0);
    assert_int_equal(config_set(&c, "engine.numa_bind=no", &err), 0);
    config_print(&c, f);
    fclose(f);
    assert_int_equal(config_check(&c, &err), 0);
    assert_int_equal(load(&again, text, &err), 0);
    assert_memory_equal(&c, &again, sizeof c);
}

static void lists(void **state)
{
    char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX], item[8];
    struct omni_config c;
    struct error err;

    (void)state;
    config_defaults(&c);
    assert_int_equal(config_set(&c, "group.classes= gold , silver,be", &err), 0);
    assert_int_equal(config_classes(&c, names), 3);
    assert_string_equal(names[0], "gold");
    assert_string_equal(names[1], "silver");
    assert_string_equal(names[2], "be");
    assert_true(config_list_item("64,256", 1, item, sizeof item));
    assert_string_equal(item, "256");
    assert_false(config_list_item("64,256", 2, item, sizeof item));
    assert_int_equal(config_engine_share(&c, 7), 1);
    assert_int_equal(config_set(&c, "worker.engine_shares=3, 2", &err), 0);
    assert_int_equal(config_engine_share(&c, 0), 3);
    assert_int_equal(config_engine_share(&c, 1), 2);
    assert_int_equal(config_engine_share(&c, 5), 2);
}

static void tenants_have_names_and_weights(void **state)
{
    static const char *const bad[] = {"a",     "a:",      "a:0", "a:1,", ":1",  "a:1,a:2",
                                      "a b:1", "a:12345", "a:x", ".a:1", "a:-1"};
    struct omni_config c;
    struct config_tenants t;
    struct error err;

    (void)state;
    config_defaults(&c);
    assert_int_equal(config_tenants(&c, &t, &err), 0);
    assert_int_equal(t.n, 1);
    assert_int_equal(config_set(&c, "tenants.weights=acme:3, labs_2:10", &err), 0);
    assert_int_equal(config_set(&c, "tenants.others=2", &err), 0);
    assert_int_equal(config_check(&c, &err), 0);
    assert_int_equal(config_tenants(&c, &t, &err), 0);
    assert_int_equal(t.n, 3);
    assert_true(t.weights[0] == 2 && t.weights[1] == 3 && t.weights[2] == 10);
    assert_int_equal(config_tenant_find(&t, "labs_2", 6), 2);
    assert_int_equal(config_tenant_find(&t, "labs_2", 5), 0);
    assert_int_equal(config_tenant_find(&t, "", 0), 0);
    for (uint32_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        strcpy(c.tenants_weights, bad[i]);
        if (config_check(&c, &err) != -EINVAL)
            fail_msg("%s passes", bad[i]);
    }
}

static enum config_parse parse(struct omni_config *c, struct config_args *args, int argc,
                               const char **argv)
{
    static const struct config_program program = {"omni-test", "a test", true};

    return config_parse_argv(c, args, &program, argc, (char **)(uintptr_t)argv);
}

#define PARSE(...)                                                                                 \
    parse(&c, &args, (int)(sizeof((const char *[]){"omni-test", __VA_ARGS__}) / sizeof(char *)),   \
          (const char *[]){"omni-test", __VA_ARGS__, NULL})

static void command_line_comes_last(void **state)
{
    struct omni_config c;
    struct config_args args;

    (void)state;
    write_file("[worker]\nspin_us = 7\nslots = 9\n");
    assert_int_equal(PARSE("--set", "worker.spin_us=8", "--config", path, "--index", "3"),
                     CONFIG_RUN);
    assert_int_equal(c.worker_spin_us, 8);
    assert_int_equal(c.worker_slots, 9);
    assert_int_equal(args.index, 3);
    assert_int_equal(PARSE("--set", "worker.spin=8"), CONFIG_EXIT_BAD);
    assert_int_equal(PARSE("--index", "99"), CONFIG_EXIT_BAD);
    assert_int_equal(PARSE("--wat"), CONFIG_EXIT_BAD);
    assert_int_equal(PARSE("stray"), CONFIG_EXIT_BAD);
    assert_int_equal(PARSE("--set", "engine.block_tokens=33"), CONFIG_EXIT_BAD);
    assert_int_equal(PARSE("--check-config"), CONFIG_EXIT_OK);
    assert_int_equal(PARSE("--version"), CONFIG_EXIT_OK);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_valid),
        cmocka_unit_test(a_file_overrides_defaults),
        cmocka_unit_test(bad_files_name_line_and_reason),
        cmocka_unit_test(long_lines_are_refused_not_cut),
        cmocka_unit_test(checks_that_concern_several),
        cmocka_unit_test(what_is_printed_can_be_read),
        cmocka_unit_test(lists),
        cmocka_unit_test(tenants_have_names_and_weights),
        cmocka_unit_test(command_line_comes_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
