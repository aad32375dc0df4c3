/* test_gpu_host.c - the probe's host side, which needs no GPU: statistics, results file, summary,
 * command line, child processes, and the rule that judges posted writes. */
#include "tests/gpu/head.h"
#include "tests/gpu/options.h"
#include "tests/gpu/report.h"
#include "tests/gpu/spawn.h"
#include "tests/gpu/stats.h"
#include "tests/gpu/summary.h"
#include "tests/gpu/verdict.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_median_and_percentiles(void **state)
{
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2}, one[] = {7}, hundred[100];
    (void)state;
    assert_true(stats_median(odd, 3) == 2.0);
    assert_true(stats_median(even, 4) == 2.5);
    assert_true(stats_median(one, 1) == 7.0);
    for (int i = 0; i < 100; i++)
        hundred[i] = 100 - i;
    stats_sort(hundred, 100);
    assert_true(stats_percentile(hundred, 100, 50.0) == 50.0);
    assert_true(stats_percentile(hundred, 100, 99.0) == 99.0);
    assert_true(stats_percentile(hundred, 100, 100.0) == 100.0);
    assert_true(stats_percentile(hundred, 100, 0.001) == 1.0);
    assert_true(stats_percentile(one, 1, 99.0) == 7.0);
}

/* A fresh path under the temporary folder; the file does not exist. */
static const char *temporary(char path[64])
{
    snprintf(path, 64, "/tmp/omni-gpu-test-%d-XXXXXX", (int)getpid());
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    return path;
}

static void test_report_writes_and_reads_back(void **state)
{
    char path[64], longer[2 * REPORT_VALUE_MAX];
    struct report report, second;
    static struct report_table table;
    (void)state;
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(report_create(&report, temporary(path), -1), 0);
    assert_int_equal(report_create(&second, path, -1), -EEXIST);
    assert_int_equal(report_attach(&second, path, -1), 0);
    assert_int_equal(report_text(&report, "device", "a = %s\nb", "x"), 0);
    assert_int_equal(report_number(&second, "copy_gbps", 3012.34567), 0);
    assert_int_equal(report_number(&report, "tiny", 0.00125), 0);
    assert_int_equal(report_number(&report, "count", 12.0), 0);
    assert_int_equal(report_number(&report, "bad", NAN), 0);
    assert_int_equal(report_error(&report, "ipc", "no %s", "peer"), 0);
    assert_int_equal(report_line(&report, "no key here"), 0);
    assert_int_equal(report_text(&report, "long", "%s", longer), 0);
    assert_int_equal(report_text(&report, "count", "13"), 0);
    assert_int_equal(report_text(&report, "Bad Key", "1"), -EINVAL);
    assert_int_equal(report_text(&report, "", "1"), -EINVAL);
    report_close(&report);
    report_close(&second);
    assert_int_equal(report_load(path, &table), 0);
    assert_int_equal(table.n, 8);
    assert_string_equal(report_find(&table, "device"), "a = x b");
    assert_string_equal(report_find(&table, "copy_gbps"), "3012.35");
    assert_string_equal(report_find(&table, "tiny"), "0.0013");
    assert_string_equal(report_find(&table, "count"), "13");
    assert_string_equal(report_find(&table, "bad"), "error:not a finite number");
    assert_int_equal(strlen(report_find(&table, "long")), REPORT_VALUE_MAX - 1);
    assert_null(report_find(&table, "absent"));
    assert_int_equal(report_count_errors(&table), 2);
    unlink(path);
    assert_int_equal(report_load(path, &table), -ENOENT);
    assert_int_equal(report_attach(&second, path, -1), -ENOENT);
}

static void test_report_refuses_too_many_lines(void **state)
{
    char path[64];
    struct report report;
    static struct report_table table;
    (void)state;
    assert_int_equal(report_create(&report, temporary(path), -1), 0);
    for (int i = 0; i < REPORT_ENTRIES_MAX; i++)
        assert_int_equal(report_number(&report, "k", i), 0);
    assert_int_equal(report_load(path, &table), 0);
    assert_int_equal(report_number(&report, "k", 1), 0);
    assert_int_equal(report_load(path, &table), -E2BIG);
    report_close(&report);
    unlink(path);
}

/* The whole file as text; the caller frees it. */
static char *file_read(const char *path)
{
    char *text = calloc(1, 65536);
    FILE *file = fopen(path, "re");
    assert_non_null(text);
    assert_non_null(file);
    assert_true(fread(text, 1, 65535, file) > 0);
    fclose(file);
    return text;
}

static void test_summary_ends_with_one_line_of_figures(void **state)
{
    char path[64];
    struct report report;
    (void)state;
    assert_int_equal(report_create(&report, temporary(path), -1), 0);
    head_host(&report, "abc123");
    report_number(&report, "copy_gbps", 2999.5);
    report_text(&report, "kernel_end_host_writes", "waits");
    report_error(&report, "gemm_bf16_tflops", "no library");
    assert_int_equal(summary_write(&report, path), 1);
    report_close(&report);
    char *text = file_read(path);
    assert_non_null(strstr(text, "commit=abc123\n"));
    assert_non_null(strstr(text, "host_cpu="));
    assert_non_null(strstr(text, "failed: gemm_bf16_tflops (no library)"));
    text[strlen(text) - 1] = '\0'; /* the last newline */
    const char *last = strrchr(text, '\n') + 1;
    assert_int_equal(strncmp(last, "copy_gbps=2999.50 read_gbps=none gemm_bf16_tflops=error ", 56),
                     0);
    assert_non_null(strstr(last, " kernel_end_host_writes=waits "));
    free(text);
    unlink(path);
}

static int parse(struct options *options, int n, const char *const args[])
{
    char why[128] = "";
    char *argv[8] = {"probe"};
    for (int i = 0; i < n; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    const int rc = options_parse(options, n + 1, argv, why, sizeof why);
    assert_true(rc == 0 || why[0]);
    return rc;
}

static void test_options(void **state)
{
    struct options o;
    (void)state;
    const char *const measure[] = {"--results", "f", "--commit", "c", "--only", "gemm,ipc"};
    assert_int_equal(parse(&o, 6, measure), 0);
    assert_int_equal(o.mode, OPTIONS_MEASURE);
    assert_string_equal(o.results, "f");
    assert_string_equal(o.commit, "c");
    assert_true(options_selects(o.only, "gemm") && options_selects(o.only, "ipc"));
    assert_false(options_selects(o.only, "ge") || options_selects(o.only, "flags"));
    assert_true(options_selects(NULL, "flags"));
    const char *const device[] = {"--device"}, *const part[] = {"part", "gemm", "f"},
                      *const bad[] = {"--frob"};
    assert_int_equal(parse(&o, 1, device), 0);
    assert_int_equal(o.mode, OPTIONS_DEVICE);
    assert_int_equal(parse(&o, 3, part), 0);
    assert_int_equal(o.mode, OPTIONS_PART);
    assert_int_equal(parse(&o, 2, part), -EINVAL);
    assert_int_equal(parse(&o, 1, bad), -EINVAL);
    assert_int_equal(parse(&o, 1, measure), -EINVAL);
    assert_int_equal(parse(&o, 0, measure), -EINVAL);
}

static void test_slug(void **state)
{
    char slug[32], tiny[6];
    (void)state;
    options_slug("NVIDIA H100 80GB HBM3", slug, sizeof slug);
    assert_string_equal(slug, "nvidia-h100-80gb-hbm3");
    options_slug("  (GPU)/../x ", slug, sizeof slug);
    assert_string_equal(slug, "gpu-x");
    options_slug("NVIDIA H200", tiny, sizeof tiny);
    assert_string_equal(tiny, "nvidi");
}

static void test_children(void **state)
{
    char out[64] = "", how[64];
    (void)state;
    const char *const prints[] = {"test", "child-prints", NULL}, *const dies[] = {
                                                                     "test", "child-dies", NULL};
    const char *const hangs[] = {"test", "child-hangs", NULL};
    struct spawn_result r = spawn_self(prints, 10000, out, sizeof out);
    assert_int_equal(r.outcome, SPAWN_EXITED);
    assert_int_equal(r.detail, 3);
    assert_string_equal(out, "ipc_open_us=1\n");
    r = spawn_self(dies, 10000, NULL, 0);
    assert_int_equal(r.outcome, SPAWN_SIGNALED);
    assert_int_equal(r.detail, SIGKILL);
    spawn_describe(r, how, sizeof how);
    assert_string_equal(how, "killed by signal 9");
    r = spawn_self(hangs, 100, NULL, 0);
    assert_int_equal(r.outcome, SPAWN_TIMEOUT);
}

/* Sizes of the experiment over a link of 50,000 bytes/us, with 2 us for a boundary. */
static void points_make(struct posted_point *p, int n, int waits)
{
    for (int i = 0; i < n; i++) {
        const double bytes = 65536.0 * (double)(1 << 2 * i), wire_us = bytes / 50000.0;
        /* What is issued beyond a megabyte of buffers goes at the link's speed. */
        const double issued_us = 1.0 + (bytes > 1048576.0 ? (bytes - 1048576.0) / 50000.0 : 0.0);
        const double rest_us = wire_us + 1.0 - issued_us;
        p[i] = (struct posted_point){bytes, issued_us, waits && rest_us > 0 ? 2.0 + rest_us : 2.0,
                                     2.0};
    }
}

static void test_posted_verdict(void **state)
{
    struct posted_point p[6];
    (void)state;
    points_make(p, 6, 1);
    assert_int_equal(posted_judge(p, 6), POSTED_WAITS);
    assert_true(fabs(posted_rate(p, 6) - 50000.0) < 500.0);
    points_make(p, 6, 0);
    assert_int_equal(posted_judge(p, 6), POSTED_OVERLAPS);
    for (int i = 0; i < 6; i++) /* no buffers: every store is throttled */
        p[i] = (struct posted_point){p[i].bytes, p[i].bytes / 50000.0, 2.0, 2.0};
    assert_int_equal(posted_judge(p, 6), POSTED_UNCLEAR);
    assert_int_equal(posted_judge(p, 1), POSTED_UNCLEAR);
    p[5].issued_us = 0.0; /* nonsense: more bytes in less time */
    p[5].gap_us = 0.0;
    assert_int_equal(posted_judge(p, 6), POSTED_UNCLEAR);
}

/* What spawn_self starts: this program with one of these words. */
static int child_main(const char *word)
{
    if (!strcmp(word, "child-prints"))
        return write(STDOUT_FILENO, "ipc_open_us=1\n", 14) == 14 ? 3 : 4;
    if (!strcmp(word, "child-dies"))
        raise(SIGKILL);
    if (!strcmp(word, "child-hangs"))
        pause();
    return 5;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return child_main(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median_and_percentiles),
        cmocka_unit_test(test_report_writes_and_reads_back),
        cmocka_unit_test(test_report_refuses_too_many_lines),
        cmocka_unit_test(test_summary_ends_with_one_line_of_figures),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_slug),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_posted_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
