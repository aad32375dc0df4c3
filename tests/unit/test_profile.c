/* Profiles: measured on the device, the same after a round through a file, refused with the field's
 * name when they are damaged or another's, and measured anew then. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "device_fixture.h"
#include "gpu-engine/profile_file.h"
#include "near.h"

/* Six layers of several kinds: windows, experts. */
static struct model_random_options small;

static struct device_fixture fixture;
static struct profile_subject subject;
static struct profile taken;
static char folder[] = "/tmp/omni-profile-test-XXXXXX";

static int open_all(void **state)
{
    const struct fixture_options options = {
        .model = &small, .kv = KV_TYPE_F16, .n_groups = 1, .n_threads = 1};
    struct error err;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    small = model_random_defaults();
    fixture_open(&fixture, &options);
    subject = (struct profile_subject){.ops = &device_cpu,
                                       .device = fixture.device,
                                       .model = fixture.model,
                                       .geometry = &fixture.geometry,
                                       .rows_max = FIXTURE_ROWS,
                                       .seqs_max = FIXTURE_SEQS,
                                       .context_max = FIXTURE_CONTEXT};
    if (profile_take(&taken, &subject, &err) != 0)
        fail_msg("%s", err.text);
    return mkdtemp(folder) == NULL;
}

static int close_all(void **state)
{
    char command[64];

    (void)state;
    fixture_close(&fixture);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

static void test_profile_covers_every_module(void **state)
{
    const struct latency_model *m = &taken.latency;

    (void)state;
    assert_int_equal(m->n_layers, fixture.model->n_layers);
    assert_true(m->n_kinds >= 1 && m->head.n > 1);
    for (uint32_t k = 0; k < m->n_kinds; k++) {
        const struct latency_kind *kind = &m->kind[k];
        assert_true(kind->dense.n > 2);
        assert_int_equal(kind->dense.rows[0], 1);
        assert_int_equal(kind->dense.rows[kind->dense.n - 1], FIXTURE_ROWS);
        assert_true(kind->dense.ns[kind->dense.n - 1] > 4 * kind->dense.ns[0]);
        assert_true(kind->da_a > 0 && kind->pa_a > 0);
        assert_true(kind->pre_share > 0 && kind->pre_share < 1);
    }
}

/* A prediction of something that was measured comes close to measuring it again. */
static void test_profile_predicts_what_it_measured(void **state)
{
    const uint32_t layer = 0, n_rows = 100;
    const struct device_shape shape = {
        .kind = DEVICE_SHAPE_DENSE, .layers = &layer, .n_layers = 1, .n = n_rows};
    struct error err;
    double ns;

    (void)state;
    assert_int_equal(profile_measure(&subject, &shape, &ns, &err), 0);
    double predicted = latency_dense_ns(&taken.latency, 0, n_rows);
    assert_true(latency_accuracy(predicted, ns) > 0.5);
}

static void test_measure_refuses_more_than_a_sweep_holds(void **state)
{
    const uint32_t layer = 0, none = 1000;
    const struct device_shape wrong[] = {
        {.kind = DEVICE_SHAPE_DENSE, .layers = &layer, .n_layers = 1, .n = FIXTURE_ROWS + 1},
        {.kind = DEVICE_SHAPE_DENSE, .layers = &none, .n_layers = 1, .n = 1},
        {.kind = DEVICE_SHAPE_DENSE, .n = 1},
        {.kind = DEVICE_SHAPE_DECODES, .layers = &layer, .n_layers = 1, .n = 1, .ctx = 0},
        {.kind = DEVICE_SHAPE_DECODES,
         .layers = &layer,
         .n_layers = 1,
         .n = FIXTURE_SEQS + 1,
         .ctx = 1},
        {.kind = DEVICE_SHAPE_CHUNK,
         .layers = &layer,
         .n_layers = 1,
         .n = 2,
         .ctx = FIXTURE_CONTEXT - 1},
        {.kind = DEVICE_SHAPE_HEAD, .n = FIXTURE_SEQS + 1},
        {.kind = DEVICE_SHAPE_EMBED, .n = 0},
        {.kind = DEVICE_SHAPE_KINDS, .n = 1},
    };
    uint64_t ns;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(device_cpu.measure(fixture.device, &wrong[i], &ns), -EINVAL);
}

/* The device computes afterwards what it computed before. */
static void test_device_is_as_before(void **state)
{
    static struct fixture_request r;
    static struct device_fixture other;
    const struct fixture_options options = {
        .model = &small, .kv = KV_TYPE_F16, .n_groups = 1, .n_threads = 1};
    static struct fixture_request reference;
    uint32_t prompt[50];

    (void)state;
    fixture_open(&other, &options);
    fixture_prompt(&other, 3, prompt, 50);
    fixture_request_init(&other, &reference, prompt, 50, 60);
    fixture_prefill(&other, &reference, 16);
    fixture_request_init(&fixture, &r, prompt, 50, 60);
    fixture_prefill(&fixture, &r, 16);
    fixture_assert_equal(&reference, &r, 0);
    fixture_request_fini(&fixture, &r);
    fixture_close(&other);
}

/* ---- The file -------------------------------------------------------------------------------- */

static void path_of(char path[PROFILE_PATH_MAX])
{
    assert_int_equal(profile_file_path(path, folder, &taken.key), 0);
}

static void write_taken(const char *path)
{
    struct error err;

    if (profile_file_write(&taken, path, &err) != 0)
        fail_msg("%s", err.text);
}

static void test_file_round_trip(void **state)
{
    char path[PROFILE_PATH_MAX];
    struct profile back;
    struct error err;

    (void)state;
    path_of(path);
    write_taken(path);
    if (profile_file_read(&back, path, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(profile_file_fits(&back, &taken.key, &taken.latency, &err), 0);
    for (uint32_t k = 0; k < taken.latency.n_kinds; k++) {
        const struct latency_kind *a = &taken.latency.kind[k], *b = &back.latency.kind[k];
        assert_near(b->da_a, a->da_a, 1e-7 * a->da_a);
        assert_near(b->pa_h, a->pa_h, 1e-7 * a->pa_h);
        assert_int_equal(a->dense.n, b->dense.n);
        assert_memory_equal(a->dense.rows, b->dense.rows, a->dense.n * sizeof *a->dense.rows);
    }
}

/* Writes the file with the first `from` in it replaced by `to`. */
static void damage(const char *path, const char *from, const char *to)
{
    static char text[1 << 16];
    FILE *f;

    write_taken(path);
    assert_non_null(f = fopen(path, "r"));
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    char *at = strstr(text, from);
    assert_non_null(at);
    assert_non_null(f = fopen(path, "w"));
    fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    fclose(f);
}

static void test_damaged_files_are_refused_by_field(void **state)
{
    static const struct {
        const char *from, *to, *named;
    } cases[] = {
        {"omniserve_profile=1", "omniserve_profile=99", "omniserve_profile"},
        {"omniserve_profile=1", "", "omniserve_profile"},
        {"model_hash=", "model_hash=xyz", "model_hash"},
        {"threads=1", "threads=-1", "threads"},
        {"threads=1\n", "", "threads"},
        {"kv_type=f16", "kv_type=f64", "kv_type"},
        {"n_layers=6", "n_layers=300", "n_layers"},
        {"kind_of=0", "kind_of=7", "kind_of"},
        {"kind_of=0,", "kind_of=", "kind_of"},
        {"row_ns=", "row_ns=-", "row_ns"},
        {"row_ns=", "row_ns=nan", "row_ns"},
        {"head=1:", "head=1:9e99 1:", "head"},
        {"head=1:", "head=0:", "head"},
        {"kind.0.da_a=", "kind.0.da_a=inf", "kind.0.da_a"},
        {"kind.0.dense=1:", "kind.0.dense=1 1:", "kind.0.dense"},
        {"kind.0.dense=1:", "kind.0.dense=\n1:", "kind.0.dense"},
        {"kind.0.pa_b=", "kind.0.window=", "kind.0.pa_b"},
    };
    char path[PROFILE_PATH_MAX];
    struct profile p;
    struct error err;

    (void)state;
    path_of(path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        damage(path, cases[i].from, cases[i].to);
        assert_int_equal(profile_file_read(&p, path, &err), -EINVAL);
        if (strstr(err.text, cases[i].named) == NULL || strstr(err.text, path) == NULL)
            fail_msg("'%s' does not name %s", err.text, cases[i].named);
    }
    assert_int_equal(profile_file_read(&p, "/nowhere/x", &err), -ENOENT);
}

/* Cut anywhere, it is no profile. */
static void test_cut_files_are_refused(void **state)
{
    char path[PROFILE_PATH_MAX];
    struct profile p;
    struct error err;

    (void)state;
    path_of(path);
    write_taken(path);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    fclose(f);
    for (long n = size - 1; n >= 0; n -= 1 + n / 50) {
        assert_int_equal(truncate(path, n), 0);
        assert_int_equal(profile_file_read(&p, path, &err), -EINVAL);
    }
    write_taken(path);
    f = fopen(path, "a");
    assert_non_null(f);
    fputs("more=1\n", f);
    fclose(f);
    assert_int_equal(profile_file_read(&p, path, &err), -EINVAL);
}

static void assert_foreign(const struct profile *p, const char *named)
{
    struct profile_key key;
    struct error err;

    profile_key_of(&key, &subject);
    assert_int_equal(profile_file_fits(p, &key, &taken.latency, &err), -EINVAL);
    if (strstr(err.text, named) == NULL)
        fail_msg("'%s' does not name %s", err.text, named);
}

static void test_foreign_profiles_are_refused_by_field(void **state)
{
    struct profile p = taken;

    (void)state;
    p.key.model_hash++;
    assert_foreign(&p, "model_hash");
    p = taken;
    p.key.device[0] = 'x';
    assert_foreign(&p, "device");
    p = taken;
    p.key.variant[0] = 'x';
    assert_foreign(&p, "variant");
    p = taken;
    p.key.n_threads++;
    assert_foreign(&p, "threads");
    p = taken;
    p.key.kv_type = KV_TYPE_F32;
    assert_foreign(&p, "kv_type");
    p = taken;
    p.key.block_tokens *= 2;
    assert_foreign(&p, "block_tokens");
    p = taken;
    p.key.rows_max--;
    assert_foreign(&p, "rows_max");
    p = taken;
    p.latency.kind[0].window++;
    assert_foreign(&p, "window");
}

/* ---- Obtaining ------------------------------------------------------------------------------- */

static void obtain(struct profile *p, bool fresh)
{
    struct error err;

    if (profile_obtain(p, &subject, folder, fresh, &err) != 0)
        fail_msg("%s", err.text);
}

/* Kept the first time, found the second; a mark in the file shows that it was read. */
static void test_obtain_keeps_reads_and_replaces(void **state)
{
    char path[PROFILE_PATH_MAX];
    struct profile p;

    (void)state;
    path_of(path);
    unlink(path);
    obtain(&p, false);
    assert_int_equal(access(path, R_OK), 0);
    damage(path, "row_ns=", "row_ns=987654");
    obtain(&p, false);
    assert_true(p.latency.row_ns > 900000);
    obtain(&p, true); /* asked for afresh */
    assert_true(p.latency.row_ns < 900000);
    damage(path, "row_ns=", "row_ns=x");
    obtain(&p, false); /* refused: measured, and replaced */
    assert_true(p.latency.row_ns < 900000);
    struct error err;
    assert_int_equal(profile_file_read(&p, path, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_covers_every_module),
        cmocka_unit_test(test_profile_predicts_what_it_measured),
        cmocka_unit_test(test_measure_refuses_more_than_a_sweep_holds),
        cmocka_unit_test(test_device_is_as_before),
        cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_damaged_files_are_refused_by_field),
        cmocka_unit_test(test_cut_files_are_refused),
        cmocka_unit_test(test_foreign_profiles_are_refused_by_field),
        cmocka_unit_test(test_obtain_keeps_reads_and_replaces),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
