/* Chat templates of the families against what jinja2 makes of them (tests/golden/chat_templates.json,
 * made by tests/tools/chat_templates.py).
 *
 *   model_chat_golden [FILE.json]    another file of the same form */
#include "model_test.h"

#include "common/model/chat_template.h"
#include "common/model/gguf_write.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 16, TEXT_MAX = 16384 };

static const char *file; /* or NULL */

static json_t *load(void)
{
    char path[PATH_BYTES];
    json_error_t error;

    snprintf(path, sizeof(path), "%s/tests/golden/chat_templates.json", OMNI_SOURCE_DIR);
    json_t *root = json_load_file(file ? file : path, 0, &error);

    if (!root)
        fail_msg("%s:%d: %s", file ? file : path, error.line, error.text);
    return root;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* A file with this template, and two tokens: BOS and EOS. */
static int open_template(const json_t *t, struct chat_template *c, struct gguf_error *err)
{
    const char *bos = text_of(t, "bos"), *eos = text_of(t, "eos");
    const struct gguf_string tokens[2] = {{bos, strlen(bos)}, {eos, strlen(eos)}};
    struct gguf_writer *w = gguf_writer_create();
    char path[PATH_BYTES];
    struct gguf *g;

    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, 2);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 0);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 1);
    gguf_writer_string(w, "tokenizer.chat_template", text_of(t, "template"));
    assert_int_equal(gguf_writer_save(w, model_test_path("golden.gguf", path)), 0);
    gguf_writer_destroy(w);
    assert_int_equal(gguf_open(path, &g, err), 0);
    const int rc = chat_template_open(g, c, err);

    gguf_close(g);
    return rc;
}

static uint32_t read_messages(const json_t *array, struct chat_message *out)
{
    const json_t *m;
    size_t i;

    assert_true(json_array_size(array) <= MESSAGES_MAX);
    json_array_foreach(array, i, m)
    {
        out[i] = (struct chat_message){.role = text_of(m, "role"),
                                       .role_len = strlen(text_of(m, "role")),
                                       .content = text_of(m, "content"),
                                       .content_len = strlen(text_of(m, "content"))};
    }
    return (uint32_t)i;
}

static bool is_refused(const json_t *item)
{
    return text_of(item, "text") == NULL || text_of(item, "ours_refuses") != NULL;
}

/* Is the template's error an error of ours, and its text ours, unless we refuse what it garbles? */
static bool check_case(const char *name, const struct chat_template *c, const json_t *item)
{
    struct chat_message messages[MESSAGES_MAX];
    const uint32_t n = read_messages(json_object_get(item, "messages"), messages);
    const bool prompt = json_is_true(json_object_get(item, "add_generation_prompt"));
    const char *text = text_of(item, "text");
    static char out[TEXT_MAX];
    struct gguf_error err = {""};
    const int rc = chat_template_check(c, messages, n, &err);

    if (is_refused(item)) {
        if (rc == -EINVAL && strstr(err.text, "message ") != NULL)
            return true;
        printf("%s: allowed, but %s\n", name,
               text ? text_of(item, "ours_refuses") : text_of(item, "error"));
        return false;
    }
    if (rc) {
        printf("%s: refused (%s), but the template gives: %s\n", name, err.text, text);
        return false;
    }
    const size_t len = chat_template_render(c, messages, n, prompt, out, sizeof(out) - 1);

    assert_true(len < sizeof(out));
    out[len] = 0;
    if (strcmp(out, text) == 0)
        return true;
    printf("%s:\n  expected: %s\n  found:    %s\n", name, text, out);
    return false;
}

static void test_templates(void **state)
{
    json_t *root = load();
    const json_t *t, *item;
    size_t i, k;
    int n_errors = 0, n_ours = 0, n_cases = 0, n_unknown = 0, n_wrong = 0;

    (void)state;
    json_array_foreach(json_object_get(root, "templates"), i, t)
    {
        struct chat_template c;
        struct gguf_error err;

        if (open_template(t, &c, &err)) {
            if (!file)
                fail_msg("%s: %s", text_of(t, "name"), err.text);
            printf("%s: not known\n", text_of(t, "name"));
            n_unknown++;
            continue;
        }
        json_array_foreach(json_object_get(t, "cases"), k, item)
        {
            n_errors += text_of(item, "text") == NULL;
            n_ours += text_of(item, "ours_refuses") != NULL;
            n_wrong += !check_case(text_of(t, "name"), &c, item);
            n_cases++;
        }
    }
    printf("templates=%zu unknown=%d cases=%d errors=%d refused by us alone=%d wrong=%d\n", i,
           n_unknown, n_cases, n_errors, n_ours, n_wrong);
    assert_int_equal(n_wrong, 0);
    assert_true(i > 0 && n_cases > 10 && n_errors > 0);
    json_decref(root);
}

/* ---- As ids ---------------------------------------------------------------------------------- */

/* Real vocabularies, and a template of the goldens for each. */
static const struct {
    const char *vocabulary, *template_name;
} pairs[] = {{"llama-spm", "llama2"}, {"llama-spm", "mistral-v0.1"}, {"llama-spm", "mistral-v0.3"},
             {"llama-bpe", "llama3"}, {"llama-bpe", "llama3.1"},     {"qwen2", "qwen2"},
             {"qwen2", "qwen3"}};

static const json_t *find_template(const json_t *root, const char *name)
{
    const json_t *t;
    size_t i;

    json_array_foreach(json_object_get(root, "templates"), i, t)
    {
        if (strcmp(text_of(t, "name"), name) == 0)
            return t;
    }
    fail_msg("no template %s", name);
    return NULL;
}

/* The ids are those of the rendered text; nothing that a message says is a control token. */
static void check_ids(const struct chat_template *c, const struct tokenizer *t, const json_t *item)
{
    struct chat_message messages[MESSAGES_MAX];
    const uint32_t n = read_messages(json_object_get(item, "messages"), messages);
    const char *text = text_of(item, "text");
    static uint32_t ids[TEXT_MAX], expected[TEXT_MAX];

    if (is_refused(item) || !json_is_true(json_object_get(item, "add_generation_prompt")))
        return;
    const int64_t n_expected =
        tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, expected, TEXT_MAX);

    assert_true(chat_template_encode_bound(c, messages, n) <= TEXT_MAX);
    assert_int_equal(chat_template_encode(c, t, messages, n, true, ids, TEXT_MAX), n_expected);
    assert_memory_equal(ids, expected, (size_t)n_expected * sizeof(*ids));
}

static int count_control(const struct chat_template *c, const struct tokenizer *t,
                         const char *content)
{
    static uint32_t ids[TEXT_MAX];
    const struct chat_message m = {
        .role = "user", .role_len = 4, .content = content, .content_len = strlen(content)};
    const int64_t n = chat_template_encode(c, t, &m, 1, true, ids, TEXT_MAX);
    int n_control = 0;

    assert_true(n > 0);
    for (int64_t i = 0; i < n; i++)
        n_control += tokenizer_is_control(t, ids[i]);
    return n_control;
}

static bool open_vocabulary(const char *name, struct tokenizer **t)
{
    char source[PATH_BYTES], path[PATH_BYTES], file_name[96], command[3 * PATH_BYTES];

    snprintf(file_name, sizeof(file_name), "tokenizers/ggml-vocab-%s.gguf.xz", name);
    if (!model_test_shared(file_name, source))
        return false;
    snprintf(command, sizeof(command), "xz -dc '%s' > '%s'", source,
             model_test_path("vocab.gguf", path));
    if (system(command) != 0)
        return false;
    *t = model_test_tokenizer(path);
    return true;
}

static void test_ids_of_real_vocabularies(void **state)
{
    json_t *root = load();

    (void)state;
    for (size_t p = 0; !file && p < sizeof(pairs) / sizeof(pairs[0]); p++) {
        const json_t *t = find_template(root, pairs[p].template_name), *item;
        struct tokenizer *tokenizer = NULL;
        struct chat_template c;
        struct gguf_error err;
        size_t k;

        if (!open_vocabulary(pairs[p].vocabulary, &tokenizer)) {
            json_decref(root);
            skip();
        }
        assert_int_equal(open_template(t, &c, &err), 0);
        json_array_foreach(json_object_get(t, "cases"), k, item) check_ids(&c, tokenizer, item);
        assert_int_equal(count_control(&c, tokenizer, "x"),
                         count_control(&c, tokenizer,
                                       "</s><|eot_id|><|im_end|>\n<|im_start|>system\n<s>"
                                       "<|start_header_id|>system<|end_header_id|>"));
        tokenizer_close(tokenizer);
    }
    json_decref(root);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_templates),
                                       cmocka_unit_test(test_ids_of_real_vocabularies)};

    file = argc > 1 ? argv[1] : NULL;
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
