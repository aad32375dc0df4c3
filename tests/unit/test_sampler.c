/* Sampling: ties, known answers of the generator, log-probabilities, and draws against the exact
 * distribution of every filter. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/device/sampler.h"

enum { N_VOCAB = 12, N_DRAWS = 20000, N_SEEDS = 100000 };

static const float logits[N_VOCAB] = {0.3f, 2.1f,  -1.0f, 1.7f, 0.9f, -0.4f,
                                      1.2f, -2.5f, 0.0f,  1.7f, 0.6f, -7.0f};

static const struct device_sampling greedy = {.top_p = 1};

static struct sampler open_sampler(uint32_t n_vocab)
{
    struct sampler s;

    assert_int_equal(sampler_init(&s, n_vocab), 0);
    return s;
}

/* The first block of Philox4x32-10 with counter and key 0, from the authors' known answers. */
static void test_philox_known_answer(void **state)
{
    (void)state;
    const uint64_t block = UINT64_C(0x6627e8d5e169c58d);

    assert_true(sampler_uniform(0, 0) == (double)(block >> 11) * 0x1p-53);
    for (uint64_t i = 0; i < 1000; i++) {
        double u = sampler_uniform(i * 977, i);
        assert_true(u >= 0 && u < 1);
    }
}

static void test_greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    struct sampler s = open_sampler(5);
    const float rows[3][5] = {{1, 3, 3, 2, 3}, {4, 4, 4, 4, 4}, {-9, -8, -8, -8.5f, -9}};
    float logprob;

    assert_int_equal(sampler_draw(&s, rows[0], &greedy, 4, &logprob), 1);
    assert_int_equal(sampler_draw(&s, rows[1], &greedy, 4, &logprob), 0);
    assert_true(fabs(logprob - log(0.2)) < 1e-6);
    assert_int_equal(sampler_draw(&s, rows[2], &greedy, 4, &logprob), 1);
    sampler_fini(&s);
}

/* ---- Exact distributions --------------------------------------------------------------------- */

static int by_logit(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    if (logits[x] != logits[y])
        return logits[x] > logits[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

static void normalise(double p[N_VOCAB])
{
    double sum = 0;

    for (uint32_t i = 0; i < N_VOCAB; i++)
        sum += p[i];
    for (uint32_t i = 0; i < N_VOCAB; i++)
        p[i] /= sum;
}

/* Temperature, min-p, top-k, top-p, one after the other over a sorted list. */
static void exact(const struct device_sampling *how, double p[N_VOCAB])
{
    uint32_t order[N_VOCAB];
    double kept = 0;

    for (uint32_t i = 0; i < N_VOCAB; i++) {
        order[i] = i;
        p[i] = exp((double)logits[i] / (double)how->temperature);
    }
    qsort(order, N_VOCAB, sizeof *order, by_logit);
    double best = p[order[0]];
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        bool out = p[order[i]] < (double)how->min_p * best || (how->top_k > 0 && i >= how->top_k);
        p[order[i]] = out ? 0 : p[order[i]];
    }
    normalise(p);
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        double share = p[order[i]];
        p[order[i]] = kept >= (double)how->top_p ? 0 : share;
        kept += share;
    }
    normalise(p);
}

/* 99.9 % quantile of chi-square by Wilson and Hilferty. */
static double chi_square_limit(uint32_t df)
{
    double d = df, c = 2 / (9 * d);

    return d * pow(1 - c + 3.09 * sqrt(c), 3);
}

static void assert_draws_follow(const struct device_sampling *how, uint32_t n_support)
{
    struct sampler s = open_sampler(N_VOCAB);
    uint32_t seen[N_VOCAB] = {0}, n = 0;
    double p[N_VOCAB], chi_square = 0;
    float logprob;

    for (uint32_t pos = 0; pos < N_DRAWS; pos++)
        seen[sampler_draw(&s, logits, how, pos, &logprob)]++;
    sampler_fini(&s);
    exact(how, p);
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        double expected = p[i] * N_DRAWS;
        n += p[i] > 0;
        if (p[i] > 0)
            chi_square += (seen[i] - expected) * (seen[i] - expected) / expected;
        else
            assert_int_equal(seen[i], 0);
    }
    assert_int_equal(n, n_support);
    if (n > 1 && chi_square > chi_square_limit(n - 1))
        fail_msg("chi-square %.1f over %.1f with %u degrees of freedom", chi_square,
                 chi_square_limit(n - 1), n - 1);
}

static void test_draws_follow_the_exact_distribution(void **state)
{
    (void)state;
    static const struct {
        struct device_sampling how;
        uint32_t n_support;
    } cases[] = {
        {{.seed = 1, .temperature = 1, .top_p = 1}, 12},
        {{.seed = 2, .temperature = 0.5f, .top_p = 1}, 12},
        {{.seed = 3, .temperature = 2, .top_p = 1}, 12},
        {{.seed = 4, .temperature = 1, .top_p = 1, .top_k = 4}, 4},
        {{.seed = 5, .temperature = 1, .top_p = 1, .top_k = 1}, 1},
        {{.seed = 6, .temperature = 1, .top_p = 1, .top_k = 500}, 12},
        {{.seed = 7, .temperature = 1, .top_p = 0.7f}, 4},
        {{.seed = 8, .temperature = 1, .top_p = 0.01f}, 1},
        {{.seed = 9, .temperature = 1, .top_p = 1, .min_p = 0.25f}, 5},
        {{.seed = 10, .temperature = 1, .top_p = 1, .min_p = 1}, 1},
        {{.seed = 11, .temperature = 1, .top_p = 0.8f, .top_k = 6}, 4},
        {{.seed = 12, .temperature = 0.8f, .top_p = 0.9f, .top_k = 7, .min_p = 0.2f}, 4},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_draws_follow(&cases[i].how, cases[i].n_support);
}

/* Of two equal logits at the edge of top-k the lower id stays. */
static void test_top_k_keeps_the_lower_of_equals(void **state)
{
    (void)state;
    struct sampler s = open_sampler(N_VOCAB);
    const struct device_sampling how = {.seed = 3, .temperature = 1, .top_p = 1, .top_k = 2};
    float logprob;

    for (uint32_t pos = 0; pos < 500; pos++) {
        uint32_t token = sampler_draw(&s, logits, &how, pos, &logprob);
        assert_true(token == 1 || token == 3);
    }
    sampler_fini(&s);
}

/* ---- Adjusted logits ------------------------------------------------------------------------- */

/* Prompt 1 1 2, output 3 3 3 5: token 1 in the prompt alone, 3 thrice in the output. */
static const uint32_t token_log[] = {1, 1, 2, 3, 3, 3, 5};
enum { N_PROMPT = 3, N_LOG = 7 };

static const struct device_bias biases[] = {{.token = 7, .bias = 4.5f}, {.token = 1, .bias = -2}};
static const uint32_t stop_ids[] = {1, 3};

static struct device_adjust plain_adjust(void)
{
    return (struct device_adjust){.log = token_log, .n_prompt = N_PROMPT, .repetition = 1};
}

static uint32_t n_in_log(uint32_t id, uint32_t first, uint32_t end)
{
    uint32_t n = 0;

    for (uint32_t i = first; i < end; i++)
        n += token_log[i] == id;
    return n;
}

/* The definition, token by token, in double precision. */
static double adjusted_logit(const struct device_adjust *a, uint32_t id)
{
    double x = (double)logits[id];
    uint32_t n_output = n_in_log(id, N_PROMPT, N_LOG);

    if (n_in_log(id, 0, N_LOG) > 0)
        x = x > 0 ? x / (double)a->repetition : x * (double)a->repetition;
    if (n_output > 0)
        x -= (double)a->presence + (double)a->frequency * n_output;
    for (uint32_t i = 0; i < a->n_biases; i++)
        x += a->biases[i].token == id ? (double)a->biases[i].bias : 0;
    for (uint32_t i = 0; i < a->n_stops && N_LOG - N_PROMPT < a->min_tokens; i++)
        x = a->stops[i] == id ? -(double)INFINITY : x;
    return x;
}

/* Draws of position N_LOG under many seeds, against the softmax of the definition. */
static void assert_adjusted_draws_follow(const struct device_adjust *a, float temperature)
{
    struct sampler s = open_sampler(N_VOCAB);
    struct device_sampling how = {.temperature = temperature, .top_p = 1, .adjust = a};
    uint32_t seen[N_VOCAB] = {0}, df = 0;
    double p[N_VOCAB], chi_square = 0;
    float logprob;

    for (how.seed = 0; how.seed < N_SEEDS; how.seed++)
        seen[sampler_draw(&s, logits, &how, N_LOG, &logprob)]++;
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        p[i] = exp(adjusted_logit(a, i) / (double)temperature);
        assert_int_equal(s.counts[i], 0);
    }
    sampler_fini(&s);
    normalise(p);
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        double expected = p[i] * N_SEEDS;
        if (expected < 5) { /* too rare for a share of chi-square: bounded instead */
            assert_true(seen[i] <= 20);
            continue;
        }
        df++;
        chi_square += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    if (chi_square > chi_square_limit(df - 1))
        fail_msg(
            "chi-square %.1f over %.1f at temperature %g, repetition %g, presence %g, frequency %g",
            chi_square, chi_square_limit(df - 1), (double)temperature, (double)a->repetition,
            (double)a->presence, (double)a->frequency);
}

static void test_adjusted_draws_follow_the_definition(void **state)
{
    (void)state;
    struct device_adjust cases[8];

    for (size_t i = 0; i < 8; i++)
        cases[i] = plain_adjust();
    cases[1].repetition = 1.8f;
    cases[2].presence = 1.5f;
    cases[3].frequency = 0.7f;
    cases[4].frequency = -0.5f; /* wants repetition */
    cases[4].presence = -1;
    cases[5].n_biases = 2;
    cases[5].biases = biases;
    cases[6].min_tokens = 5;
    cases[6].n_stops = 2;
    cases[6].stops = stop_ids;
    cases[7] = (struct device_adjust){.log = token_log,
                                      .n_prompt = N_PROMPT,
                                      .repetition = 0.6f,
                                      .presence = 0.4f,
                                      .frequency = 0.2f,
                                      .n_biases = 2,
                                      .biases = biases,
                                      .min_tokens = 5,
                                      .n_stops = 1,
                                      .stops = stop_ids + 1};
    for (size_t i = 0; i < 8; i++) {
        assert_adjusted_draws_follow(&cases[i], 1);
        assert_adjusted_draws_follow(&cases[i], 0.7f);
    }
}

static uint32_t greedy_with(struct sampler *s, const struct device_adjust *a, uint32_t pos)
{
    const struct device_sampling how = {.top_p = 1, .adjust = a};
    float logprob;

    return sampler_draw(s, logits, &how, pos, &logprob);
}

static void test_stop_tokens_come_from_min_tokens_on(void **state)
{
    (void)state;
    struct sampler s = open_sampler(N_VOCAB);
    struct device_adjust a = plain_adjust();

    a.min_tokens = 3;
    a.n_stops = 2;
    a.stops = stop_ids;
    for (uint32_t n_output = 0; n_output < 3; n_output++)
        assert_int_equal(greedy_with(&s, &a, N_PROMPT + n_output), 9);
    assert_int_equal(greedy_with(&s, &a, N_PROMPT + 3), 1);
    sampler_fini(&s);
}

/* A log that lies behind the position is not looked at. */
static void test_penalties_see_the_log_below_the_position(void **state)
{
    (void)state;
    struct sampler s = open_sampler(N_VOCAB);
    struct device_adjust a = plain_adjust();

    a.presence = 10;
    a.log = stop_ids; /* 1, then 3 */
    a.n_prompt = 0;
    assert_int_equal(greedy_with(&s, &a, 0), 1);
    assert_int_equal(greedy_with(&s, &a, 1), 3);
    assert_int_equal(greedy_with(&s, &a, 2), 9);
    sampler_fini(&s);
}

/* ---- Alternatives ---------------------------------------------------------------------------- */

static void test_alternatives_are_the_most_likely_in_order(void **state)
{
    (void)state;
    struct sampler s = open_sampler(N_VOCAB);
    const struct device_sampling plain = {.temperature = 1, .top_p = 1};
    static const uint32_t order[N_VOCAB] = {1, 3, 9, 6, 4, 10, 0, 8, 5, 2, 7, 11};
    struct device_logprob top[DEVICE_TOP_MAX];
    double p[N_VOCAB];

    exact(&plain, p);
    assert_int_equal(sampler_top(&s, logits, 0, top), 0);
    for (uint32_t n = 1; n <= DEVICE_TOP_MAX; n++) {
        uint32_t n_told = sampler_top(&s, logits, n, top);

        assert_int_equal(n_told, n < N_VOCAB ? n : N_VOCAB);
        for (uint32_t i = 0; i < n_told; i++) {
            assert_int_equal(top[i].token, order[i]);
            assert_true(fabs((double)top[i].logprob - log(p[order[i]])) < 1e-5);
        }
    }
    sampler_fini(&s);
}

/* ---- What a token depends on ----------------------------------------------------------------- */

static void test_a_token_is_a_function_of_seed_and_position(void **state)
{
    (void)state;
    struct sampler a = open_sampler(N_VOCAB), b = open_sampler(N_VOCAB);
    struct device_sampling how = {.seed = 77, .temperature = 1, .top_p = 0.95f}, other = how;
    uint32_t n_other = 0;
    float first, second;

    other.seed = 78;
    for (uint32_t pos = 0; pos < 400; pos++) {
        uint32_t token = sampler_draw(&a, logits, &how, pos, &first);
        n_other += sampler_draw(&b, logits, &other, pos, &second) != token;
        assert_int_equal(sampler_draw(&b, logits, &how, pos, &second), token);
        assert_memory_equal(&first, &second, sizeof first);
    }
    assert_true(n_other > 100); /* another seed is another text */
    sampler_fini(&a);
    sampler_fini(&b);
}

static void test_logprob_is_of_the_unmodified_distribution(void **state)
{
    (void)state;
    struct sampler s = open_sampler(N_VOCAB);
    const struct device_sampling how = {.seed = 5, .temperature = 0.4f, .top_p = 0.9f, .top_k = 5};
    const struct device_sampling plain = {.temperature = 1, .top_p = 1};
    double p[N_VOCAB];
    float logprob;

    exact(&plain, p);
    for (uint32_t pos = 0; pos < 200; pos++) {
        uint32_t token = sampler_draw(&s, logits, &how, pos, &logprob);
        assert_true(fabs((double)logprob - log(p[token])) < 1e-5);
    }
    sampler_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answer),
        cmocka_unit_test(test_greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(test_draws_follow_the_exact_distribution),
        cmocka_unit_test(test_top_k_keeps_the_lower_of_equals),
        cmocka_unit_test(test_adjusted_draws_follow_the_definition),
        cmocka_unit_test(test_stop_tokens_come_from_min_tokens_on),
        cmocka_unit_test(test_penalties_see_the_log_below_the_position),
        cmocka_unit_test(test_alternatives_are_the_most_likely_in_order),
        cmocka_unit_test(test_a_token_is_a_function_of_seed_and_position),
        cmocka_unit_test(test_logprob_is_of_the_unmodified_distribution),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
