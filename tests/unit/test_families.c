/* One tiny random model of every family: the most likely token of every position as `transformers`
 * has it on the same weights, and exactness on the cpu device.
 *
 *   test_families            the models of model_random_family, tests/golden/families.json
 *   test_families FOLDER     FOLDER/NAME.gguf and FOLDER/families.json (tests/tools/families.py) */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"

enum {
    N_PROMPT = 150, /* beyond the windows of 48 and the original contexts of 64 */
    N_OUTPUT = 8,
    N_MAX = N_PROMPT + N_OUTPUT + 1,
};

static const double agreement_min = 0.999;

static const struct device_sampling drawn = {
    .seed = 9, .temperature = 0.9f, .top_p = 0.95f, .min_p = 0.01f};

static const char *folder; /* or NULL */
static struct device_fixture fixture;
static struct fixture_request request, reference;

static void open_family(const char *name, enum kv_type kv, uint32_t n_threads)
{
    struct model_random_options o;
    struct fixture_options f = {.kv = kv, .n_groups = 1, .n_threads = n_threads};
    char path[512];

    if (folder != NULL) {
        snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
        f.path = path;
    } else {
        assert_true(model_random_family(name, &o));
        f.model = &o;
    }
    fixture_open(&fixture, &f);
}

/* ---- Against transformers -------------------------------------------------------------------- */

static json_t *load_goldens(void)
{
    char path[512];
    json_error_t error;

    if (folder != NULL)
        snprintf(path, sizeof path, "%s/families.json", folder);
    else
        snprintf(path, sizeof path, "%s/tests/golden/families.json", OMNI_SOURCE_DIR);
    json_t *root = json_load_file(path, 0, &error);
    if (root == NULL)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

/* Returns the positions at which ours is the same. */
static uint32_t score_sequence(const json_t *sequence, uint32_t *n)
{
    const json_t *ids = json_object_get(sequence, "ids"), *top = json_object_get(sequence, "top");
    uint32_t tokens[FIXTURE_CONTEXT], n_agree = 0;

    *n = (uint32_t)json_array_size(ids);
    assert_in_range(*n, 100, FIXTURE_CONTEXT);
    assert_int_equal(json_array_size(top), *n);
    for (uint32_t i = 0; i < *n; i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(ids, i));
    fixture_request_init(&fixture, &request, tokens, *n, *n + 1);
    for (uint32_t pos = 0; pos < *n; pos += 16) {
        fixture_add_each(&fixture, &request, *n - pos < 16 ? *n - pos : 16);
        fixture_sweep(&fixture);
    }
    for (uint32_t i = 0; i < *n; i++)
        n_agree += request.sampled[i + 1] == (uint32_t)json_integer_value(json_array_get(top, i));
    fixture_request_fini(&fixture, &request);
    return n_agree;
}

static void score_family(const json_t *family)
{
    const char *name = json_string_value(json_object_get(family, "family"));
    uint32_t n_agree = 0, n_positions = 0, n;
    const json_t *sequence;
    size_t i;

    open_family(name, KV_TYPE_F32, 1);
    json_array_foreach(json_object_get(family, "sequences"), i, sequence)
    {
        n_agree += score_sequence(sequence, &n);
        n_positions += n;
    }
    fixture_close(&fixture);
    printf("%s: positions=%u top1_agreement=%.5f\n", name, n_positions,
           (double)n_agree / n_positions);
    assert_true(n_positions >= 400);
    assert_true(n_agree >= agreement_min * n_positions);
}

static void test_top_tokens(void **state)
{
    json_t *root = load_goldens();
    const json_t *family;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(root, "families"), i, family) score_family(family);
    assert_null(model_random_family_name((uint32_t)i)); /* all of them */
    json_decref(root);
}

/* ---- Exactness ------------------------------------------------------------------------------- */

static void init_request(struct fixture_request *r)
{
    uint32_t prompt[N_PROMPT];

    fixture_prompt(&fixture, 1, prompt, N_PROMPT);
    fixture_request_init(&fixture, r, prompt, N_PROMPT, N_MAX);
    r->sampling = drawn;
}

static void check_chunks(const char *name, uint32_t chunk, uint32_t n_threads)
{
    open_family(name, KV_TYPE_F16, n_threads);
    init_request(&request);
    fixture_prefill(&fixture, &request, chunk);
    fixture_decode(&fixture, &request, N_OUTPUT);
    fixture_assert_equal(&reference, &request, 0);
    fixture_close(&fixture);
}

/* Half of the output with KV in the arena and other rows beside it, the rest back on the device. */
static void check_offloaded(const char *name)
{
    open_family(name, KV_TYPE_F16, 2);
    init_request(&request);
    fixture_prefill(&fixture, &request, 64);
    fixture_offload(&fixture, &request, 2, 1);
    fixture_decode(&fixture, &request, N_OUTPUT / 2);
    assert_true(request.n_ridden > 0);
    fixture_fetch(&fixture, &request);
    for (uint32_t i = 0; i < N_OUTPUT - N_OUTPUT / 2; i++) {
        fixture_add_filler(&fixture, 0, 5 + i);
        fixture_add(&fixture, &request, 1);
        fixture_sweep(&fixture);
    }
    fixture_assert_equal(&reference, &request, 0);
    fixture_close(&fixture);
}

static void test_exactness(void **state)
{
    const char *name;

    (void)state;
    for (uint32_t i = 0; (name = model_random_family_name(i)) != NULL; i++) {
        open_family(name, KV_TYPE_F16, 1);
        init_request(&reference);
        fixture_prefill(&fixture, &reference, N_PROMPT);
        fixture_decode(&fixture, &reference, N_OUTPUT);
        fixture_close(&fixture);
        check_chunks(name, 1, 1);
        check_chunks(name, 37, 2);
        check_offloaded(name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top_tokens),
        cmocka_unit_test(test_exactness),
    };

    folder = argc > 1 ? argv[1] : NULL;
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
