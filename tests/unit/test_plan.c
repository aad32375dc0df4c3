/* omni plan: units are read and refused by name, traces are read as they were published, and the
 * cases of a small plan answer what they are asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/sim/plan.h"
#include "gpu-engine/sim/plan_units.h"
#include "near.h"

static struct error err;

/* ---- Units ----------------------------------------------------------------------------------- */

static void quantities_have_units(void **state)
{
    double x;

    (void)state;
    assert_int_equal(plan_parse_time("t", "2s", &x, &err), 0);
    assert_near(x, 2, 1e-12);
    assert_int_equal(plan_parse_time("t", "1.5ms", &x, &err), 0);
    assert_near(x, 0.0015, 1e-12);
    assert_int_equal(plan_parse_time("t", "5min", &x, &err), 0);
    assert_near(x, 300, 1e-9);
    assert_int_equal(plan_parse_frequency("f", "180/min", &x, &err), 0);
    assert_near(x, 3, 1e-12);
    assert_int_equal(plan_parse_bytes("b", "64GiB", &x, &err), 0);
    assert_near(x, 64.0 * (1 << 30), 1);
    assert_int_equal(plan_parse_bandwidth("w", "200GB/s", &x, &err), 0);
    assert_near(x, 200, 1e-9);
    assert_int_equal(plan_parse_bandwidth("w", "100Gbit/s", &x, &err), 0);
    assert_near(x, 12.5, 1e-9);
}

static void what_is_no_quantity_is_refused_by_name(void **state)
{
    static const char *const wrong[] = {"2",   "",     "s",     "-2s",   "2 s",    "2sec",
                                        "inf", "nans", "0x10s", "1e99s", "1e400s", "2s,"};
    double x;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(plan_parse_time("--slo ttft", wrong[i], &x, &err), -EINVAL);
        assert_non_null(strstr(err.text, "--slo ttft"));
        assert_non_null(strstr(err.text, "200ms")); /* what would be right */
    }
    assert_int_equal(plan_parse_number("--n", "3", 4, 5, &x, &err), -EINVAL);
    assert_non_null(strstr(err.text, "--n"));
}

static void parts_keep_what_is_not_written(void **state)
{
    struct plan_parts p = {1, 100, 7e9};

    (void)state;
    assert_int_equal(plan_parse_parts("--cpus", "2x400GB/s,512GB", &p, &err), 0);
    assert_int_equal(p.n, 2);
    assert_near(p.bytes_per_ns, 400, 1e-9);
    assert_near(p.bytes, 512e9, 1);
    assert_int_equal(plan_parse_parts("--cpus", "3", &p, &err), 0);
    assert_int_equal(p.n, 3);
    assert_near(p.bytes_per_ns, 400, 1e-9);
    assert_int_equal(plan_parse_parts("--cpus", "50GB/s", &p, &err), 0);
    assert_int_equal(p.n, 3);
    assert_near(p.bytes_per_ns, 50, 1e-9);
    assert_int_equal(plan_parse_parts("--cpus", "2x", &p, &err), -EINVAL);
    assert_int_equal(plan_parse_parts("--cpus", "2x400", &p, &err), -EINVAL);
    assert_int_equal(plan_parse_parts("--cpus", "", &p, &err), -EINVAL);
    assert_non_null(strstr(err.text, "--cpus"));
}

/* ---- Traces ---------------------------------------------------------------------------------- */

static int read_trace(struct plan_trace *t, const char *text)
{
    FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    int rc;

    assert_non_null(f);
    rc = plan_trace_parse(t, f, "T", &err);
    fclose(f);
    return rc;
}

static void a_csv_with_dates_is_read(void **state)
{
    struct plan_trace t;

    (void)state;
    assert_int_equal(read_trace(&t, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                                    "2023-11-16 23:59:59.5000000,374,44\r\n"
                                    "2023-11-17 00:00:01.2500000,396,109\r\n"
                                    "2023-11-17 00:00:00.0000000,879,0\r\n"),
                     0);
    assert_int_equal(t.n, 2);
    assert_int_equal(t.n_left_out, 1); /* asks for no token */
    assert_near(t.arrivals[1].at_s, 1.75, 1e-6);
    assert_int_equal(t.arrivals[0].lengths.n_in, 374);
    assert_int_equal(t.arrivals[1].lengths.n_out, 109);
    assert_near(plan_trace_rate(&t), 1 / 1.75, 1e-6);
    plan_trace_fini(&t);
}

static void columns_may_stand_in_any_order(void **state)
{
    struct plan_trace t;

    (void)state;
    assert_int_equal(read_trace(&t, "x,output_tokens,arrival_s,input_tokens\n"
                                    "a,5,2.5,50\n\na,4,0.5,40\n"),
                     0);
    assert_int_equal(t.arrivals[0].lengths.n_in, 40); /* ascending in time */
    assert_near(t.arrivals[1].at_s, 2, 1e-9);
    plan_trace_fini(&t);
}

static void json_lines_are_read(void **state)
{
    struct plan_trace t;

    (void)state;
    assert_int_equal(
        read_trace(&t, "{\"timestamp\": 1000, \"input_length\": 6758, \"output_length\": 500, "
                       "\"hash_ids\": [0, 1]}\n"
                       "{\"timestamp\": 4000, \"input_length\": 7, \"output_length\": 8}\n"),
        0);
    assert_int_equal(t.n, 2);
    assert_near(t.arrivals[1].at_s, 3, 1e-9);
    assert_int_equal(t.arrivals[0].lengths.n_in, 6758);
    plan_trace_fini(&t);
}

static void a_bad_trace_names_line_and_field(void **state)
{
    static const struct {
        const char *text, *told;
    } wrong[] = {{"", "0 arrivals"},
                 {"a,b\n1,2\n", "line 1 names no column of arrival times"},
                 {"time,input_tokens\n1,2\n", "output tokens"},
                 {"time,input_tokens,output_tokens\n1,2,3\nx,2,3\n", "line 3, column 1: 'x'"},
                 {"time,input_tokens,output_tokens\n1,2,3\n2,2\n", "line 3 has 2 columns"},
                 {"time,input_tokens,output_tokens\n1,2,3\n2,2e9,3\n", "line 3"},
                 {"time,input_tokens,output_tokens\n1,2,3\n2,-2,3\n", "line 3"},
                 {"time,input_tokens,output_tokens\ninf,2,3\n2,2,3\n", "line 2"},
                 {"time,input_tokens,output_tokens\n1,2,3\n1,2,3\n", "the same time"},
                 {"{\"timestamp\": 1, \"input_length\": 1}\n", "line 1: output_length"},
                 {"{\"timestamp\": 1,\n", "line 1"},
                 {"\x1f\x8b", "compressed"}};
    struct plan_trace t;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(read_trace(&t, wrong[i].text), -EINVAL);
        if (strstr(err.text, wrong[i].told) == NULL)
            fail_msg("'%s' does not tell of '%s'", err.text, wrong[i].told);
        assert_null(t.arrivals);
    }
}

static void a_trace_is_gone_through_again_and_faster(void **state)
{
    struct plan_trace t;

    (void)state;
    assert_int_equal(read_trace(&t, "time,input_tokens,output_tokens\n10,1,1\n12,2,2\n14,3,3\n"),
                     0);
    assert_near(t.span_s, 6, 1e-9); /* the next one would have come then */
    assert_near(plan_trace_at(&t, 4, 1).at_s, 8, 1e-9);
    assert_int_equal(plan_trace_at(&t, 4, 1).lengths.n_in, 2);
    assert_near(plan_trace_at(&t, 4, 4).at_s, 2, 1e-9);
    plan_trace_fini(&t);
}

/* ---- Questions ------------------------------------------------------------------------------- */

enum { WORDS_MAX = 40 };

/* A small plan's command line, with more words behind it (later ones win). */
static int ask(struct plan_question *q, const char *more)
{
    static char text[512];
    char *argv[WORDS_MAX], *saved;
    int n = 0;

    snprintf(text, sizeof text,
             "plan --quiet --model llama-3-8b --gpu rtx4090 --trace poisson:1/s:200/60 "
             "--slo ttft=2s,tpot=200ms --be 1000/200 --duration 60s --warmup 20s --seeds 1 %s",
             more);
    for (char *word = strtok_r(text, " ", &saved); word != NULL; word = strtok_r(NULL, " ", &saved))
        argv[n++] = word;
    argv[n] = NULL;
    return plan_question_parse(q, n, argv, &err);
}

static void a_question_sets_machine_and_load(void **state)
{
    struct plan_question q;

    (void)state;
    assert_int_equal(ask(&q, "--gpu 4xa100 --link pcie --cpus 2x150GB/s,64GB --hosts 3x90GB/s "
                             "--net 40Gbit/s --kv int8 --ls-scale 2 --be-rate 30/min"),
                     0);
    const struct sim_machine *m = &q.options.machine;
    assert_string_equal(m->name, "a100x4-pcie");
    assert_int_equal(m->n_gpus, 4);
    assert_int_equal(m->n_sockets, 2);
    assert_near(m->host_bytes, 128e9, 1);
    assert_int_equal(m->n_hosts, 3);
    assert_near(m->remote_bytes_per_ns, 90, 1e-9);
    assert_near(m->net_bytes_per_ns, 5, 1e-9);
    assert_int_equal(q.options.kv_type, KV_TYPE_I8);
    assert_near(q.options.load.ls_rate, 2, 1e-9);
    assert_near(q.options.load.be_rate, 0.5, 1e-9);
    plan_question_fini(&q);

    assert_int_equal(ask(&q, "--gpu a100 --gpu-memory 48GB --gpu-bandwidth 864GB/s "
                             "--gpu-tflops 181"),
                     0);
    assert_int_equal(q.options.machine.n_gpus, 1);
    assert_near(q.options.machine.gpu->memory_bytes, 48e9, 1);
    assert_near(q.options.machine.gpu->bytes_per_ns, 864, 1e-9);
    assert_near(q.options.machine.gpu->flops_per_ns, 181e3, 1e-6);
    plan_question_fini(&q);
}

static void a_wrong_word_is_named(void **state)
{
    static const struct {
        const char *words, *told;
    } wrong[] = {{"--gpu abacus", "--gpu: 'abacus'"},
                 {"--gpu 3xa100", "--gpu: '3xa100'"},
                 {"--link wool", "--link"},
                 {"--model nobody", "--model: 'nobody'"},
                 {"--slo ttft=2s", "tpot"},
                 {"--slo ttft=2,tpot=1s", "--slo ttft"},
                 {"--slo tbt=2s", "--slo: 'tbt=2s'"},
                 {"--cpus 0x400GB/s", "--cpus"},
                 {"--cpus 99x400GB/s", "--cpus"},
                 {"--cpus 400", "--cpus"},
                 {"--net 0Gbps", "--net"},
                 {"--kv fp4", "--kv: 'fp4'"},
                 {"--trace poisson:4:SHAREGPT", "--trace poisson"},
                 {"--trace /nowhere/t.csv", "/nowhere/t.csv"},
                 {"--be SOMETHING", "SOMETHING"},
                 {"--ls-scale 0", "--ls-scale"},
                 {"--duration 0s", "--duration"},
                 {"--target 101", "--target"},
                 {"--seeds 0", "--seeds"},
                 {"surplus", "--help"}};
    struct plan_question q;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_true(ask(&q, wrong[i].words) < 0);
        if (strstr(err.text, wrong[i].told) == NULL)
            fail_msg("'%s' does not tell of '%s'", err.text, wrong[i].told);
        plan_question_fini(&q);
    }
}

/* ---- Plans ----------------------------------------------------------------------------------- */

static void make_plan(struct plan *p, struct plan_question *q, const char *more)
{
    if (ask(q, more) != 0)
        fail_msg("%s", err.text);
    plan_init(p, q);
    if (plan_run(p, &err) != 0)
        fail_msg("%s", err.text);
}

static void free_plan(struct plan *p, struct plan_question *q)
{
    plan_fini(p);
    plan_question_fini(q);
}

static void the_cases_differ_in_one_thing_each(void **state)
{
    struct plan_question q;
    struct plan p;

    (void)state;
    make_plan(&p, &q, "");
    const struct plan_case *as_is = plan_find(&p, PLAN_AS_IS), *alone = plan_find(&p, PLAN_ALONE),
                           *socket = plan_find(&p, PLAN_SOCKET), *int8 = plan_find(&p, PLAN_INT8);

    assert_true(plan_be_tokens_s(alone) == 0);
    assert_true(plan_be_tokens_s(as_is) > 50);
    assert_int_equal(alone->results[0].ls.offered, as_is->results[0].ls.offered);
    assert_true(plan_be_tokens_s(as_is) < 1.1 * as_is->bounds.joint);
    assert_true(socket->bounds.w > 1.9 * as_is->bounds.w &&
                socket->bounds.w < 2.1 * as_is->bounds.w);
    assert_near(socket->bounds.k, as_is->bounds.k, 1e-6);
    assert_int_equal(socket->results[0].n_workers, as_is->results[0].n_workers + 1);
    assert_true(int8->bounds.k > 1.5 * as_is->bounds.k);
    assert_true(int8->bounds.w > 1.5 * as_is->bounds.w);
    free_plan(&p, &q);
}

/* Where the host is what holds best effort up, more of it must show. */
static void a_socket_pays_where_the_workers_bind(void **state)
{
    struct plan_question q;
    struct plan p;

    (void)state;
    make_plan(&p, &q, "--cpus 1x20GB/s,200GB --gpu-memory 20GB --be 500/500 --duration 120s");
    const struct plan_case *as_is = plan_find(&p, PLAN_AS_IS);
    assert_int_equal(as_is->bounds.binds, 'W');
    assert_true(plan_be_tokens_s(plan_find(&p, PLAN_SOCKET)) > 1.1 * plan_be_tokens_s(as_is));
    free_plan(&p, &q);
}

static void the_same_question_has_the_same_answer(void **state)
{
    struct plan_question q;
    struct plan p;
    uint64_t hash;

    (void)state;
    make_plan(&p, &q, "");
    hash = plan_find(&p, PLAN_AS_IS)->results[0].hash;
    free_plan(&p, &q);
    make_plan(&p, &q, "");
    assert_int_equal(plan_find(&p, PLAN_AS_IS)->results[0].hash, hash);
    free_plan(&p, &q);
}

/* A target that best effort without end misses and the load alone meets. */
static void a_rate_that_fits_is_searched(void **state)
{
    struct plan_question q;
    struct plan p;

    (void)state;
    /* Policy group looks at no objective of TTFT. */
    make_plan(&p, &q,
              "--policy group --trace poisson:2/s:800/100 --be 2000/300 "
              "--slo ttft=500ms,tpot=50ms");
    const struct plan_case *as_is = plan_find(&p, PLAN_AS_IS), *c = plan_find(&p, PLAN_FITTED);
    assert_true(plan_attainment(plan_find(&p, PLAN_ALONE)) >= q.target);
    assert_true(plan_attainment(as_is) < q.target);
    assert_non_null(c);
    assert_true(plan_attainment(c) >= q.target);
    assert_true(plan_be_tokens_s(c) < plan_be_tokens_s(as_is));
    free_plan(&p, &q);
}

static void the_report_says_where_times_come_from(void **state)
{
    struct plan_question q;
    struct plan p;
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    (void)state;
    make_plan(&p, &q, "");
    plan_report_table(f, &p);
    assert_int_equal(plan_report_json(f, &p), 0);
    fclose(f);
    assert_non_null(strstr(text, "first principles"));
    assert_non_null(strstr(text, "What binds is "));
    assert_non_null(strstr(text, "\"series\""));
    free(text);
    free_plan(&p, &q);
    assert_int_equal(ask(&q, "--profile /nowhere/p"), 0);
    plan_init(&p, &q);
    assert_int_equal(plan_run(&p, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/p"));
    free_plan(&p, &q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantities_have_units),
        cmocka_unit_test(what_is_no_quantity_is_refused_by_name),
        cmocka_unit_test(parts_keep_what_is_not_written),
        cmocka_unit_test(a_csv_with_dates_is_read),
        cmocka_unit_test(columns_may_stand_in_any_order),
        cmocka_unit_test(json_lines_are_read),
        cmocka_unit_test(a_bad_trace_names_line_and_field),
        cmocka_unit_test(a_trace_is_gone_through_again_and_faster),
        cmocka_unit_test(a_question_sets_machine_and_load),
        cmocka_unit_test(a_wrong_word_is_named),
        cmocka_unit_test(the_cases_differ_in_one_thing_each),
        cmocka_unit_test(a_socket_pays_where_the_workers_bind),
        cmocka_unit_test(the_same_question_has_the_same_answer),
        cmocka_unit_test(a_rate_that_fits_is_searched),
        cmocka_unit_test(the_report_says_where_times_come_from),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
