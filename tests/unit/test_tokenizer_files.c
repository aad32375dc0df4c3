/* The tokenizer on real vocabularies, against the ids of other programs; 77 if no vocabulary is
 * there. */
#include "model_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATOR "\n__ggml_vocab_test__\n"

static int n_ran;

/* Unpacks a .xz file of the reference data; false if it or xz is not there. */
static bool unpack(const char *name, char out[PATH_BYTES])
{
    char source[PATH_BYTES], command[3 * PATH_BYTES];

    if (!model_test_shared(name, source))
        return false;
    model_test_path("vocab.gguf", out);
    snprintf(command, sizeof(command), "xz -dc '%s' > '%s'", source, out);
    return system(command) == 0;
}

static char *read_text(const char *path)
{
    size_t size;
    unsigned char *data = model_test_read(path, &size);
    char *text = malloc(size + 1);

    assert_non_null(text);
    memcpy(text, data, size);
    text[size] = 0;
    free(data);
    return text;
}

/* Encodes len bytes and compares with the ids in the line at p; returns the end of the line. */
static const char *compare_line(const struct tokenizer *t, const char *text, size_t len,
                                unsigned flags, const char *p)
{
    uint32_t ids[1024];
    const int64_t n = tokenizer_encode(t, text, len, flags, ids, 1024);
    const char *end = strchrnul(p, '\n');
    int64_t i = 0;

    for (char *after; p < end; p = after) {
        const unsigned long id = strtoul(p, &after, 10);

        if (after == p || after > end)
            break;
        if (i >= n || ids[i] != id)
            fail_msg("\"%.*s\": token %ld: expected %lu, found %u", (int)len, text, (long)i, id,
                     i < n ? ids[i] : 0);
        i++;
    }
    assert_int_equal(i, n);
    return *end ? end + 1 : end;
}

static struct tokenizer *open_vocabulary(const char *name)
{
    char path[PATH_BYTES], file[96];

    snprintf(file, sizeof(file), "tokenizers/ggml-vocab-%s.gguf.xz", name);
    return unpack(file, path) ? model_test_tokenizer(path) : NULL;
}

static char *read_cases(const char *name, const char *suffix)
{
    char path[PATH_BYTES], file[96];

    snprintf(file, sizeof(file), "tokenizers/ggml-vocab-%s.gguf.%s", name, suffix);
    assert_true(model_test_shared(file, path));
    return read_text(path);
}

/* The text comes back out of its ids. */
static void check_round_trip(const struct tokenizer *t, const char *text, size_t len,
                             unsigned flags)
{
    const size_t cap = tokenizer_encode_bound(len);
    uint32_t *ids = malloc(cap * sizeof(*ids));
    char *back = malloc(len + 1);
    int64_t n;

    assert_true(ids && back);
    n = tokenizer_encode(t, text, len, flags, ids, cap);
    assert_true(n >= 0);
    assert_int_equal(tokenizer_decode(t, ids, (size_t)n, back, len), len);
    assert_memory_equal(back, text, len);
    free(ids);
    free(back);
}

/* The cases that llama.cpp ships for a vocabulary. */
static void check_vectors(const char *name)
{
    struct tokenizer *t = open_vocabulary(name);
    char *texts, *ids;
    const char *line;
    int n = 0;

    if (!t)
        skip();
    texts = read_cases(name, "inp");
    ids = read_cases(name, "out");
    line = ids;
    for (const char *at = texts; at; n++) {
        const char *end = strstr(at, SEPARATOR);
        const size_t len = end ? (size_t)(end - at) : strlen(at);

        line = compare_line(t, at, len, 0, line);
        check_round_trip(t, at, len, 0);
        at = end ? end + strlen(SEPARATOR) : NULL;
    }
    assert_int_equal(n, 47);
    free(texts);
    free(ids);
    tokenizer_close(t);
    n_ran++;
}

static void test_gpt2_vectors(void **state)
{
    (void)state;
    check_vectors("gpt-2");
}

static void test_llama_bpe_vectors(void **state)
{
    (void)state;
    check_vectors("llama-bpe");
}

static void test_qwen2_vectors(void **state)
{
    (void)state;
    check_vectors("qwen2");
}

static void test_llama_spm_vectors(void **state)
{
    (void)state;
    check_vectors("llama-spm");
}

/* Prompts of llama2.c's own test, with BOS as the file wants it. */
static void test_llama2_prompts(void **state)
{
    struct tokenizer *t = open_vocabulary("llama-spm");
    char path[PATH_BYTES];
    const json_t *item;
    json_error_t error;
    size_t i;

    (void)state;
    if (!t || !model_test_shared("tokenizers/llama2_prompt_cases.json", path))
        skip();
    json_t *root = json_load_file(path, 0, &error);

    assert_non_null(root);
    json_array_foreach(json_object_get(root, "cases"), i, item)
    {
        const json_t *expected = json_object_get(item, "ids");
        const char *text = json_string_value(json_object_get(item, "text"));
        uint32_t ids[512];
        const int64_t n = tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, ids, 512);

        assert_int_equal(n, json_array_size(expected));
        for (int64_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(expected, (size_t)k)));
    }
    assert_true(i >= 5);
    json_decref(root);
    tokenizer_close(t);
    n_ran++;
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Bytes of all kinds: plain, spaces, pieces of UTF-8 whole and broken, names of special tokens. */
static size_t random_text(uint64_t *x, char *out, size_t len)
{
    static const char *const parts[] = {" ",
                                        "  ",
                                        "\n",
                                        "\t",
                                        "the",
                                        "The",
                                        " a",
                                        "1234",
                                        "'s",
                                        "\xc3\xa9",
                                        "\xe2\x96\x81",
                                        "\xe4\xbd\xa0",
                                        "\xf0\x9f\x98\x80",
                                        "\xe2\x96",
                                        "\xff",
                                        "\xc0\x80",
                                        "<|im_start|>",
                                        "<s>",
                                        "</s>",
                                        "<unk>",
                                        "<|begin_of_text|>",
                                        "<0x0A>",
                                        "[INST]"};
    size_t n = 0;

    while (n < len) {
        const uint64_t r = next_random(x);
        const char *part = parts[r % (sizeof(parts) / sizeof(parts[0]))];

        if (r >> 32 & 1) {
            out[n++] = (char)(r >> 40);
            continue;
        }
        for (size_t i = 0; part[i] && n < len; i++)
            out[n++] = part[i];
    }
    return n;
}

static void test_any_bytes_come_back(void **state)
{
    static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2", "llama-spm"};
    char text[5000];
    uint64_t x = 88172645463325252u;

    (void)state;
    for (size_t v = 0; v < sizeof(names) / sizeof(names[0]); v++) {
        struct tokenizer *t = open_vocabulary(names[v]);

        if (!t)
            skip();
        for (int byte = 0; byte < 256; byte++)
            assert_true(tokenizer_has_byte(t, (unsigned char)byte));
        for (int round = 0; round < 400; round++) {
            const size_t len = (size_t)(next_random(&x) % (round % 40 ? 120 : sizeof(text)));

            random_text(&x, text, len);
            check_round_trip(t, text, len, 0);
            check_round_trip(t, text, len, TOKENIZER_PARSE_SPECIAL);
        }
        tokenizer_close(t);
    }
    n_ran++;
}

/* Ids do not depend on the cache of words: a long text word by word is the text as a whole. */
static void test_long_text_is_its_words(void **state)
{
    struct tokenizer *t = open_vocabulary("llama-bpe");
    uint32_t whole[4096], part[64];
    char text[8192];
    size_t len = 0;
    int64_t n, at = 0;

    (void)state;
    if (!t)
        skip();
    for (int i = 0; i < 600; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, " %s%d",
                                i % 3 ? "forwarding" : "Zwxq", i % 7);
    n = tokenizer_encode(t, text, len, 0, whole, 4096);
    for (const char *p = text, *end; p < text + len; p = end) {
        end = strchrnul(p + 1, ' ');
        const int64_t k = tokenizer_encode(t, p, (size_t)(end - p), 0, part, 64);

        assert_true(k > 0 && at + k <= n);
        assert_memory_equal(part, whole + at, (size_t)k * sizeof(*part));
        at += k;
    }
    assert_int_equal(at, n);
    tokenizer_close(t);
    n_ran++;
}

static size_t from_hex(const char *p, const char *end, char *out)
{
    size_t n = 0;

    for (; p + 1 < end; p += 2) {
        const char digits[3] = {p[0], p[1], 0};

        out[n++] = (char)strtoul(digits, NULL, 16);
    }
    return n;
}

/* data/smollm2_tokens.txt says how its ids were made. */
static void test_smollm2_vectors(void **state)
{
    char path[PATH_BYTES], text[1024];
    struct tokenizer *t;
    char *cases;
    int n = 0;

    (void)state;
    if (!model_test_demo(path))
        skip();
    t = model_test_tokenizer(path);
    snprintf(path, sizeof(path), "%s/tests/unit/data/smollm2_tokens.txt", OMNI_SOURCE_DIR);
    cases = read_text(path);
    for (const char *p = cases; *p;) {
        const char *colon = strchrnul(p, ':');

        if (*p == '#') {
            p = strchrnul(p, '\n') + 1;
            continue;
        }
        p = compare_line(t, text, from_hex(p, colon, text), TOKENIZER_PARSE_SPECIAL, colon + 1);
        n++;
    }
    assert_int_equal(n, 32);
    free(cases);
    tokenizer_close(t);
    n_ran++;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_vectors),           cmocka_unit_test(test_llama_bpe_vectors),
        cmocka_unit_test(test_qwen2_vectors),          cmocka_unit_test(test_llama_spm_vectors),
        cmocka_unit_test(test_llama2_prompts),         cmocka_unit_test(test_any_bytes_come_back),
        cmocka_unit_test(test_long_text_is_its_words), cmocka_unit_test(test_smollm2_vectors),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc ? rc : n_ran ? 0 : 77;
}
