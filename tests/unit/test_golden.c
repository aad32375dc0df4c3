/* The cpu device against llama.cpp on the demo model: log-probabilities of every position, teacher
 * forced, and greedy continuations.  tests/golden/README.md says how the numbers were made, and
 * how far two exact implementations may lie apart (bounds below).  Skipped without the model. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device_fixture.h"

enum { EXIT_SKIPPED = 77, TOP = 5, N_THREADS = 2, KV_BLOCKS = 40 };

static const double margin_min = 0.01; /* below it an exact implementation may choose otherwise */

/* Over all positions of all prompts. */
struct score {
    uint64_t n_positions, n_agree, n_logprobs;
    double difference, largest, next_difference;
    uint64_t n_next;
};

static struct device_fixture fixture;
static struct fixture_request request;
static char model_path[512];

/* ---- Files ----------------------------------------------------------------------------------- */

/* OMNI_DEMO_MODEL, else where deploy/quickstart and tests/run keep it. */
static bool find_model(void)
{
    const char *path = getenv("OMNI_DEMO_MODEL"), *cache = getenv("XDG_CACHE_HOME");
    const char *name = "omniserve/SmolLM2-135M-Instruct.Q4_1.gguf";

    if (path != NULL)
        snprintf(model_path, sizeof model_path, "%s", path);
    else if (cache != NULL && cache[0] != 0)
        snprintf(model_path, sizeof model_path, "%s/%s", cache, name);
    else
        snprintf(model_path, sizeof model_path, "%s/.cache/%s", getenv("HOME"), name);
    return access(model_path, R_OK) == 0;
}

static json_t *load(const char *name)
{
    char path[512];
    json_error_t error;

    snprintf(path, sizeof path, "%s/tests/golden/%s", OMNI_SOURCE_DIR, name);
    json_t *root = json_load_file(path, 0, &error);
    if (root == NULL)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

static uint32_t read_ids(const json_t *array, uint32_t *out)
{
    size_t n = json_array_size(array);

    assert_in_range(n, 1, FIXTURE_CONTEXT);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return (uint32_t)n;
}

static void open_model(enum kv_type kv)
{
    const struct fixture_options o = {.path = model_path,
                                      .kv = kv,
                                      .n_groups = 1,
                                      .n_threads = N_THREADS,
                                      .n_kv_blocks = KV_BLOCKS};

    fixture_open(&fixture, &o);
}

/* ---- Teacher forced -------------------------------------------------------------------------- */

static uint32_t argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static double log_sum_exp(const float *logits, uint32_t n)
{
    double max = (double)logits[argmax(logits, n)], sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

static void score_position(struct score *s, const float *logits, const json_t *top,
                           const json_t *next, uint32_t next_token)
{
    uint32_t n_vocab = fixture.model->n_vocab;
    double lse = log_sum_exp(logits, n_vocab);

    for (size_t k = 0; k < TOP; k++) {
        const json_t *pair = json_array_get(top, k);
        uint32_t token = (uint32_t)json_integer_value(json_array_get(pair, 0));
        double golden = json_real_value(json_array_get(pair, 1));
        double d = fabs((double)logits[token] - lse - golden);

        s->n_agree += k == 0 && token == argmax(logits, n_vocab);
        s->difference += d;
        s->largest = d > s->largest ? d : s->largest;
        s->n_logprobs++;
    }
    if (next != NULL) {
        s->next_difference += fabs((double)logits[next_token] - lse - json_real_value(next));
        s->n_next++;
    }
    s->n_positions++;
}

static void score_prompt(struct score *s, const json_t *prompt)
{
    const json_t *top = json_object_get(prompt, "top"), *next = json_object_get(prompt, "next");
    uint32_t ids[FIXTURE_CONTEXT], n = read_ids(json_object_get(prompt, "ids"), ids);

    assert_int_equal(json_array_size(top), n);
    fixture_request_init(&fixture, &request, ids, n, n);
    for (uint32_t pos = 0; pos < n;) {
        uint32_t rows = n - pos < CPU_LOGIT_ROWS ? n - pos : (uint32_t)CPU_LOGIT_ROWS;

        fixture_add_each(&fixture, &request, rows);
        fixture_sweep(&fixture);
        for (uint32_t i = 0; i < rows; i++, pos++)
            score_position(s, fixture_logits(&fixture, i), json_array_get(top, pos),
                           json_array_get(next, pos), request.tokens[pos + 1]);
    }
    fixture_request_fini(&fixture, &request);
}

static void check_prompts(const char *file, enum kv_type kv, double agree_min,
                          double difference_max)
{
    json_t *root = load(file);
    struct score s = {.n_positions = 0};
    const json_t *prompt;
    size_t i;

    open_model(kv);
    json_array_foreach(json_object_get(root, "prompts"), i, prompt) score_prompt(&s, prompt);
    fixture_close(&fixture);
    double agree = (double)s.n_agree / (double)s.n_positions;
    double difference = s.difference / (double)s.n_logprobs;
    printf("%s: prompts=%zu positions=%llu top1_agreement=%.5f top5_mean_abs_difference=%.6f "
           "largest=%.5f next_mean_abs_difference=%.6f\n",
           file, json_array_size(json_object_get(root, "prompts")),
           (unsigned long long)s.n_positions, agree, difference, s.largest,
           s.next_difference / (double)s.n_next);
    json_decref(root);
    assert_true(s.n_positions > 1000);
    assert_true(agree >= agree_min);
    assert_true(difference <= difference_max);
}

static void test_logprobs_with_f16_kv(void **state)
{
    (void)state;
    check_prompts("goldens.json", KV_TYPE_F16, 0.995, 0.005);
}

/* Without the rounding of KV only the order of sums differs. */
static void test_logprobs_with_f32_kv(void **state)
{
    (void)state;
    check_prompts("goldens_kv_f32.json", KV_TYPE_F32, 0.999, 0.0001);
}

/* ---- Greedy ---------------------------------------------------------------------------------- */

/* Up to the first step at which both choices are right.  Returns the tokens compared. */
static uint32_t check_continuation(const json_t *greedy)
{
    const json_t *margin = json_object_get(greedy, "margin");
    uint32_t ids[FIXTURE_CONTEXT], out[FIXTURE_CONTEXT];
    uint32_t n = read_ids(json_object_get(greedy, "ids"), ids), i;
    uint32_t n_out = read_ids(json_object_get(greedy, "out"), out);

    fixture_request_init(&fixture, &request, ids, n, n + n_out);
    fixture_prefill(&fixture, &request, FIXTURE_ROWS);
    fixture_decode(&fixture, &request, n_out - 1);
    for (i = 0; i < n_out; i++) {
        if (request.tokens[n + i] == out[i])
            continue;
        if (json_real_value(json_array_get(margin, i)) > margin_min)
            fail_msg("token %u of \"%.60s\"", i,
                     json_string_value(json_object_get(greedy, "out_text")));
        break;
    }
    fixture_request_fini(&fixture, &request);
    return i;
}

static void test_greedy_continuations(void **state)
{
    json_t *root = load("goldens.json");
    const json_t *greedy;
    uint32_t n_tokens = 0;
    size_t i;

    (void)state;
    open_model(KV_TYPE_F16);
    json_array_foreach(json_object_get(root, "greedy"), i, greedy) n_tokens +=
        check_continuation(greedy);
    fixture_close(&fixture);
    printf("greedy: continuations=%zu tokens_equal=%u\n", i, n_tokens);
    assert_true(i >= 5 && n_tokens >= 100);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprobs_with_f16_kv),
        cmocka_unit_test(test_logprobs_with_f32_kv),
        cmocka_unit_test(test_greedy_continuations),
    };

    if (!find_model()) {
        fprintf(stderr, "skipped: no demo model (tests/run fetches it)\n");
        return EXIT_SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
