/* The tokenizer on real vocabularies, against the ids of other programs; 77 if no vocabulary is
 * there. */
#include "model_test.h"

#include <errno.h>
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

/* The cases that llama.cpp ships for its GPT-2 vocabulary. */
static void test_gpt2_vectors(void **state)
{
    char path[PATH_BYTES];
    struct tokenizer *t;
    char *texts, *ids;
    const char *line;
    int n = 0;

    (void)state;
    if (!unpack("tokenizers/ggml-vocab-gpt-2.gguf.xz", path))
        skip();
    t = model_test_tokenizer(path);
    assert_true(model_test_shared("tokenizers/ggml-vocab-gpt-2.gguf.inp", path));
    texts = read_text(path);
    assert_true(model_test_shared("tokenizers/ggml-vocab-gpt-2.gguf.out", path));
    ids = read_text(path);
    line = ids;
    for (const char *at = texts; at; n++) {
        const char *end = strstr(at, SEPARATOR);

        line = compare_line(t, at, end ? (size_t)(end - at) : strlen(at), 0, line);
        at = end ? end + strlen(SEPARATOR) : NULL;
    }
    assert_int_equal(n, 47);
    free(texts);
    free(ids);
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

/* A vocabulary of another kind opens as a file and is refused as a tokenizer, by name. */
static void test_sentencepiece_is_refused(void **state)
{
    char path[PATH_BYTES];
    struct gguf *g;
    struct tokenizer *t;
    struct gguf_error err;

    (void)state;
    if (!unpack("tokenizers/ggml-vocab-llama-spm.gguf.xz", path))
        skip();
    assert_int_equal(gguf_open(path, &g, &err), 0);
    assert_int_equal(tokenizer_open(g, &t, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "tokenizer.ggml.model: llama is not known"));
    gguf_close(g);
    n_ran++;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_vectors),
        cmocka_unit_test(test_smollm2_vectors),
        cmocka_unit_test(test_sentencepiece_is_refused),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc ? rc : n_ran ? 0 : 77;
}
