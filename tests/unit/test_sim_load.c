/* Draws, arrivals, machines and bounds: means where a mean is promised, and everything that should
 * grow grows. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "gpu-engine/sim/sim_bounds.h"
#include "gpu-engine/sim/sim_load.h"
#include "gpu-engine/sim/sim_machine.h"

enum { DRAWS = 20000 };

static void assert_near(double value, double expected, double share)
{
    if (fabs(value - expected) > share * expected)
        fail_msg("%g is not within %g of %g", value, share * expected, expected);
}

/* ---- Lengths and arrivals -------------------------------------------------------------------- */

static double mean_of(const struct sim_length *l, uint64_t seed, uint32_t *longest)
{
    double sum = 0;

    *longest = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint32_t n = sim_length_draw(l, seed, 1, i);
        assert_true(n >= 1);
        sum += n;
        *longest = n > *longest ? n : *longest;
    }
    return sum / DRAWS;
}

static void lengths_have_the_stated_mean_after_the_cut(void **state)
{
    static const double sigmas[] = {0, 0.3, 0.6, 1.0};
    struct sim_length l;
    uint32_t longest;

    (void)state;
    for (size_t i = 0; i < sizeof sigmas / sizeof *sigmas; i++) {
        sim_length_set(&l, 8952, sigmas[i], 12000);
        assert_near(mean_of(&l, 7, &longest), 8952, 0.02);
        assert_true(longest <= 12000);
        sim_length_set(&l, 136, sigmas[i], 1024);
        assert_near(mean_of(&l, 8, &longest), 136, 0.03);
    }
}

static void a_draw_depends_on_its_index_alone(void **state)
{
    struct sim_lengths l;
    struct error err;

    (void)state;
    assert_int_equal(sim_lengths_parse(&l, "DAILYMAIL", 0.6, &err), 0);
    struct sim_pair at_9 = sim_lengths_draw(&l, 1, 2, 9), at_8 = sim_lengths_draw(&l, 1, 2, 8);
    struct sim_pair again = sim_lengths_draw(&l, 1, 2, 9), other = sim_lengths_draw(&l, 2, 2, 9);
    assert_memory_equal(&at_9, &again, sizeof again);
    assert_memory_not_equal(&at_9, &at_8, sizeof at_8);
    assert_memory_not_equal(&at_9, &other, sizeof other);
}

static void lengths_come_from_a_file(void **state)
{
    char path[] = "/tmp/omni-lengths-XXXXXX";
    struct sim_lengths l;
    struct error err;
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(write(fd, "10 20\n30 40\n", 12), 12);
    assert_int_equal(sim_lengths_parse(&l, path, 0.6, &err), 0);
    assert_int_equal(l.n_pairs, 2);
    assert_int_equal(sim_lengths_max(&l), 70);
    assert_near(sim_lengths_mean_out(&l), 30, 1e-9);
    for (uint64_t i = 0; i < 20; i++) {
        struct sim_pair p = sim_lengths_draw(&l, 1, 1, i);
        assert_int_equal(p.n_out, p.n_in + 10);
    }
    sim_lengths_fini(&l);
    assert_int_equal(pwrite(fd, "10 2x", 5, 0), 5);
    assert_int_equal(sim_lengths_parse(&l, path, 0.6, &err), -EINVAL);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(sim_lengths_parse(&l, "/no/such/file", 0.6, &err), -ENOENT);
    close(fd);
    unlink(path);
}

static void arrivals_have_their_rate_steady_or_in_bursts(void **state)
{
    (void)state;
    for (int burst_s = 0; burst_s <= 5; burst_s += 5) {
        struct sim_arrivals a;
        uint64_t last = 0;
        uint32_t n = 0;

        sim_arrivals_init(&a, 3, 1, 4, burst_s, NULL);
        for (; sim_arrivals_next_ns(&a) < UINT64_C(4000000000000); n++) {
            assert_true(sim_arrivals_next_ns(&a) >= last);
            last = sim_arrivals_next_ns(&a);
            sim_arrivals_pop(&a);
        }
        assert_near(n, 4 * 4000, 0.05);
    }
}

/* Counts per 5 s vary by more than Poisson's own variance. */
static double variance_per_mean(double burst_s)
{
    struct sim_arrivals a;
    double sum = 0, squares = 0;
    enum { BINS = 400 };

    sim_arrivals_init(&a, 5, 1, 4, burst_s, NULL);
    for (int b = 0; b < BINS; b++) {
        double n = 0;
        for (; (double)sim_arrivals_next_ns(&a) < 5e9 * (b + 1); n++)
            sim_arrivals_pop(&a);
        sum += n;
        squares += n * n;
    }
    return (squares / BINS - sum / BINS * (sum / BINS)) / (sum / BINS);
}

static void bursts_are_burstier(void **state)
{
    (void)state;
    assert_near(variance_per_mean(0), 1, 0.25);
    assert_true(variance_per_mean(5) > 3);
}

/* ---- Machines -------------------------------------------------------------------------------- */

static const struct sim_machine *machine(const char *name)
{
    const char *known;
    const struct sim_machine *m = sim_machine_find(name, &known);

    assert_non_null(m);
    assert_non_null(strstr(known, name));
    return m;
}

static const struct sim_model *model(const char *name)
{
    const char *known;
    const struct sim_model *m = sim_model_find(name, &known);

    assert_non_null(m);
    return m;
}

static void models_have_the_sizes_that_are_known_of_them(void **state)
{
    (void)state;
    assert_near(sim_model_weight_bytes(model("llama-2-70b")), 2 * 68.98e9, 0.01);
    assert_near(sim_model_weight_bytes(model("llama-3-8b")), 2 * 8.03e9, 0.01);
    assert_near(sim_model_weight_bytes(model("yi-34b")), 2 * 34.39e9, 0.01);
    assert_near(sim_model_weight_bytes(model("smollm2-135m")), 2 * 134.5e6, 0.01);
    assert_near(sim_model_token_bytes(model("llama-2-70b"), KV_TYPE_BF16), 327680, 1e-9);
}

static void dense_times_are_stairs_that_never_fall(void **state)
{
    struct sim_timing t;

    (void)state;
    sim_machine_timing(machine("a100x4-nvlink"), model("llama-2-70b"), KV_TYPE_BF16, 4096, &t);
    const struct latency_stairs *s = &t.gpu.kind[0].dense;
    assert_true(s->n > 40);
    for (uint32_t i = 1; i < s->n; i++)
        assert_true(s->rows[i] > s->rows[i - 1] && s->ns[i] >= s->ns[i - 1]);
    /* An edge of a tile: one row more costs more than the 127 before it. */
    double edge = latency_stairs_at(s, 1025) - latency_stairs_at(s, 1024);
    assert_true(edge > latency_stairs_at(s, 1024) - latency_stairs_at(s, 898));
}

static void what_does_not_fit_has_no_kv(void **state)
{
    (void)state;
    assert_true(sim_machine_kv_bytes(machine("rtx4090"), model("llama-3-8b")) > 2e9);
    assert_true(sim_machine_kv_bytes(machine("rtx4090"), model("yi-34b")) == 0);
}

/* ---- Bounds ---------------------------------------------------------------------------------- */

static struct sim_timing timing;

static struct sim_supply supply_of(const char *machine_name, const char *model_name)
{
    const struct sim_machine *m = machine(machine_name);
    const struct sim_model *x = model(model_name);

    sim_machine_timing(m, x, KV_TYPE_BF16, 4096, &timing);
    return (struct sim_supply){.gpu = &timing.gpu,
                               .kv_tokens = sim_machine_kv_bytes(m, x) /
                                            sim_model_token_bytes(x, KV_TYPE_BF16),
                               .worker_bytes_per_ns = 200,
                               .worker_fixed_ns = 10e3,
                               .n_workers = 1,
                               .token_bytes = sim_model_token_bytes(x, KV_TYPE_BF16) / x->n_layers,
                               .ls_rate = 2,
                               .ls_in = 250,
                               .ls_out = 200,
                               .be_in = 1000,
                               .be_out = 4000,
                               .tpot_slo_s = 0.2};
}

static double joint(const struct sim_supply *s)
{
    struct sim_bounds b;

    sim_bounds_find(s, &b);
    return b.joint;
}

static void the_joint_bound_is_below_what_each_supply_allows(void **state)
{
    struct sim_supply s = supply_of("rtx4090", "llama-3-8b");
    struct sim_bounds b;

    (void)state;
    sim_bounds_find(&s, &b);
    assert_true(b.joint > 0 && b.joint <= b.p && b.joint <= 1.001 * (b.k + b.w));
    assert_near(b.device + b.worker, b.joint, 1e-6);
    assert_true(b.worker <= 1.001 * b.w);
    /* Bandwidth alone, by hand: 200 GB/s over 3,000 tokens of 131,072 bytes, and 10 us per job. */
    assert_near(b.w, 1e9 / (32 * (10e3 + 3000 * 4096 / 200.0)), 1e-6);
}

static void more_of_a_supply_never_gives_less(void **state)
{
    struct sim_supply s = supply_of("rtx4090", "llama-3-8b"), more = s;
    double before = joint(&s);

    (void)state;
    more.worker_bytes_per_ns = 400;
    assert_true(joint(&more) > before);
    more = s;
    more.kv_tokens *= 2;
    assert_true(joint(&more) > before);
    more = s;
    more.ls_rate = 4;
    assert_true(joint(&more) < before);
    more = s;
    more.n_workers = 0;
    assert_true(joint(&more) < before);
}

static void the_binding_supply_is_named(void **state)
{
    struct sim_supply s = supply_of("a100x4-nvlink", "llama-2-70b");
    struct sim_bounds b;

    (void)state;
    s.be_in = 8952; /* long prompts, short outputs */
    s.be_out = 136;
    sim_bounds_find(&s, &b);
    assert_int_equal(b.binds, 'P');
    s.be_rate = 0.01;
    sim_bounds_find(&s, &b);
    assert_int_equal(b.binds, 'A');
    assert_near(b.joint, 1.36, 1e-6);
}

/* Faster or slower, in the recorded rhythm, again and again. */
static void recorded_arrivals_are_scaled_to_the_rate(void **state)
{
    double at_s[] = {0, 1, 1.5, 6};
    struct sim_times times = {.at_s = at_s, .n = 4, .span_s = 8}; /* 0.5 a second */
    struct sim_arrivals a;

    (void)state;
    sim_arrivals_init(&a, 1, 2, 2, 0, &times);
    const double expected[] = {0, 0.25, 0.375, 1.5, 2, 2.25};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(sim_arrivals_next_ns(&a), (uint64_t)(expected[i] * 1e9));
        sim_arrivals_pop(&a);
    }
}

static void a_file_of_times_is_read_and_checked(void **state)
{
    char path[] = "/tmp/omni-times-XXXXXX";
    struct sim_times times;
    struct error err;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0 && dprintf(fd, "10\n11.5\n14\n") > 0);
    assert_int_equal(sim_times_read(&times, path, &err), 0);
    assert_true(times.n == 3 && times.at_s[1] == 1.5 && times.span_s == 6);
    sim_times_fini(&times);
    assert_true(dprintf(fd, "13\n") > 0);
    assert_int_equal(sim_times_read(&times, path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "line 4"));
    close(fd);
    unlink(path);
    assert_int_equal(sim_times_read(&times, path, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_arrivals_are_scaled_to_the_rate),
        cmocka_unit_test(a_file_of_times_is_read_and_checked),
        cmocka_unit_test(lengths_have_the_stated_mean_after_the_cut),
        cmocka_unit_test(a_draw_depends_on_its_index_alone),
        cmocka_unit_test(lengths_come_from_a_file),
        cmocka_unit_test(arrivals_have_their_rate_steady_or_in_bursts),
        cmocka_unit_test(bursts_are_burstier),
        cmocka_unit_test(models_have_the_sizes_that_are_known_of_them),
        cmocka_unit_test(dense_times_are_stairs_that_never_fall),
        cmocka_unit_test(what_does_not_fit_has_no_kv),
        cmocka_unit_test(the_joint_bound_is_below_what_each_supply_allows),
        cmocka_unit_test(more_of_a_supply_never_gives_less),
        cmocka_unit_test(the_binding_supply_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
