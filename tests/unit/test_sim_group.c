/* A configured group in virtual time: sizes, KV and policy are its own, and a closed loop keeps as
 * many in flight as it was told. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/model/model_random.h"
#include "gpu-engine/sim/sim_run.h"

enum { IN_FLIGHT = 3, KV_BLOCKS = 24, N_PAIRS = 4 };

static struct omni_config config;
static struct model *model;
static struct sim_timing timing;
static struct sim_group group = {.config = &config, .model = NULL, .timing = &timing};
static struct sim_pair pairs[N_PAIRS] = {{100, 20}, {60, 40}, {200, 10}, {30, 30}};

static void set(const char *assignment)
{
    struct error err;

    if (config_set(&config, assignment, &err) != 0)
        fail_msg("%s", err.text);
}

/* A device on which every layer takes 100 us whatever it does, and a slow worker. */
static void make_timing(void)
{
    latency_init(&timing.gpu, model->n_layers);
    timing.gpu.n_kinds = 1;
    timing.gpu.kind[0].dense =
        (struct latency_stairs){.n = 2, .rows = {1, 1024}, .ns = {100e3, 101e3}};
    timing.gpu.kind[0].pre_share = 0.25;
    timing.gpu.head = timing.gpu.kind[0].dense;
    timing.gpu.fixed_ns = 1e3;
    timing.copy_bytes_per_ns = 4;
    timing.n_workers = 1;
    timing.worker[0] = (struct sim_worker_timing){
        .bytes_per_ns = 1, .fixed_ns = 50e3, .arena_bytes = UINT64_C(8) << 20};
    timing.gpu.worker[0] = (struct latency_worker){.bytes_per_ns = 1, .fixed_ns = 50e3};
}

static int make_group(void **state)
{
    struct model_random_options options = model_random_defaults();
    char path[] = "/dev/shm/omni-test-XXXXXX";
    struct gguf_error err;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(model_random_write(path, &options), 0);
    assert_int_equal(model_open(path, &model, &err), 0);
    unlink(path);
    config_defaults(&config);
    set("engine.policy=group"); /* admits best effort as it comes, without prices */
    set("engine.kv_blocks=24");
    set("engine.block_tokens=32");
    set("engine.ctx_max=1024");
    set("engine.offload=always");
    set("worker.slots=16");
    group.model = model;
    make_timing();
    return 0;
}

static int free_group(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static struct sim_options options(void)
{
    struct sim_options o = {.group = &group,
                            .load = {.seed = 1, .be_in_flight = IN_FLIGHT},
                            .duration_s = 5,
                            .grace_s = 30,
                            .ttft_slo_s = 1,
                            .tpot_slo_s = 1,
                            .slots = 16};
    struct error err;

    assert_int_equal(sim_lengths_parse(&o.load.ls, "1/1", 0, &err), 0);
    o.load.be.pairs = pairs;
    o.load.be.n_pairs = N_PAIRS;
    return o;
}

/* At any request's begin, no more than so many are there; after the first ones, no fewer. */
static void check_loop(const struct sim_request *all, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_open = 0;

        assert_int_equal(all[i].n_in, pairs[i % N_PAIRS].n_in); /* the list in its order */
        assert_int_equal(all[i].n_out, pairs[i % N_PAIRS].n_out);
        for (uint32_t k = 0; k <= i; k++)
            n_open += all[k].end_ns >= all[i].arrival_ns || k == i;
        assert_true(n_open <= IN_FLIGHT);
        if (i >= IN_FLIGHT)
            assert_int_equal(n_open, IN_FLIGHT);
    }
}

static void a_closed_loop_of_the_list(void **state)
{
    static struct sim_result result;
    struct sim_options o = options();
    struct sim_run *run;
    struct error err;
    uint32_t n;

    (void)state;
    assert_int_equal(sim_run_create(&run, &o, &err), 0);
    if (sim_run_all(run, &result, &err) != 0)
        fail_msg("%s", err.text);
    const struct sim_request *all = sim_run_requests(run, &n);
    assert_true(n > 10);
    check_loop(all, n);
    assert_int_equal(result.kv_blocks, KV_BLOCKS);
    assert_true(result.stats[ENGINE_STAT_TOKENS_WORKER] > 0); /* offload = always */
    sim_run_destroy(run);
}

/* The engine's own time between sweeps is the time between tokens of a lone request, beside them. */
static void time_between_sweeps_is_in_the_gaps(void **state)
{
    static struct sim_result result;
    double gap_s[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sim_options o = options();
        struct sim_run *run;
        struct error err;

        o.load.be_in_flight = 0;
        timing.between_ns = i * 2e6;
        assert_int_equal(sim_run_create(&run, &o, &err), 0);
        assert_int_equal(sim_run_add(run, 0.1, true, (struct sim_pair){50, 40}), 0);
        assert_int_equal(sim_run_all(run, &result, &err), 0);
        gap_s[i] = result.ls.tpot_s[0];
        sim_run_destroy(run);
    }
    timing.between_ns = 0;
    assert_true(gap_s[1] - gap_s[0] > 1.99e-3 && gap_s[1] - gap_s[0] < 2.01e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_loop_of_the_list),
        cmocka_unit_test(time_between_sweeps_is_in_the_gaps),
    };

    return cmocka_run_group_tests(tests, make_group, free_group);
}
