/* The simulated device and its workers against times worked out by hand: a model whose prices are
 * round numbers, so that every expected time is exact. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/device/sim/device_sim.h"
#include "gpu-engine/device/sim/exchange_sim.h"

enum { N_LAYERS = 4, SLOTS = 8, ROWS_MAX = 64 };
enum {
    DENSE_NS = 1000, /* a layer, whatever its rows */
    DECODE_NS = 600, /* a decode's attention, a layer */
    CHUNK_NS = 5000,
    HEAD_NS = 300,
    FIXED_NS = 200,
};

static struct kv_geometry geometry;
static struct sim_timing timing;
static struct sim_clock clock_;
static struct sim_setup setup = {.timing = &timing, .clock = &clock_};
static struct exchange *exchange;
static struct device *device;
static struct device_pick picks[N_LAYERS];
static bool no_riding;
static uint32_t p_total, n_enter_b;
static bool checkpoint;
static uint64_t arrivals[N_LAYERS];
static uint64_t wait_total_ns;
static uint64_t n_sweeps;

/* ---- Fixture --------------------------------------------------------------------------------- */

static void set_timing(void)
{
    struct latency_kind *k = &timing.gpu.kind[0];

    memset(&timing, 0, sizeof timing);
    latency_init(&timing.gpu, N_LAYERS);
    timing.gpu.n_kinds = 1;
    k->dense = (struct latency_stairs){.n = 1, .rows = {1}, .ns = {DENSE_NS}};
    k->pre_share = 0.25;
    k->da_h = DECODE_NS;
    k->pa_b = CHUNK_NS;
    timing.gpu.head = (struct latency_stairs){.n = 1, .rows = {1}, .ns = {HEAD_NS}};
    timing.gpu.fixed_ns = FIXED_NS;
    timing.copy_bytes_per_ns = 10;
    timing.payload_value_bytes = 2;
    timing.n_workers = 1;
    timing.worker[0] =
        (struct sim_worker_timing){.bytes_per_ns = 1, .fixed_ns = 100, .arena_bytes = 1 << 20};
}

static int open_all(void)
{
    const struct kv_layer_spec layer = {.attention = KV_ATTENTION_FULL,
                                        .n_heads = 1,
                                        .n_kv_heads = 1,
                                        .dk = 4,
                                        .dv = 4,
                                        .scale = 1};
    const struct kv_layer_spec layers[N_LAYERS] = {layer, layer, layer, layer};
    const struct kv_geometry_config config = {
        .type = KV_TYPE_F16, .block_tokens = 32, .n_groups = 1, .n_ranks = 1};
    const char *field;

    memset(&clock_, 0, sizeof clock_);
    n_sweeps = 0;
    no_riding = false;
    p_total = UINT32_MAX;
    n_enter_b = 0;
    wait_total_ns = UINT64_MAX;
    checkpoint = false;
    for (int l = 0; l < N_LAYERS; l++) {
        picks[l] = (struct device_pick){.p_max = SLOTS};
        arrivals[l] = 0;
    }
    assert_int_equal(geometry_init(&geometry, &config, layers, N_LAYERS, &field), 0);
    assert_int_equal(exchange_sim_create(&exchange, &timing, &geometry, &clock_, SLOTS), 0);
    const struct device_config c = {.geometry = &geometry,
                                    .exchange = exchange,
                                    .n_kv_blocks = 64,
                                    .rows_max = ROWS_MAX,
                                    .returned_rows_max = SLOTS,
                                    .seqs_max = SLOTS,
                                    .context_max = 1024,
                                    .copies_max = 2,
                                    .sim = &setup};
    return device_sim.open(&device, &c);
}

static int setup_default(void **state)
{
    (void)state;
    set_timing();
    return open_all();
}

static int teardown(void **state)
{
    (void)state;
    device_sim.close(device);
    exchange->ops->destroy(exchange);
    return 0;
}

/* Job time over n tokens: a token of a layer is 4 + 4 values of 2 bytes. */
static uint64_t job_ns(uint32_t n)
{
    return 100 + 16 * n;
}

static struct device_seq decode(uint32_t pos)
{
    return (struct device_seq){.n_rows = 1, .pos = pos, .sample = 1};
}

static struct device_enter enter(uint32_t slot, uint32_t pos)
{
    return (struct device_enter){.slot = slot, .n_q = 1, .pos = pos, .arena_groups = 1};
}

/* Submits and moves the clock to the end. */
static struct device_done sweep(const struct device_seq *a, uint32_t n_a,
                                const struct device_seq *b, uint32_t n_b,
                                const struct device_enter *enters, uint32_t n_enter)
{
    const struct device_sweep s = {.seq = ++n_sweeps,
                                   .batch = {{n_a, a}, {n_b, b}},
                                   .enter = enters,
                                   .n_enter = n_enter,
                                   .pick = picks,
                                   .arrival_ns = arrivals,
                                   .no_riding = no_riding,
                                   .p_total = p_total,
                                   .n_enter_b = n_enter_b,
                                   .checkpoint = checkpoint,
                                   .wait_total_ns = wait_total_ns};
    struct device_done done;

    assert_int_equal(device_sim.submit(device, &s), 0);
    if (device_sim_next_ns(device) > clock_.now_ns) {
        assert_int_equal(device_sim.poll(device, &done), 0);
        clock_.now_ns = device_sim_next_ns(device);
    }
    assert_int_equal(device_sim.poll(device, &done), 1);
    assert_int_equal(done.seq, n_sweeps);
    return done;
}

static uint64_t length(const struct device_done *d)
{
    return d->end_ns - d->start_ns;
}

/* ---- Sweeps ---------------------------------------------------------------------------------- */

static void a_sweep_takes_what_its_modules_take(void **state)
{
    const struct device_seq two[] = {decode(5), decode(9)};

    (void)state;
    struct device_done d = sweep(two, 2, NULL, 0, NULL, 0);
    assert_int_equal(length(&d), FIXED_NS + N_LAYERS * (DENSE_NS + 2 * DECODE_NS) + HEAD_NS);
    assert_int_equal(d.n_out, 2);
    assert_int_equal(d.out[1].source, 1);
    assert_true(d.out[0].token != d.out[1].token);
    assert_int_equal(d.layer[0].jobs_ns, FIXED_NS + DENSE_NS / 4);
    assert_int_equal(d.layer[0].proj_ns, FIXED_NS + DENSE_NS / 4 + 2 * DECODE_NS);
}

static void two_batches_read_the_weights_twice_and_open_a_window(void **state)
{
    const struct device_seq one = decode(5), chunk = {.n_rows = 20, .sample = 1};

    (void)state;
    struct device_done d = sweep(&one, 1, &chunk, 1, NULL, 0);
    uint64_t a = N_LAYERS * (DENSE_NS + DECODE_NS), b = N_LAYERS * (DENSE_NS + CHUNK_NS);
    assert_int_equal(length(&d), FIXED_NS + a + b + HEAD_NS);
    assert_int_equal(d.layer[0].proj_ns - d.layer[0].jobs_ns, DENSE_NS + CHUNK_NS + DECODE_NS);
    assert_int_equal(d.n_out, 2);
    assert_int_equal(d.out[1].source, 1); /* counted on over both batches */
}

/* 640 tokens take a worker longer than A's attention, but not longer than B's layer. */
static void a_job_rides_along_in_the_window_of_the_other_batch(void **state)
{
    const struct device_seq one = decode(5), chunk = {.n_rows = 20, .sample = 1};
    const struct device_enter row = enter(0, 300);

    (void)state;
    assert_in_range(job_ns(301), DECODE_NS + 1, DENSE_NS + CHUNK_NS);
    struct device_done d = sweep(&one, 1, &chunk, 1, &row, 1);
    assert_int_equal(d.n_posted, N_LAYERS);
    for (int l = 0; l < N_LAYERS; l++)
        assert_int_equal(d.layer[l].n_ridden, 1);
    assert_int_equal(d.n_out, 3);
    assert_int_equal(d.out[2].source, DEVICE_TOKEN_OFFLOADED | 0);
    assert_int_equal(d.out[2].n_ridden, N_LAYERS);
}

static void a_job_that_misses_waits_for_the_next_visit(void **state)
{
    const struct device_seq one = decode(5);
    const struct device_enter row = enter(0, 300);

    (void)state;
    struct device_done d = sweep(&one, 1, NULL, 0, &row, 1);
    assert_int_equal(d.n_posted, 1);
    for (uint32_t i = 1; i < N_LAYERS; i++) { /* one layer a sweep */
        d = sweep(&one, 1, NULL, 0, NULL, 0);
        assert_int_equal(d.layer[i - 1].n_picked, 1);
        assert_int_equal(d.layer[i - 1].n_ridden, 0);
    }
    d = sweep(&one, 1, NULL, 0, NULL, 0);
    assert_int_equal(d.n_out, 2);
    assert_int_equal(d.out[1].n_parked, N_LAYERS);
}

static void layers_without_rows_cost_nothing(void **state)
{
    const struct device_enter row = enter(0, 300);
    struct device_offloaded where;

    (void)state;
    struct device_done d = sweep(NULL, 0, NULL, 0, &row, 1);
    assert_int_equal(length(&d), FIXED_NS + DENSE_NS / 4); /* QKV of layer 0 alone */
    assert_int_equal(device_sim.n_returned(device, &where), 0);
    assert_int_equal(where.out[0], 1);
    assert_int_equal(exchange_sim_next_ns(exchange), d.layer[0].jobs_ns + job_ns(301));
    clock_.now_ns = exchange_sim_next_ns(exchange);
    assert_int_equal(device_sim.n_returned(device, &where), 1);
    assert_int_equal(where.back[0], 1);
}

static void a_funded_wait_is_spent_on_jobs_and_never_exceeded(void **state)
{
    const struct device_seq one = decode(5);
    const struct device_enter rows[] = {enter(0, 300), enter(1, 300)};

    (void)state;
    picks[0] = (struct device_pick){.p_max = SLOTS, .want = 1, .wait_ns = 1000000};
    struct device_done d = sweep(&one, 1, NULL, 0, rows, 2);
    assert_int_equal(d.layer[0].waited_ns, job_ns(301) - DECODE_NS); /* the first one, not both */
    assert_int_equal(d.layer[0].n_ridden, 1);
    picks[0] = (struct device_pick){.p_max = SLOTS, .want = 9, .wait_ns = 10};
    const struct device_enter late = enter(2, 900);
    d = sweep(&one, 1, NULL, 0, &late, 1);
    assert_int_equal(d.layer[0].waited_ns, 10);
}

static void the_waits_of_all_layers_share_one_bound(void **state)
{
    const struct device_seq one = decode(5);
    const struct device_enter row = enter(0, 300);

    (void)state;
    for (int l = 0; l < N_LAYERS; l++)
        picks[l] = (struct device_pick){.p_max = SLOTS, .want = 1, .wait_ns = UINT32_MAX};
    uint64_t each = job_ns(301) - DECODE_NS;
    wait_total_ns = each + 50;
    struct device_done d = sweep(&one, 1, NULL, 0, &row, 1);
    assert_int_equal(d.layer[0].waited_ns, each);
    assert_int_equal(d.layer[1].waited_ns, 50);
    assert_int_equal(d.layer[1].n_picked, 0); /* parked there: the money is spent */
    assert_int_equal(device_sim_busy_ns(device), length(&d) - each - 50);
}

/* ---- Half batches ---------------------------------------------------------------------------- */

static struct device_done sweep_of_halves(const struct device_seq *common, uint32_t pos_a,
                                          uint32_t pos_b)
{
    const struct device_enter rows[] = {enter(0, pos_a), enter(1, pos_b)};

    for (int l = 0; l < N_LAYERS; l++)
        picks[l] = (struct device_pick){.p_max = SLOTS, .want = SLOTS, .wait_ns = UINT32_MAX};
    n_enter_b = 1;
    return sweep(common, 1, NULL, 0, rows, 2);
}

/* Each half's jobs run under the other's products; both read the weights. */
static void short_jobs_hide_behind_the_other_half(void **state)
{
    const struct device_seq one = decode(5);

    (void)state;
    struct device_done d = sweep_of_halves(&one, 1, 1);
    assert_int_equal(length(&d), FIXED_NS + N_LAYERS * (DECODE_NS + 2 * DENSE_NS) + HEAD_NS);
    assert_int_equal(d.n_out, 3); /* all rows are through in this sweep */
    assert_int_equal(device_sim_busy_ns(device), length(&d));
}

/* The device waits for the worker, which never idles from its first job to its last. */
static void long_jobs_hold_the_halves_up(void **state)
{
    const struct device_seq one = decode(5);
    uint64_t jobs = job_ns(101) + job_ns(301), n_jobs;
    uint64_t pre = DENSE_NS / 4, post = DENSE_NS - pre;

    (void)state;
    struct device_done d = sweep_of_halves(&one, 100, 300);
    assert_int_equal(length(&d), FIXED_NS + pre + N_LAYERS * jobs + post + HEAD_NS);
    assert_int_equal(d.n_out, 3);
    assert_int_equal(exchange_sim_busy_ns(exchange, 0, &n_jobs), N_LAYERS * jobs);
    assert_int_equal(n_jobs, 2 * N_LAYERS);
    assert_int_equal(device_sim_busy_ns(device),
                     FIXED_NS + N_LAYERS * (DECODE_NS + 2 * DENSE_NS) + HEAD_NS);
}

/* ---- Host memory ----------------------------------------------------------------------------- */

static void rows_in_host_memory_take_the_link_or_the_compute(void **state)
{
    struct device_seq rows[] = {decode(1000), decode(1000)};
    uint64_t one_ns = 1000 * 16 * N_LAYERS / 10; /* all its KV, over the link */

    (void)state;
    rows[0].in_host = 1;
    struct device_done d = sweep(rows, 1, NULL, 0, NULL, 0);
    uint64_t alone = FIXED_NS + N_LAYERS * (DENSE_NS + DECODE_NS) + HEAD_NS;
    assert_true(one_ns < alone);
    assert_int_equal(length(&d), alone);
    rows[1].in_host = 1;
    d = sweep(rows, 2, NULL, 0, NULL, 0);
    assert_int_equal(length(&d), 2 * one_ns + HEAD_NS);
    assert_int_equal(device_sim_busy_ns(device), 2 * alone + N_LAYERS * DECODE_NS);
}

/* When a copy out ends that begins beside a sweep at time 0. */
static uint64_t copy_beside_a_chunk(uint16_t class_idx)
{
    const struct device_seq chunk = {.n_rows = 50, .pos = 20, .class_idx = class_idx};
    const struct device_sweep s = {.seq = 1,
                                   .batch = {{1, &chunk}},
                                   .pick = picks,
                                   .arrival_ns = arrivals,
                                   .checkpoint = checkpoint};
    uint32_t block = 0;
    void *staging = &block;
    const struct device_copy copy = {DEVICE_COPY_OUT, 1, &block, &staging};
    uint64_t ticket;

    teardown(NULL);
    bool wanted = checkpoint;
    assert_int_equal(open_all(), 0);
    checkpoint = wanted;
    assert_int_equal(device_sim.submit(device, &s), 0);
    assert_int_equal(device_sim.copy(device, &copy, &ticket), 0);
    while (!device_sim.copy_done(device, ticket))
        clock_.now_ns++;
    return clock_.now_ns;
}

/* Two blocks fill, of best effort alone; a copy out comes behind them. */
static void checkpoints_take_the_link(void **state)
{
    uint64_t blocks_ns = 2 * 32 * 16 * N_LAYERS / 10, alone;

    (void)state;
    alone = copy_beside_a_chunk(1);
    checkpoint = true;
    assert_int_equal(copy_beside_a_chunk(1), alone + blocks_ns);
    assert_int_equal(copy_beside_a_chunk(0), alone);
}

static void riding_and_returned_rows_can_be_forbidden(void **state)
{
    const struct device_seq one = decode(5), chunk = {.n_rows = 20, .sample = 1};
    const struct device_enter rows[] = {enter(0, 300), enter(1, 100)};

    (void)state;
    no_riding = true;
    struct device_done d = sweep(&one, 1, &chunk, 1, rows, 2);
    assert_int_equal(d.n_posted, 2); /* both were back in time, and wait all the same */
    assert_int_equal(d.layer[0].n_picked, 0);
    p_total = 1;
    d = sweep(&one, 1, &chunk, 1, NULL, 0);
    assert_int_equal(d.layer[0].n_picked, 1);
    assert_int_equal(d.n_posted, 1);
}

static void more_than_the_bounds_is_refused(void **state)
{
    struct device_seq wide = {.n_rows = ROWS_MAX + 1, .sample = 1};
    struct device_sweep s = {
        .seq = 1, .batch = {{1, &wide}}, .pick = picks, .arrival_ns = arrivals};

    (void)state;
    assert_int_equal(device_sim.submit(device, &s), -EINVAL);
    wide.n_rows = ROWS_MAX;
    assert_int_equal(device_sim.submit(device, &s), 0);
    s.seq = 2;
    assert_int_equal(device_sim.submit(device, &s), 0);
    s.seq = 3;
    assert_int_equal(device_sim.submit(device, &s), -EAGAIN);
    device_sim.sync(device);
}

/* ---- Workers --------------------------------------------------------------------------------- */

static uint32_t post(uint32_t slot, uint32_t pos, uint64_t at_ns, uint64_t deadline_ns)
{
    const struct exchange_job job = {
        .slot = slot, .n_q = 1, .pos = pos, .deadline_ns = deadline_ns};
    uint32_t generation;

    clock_.device_ns = at_ns;
    assert_int_equal(exchange->ops->post(exchange, &job, &generation), 0);
    return generation;
}

static bool is_done(uint32_t slot, uint32_t generation, uint64_t at_ns)
{
    uint32_t done[SLOTS];

    clock_.device_ns = at_ns;
    exchange->ops->poll_done(exchange, done);
    return done[slot] == generation;
}

static void jobs_run_one_after_the_other(void **state)
{
    uint32_t a = post(0, 9, 1000, 0), b = post(1, 9, 1000, 0);

    (void)state;
    assert_false(is_done(0, a, 1000 + job_ns(10) - 1));
    assert_true(is_done(0, a, 1000 + job_ns(10)));
    assert_false(is_done(1, b, 1000 + 2 * job_ns(10) - 1));
    assert_true(is_done(1, b, 1000 + 2 * job_ns(10)));
}

/* Posted together; the second can make its deadline, the first has none to make. */
static void the_nearest_deadline_that_can_be_made_goes_first(void **state)
{
    uint32_t a = post(0, 9, 1000, 0), b = post(1, 9, 1000, 1000 + job_ns(10));

    (void)state;
    assert_true(is_done(1, b, 1000 + job_ns(10)));
    assert_false(is_done(0, a, 1000 + job_ns(10)));
}

/* What comes later is not known when the worker decides, however near its deadline. */
static void a_worker_does_not_look_ahead(void **state)
{
    uint32_t a = post(0, 9, 1000, 0), b = post(1, 9, 1001, 5000);

    (void)state;
    assert_true(is_done(0, a, 1000 + job_ns(10)));
    assert_false(is_done(1, b, 1000 + job_ns(10)));
}

static void a_slot_is_free_once_its_job_has_ended(void **state)
{
    (void)state;
    post(0, 9, 1000, 0);
    clock_.now_ns = 1000 + job_ns(10) - 1;
    assert_int_equal(exchange->ops->slot_release(exchange, 0), 0);
    clock_.now_ns++;
    assert_int_equal(exchange->ops->slot_release(exchange, 0), 1);
}

enum { SPIN_NS = 3000, WAKE_NS = 2 * (FIXED_NS + DENSE_NS) };

static int setup_sleeper(void **state)
{
    (void)state;
    set_timing();
    timing.worker[0].spin_ns = SPIN_NS;
    timing.worker[0].wake_ns = WAKE_NS;
    return open_all();
}

static void a_worker_that_sleeps_is_late_for_its_first_job(void **state)
{
    uint64_t begin = SPIN_NS + 1, end = begin + WAKE_NS + job_ns(10);

    (void)state;
    uint32_t a = post(0, 9, begin, 0);
    assert_false(is_done(0, a, end - 1));
    assert_true(is_done(0, a, end));
    uint32_t b = post(1, 9, end + SPIN_NS, 0); /* it still spins */
    assert_true(is_done(1, b, end + SPIN_NS + job_ns(10)));
}

static void a_worker_that_was_roused_is_not_late(void **state)
{
    uint64_t begin = 10 * SPIN_NS, up = begin + WAKE_NS;

    (void)state;
    clock_.device_ns = begin;
    exchange_rouse(exchange, 0);
    uint32_t a = post(0, 9, begin + 10, 0); /* before it is up */
    assert_false(is_done(0, a, up + job_ns(10) - 1));
    assert_true(is_done(0, a, up + job_ns(10)));
}

static void a_sweep_rouses_the_workers_that_it_posts_to(void **state)
{
    const struct device_enter row = enter(0, 300);

    (void)state;
    clock_.now_ns = 10 * SPIN_NS;
    struct device_done d = sweep(NULL, 0, NULL, 0, &row, 1);
    assert_true(d.layer[0].jobs_ns < d.start_ns + WAKE_NS);
    assert_int_equal(exchange_sim_next_ns(exchange), d.start_ns + WAKE_NS); /* it begins */
}

static int setup_remote(void **state)
{
    (void)state;
    set_timing();
    timing.worker[0].hop_ns = 5000;
    timing.worker[0].net_bytes_per_ns = 0.5;
    return open_all();
}

/* q, k, v are 12 values of 2 bytes, an output is 4. */
static void a_remote_worker_is_late_by_link_and_hop(void **state)
{
    uint64_t there = 12 * 2 * 2 + 5000, back = 4 * 2 * 2 + 5000;
    uint32_t a = post(0, 9, 1000, 0);

    (void)state;
    assert_false(is_done(0, a, 1000 + there + job_ns(10) + back - 1));
    assert_true(is_done(0, a, 1000 + there + job_ns(10) + back));
}

static void copies_pass_their_links_one_after_the_other(void **state)
{
    const struct device_copy copy = {.direction = DEVICE_COPY_OUT, .n_blocks = 2};
    uint64_t first, second, third;

    (void)state;
    uint64_t each = 2 * geometry.block_bytes / 10;
    assert_int_equal(device_sim.copy(device, &copy, &first), 0);
    assert_int_equal(device_sim.copy(device, &copy, &second), 0);
    assert_int_equal(device_sim.copy(device, &copy, &third), -EAGAIN);
    clock_.now_ns = each;
    assert_true(device_sim.copy_done(device, first));
    assert_false(device_sim.copy_done(device, second));
    clock_.now_ns = 2 * each;
    assert_true(device_sim.copy_done(device, second));
}

static void only_another_host_takes_a_second_step(void **state)
{
    uint32_t blocks[2] = {0, 1};
    uint64_t ticket = 0;

    (void)state;
    assert_int_equal(exchange->ops->copy_out(exchange, 0, blocks, 2, &ticket), 0);
    clock_.now_ns = ticket - 1;
    assert_int_equal(ticket, 2 * 2 * geometry.block_bytes * 2 + 5000); /* half the link, one hop */
    assert_false(exchange->ops->copy_done(exchange, ticket));
    clock_.now_ns = ticket;
    assert_true(exchange->ops->copy_done(exchange, ticket));
}

#define TEST(name)    cmocka_unit_test_setup_teardown(name, setup_default, teardown)
#define SLEEPER(name) cmocka_unit_test_setup_teardown(name, setup_sleeper, teardown)
#define REMOTE(name)  cmocka_unit_test_setup_teardown(name, setup_remote, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sweep_takes_what_its_modules_take),
        TEST(two_batches_read_the_weights_twice_and_open_a_window),
        TEST(a_job_rides_along_in_the_window_of_the_other_batch),
        TEST(a_job_that_misses_waits_for_the_next_visit),
        TEST(layers_without_rows_cost_nothing),
        TEST(a_funded_wait_is_spent_on_jobs_and_never_exceeded),
        TEST(the_waits_of_all_layers_share_one_bound),
        TEST(short_jobs_hide_behind_the_other_half),
        TEST(long_jobs_hold_the_halves_up),
        TEST(rows_in_host_memory_take_the_link_or_the_compute),
        TEST(checkpoints_take_the_link),
        TEST(riding_and_returned_rows_can_be_forbidden),
        TEST(more_than_the_bounds_is_refused),
        TEST(jobs_run_one_after_the_other),
        TEST(the_nearest_deadline_that_can_be_made_goes_first),
        TEST(a_worker_does_not_look_ahead),
        TEST(a_slot_is_free_once_its_job_has_ended),
        TEST(copies_pass_their_links_one_after_the_other),
        SLEEPER(a_worker_that_sleeps_is_late_for_its_first_job),
        SLEEPER(a_worker_that_was_roused_is_not_late),
        SLEEPER(a_sweep_rouses_the_workers_that_it_posts_to),
        REMOTE(a_remote_worker_is_late_by_link_and_hop),
        REMOTE(only_another_host_takes_a_second_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
