/* The latency model: staircases, windows, arrivals, the chunk that fits best, and corrections that
 * a neighbour cannot poison.  Random models and loads come from a fixed generator. */
#include <math.h>
#include <string.h>

#include "common/sched/latency.h"
#include "near.h"

enum { N_LAYERS = 6, N_ROUNDS = 2000 };

static uint64_t seed;

static uint32_t draw(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

static double draw_real(double max)
{
    return max * draw(1 << 20) / (1 << 20);
}

static void draw_stairs(struct latency_stairs *s, uint32_t n, uint32_t rows_max)
{
    double ns = 100 + draw_real(1000);
    uint32_t rows = 1;

    s->n = n;
    for (uint32_t i = 0; i < n; i++) {
        s->rows[i] = rows;
        s->ns[i] = ns;
        rows += 1 + draw(rows_max / n);
        ns += draw(3) == 0 ? 0 : draw_real(2000); /* flat here and there */
    }
}

/* Two kinds, one with a window. */
static void draw_model(struct latency_model *m)
{
    latency_init(m, N_LAYERS);
    m->n_kinds = 2;
    for (uint32_t l = 0; l < N_LAYERS; l++)
        latency_set_kind(m, l, l % 2);
    for (uint32_t k = 0; k < 2; k++) {
        struct latency_kind *kind = &m->kind[k];
        draw_stairs(&kind->dense, 2 + draw(20), 512);
        kind->pre_share = draw_real(1);
        kind->pa_a = draw_real(20);
        kind->pa_h = draw_real(500);
        kind->pa_b = draw_real(1000);
        kind->da_a = draw_real(50);
        kind->da_h = draw_real(500);
        kind->da_b = draw_real(1000);
    }
    m->kind[1].window = 32 + draw(128);
    m->kind[1].n_sinks = draw(8);
    draw_stairs(&m->head, 5, 32);
    m->fixed_ns = draw_real(1000);
    m->row_ns = draw_real(100);
    for (int i = 0; i < LATENCY_MODULES; i++)
        m->correction[i].factor = 0.5 + draw_real(1);
}

static void draw_load(const struct latency_model *m, struct latency_load *load)
{
    memset(load, 0, sizeof *load);
    for (uint32_t i = draw(16); i > 0; i--)
        latency_load_add_decode(m, load, 1 + draw(4000), true);
    for (uint32_t i = draw(3); i > 0; i--)
        latency_load_add_chunk(m, load, draw(2000), 2 + draw(200), draw(2));
    load->returned_rows = draw_real(20);
    load->returned_layers = fmin(load->returned_rows, 1 + draw(N_LAYERS));
}

/* ---- Staircases ------------------------------------------------------------------------------ */

static void test_stairs_interpolate_and_extend(void **state)
{
    const struct latency_stairs s = {.n = 3, .rows = {2, 10, 20}, .ns = {100, 180, 380}};
    const struct latency_stairs one = {.n = 1, .rows = {4}, .ns = {70}};
    const struct latency_stairs none = {.n = 0};

    (void)state;
    assert_near(latency_stairs_at(&s, 0), 0, 1e-9); /* no rows, no work */
    assert_near(latency_stairs_at(&s, 1), 100, 1e-9);
    assert_near(latency_stairs_at(&s, 2), 100, 1e-9);
    assert_near(latency_stairs_at(&s, 6), 140, 1e-9);
    assert_near(latency_stairs_at(&s, 10), 180, 1e-9);
    assert_near(latency_stairs_at(&s, 15), 280, 1e-9);
    assert_near(latency_stairs_at(&s, 30), 580, 1e-9); /* the last slope goes on */
    assert_near(latency_stairs_at(&one, 1), 70, 1e-9);
    assert_near(latency_stairs_at(&one, 900), 70, 1e-9);
    assert_near(latency_stairs_at(&none, 5), 0, 1e-9);
}

/* ---- Loads ----------------------------------------------------------------------------------- */

/* Against a count of what every query sees. */
static void test_windows_cut_the_context(void **state)
{
    struct latency_model m;
    struct latency_load load = {.n_rows = 0};
    double pairs = 0;

    (void)state;
    latency_init(&m, 2);
    m.n_kinds = 2;
    m.kind[1].window = 100;
    m.kind[1].n_sinks = 4;
    latency_load_add_decode(&m, &load, 80, true);
    latency_load_add_decode(&m, &load, 1000, true);
    assert_near(load.c_da[0], 1080, 1e-9);
    assert_near(load.c_da[1], 80 + 104, 1e-9);
    latency_load_add_chunk(&m, &load, 50, 20, false);
    latency_load_add_chunk(&m, &load, 500, 30, true);
    for (uint32_t i = 0; i < 20; i++)
        pairs += 50 + i + 1;
    for (uint32_t i = 0; i < 30; i++)
        pairs += 500 + i + 1;
    assert_near(load.c_pa[0], pairs, 1e-6);
    assert_near(load.c_pa[1], 20 * 60.5 + 30 * 104, 1e-6);
    assert_int_equal(load.n_rows, 52);
    assert_int_equal(load.n_decodes, 2);
    assert_int_equal(load.n_chunks, 2);
    assert_int_equal(load.n_chunk_rows, 50);
    assert_int_equal(load.n_out, 3);
}

/* ---- Prediction ------------------------------------------------------------------------------ */

static double total(const struct latency_model *m, const struct latency_load *load)
{
    return latency_predict(m, load).total_ns;
}

/* Whatever is added, a sweep never gets shorter. */
static void test_predictions_grow_with_the_load(void **state)
{
    struct latency_model m;
    struct latency_load load, more;

    (void)state;
    seed = 1;
    for (int i = 0; i < N_ROUNDS; i++) {
        draw_model(&m);
        draw_load(&m, &load);
        double before = total(&m, &load), slack = 1e-9 * before;

        more = load;
        latency_load_add_decode(&m, &more, 1 + draw(3000), true);
        assert_true(total(&m, &more) >= before - slack);
        more = load;
        latency_load_add_chunk(&m, &more, draw(1000), 1 + draw(300), draw(2));
        assert_true(total(&m, &more) >= before - slack);
        more = load;
        more.returned_rows += draw_real(3);
        assert_true(total(&m, &more) >= before - slack);
    }
}

static void test_prediction_is_the_sum_of_its_layers(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    seed = 2;
    draw_model(&m);
    draw_load(&m, &load);
    latency_load_add_decode(&m, &load, 77, true);
    struct latency_prediction p = latency_predict(&m, &load);
    double dense = 0, attention = 0;
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        dense += latency_dense_ns(&m, l, load.n_rows + load.returned_rows / N_LAYERS);
        attention += latency_attention_ns(&m, l, &load);
    }
    assert_near(p.dense_ns, dense, 1e-6);
    assert_near(p.attention_ns, attention, 1e-6);
    double stolen = m.correction[LATENCY_STOLEN].factor;
    assert_near(p.total_ns, stolen * (dense + attention + p.head_ns + p.fixed_ns), 1e-6);
}

/* Few rows over many layers: a layer without a row costs nothing, one with a row a whole pass. */
static void test_returned_rows_alone_skip_layers(void **state)
{
    struct latency_model m;
    struct latency_load load = {.returned_rows = 3, .returned_layers = 2};

    (void)state;
    latency_init(&m, N_LAYERS);
    m.n_kinds = 1;
    m.kind[0].dense = (struct latency_stairs){.n = 2, .rows = {1, 101}, .ns = {1000, 2000}};
    assert_near(total(&m, &load), 2 * 1005, 1e-6);
    load = (struct latency_load){.returned_rows = 0.1, .returned_layers = 0.1};
    assert_near(total(&m, &load), 0.1 * 1000, 1e-6);
    load = (struct latency_load){.returned_rows = 51 * N_LAYERS, .returned_layers = N_LAYERS};
    assert_near(total(&m, &load), N_LAYERS * 1500, 1e-6);
    load = (struct latency_load){.n_rows = 0};
    assert_near(total(&m, &load), 0, 0);
}

static double power_sum(double x, uint32_t n)
{
    double sum = 0, power = 1;

    for (uint32_t i = 0; i < n; i++)
        sum += power *= x;
    return sum;
}

/* Against sums written out. */
static void test_expected_returns(void **state)
{
    struct latency_model m;
    struct latency_load load = {.n_rows = 0};
    struct latency_offloaded rows = {.back = {[1] = 1, [5] = 2}, .out = {[3] = 1}};

    (void)state;
    latency_init(&m, N_LAYERS);
    latency_load_set_returned(&m, &load, &rows, 0, 0, 0); /* nothing rides: those that are back */
    assert_near(load.returned_rows, 3, 1e-9);
    assert_near(load.returned_layers, 2, 1e-9);
    latency_load_set_returned(&m, &load, &rows, 1, 1, 1); /* all ride: to the end */
    assert_near(load.returned_rows, 5 + 2 + 3 + N_LAYERS, 1e-9);
    assert_near(load.returned_layers, N_LAYERS, 1e-9);
    latency_load_set_returned(&m, &load, &rows, 2, 0.8, 0.3);
    double expected =
        (1 + power_sum(0.8, 4)) + 2 + 0.3 * (1 + power_sum(0.8, 2)) + 2 * power_sum(0.8, N_LAYERS);
    assert_near(load.returned_rows, expected, 1e-9);
}

static void test_arrivals_ascend_and_end_before_the_sweep(void **state)
{
    struct latency_model m;
    struct latency_load load;
    uint64_t at[N_LAYERS];

    (void)state;
    seed = 3;
    for (int i = 0; i < N_ROUNDS; i++) {
        draw_model(&m);
        draw_load(&m, &load);
        latency_arrivals(&m, &load, at);
        for (uint32_t l = 0; l + 1 < N_LAYERS; l++)
            assert_true(at[l] <= at[l + 1]);
        assert_true((double)at[N_LAYERS - 1] <= total(&m, &load) + 1);
        double first = latency_attention_ns(&m, 0, &load);
        assert_true((double)at[0] + 1 >= m.correction[LATENCY_STOLEN].factor * first);
    }
}

/* Each batch reads the weights and has its own attention; head and beginning are passed once.  With
 * an empty batch B it is the sweep that it was. */
static void test_two_batches_cost_their_layers_apart(void **state)
{
    static const struct latency_load none;
    struct latency_model m;
    struct latency_load a, b;

    (void)state;
    seed = 5;
    for (int i = 0; i < N_ROUNDS; i++) {
        draw_model(&m);
        draw_load(&m, &a);
        draw_load(&m, &b);
        struct latency_prediction p = latency_predict_two(&m, &a, &b), pa = latency_predict(&m, &a),
                                  pb = latency_predict(&m, &b);
        double head = m.correction[LATENCY_HEAD].factor *
                      latency_stairs_at(&m.head, (double)a.n_out + b.n_out);
        double once = m.correction[LATENCY_DENSE].factor * m.fixed_ns;
        double layers = p.dense_ns + p.attention_ns + p.return_ns;
        assert_near(layers,
                    pa.dense_ns + pa.attention_ns + pa.return_ns + pb.dense_ns + pb.attention_ns +
                        pb.return_ns,
                    1e-9 * layers);
        assert_near(p.head_ns, head, 1e-9 * head);
        assert_near(p.fixed_ns, pa.fixed_ns + pb.fixed_ns - once, 1e-9 * p.busy_ns);
        assert_near(latency_predict_two(&m, &a, &none).total_ns, pa.total_ns, 1e-9 * pa.total_ns);
    }
}

/* Batch A's window at a layer holds a layer of batch B, and the other way round. */
static void test_two_batches_are_each_others_window(void **state)
{
    struct latency_model m;
    struct latency_load a, b;
    uint64_t at_a[N_LAYERS], at_b[N_LAYERS], alone[N_LAYERS];

    (void)state;
    seed = 6;
    for (int i = 0; i < N_ROUNDS; i++) {
        draw_model(&m);
        draw_load(&m, &a);
        draw_load(&m, &b);
        latency_arrivals_two(&m, &a, &b, at_a, at_b);
        latency_arrivals(&m, &a, alone);
        double stolen = m.correction[LATENCY_STOLEN].factor;
        for (uint32_t l = 0; l < N_LAYERS; l++) {
            double until = stolen * latency_attention_ns(&m, l, &b);
            assert_true(at_b[l] <= at_a[l] && (l + 1 == N_LAYERS || at_a[l] <= at_b[l + 1]));
            assert_true((double)(at_a[l] - alone[l]) + 1 >= until);
        }
        assert_true((double)at_a[N_LAYERS - 1] <= latency_predict_two(&m, &a, &b).total_ns + 1);
    }
}

/* Of a sweep with a chunk, rows beyond the first and prefill attention are most: they are taught. */
static void test_two_batches_teach_as_one_does(void **state)
{
    struct latency_model m;
    struct latency_load a, b;

    (void)state;
    seed = 7;
    draw_model(&m);
    for (int i = 0; i < LATENCY_MODULES; i++)
        m.correction[i].factor = 1;
    draw_load(&m, &a);
    draw_load(&m, &b);
    a.returned_rows = b.returned_rows = 0;
    latency_load_add_chunk(&m, &b, 100, 50, true);
    const struct latency_prediction p = latency_predict_two(&m, &a, &b);
    for (int i = 0; i < LATENCY_WINDOW; i++) {
        const struct latency_measured slow = {.dense_ns = p.dense_ns + p.fixed_ns + p.rows_ns,
                                              .attention_ns = p.decode_ns + 2 * p.prefill_ns,
                                              .head_ns = 2 * p.head_ns,
                                              .total_ns = 2 * p.busy_ns,
                                              .busy_ns = 2 * p.busy_ns};
        latency_observe_two(&m, &a, &b, &slow);
    }
    assert_near(m.correction[LATENCY_ROWS].factor, 2, 1e-3);
    assert_near(m.correction[LATENCY_DENSE].factor, 1, 1e-6);
    assert_near(m.correction[LATENCY_PREFILL].factor, 2, 1e-3);
    assert_near(m.correction[LATENCY_HEAD].factor, 2, 1e-3);
    assert_near(m.correction[LATENCY_DECODE].factor, 1, 1e-6);
}

static void test_job_time(void **state)
{
    struct latency_model m;

    (void)state;
    latency_init(&m, 1);
    m.worker[3] = (struct latency_worker){.bytes_per_ns = 4, .fixed_ns = 100};
    assert_near(latency_job_ns(&m, 3, 4000), 1100, 1e-9);
    m.worker[3].bytes_per_ns = 0; /* not measured yet */
    assert_near(latency_job_ns(&m, 3, 4000), 100, 1e-9);
}

static void test_accuracy(void **state)
{
    (void)state;
    assert_near(latency_accuracy(90, 100), 0.9, 1e-9);
    assert_near(latency_accuracy(110, 100), 0.9, 1e-9);
    assert_near(latency_accuracy(300, 100), 0, 1e-9);
    assert_near(latency_accuracy(300, 0), 0, 1e-9);
}

/* ---- Chunks ---------------------------------------------------------------------------------- */

static double total_with(const struct latency_model *m, const struct latency_load *load,
                         uint32_t before, uint32_t n, uint32_t prompt)
{
    struct latency_load with = *load;

    latency_load_add_chunk(m, &with, before, n, n == prompt);
    return total(m, &with);
}

/* The chunk fits, and one token more would not. */
static void test_chunk_is_the_best_that_fits(void **state)
{
    struct latency_model m;
    struct latency_load load;
    uint32_t n_none = 0, n_all = 0;

    (void)state;
    seed = 4;
    for (int i = 0; i < N_ROUNDS; i++) {
        draw_model(&m);
        draw_load(&m, &load);
        uint32_t before = draw(2000), prompt = 1 + draw(600);
        double low = total(&m, &load), high = total_with(&m, &load, before, prompt, prompt);
        double budget = low + draw_real(1.3 * (high - low)) - 100;
        uint32_t n = latency_chunk_within(&m, &load, before, prompt, budget);

        assert_true(n <= prompt);
        if (n > 0)
            assert_true(total_with(&m, &load, before, n, prompt) <= budget);
        if (n < prompt)
            assert_true(total_with(&m, &load, before, n + 1, prompt) > budget);
        n_none += n == 0;
        n_all += n == prompt;
    }
    assert_true(n_none > 0 && n_all > 0 && n_none + n_all < N_ROUNDS); /* all cases were met */
}

/* ---- Corrections ----------------------------------------------------------------------------- */

static struct latency_measured times(const struct latency_prediction *p, double factor)
{
    return (struct latency_measured){.dense_ns = factor * (p->dense_ns + p->fixed_ns),
                                     .attention_ns = factor * p->attention_ns,
                                     .head_ns = factor * p->head_ns,
                                     .total_ns = factor * p->total_ns,
                                     .busy_ns = factor * p->total_ns};
}

/* A model of factor 1 and a load that uses all of it. */
static void fresh(struct latency_model *m, struct latency_load *load)
{
    seed = 5;
    draw_model(m);
    for (int i = 0; i < LATENCY_MODULES; i++)
        m->correction[i].factor = 1;
    memset(load, 0, sizeof *load);
    latency_load_add_decode(m, load, 500, true);
    latency_load_add_chunk(m, load, 100, 64, true);
}

static void test_correction_follows_what_stays(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    fresh(&m, &load);
    const struct latency_prediction bare = latency_predict(&m, &load);
    const struct latency_measured slow = times(&bare, 1.4);
    for (int i = 0; i < LATENCY_WINDOW; i++)
        latency_observe(&m, &load, &slow);
    assert_near(total(&m, &load), 1.4 * bare.total_ns, 1e-4 * bare.total_ns);
    const struct latency_measured as_before = times(&bare, 1);
    for (int i = 0; i < LATENCY_WINDOW; i++)
        latency_observe(&m, &load, &as_before);
    assert_near(total(&m, &load), bare.total_ns, 1e-4 * bare.total_ns);
}

/* Two sweeps in five are stretched, wildly and by different amounts: nothing moves. */
static void test_correction_ignores_outliers(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    fresh(&m, &load);
    const struct latency_prediction bare = latency_predict(&m, &load);
    for (int i = 0; i < 20 * LATENCY_WINDOW; i++) {
        const struct latency_measured seen = times(&bare, i % 5 < 3 ? 1.01 : 2 + draw_real(50));
        latency_observe(&m, &load, &seen);
        if (i >= LATENCY_WINDOW)
            assert_near(total(&m, &load), 1.01 * bare.total_ns, 0.001 * bare.total_ns);
    }
}

static void test_correction_is_bounded(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    fresh(&m, &load);
    memset(&load, 0, sizeof load);
    latency_load_add_decode(&m, &load, 500,
                            true); /* without a chunk, which has a factor of its own */
    const struct latency_prediction bare = latency_predict(&m, &load);
    const struct latency_measured never = times(&bare, 1e6), at_once = times(&bare, 1e-6);
    for (int i = 0; i < 2 * LATENCY_WINDOW; i++)
        latency_observe(&m, &load, &never);
    assert_near(total(&m, &load), 4 * bare.total_ns, 1e-6 * bare.total_ns);
    for (int i = 0; i < 2 * LATENCY_WINDOW; i++)
        latency_observe(&m, &load, &at_once);
    assert_near(total(&m, &load), 0.5 * bare.total_ns, 1e-6 * bare.total_ns);
}

/* Both are found from their sum, as long as the number of returned rows varies. */
static void test_cost_of_returned_rows_is_learnt(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    fresh(&m, &load);
    const struct latency_model bare = m;
    double dense = 0;
    for (int i = 0; i < 40 * LATENCY_WINDOW; i++) {
        load.returned_rows = draw(3) * draw(30);
        struct latency_prediction p = latency_predict(&bare, &load);
        dense = 1.2 * (p.dense_ns + p.fixed_ns) + 20000 * load.returned_rows;
        const struct latency_measured seen = {
            .dense_ns = dense, .total_ns = dense + 1, .busy_ns = dense + 1};
        latency_observe(&m, &load, &seen);
    }
    const struct latency_prediction last = latency_predict(&m, &load);
    assert_near(m.return_ns, 20000, 2000);
    assert_near(last.dense_ns + last.fixed_ns + last.return_ns, dense, 0.02 * dense);
}

/* Memory that neighbours use slows the first row, a core that they share the others. */
static void test_reading_and_arithmetic_are_corrected_apart(void **state)
{
    struct latency_model m;
    struct latency_load decode = {.n_rows = 0}, chunk;

    (void)state;
    fresh(&m, &chunk);
    const struct latency_model bare = m;
    latency_load_add_decode(&m, &decode, 500, true);
    for (int i = 0; i < 4 * LATENCY_WINDOW; i++) {
        const struct latency_load *load = i % 2 == 0 ? &decode : &chunk;
        struct latency_prediction p = latency_predict(&bare, load);
        double first = p.dense_ns + p.fixed_ns - p.rows_ns, dense = 1.5 * first + 0.9 * p.rows_ns;
        const struct latency_measured seen = {
            .dense_ns = dense, .total_ns = dense + 1, .busy_ns = dense + 1};
        latency_observe(&m, load, &seen);
    }
    assert_near(m.correction[LATENCY_DENSE].factor, 1.5, 1e-3);
    assert_near(m.correction[LATENCY_ROWS].factor, 0.9, 1e-3);
}

/* A neighbour that takes a third of the core stretches sweeps, whichever module it hits: the
 * modules stay as they are, the sweep's time follows. */
static void test_stolen_time_is_no_modules_fault(void **state)
{
    struct latency_model m;
    struct latency_load load;

    (void)state;
    fresh(&m, &load);
    const struct latency_prediction bare = latency_predict(&m, &load);
    for (int i = 0; i < 2 * LATENCY_WINDOW; i++) {
        struct latency_measured seen = times(&bare, 1);
        seen.total_ns *= 1.5;
        *(i % 2 == 0 ? &seen.attention_ns : &seen.dense_ns) += 0.5 * bare.total_ns;
        latency_observe(&m, &load, &seen);
    }
    assert_near(total(&m, &load), 1.5 * bare.total_ns, 1e-6 * bare.total_ns);
    assert_near(latency_predict(&m, &load).attention_ns, bare.attention_ns, 0);
    assert_near(latency_predict(&m, &load).dense_ns, bare.dense_ns, 0);
}

/* A sweep without a module says nothing of it, and nonsense is passed over. */
static void test_correction_of_a_module_that_did_not_run(void **state)
{
    const struct latency_measured seen = {
        .dense_ns = 1e6, .attention_ns = 0, .head_ns = NAN, .total_ns = 1e6, .busy_ns = 1e6};
    struct latency_model m;
    struct latency_load load = {.returned_rows = 1, .returned_layers = 1};

    (void)state;
    seed = 6;
    draw_model(&m);
    double decode = m.correction[LATENCY_DECODE].factor;
    double head = m.correction[LATENCY_HEAD].factor;
    for (int i = 0; i < LATENCY_WINDOW; i++)
        latency_observe(&m, &load, &seen);
    assert_near(m.correction[LATENCY_DECODE].factor, decode, 0);
    assert_near(m.correction[LATENCY_HEAD].factor, head, 0);
    assert_int_equal(m.correction[LATENCY_PREFILL].ratios.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stairs_interpolate_and_extend),
        cmocka_unit_test(test_windows_cut_the_context),
        cmocka_unit_test(test_predictions_grow_with_the_load),
        cmocka_unit_test(test_prediction_is_the_sum_of_its_layers),
        cmocka_unit_test(test_returned_rows_alone_skip_layers),
        cmocka_unit_test(test_expected_returns),
        cmocka_unit_test(test_arrivals_ascend_and_end_before_the_sweep),
        cmocka_unit_test(test_two_batches_cost_their_layers_apart),
        cmocka_unit_test(test_two_batches_are_each_others_window),
        cmocka_unit_test(test_two_batches_teach_as_one_does),
        cmocka_unit_test(test_job_time),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_chunk_is_the_best_that_fits),
        cmocka_unit_test(test_correction_follows_what_stays),
        cmocka_unit_test(test_correction_ignores_outliers),
        cmocka_unit_test(test_correction_is_bounded),
        cmocka_unit_test(test_cost_of_returned_rows_is_learnt),
        cmocka_unit_test(test_reading_and_arithmetic_are_corrected_apart),
        cmocka_unit_test(test_stolen_time_is_no_modules_fault),
        cmocka_unit_test(test_correction_of_a_module_that_did_not_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
