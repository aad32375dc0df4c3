/* A CPU-only engine in virtual time, against times worked out by hand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/sim/sim_cpu_engine.h"

enum { N_REQUESTS = 16 };

static struct {
    uint64_t first_ns, last_ns;
    uint32_t n;
    bool ended;
} seen[N_REQUESTS];

static void note(void *arg, uint32_t request, uint64_t at_ns, bool last)
{
    (void)arg;
    if (seen[request].n++ == 0)
        seen[request].first_ns = at_ns;
    seen[request].last_ns = at_ns;
    seen[request].ended = last;
}

static struct sim_cpu_engine *make(uint32_t n_hosts, double host_bytes)
{
    const char *known;
    struct sim_machine machine = *sim_machine_find("rtx4090", &known);
    const struct sim_cpu_sink sink = {.token = note};
    struct sim_cpu_engine *x;

    memset(seen, 0, sizeof seen);
    machine.n_hosts = n_hosts;
    machine.host_bytes = machine.remote_bytes = host_bytes;
    assert_int_equal(sim_cpu_engine_create(&x, &machine, sim_model_find("llama-3-8b", &known),
                                           KV_TYPE_BF16, &sink),
                     0);
    return x;
}

static void take(struct sim_cpu_engine *x, uint64_t at_ns, uint32_t request, uint32_t n_in,
                 uint32_t n_out, uint32_t n_done)
{
    const struct sim_cpu_request q = {request, {n_in, n_out}, n_done, n_done > 0};

    sim_cpu_engine_take(x, at_ns, &q);
}

static void run_all(struct sim_cpu_engine *x)
{
    uint64_t next;

    while ((next = sim_cpu_engine_next_ns(x)) != SIM_CPU_ENGINE_NEVER)
        sim_cpu_engine_advance(x, next);
}

/* 200 tokens are bound by arithmetic, a decode by reading weights and KV. */
static void a_request_takes_what_weights_arithmetic_and_kv_take(void **state)
{
    const char *known;
    const struct sim_model *m = sim_model_find("llama-3-8b", &known);
    struct sim_cpu_engine *x = make(0, 200e9);
    double weights = sim_model_weight_bytes(m), token = sim_model_token_bytes(m, KV_TYPE_BF16);
    double pairs = 200 * 100.5 * 4.0 * m->n_heads * m->head_width * m->n_layers;

    (void)state;
    take(x, 0, 3, 200, 3, 0);
    run_all(x);
    double first = 1e6 + (weights * 200 + pairs) / 3.3e3; /* 2 * weights / 2 bytes */
    assert_true(fabs((double)seen[3].first_ns - first) < 10);
    double rest = 2 * (1e6 + weights / 200) + (201 + 202) * token / 200;
    assert_true(fabs((double)(seen[3].last_ns - seen[3].first_ns) - rest) < 10);
    assert_true(seen[3].n == 3 && seen[3].ended);
    assert_int_equal(sim_cpu_engine_busy_ns(x), seen[3].last_ns);
    sim_cpu_engine_destroy(x);
}

/* One prompt at a time and host; decodes share the pass over the weights. */
static void a_host_takes_one_prompt_and_decodes_together(void **state)
{
    struct sim_cpu_engine *x = make(1, 200e9);

    (void)state;
    assert_int_equal(sim_cpu_engine_room(x), 2);
    take(x, 0, 0, 100, 50, 0);
    assert_int_equal(sim_cpu_engine_room(x), 1);
    take(x, 0, 1, 100, 50, 0);
    assert_int_equal(sim_cpu_engine_room(x), 0);
    while (seen[0].n == 0)
        sim_cpu_engine_advance(x, sim_cpu_engine_next_ns(x));
    assert_int_equal(sim_cpu_engine_room(x), 2);
    take(x, seen[0].first_ns, 2, 100, 50, 50 - 1);
    run_all(x);
    assert_true(seen[0].ended && seen[1].ended && seen[2].ended && seen[2].n == 1);
    assert_int_equal(seen[0].last_ns, seen[1].last_ns); /* alone on equal hosts, but for one row */
    sim_cpu_engine_destroy(x);
}

/* What lost its KV elsewhere is computed again: its output so far is a longer prompt. */
static void output_without_kv_is_computed_again(void **state)
{
    struct sim_cpu_engine *x = make(0, 200e9);
    const struct sim_cpu_request moved = {5, {100, 50}, 40, false};

    (void)state;
    take(x, 0, 4, 140, 10, 0);
    run_all(x);
    uint64_t alone = seen[4].last_ns;
    sim_cpu_engine_take(x, alone, &moved);
    run_all(x);
    assert_true(seen[5].n == 10 && seen[5].ended);
    assert_int_equal(seen[5].last_ns - alone, alone);
    sim_cpu_engine_destroy(x);
}

static void without_memory_for_the_weights_nothing_is_taken(void **state)
{
    struct sim_cpu_engine *x = make(0, 10e9);

    (void)state;
    assert_int_equal(sim_cpu_engine_room(x), 0);
    sim_cpu_engine_destroy(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_takes_what_weights_arithmetic_and_kv_take),
        cmocka_unit_test(a_host_takes_one_prompt_and_decodes_together),
        cmocka_unit_test(output_without_kv_is_computed_again),
        cmocka_unit_test(without_memory_for_the_weights_nothing_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
