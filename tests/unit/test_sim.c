/* Whole runs in virtual time: the engine's own code over a simulated machine.  Every run checks the
 * engine's books at its end (sim_run_all); the tests check what a simulation promises beside that. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/sim/sim_run.h"

static struct sim_result result;

/* ---- Runs ------------------------------------------------------------------------------------ */

static struct sim_options options(const char *machine, const char *model)
{
    const char *known;
    struct sim_options o = {.model = sim_model_find(model, &known),
                            .kv_type = KV_TYPE_BF16,
                            .load = {.seed = 1, .ls_rate = 2, .be_backlog = 16},
                            .warmup_s = 20,
                            .duration_s = 60,
                            .grace_s = 600,
                            .ttft_slo_s = 2,
                            .tpot_slo_s = 0.2,
                            .noise = 0.02,
                            .policy = "group",
                            .offload = CONFIG_OFFLOAD_AUTO,
                            .p_max = 64,
                            .slots = 256,
                            .max_seqs = 512,
                            .auto_free_pct = 10};
    struct error err;

    o.machine = *sim_machine_find(machine, &known);
    assert_int_equal(sim_lengths_parse(&o.load.ls, "200/60", 0.6, &err), 0);
    assert_int_equal(sim_lengths_parse(&o.load.be, "1000/200", 0.6, &err), 0);
    return o;
}

static void run(const struct sim_options *o)
{
    struct sim_run *r;
    struct error err;

    assert_int_equal(sim_run_create(&r, o, &err), 0);
    if (sim_run_all(r, &result, &err) != 0)
        fail_msg("%s", err.text);
    sim_run_destroy(r);
}

static uint64_t be_tokens(const struct sim_options *o)
{
    run(o);
    return result.be.n_tokens;
}

static void the_same_seed_gives_the_same_run(void **state)
{
    struct sim_options o = options("rtx4090", "llama-3-8b");

    (void)state;
    run(&o);
    uint64_t first = result.hash;
    assert_true(result.ls.offered > 50 && result.be.n_tokens > 1000);
    run(&o);
    assert_int_equal(result.hash, first);
    o.load.seed = 2;
    run(&o);
    assert_int_not_equal(result.hash, first);
}

/* Whatever the placement and wherever the run is cut off: the books agree at the end. */
static void nothing_is_held_at_the_end(void **state)
{
    static const uint32_t offload[] = {CONFIG_OFFLOAD_NEVER, CONFIG_OFFLOAD_AUTO,
                                       CONFIG_OFFLOAD_ALWAYS};
    struct sim_options o = options("rtx4090", "llama-3-8b");

    (void)state;
    for (int i = 0; i < 3; i++) {
        o.offload = offload[i];
        for (o.duration_s = 1; o.duration_s < 16; o.duration_s += 4.7)
            run(&o);
    }
    o.machine.n_hosts = 2;
    run(&o);
}

/* The driver knows no policy: the engine's setting is passed on. */
static void every_policy_of_the_engine_runs(void **state)
{
    static const char *const policies[] = {"group",    "omni",     "paper",   "sync",
                                           "headroom", "ls-first", "harvest", "stream"};
    struct sim_options o = options("rtx4090", "llama-3-8b");
    struct sim_run *r;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        o.policy = policies[i];
        run(&o);
        assert_true(result.be.n_tokens > 0 && result.ls.finished == result.ls.admitted);
    }
    o.policy = "nonsense";
    assert_int_equal(sim_run_create(&r, &o, &err), 0);
    assert_int_equal(sim_run_all(r, &result, &err), -EINVAL);
    assert_non_null(strstr(err.text, "policy"));
    sim_run_destroy(r);
}

/* ---- Each policy is carried out as it stands ------------------------------------------------- */

/* A device with little room, so that best effort has to go somewhere. */
static struct sim_options crowded(const char *policy)
{
    struct sim_options o = options("rtx4090", "llama-3-8b");
    struct error err;

    o.policy = policy;
    assert_int_equal(sim_lengths_parse(&o.load.be, "1000/200", 0, &err), 0);
    return o;
}

/* All jobs are awaited: no row is left behind for a later sweep. */
static void sync_leaves_no_job_for_a_later_sweep(void **state)
{
    struct sim_options o = crowded("sync");

    (void)state;
    run(&o);
    assert_true(result.stats[ENGINE_STAT_JOBS_RIDDEN] > 10000);
    assert_int_equal(result.stats[ENGINE_STAT_JOBS_PARKED], 0);
}

static void headroom_hands_its_overflow_to_cpu_only_engines(void **state)
{
    struct sim_options o = crowded("headroom");

    (void)state;
    run(&o);
    uint64_t all = result.be.n_tokens;
    assert_true(result.cpu_engine_rows > 1 && result.cpu_engine_busy > 0.5);
    assert_int_equal(result.stats[ENGINE_STAT_JOBS_POSTED], 0);
    o.offload = CONFIG_OFFLOAD_NEVER;
    run(&o);
    assert_true(result.cpu_engine_rows < 0.001 && result.be.n_tokens < all);
    o.offload = CONFIG_OFFLOAD_AUTO;
    o.machine.host_bytes = 10e9; /* the weights do not fit */
    run(&o);
    assert_true(result.cpu_engine_rows < 0.001);
}

/* Contexts are of 32 to 38 blocks.  Back come all of them; out goes one at most. */
static void harvest_moves_out_what_no_checkpoint_has(void **state)
{
    struct sim_options o = crowded("harvest");
    const uint64_t *n = result.stats;

    (void)state;
    run(&o);
    assert_true(n[ENGINE_STAT_COPIES_OUT] > 10 && n[ENGINE_STAT_COPIES_IN] > 10);
    assert_true(n[ENGINE_STAT_COPIED_BLOCKS] <=
                n[ENGINE_STAT_COPIES_OUT] + 38 * n[ENGINE_STAT_COPIES_IN]);
    assert_int_equal(n[ENGINE_STAT_JOBS_POSTED], 0);
}

/* Residents decode on the device as fast as the host link brings their KV. */
static void stream_decodes_at_the_pace_of_the_host_link(void **state)
{
    struct sim_options o = crowded("stream");
    struct sim_gpu fast = *o.machine.gpu;

    (void)state;
    o.prefilled = true;
    o.prefilled_pct = 20;
    o.load.ls_rate = 0.2;
    uint64_t slow_tokens = be_tokens(&o);
    assert_true(result.residents > 10);
    assert_int_equal(result.stats[ENGINE_STAT_JOBS_POSTED], 0);
    assert_true(result.gpu_busy > 0.8); /* most of the link's time passes beside the compute */
    fast.host_link *= 4;
    o.machine.gpu = &fast;
    /* The device's own decodes make their tokens as before. */
    assert_true((double)be_tokens(&o) > 1.2 * (double)slow_tokens);
}

/* Long outputs: more residents than workers have time for, so that the order matters. */
static void jobs_without_deadlines_ride_less(void **state)
{
    struct sim_options o = crowded("omni");
    struct error err;

    (void)state;
    assert_int_equal(sim_lengths_parse(&o.load.be, "1000/2000", 0, &err), 0);
    o.prefilled = true;
    o.prefilled_pct = 40;
    run(&o);
    uint64_t ridden = result.stats[ENGINE_STAT_JOBS_RIDDEN];
    o.no_deadlines = true;
    run(&o);
    assert_true((double)result.stats[ENGINE_STAT_JOBS_RIDDEN] < 0.7 * (double)ridden);
}

static void parameters_reach_the_policy(void **state)
{
    struct sim_options o = crowded("ls-first");
    struct error err;

    (void)state;
    run(&o);
    double sweep_s = result.mean_sweep_s;
    assert_int_equal(sim_params_parse(&o.params, "token_budget=64,use_pct=50", &err), 0);
    run(&o);
    assert_true(result.mean_sweep_s < 0.8 * sweep_s);
    assert_int_equal(sim_params_parse(&o.params, "use_pct=101", &err), -EINVAL);
    assert_int_equal(sim_params_parse(&o.params, "use_pct", &err), -EINVAL);
    assert_int_equal(sim_params_parse(&o.params, "nonsense=1", &err), -EINVAL);
    assert_non_null(strstr(err.text, "token_budget"));
}

/* ---- What is there at the beginning ---------------------------------------------------------- */

static void a_prefilled_run_begins_with_decodes(void **state)
{
    struct sim_options o = crowded("harvest");

    (void)state;
    o.warmup_s = 0;
    o.duration_s = 3;
    uint64_t empty = be_tokens(&o);
    o.prefilled = true;
    o.prefilled_pct = 50;
    assert_true(be_tokens(&o) > 2 * empty + 100);
    uint64_t stock = result.stock_first, hash = result.hash;
    assert_true(stock > 500);
    run(&o);
    assert_int_equal(result.hash, hash);
    o.policy = "ls-first"; /* the same requests, as far gone */
    run(&o);
    assert_int_equal(result.stock_first, stock);
    o.policy = "omni"; /* the same, and residents */
    run(&o);
    assert_true(result.stock_first > 2 * stock && result.residents > 10);
    o.load.seed = 2;
    run(&o);
    assert_int_not_equal(result.stock_first, stock);
}

static void computed_prompts_cost_no_prefill(void **state)
{
    struct sim_options o = crowded("omni");

    (void)state;
    o.load.ls_rate = 0;
    run(&o);
    uint64_t with_prefill = result.be.n_tokens;
    o.be_computed = true;
    run(&o);
    assert_int_equal(result.be.n_prompt_tokens, 0);
    assert_true(result.be.n_tokens > with_prefill);
}

/* They are put into the middle of others' arrivals, of which admission keeps books. */
static void computed_prompts_leave_admission_its_books(void **state)
{
    static const char *const policies[] = {"harvest", "headroom", "paper"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sim_options o = crowded(policies[i]);

        o.be_computed = true;
        run(&o);
        assert_true(result.be.n_tokens > 1000 && result.ls.finished == result.ls.admitted);
    }
}

static void rows_ride_along_and_are_parked(void **state)
{
    struct sim_options o = options("rtx4090", "llama-3-8b");

    (void)state;
    o.offload = CONFIG_OFFLOAD_ALWAYS;
    run(&o);
    assert_true(result.stats[ENGINE_STAT_JOBS_RIDDEN] > 1000);
    assert_true(result.stats[ENGINE_STAT_JOBS_PARKED] > 1000);
    assert_true(result.stats[ENGINE_STAT_TOKENS_WORKER] > 100);
    assert_true(result.worker_busy[0] > 0 && result.worker_busy[0] <= 1.001);
    assert_true(result.gpu_busy > 0.5 && result.gpu_busy <= 1.001);
    o.offload = CONFIG_OFFLOAD_NEVER;
    run(&o);
    assert_int_equal(result.stats[ENGINE_STAT_JOBS_POSTED], 0);
}

/* Long outputs that only the worker may decode, so that its bandwidth is what they wait for. */
static void a_faster_worker_gives_more(void **state)
{
    struct sim_options o = options("rtx4090", "llama-3-8b");
    struct error err;

    (void)state;
    o.offload = CONFIG_OFFLOAD_ALWAYS;
    o.machine.socket_bytes_per_ns = 5;
    o.warmup_s = 60;
    assert_int_equal(sim_lengths_parse(&o.load.be, "1000/1000", 0.3, &err), 0);
    uint64_t slow = be_tokens(&o);
    assert_true(result.worker_busy[0] > 0.9);
    o.machine.socket_bytes_per_ns = 10;
    uint64_t fast = be_tokens(&o);
    assert_true((double)fast > 1.3 * (double)slow);
}

/* ---- Requests one by one --------------------------------------------------------------------- */

/* No load but the requests that are added. */
static struct sim_run *quiet(struct sim_options *o)
{
    struct sim_run *r;
    struct error err;

    o->load.ls_rate = 0;
    o->load.be_backlog = 0;
    o->warmup_s = 0;
    assert_int_equal(sim_run_create(&r, o, &err), 0);
    return r;
}

static void run_quiet(struct sim_run *r)
{
    struct error err;

    if (sim_run_all(r, &result, &err) != 0)
        fail_msg("%s", err.text);
}

/* A sweep with that load, worked out from the prices. */
static double sweep_s(const struct latency_model *m, const struct latency_load *load)
{
    const struct latency_kind *k = &m->kind[0];
    double attention =
        k->pa_a * load->c_pa[0] + k->pa_h * load->n_chunk_rows + k->pa_b * load->n_chunks;

    if (load->n_decodes > 0)
        attention += k->da_a * load->c_da[0] + k->da_h * load->n_decodes + k->da_b;
    return (m->fixed_ns + m->row_ns * load->n_rows +
            m->n_layers * (latency_stairs_at(&k->dense, load->n_rows) + attention) +
            latency_stairs_at(&m->head, load->n_out)) /
           1e9;
}

static void one_request_takes_what_the_prices_say(void **state)
{
    struct sim_options o = options("a100x4-nvlink", "llama-2-70b");
    enum { N_IN = 500, N_OUT = 20 };
    uint32_t n;

    (void)state;
    o.noise = 0;
    o.chunk_tokens = 512;
    struct sim_run *r = quiet(&o);
    const struct latency_model *m = &sim_run_timing(r)->gpu;
    assert_int_equal(sim_run_add(r, 1, true, (struct sim_pair){N_IN, N_OUT}), 0);
    run_quiet(r);
    const struct sim_request *q = sim_run_requests(r, &n);
    double pairs = N_IN * (N_IN + 1) / 2.0, decodes = 0;
    struct latency_load chunk = {
        .n_rows = N_IN, .n_chunks = 1, .n_chunk_rows = N_IN, .n_out = 1, .c_pa = {pairs}};
    for (uint32_t i = 1; i < N_OUT; i++) {
        struct latency_load one = {.n_rows = 1, .n_decodes = 1, .n_out = 1, .c_da = {N_IN + i}};
        decodes += sweep_s(m, &one);
    }
    assert_int_equal(n, 1);
    assert_true(fabs((double)(q->first_ns - q->arrival_ns) / 1e9 - sweep_s(m, &chunk)) < 2e-6);
    assert_true(fabs((double)(q->last_ns - q->first_ns) / 1e9 - decodes) < 2e-5);
    sim_run_destroy(r);
}

static void every_token_that_was_asked_for_comes_once(void **state)
{
    static const uint32_t offload[] = {CONFIG_OFFLOAD_NEVER, CONFIG_OFFLOAD_AUTO,
                                       CONFIG_OFFLOAD_ALWAYS};
    struct sim_options o = options("rtx4090", "llama-3-8b");
    enum { N = 60 };

    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t asked = 0, came = 0;
        uint32_t n;

        o.offload = offload[k];
        o.duration_s = 600;
        struct sim_run *r = quiet(&o);
        for (uint32_t i = 0; i < N; i++) {
            struct sim_pair lengths = {100 + 37 * i, 1 + 5 * (i % 40)};
            asked += lengths.n_out;
            assert_int_equal(sim_run_add(r, 0.1 * i, i % 3 == 0, lengths), 0);
        }
        run_quiet(r);
        const struct sim_request *q = sim_run_requests(r, &n);
        assert_int_equal(n, N);
        for (uint32_t i = 0; i < N; i++) {
            assert_true(q[i].finished && q[i].n_tokens == q[i].n_out);
            assert_true(q[i].first_ns > q[i].arrival_ns && q[i].last_ns >= q[i].first_ns &&
                        q[i].end_ns >= q[i].last_ns);
            came += q[i].n_tokens;
        }
        assert_int_equal(came, asked);
        assert_int_equal(result.stats[ENGINE_STAT_TOKENS_DEVICE] +
                             result.stats[ENGINE_STAT_TOKENS_WORKER],
                         asked);
        assert_int_equal(result.stats[ENGINE_STAT_JOBS_RIDDEN] +
                             result.stats[ENGINE_STAT_JOBS_PARKED],
                         result.stats[ENGINE_STAT_JOBS_POSTED]);
        sim_run_destroy(r);
    }
}

/* Without noise the engine's model is the device's: it predicts sweeps without offloading exactly. */
static void exact_prices_are_predicted_exactly(void **state)
{
    struct sim_options o = options("a100x4-nvlink", "llama-2-70b");

    (void)state;
    o.offload = CONFIG_OFFLOAD_NEVER;
    o.noise = 0;
    run(&o);
    assert_true(result.accuracy_p90 >= 0.998);
}

static void a_model_that_does_not_fit_is_refused(void **state)
{
    struct sim_options o = options("rtx4090", "yi-34b");
    struct sim_run *r;
    struct error err;

    (void)state;
    assert_int_equal(sim_run_create(&r, &o, &err), 0);
    assert_int_equal(sim_run_all(r, &result, &err), -EINVAL);
    assert_non_null(strstr(err.text, "yi-34b does not fit rtx4090"));
    sim_run_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(nothing_is_held_at_the_end),
        cmocka_unit_test(every_policy_of_the_engine_runs),
        cmocka_unit_test(sync_leaves_no_job_for_a_later_sweep),
        cmocka_unit_test(headroom_hands_its_overflow_to_cpu_only_engines),
        cmocka_unit_test(harvest_moves_out_what_no_checkpoint_has),
        cmocka_unit_test(stream_decodes_at_the_pace_of_the_host_link),
        cmocka_unit_test(jobs_without_deadlines_ride_less),
        cmocka_unit_test(parameters_reach_the_policy),
        cmocka_unit_test(a_prefilled_run_begins_with_decodes),
        cmocka_unit_test(computed_prompts_cost_no_prefill),
        cmocka_unit_test(computed_prompts_leave_admission_its_books),
        cmocka_unit_test(rows_ride_along_and_are_parked),
        cmocka_unit_test(a_faster_worker_gives_more),
        cmocka_unit_test(one_request_takes_what_the_prices_say),
        cmocka_unit_test(every_token_that_was_asked_for_comes_once),
        cmocka_unit_test(exact_prices_are_predicted_exactly),
        cmocka_unit_test(a_model_that_does_not_fit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
