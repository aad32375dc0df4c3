/* Admission in whole runs, in virtual time: what was promised is kept, what a flood may take, and what
 * refusing is worth. */
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/sim/sim_run.h"

static struct sim_result result;

static struct sim_options options(double ls_rate)
{
    const char *known;
    struct sim_options o = {.model = sim_model_find("llama-2-70b", &known),
                            .kv_type = KV_TYPE_BF16,
                            .load = {.seed = 1, .ls_rate = ls_rate},
                            .warmup_s = 20,
                            .duration_s = 60,
                            .grace_s = 600,
                            .ttft_slo_s = 3,
                            .tpot_slo_s = 0.25,
                            .policy = "omni",
                            .p_max = 64,
                            .slots = 256,
                            .max_seqs = 1024,
                            .auto_free_pct = 10};
    struct error err;

    o.machine = *sim_machine_find("a100x4-nvlink", &known);
    assert_int_equal(sim_lengths_parse(&o.load.ls, "SHAREGPT", 0.6, &err), 0);
    assert_int_equal(sim_lengths_parse(&o.load.be, "DAILYMAIL", 0.6, &err), 0);
    return o;
}

static struct sim_run *create(const struct sim_options *o)
{
    struct sim_run *r;
    struct error err;

    assert_int_equal(sim_run_create(&r, o, &err), 0);
    return r;
}

static void run_all(struct sim_run *r)
{
    struct error err;

    if (sim_run_all(r, &result, &err) != 0)
        fail_msg("%s", err.text);
}

static void run(const struct sim_options *o)
{
    struct sim_run *r = create(o);

    run_all(r);
    sim_run_destroy(r);
}

/* Sweeps take what was predicted and outputs have the length that is reserved: all that `omni` admits
 * is in time, at any rate, with and without best effort.  The others may let best effort that starves
 * have time beyond the budget before anybody has seen that it takes some. */
static void admitted_work_is_in_time_when_predictions_are_exact(void **state)
{
    static const char *const exact[] = {"slo.output_pct=0", NULL};
    static const char *const policies[] = {"omni", "omni", "harvest", "paper"};
    static const double rates[] = {3, 6, 12};

    (void)state;
    for (int i = 0; i < 12; i++) {
        struct sim_options o = options(rates[i % 3]);
        o.policy = policies[i / 3];
        o.load.be_backlog = i % 2 == 0 ? 16 : 0;
        o.load.seed = (uint64_t)i + 1;
        o.settings = exact;
        run(&o);
        assert_true(result.ls.admitted > 100);
        assert_true(rates[i % 3] < 12 || result.ls.admitted < result.ls.offered);
        uint32_t late = result.ls.admitted - result.ls.both_ok;
        if (i < 6 ? late > 0 : late * 100 > result.ls.admitted)
            fail_msg("%s, rate %.0f: %u of %u admitted are late", o.policy, rates[i % 3], late,
                     result.ls.admitted);
    }
}

/* A number of tokens that was found on another machine: best effort alone would fill sweeps beyond the
 * objective, and a request that comes then would be refused, for ever. */
static void a_token_budget_leaves_latency_sensitive_requests_a_place(void **state)
{
    struct sim_options o = options(1);
    const char *known;
    struct error err;

    (void)state;
    o.machine = *sim_machine_find("a100x2-pcie", &known);
    o.model = sim_model_find("yi-34b", &known);
    o.policy = "ls-first";
    assert_int_equal(sim_params_parse(&o.params, "token_budget=768", &err), 0);
    o.load.be_backlog = 32;
    o.ttft_slo_s = 2;
    o.tpot_slo_s = 0.2;
    run(&o);
    assert_true(result.ls.offered > 30);
    if (result.ls.both_ok * 100 < result.ls.offered * 90)
        fail_msg("%u asked, %u admitted, %u in time", result.ls.offered, result.ls.admitted,
                 result.ls.both_ok);
    assert_true(result.be.n_tokens > 0);
}

/* With a card's memory short of blocks: reading more KV than the link brings beside the compute would
 * make latency-sensitive requests live longer, and hold the blocks that the next ones need. */
static void streaming_costs_no_latency_sensitive_request(void **state)
{
    struct sim_options o = options(3);
    const char *known;

    (void)state;
    o.machine = *sim_machine_find("rtx4090", &known);
    o.model = sim_model_find("llama-3-8b", &known);
    o.policy = "stream";
    o.load.be_backlog = 32;
    o.ttft_slo_s = 2;
    o.tpot_slo_s = 0.2;
    o.offload = CONFIG_OFFLOAD_NEVER;
    run(&o);
    const uint32_t in_time = result.ls.both_ok;
    const uint64_t n_tokens = result.be.n_tokens;
    assert_true(in_time > 100);
    o.offload = CONFIG_OFFLOAD_AUTO;
    run(&o);
    if (result.ls.both_ok * 100 < in_time * 99 || result.be.n_tokens < n_tokens)
        fail_msg("%u in time and %llu tokens, without streams %u and %llu", result.ls.both_ok,
                 (unsigned long long)result.be.n_tokens, in_time, (unsigned long long)n_tokens);
}

/* Half as much again as fits: without admission everybody waits for everybody. */
static void refusing_keeps_the_others_in_time(void **state)
{
    struct sim_options o = options(8);

    (void)state;
    o.load.be_backlog = 16;
    o.noise = 0.02;
    run(&o);
    assert_true(result.ls.both_ok * 100 >= result.ls.admitted * 97);
    assert_true(result.ls.both_ok * 100 >= result.ls.offered * 50);
    /* Those that the end of the run cuts off have no outcome. */
    uint64_t outcomes = result.stats[ENGINE_STAT_LS_MET] + result.stats[ENGINE_STAT_LS_MISSED];
    assert_true(outcomes >= result.ls.admitted);
    assert_true(outcomes <=
                result.stats[ENGINE_STAT_LS_OFFERED] - result.stats[ENGINE_STAT_LS_REFUSED]);
    o.admit_all = true;
    run(&o);
    assert_int_equal(result.ls.admitted, result.ls.offered);
    assert_true(result.ls.both_ok * 100 < result.ls.offered * 20);
}

/* A budget of misses admits more, and is kept. */
static void a_statistical_objective_is_kept(void **state)
{
    static const char *const target[] = {"slo.ls_target_pct=90", NULL};
    struct sim_options o = options(8);

    (void)state;
    run(&o);
    uint32_t each = result.ls.admitted;
    o.settings = target;
    run(&o);
    assert_true(result.ls.admitted >= each);
    assert_true(result.stats[ENGINE_STAT_LS_ON_BUDGET] > 0);
    assert_true(result.ls.both_ok * 100 >= result.ls.admitted * 88);
}

/* Tokens have deadlines of their own, and they are kept. */
static void deadlines_per_token_are_kept(void **state)
{
    static const char *const token[] = {"slo.deadlines=token", "slo.output_pct=0", NULL};
    struct sim_options o = options(4);

    (void)state;
    o.load.be_backlog = 16;
    o.settings = token;
    run(&o);
    uint64_t met = result.stats[ENGINE_STAT_LS_MET], missed = result.stats[ENGINE_STAT_LS_MISSED];
    assert_true(met > 100);
    assert_true(missed * 50 <= met);
    assert_true(result.be.n_tokens > 0);
}

/* ---- Tenants --------------------------------------------------------------------------------- */

struct heard {
    uint32_t n, n_admitted, n_in_time;
};

/* Tenants are told apart by their requests' lengths. */
static struct heard hear(const struct sim_run *r, const struct sim_options *o, uint32_t n_out,
                         double from_s)
{
    struct heard h = {0};
    uint32_t n;
    const struct sim_request *q = sim_run_requests(r, &n);

    for (uint32_t i = 0; i < n; i++) {
        if (!q[i].latency_sensitive || q[i].n_out != n_out ||
            (double)q[i].arrival_ns < from_s * 1e9)
            continue;
        double ttft = (double)(q[i].first_ns - q[i].arrival_ns) / 1e9;
        double tpot = (double)(q[i].last_ns - q[i].first_ns) / 1e9 / (q[i].n_tokens - 1);
        h.n++;
        h.n_admitted += q[i].accepted;
        h.n_in_time += q[i].finished && ttft <= o->ttft_slo_s && tpot <= o->tpot_slo_s;
    }
    return h;
}

enum { OUT_A = 100, OUT_B = 101 };

/* A asks for four times what the machine can do, B for a part of its half. */
static struct sim_run *flood(struct sim_options *o)
{
    o->warmup_s = 0;
    o->duration_s = 90;
    struct sim_run *r = create(o);
    for (int i = 0; i < 90 * 16; i++)
        assert_int_equal(sim_run_add_for(r, i / 16.0, "a", true, (struct sim_pair){500, OUT_A}), 0);
    for (int i = 0; i < 90; i++)
        assert_int_equal(sim_run_add_for(r, i + 0.37, "b", true, (struct sim_pair){500, OUT_B}), 0);
    run_all(r);
    return r;
}

static void a_flood_of_one_tenant_leaves_the_other_its_objectives(void **state)
{
    static const char *const shared[] = {"tenants.weights=a:1,b:1", NULL};
    struct sim_options o = options(0);
    struct sim_run *r = flood(&o);

    (void)state;
    struct heard alone = hear(r, &o, OUT_B, 15);
    sim_run_destroy(r);
    assert_true(alone.n_in_time * 100 < alone.n * 80); /* what it would be without shares */
    o.settings = shared;
    r = flood(&o);
    struct heard b = hear(r, &o, OUT_B, 15), a = hear(r, &o, OUT_A, 15);
    sim_run_destroy(r);
    if (b.n_in_time * 100 < b.n * 98)
        fail_msg("b: %u asked, %u admitted, %u in time", b.n, b.n_admitted, b.n_in_time);
    if (a.n_admitted < a.n / 20 || a.n_admitted > a.n * 3 / 4 ||
        a.n_in_time * 100 < a.n_admitted * 95)
        fail_msg("a: %u asked, %u admitted, %u in time", a.n, a.n_admitted, a.n_in_time);
}

/* ---- KV that outputs outgrow ----------------------------------------------------------------- */

/* Outputs are predicted from short ones, then all are long: the newest give way, everybody ends. */
static void outgrown_requests_give_way_and_end(void **state)
{
    struct sim_options o = options(0);
    const char *known;
    uint32_t n;

    (void)state;
    o.machine = *sim_machine_find("rtx4090", &known);
    o.model = sim_model_find("llama-3-8b", &known);
    o.warmup_s = 0;
    o.duration_s = 200;
    o.tpot_slo_s = 0.5;
    o.ttft_slo_s = 20;
    struct sim_run *r = create(&o);
    for (int i = 0; i < 20; i++)
        assert_int_equal(sim_run_add(r, i * 0.5, true, (struct sim_pair){200, 10}), 0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(sim_run_add(r, 20 + i * 0.05, true, (struct sim_pair){500, 1500}), 0);
    run_all(r);
    const struct sim_request *q = sim_run_requests(r, &n);
    uint32_t admitted = 0, finished = 0;
    for (uint32_t i = 20; i < n; i++) {
        admitted += q[i].accepted;
        finished += q[i].finished;
    }
    sim_run_destroy(r);
    assert_true(result.stats[ENGINE_STAT_LS_OUTGROWN] > 0);
    assert_int_equal(admitted, finished);
    assert_true(result.stats[ENGINE_STAT_LS_MISSED] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admitted_work_is_in_time_when_predictions_are_exact),
        cmocka_unit_test(a_token_budget_leaves_latency_sensitive_requests_a_place),
        cmocka_unit_test(streaming_costs_no_latency_sensitive_request),
        cmocka_unit_test(refusing_keeps_the_others_in_time),
        cmocka_unit_test(a_statistical_objective_is_kept),
        cmocka_unit_test(deadlines_per_token_are_kept),
        cmocka_unit_test(a_flood_of_one_tenant_leaves_the_other_its_objectives),
        cmocka_unit_test(outgrown_requests_give_way_and_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
