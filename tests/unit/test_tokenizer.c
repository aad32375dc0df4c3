/* The tokenizer on the vocabulary of generated models: every byte has a token, digits stand alone.
 */
#include "model_test.h"

#include "common/model/gguf_write.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct tokenizer *t;

static int setup(void **state)
{
    (void)state;
    t = model_test_tiny_tokenizer();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(t);
    return 0;
}

static int64_t encode(const char *text, unsigned flags, uint32_t ids[64])
{
    return tokenizer_encode(t, text, strlen(text), flags, ids, 64);
}

static void expect_pieces(const char *text, const char *const *pieces)
{
    uint32_t ids[64];
    const int64_t n = encode(text, 0, ids);

    for (int64_t i = 0; i < n; i++) {
        const char *bytes;
        size_t len;

        assert_non_null(pieces[i]);
        assert_int_equal(tokenizer_piece(t, ids[i], &bytes, &len), 0);
        assert_int_equal(len, strlen(pieces[i]));
        assert_memory_equal(bytes, pieces[i], len);
    }
    assert_null(pieces[n]);
}

static void test_merges(void **state)
{
    (void)state;
    expect_pieces("", (const char *[]){NULL});
    expect_pieces("the the", (const char *[]){"t", "he", " the", NULL});
    /* "o u" goes before "y ou", whose half it is; "i s" goes before "h i", which is then too late.
     */
    expect_pieces(" you and this", (const char *[]){" ", "you", " and", " t", "h", "is", NULL});
    expect_pieces("12 345", (const char *[]){"1", "2", " ", "3", "4", "5", NULL});
    expect_pieces("a\n\n b", (const char *[]){"a", "\n", "\n", " b", NULL});
}

static void test_special(void **state)
{
    uint32_t ids[64];
    const uint32_t start = tokenizer_special_id(t, "<|im_start|>");
    const uint32_t end = tokenizer_special_id(t, "<|im_end|>");

    (void)state;
    assert_int_equal(start, tokenizer_bos(t));
    assert_int_equal(end, tokenizer_eos(t));
    assert_int_equal(tokenizer_special_id(t, "<|im_sta"), TOKENIZER_NONE);
    assert_int_equal(encode("<|im_start|>x<|im_end|><|im_end", TOKENIZER_PARSE_SPECIAL, ids), 10);
    assert_int_equal(ids[0], start);
    assert_int_equal(ids[2], end);
    for (int i = 3; i < 10; i++) /* < | i m _ en d */
        assert_false(tokenizer_is_control(t, ids[i]));
    /* Not asked for: the same text is text. */
    assert_true(encode("<|im_start|>", 0, ids) > 1);
    assert_false(tokenizer_is_control(t, ids[0]));
    assert_true(tokenizer_is_control(t, start) && tokenizer_is_eog(t, end));
    assert_false(tokenizer_is_eog(t, start));
    assert_true(tokenizer_is_eog(t, tokenizer_special_id(t, "<|endoftext|>")));
}

static void test_limits(void **state)
{
    uint32_t ids[64];
    const char *bytes;
    size_t len;

    (void)state;
    assert_int_equal(tokenizer_encode(t, "xyz", 3, 0, ids, 2), -ENOSPC);
    assert_int_equal(tokenizer_encode(t, "xyz", 3, 0, ids, 3), 3);
    assert_int_equal(tokenizer_encode(t, "", 0, 0, NULL, 0), 0);
    assert_int_equal(tokenizer_encode(t, "", (size_t)TOKENIZER_TEXT_MAX + 1, 0, ids, 1), -E2BIG);
    assert_int_equal(tokenizer_piece(t, tokenizer_n_vocab(t), &bytes, &len), -EINVAL);
    assert_false(tokenizer_is_eog(t, UINT32_MAX));
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Bytes of all kinds: random ones, ASCII, and pieces of UTF-8 cut anywhere. */
static void random_text(uint64_t *x, char *out, size_t len)
{
    static const char utf8[] = "\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x99\x82\xef\xbf\xbd \xc2\xa0";
    const uint64_t kind = next(x) % 3;

    for (size_t i = 0; i < len; i++) {
        const uint64_t r = next(x) >> 8;

        if (kind == 0)
            out[i] = (char)r;
        else if (kind == 1)
            out[i] = (char)(32 + r % 95);
        else
            out[i] = r % 16 ? utf8[(i + (r >> 8) % 16 / 15) % (sizeof(utf8) - 1)] : (char)(r >> 16);
    }
}

/* Puts the pieces of ids together and compares. */
static bool gives_back(const struct tokenizer *tk, const uint32_t *ids, int64_t n, const char *text,
                       size_t len)
{
    size_t at = 0;

    for (int64_t i = 0; i < n; i++) {
        const char *bytes;
        size_t piece;

        if (tokenizer_piece(tk, ids[i], &bytes, &piece) || piece > len - at ||
            memcmp(text + at, bytes, piece) != 0)
            return false;
        at += piece;
    }
    return at == len;
}

static void test_all_bytes_survive(void **state)
{
    uint64_t x = 88172645463325252u;
    char text[300];
    uint32_t ids[302];

    (void)state;
    for (int c = 0; c < 256; c++)
        assert_true(tokenizer_has_byte(t, (unsigned char)c));
    for (int round = 0; round < 3000; round++) {
        const size_t len = next(&x) % sizeof(text);
        int64_t n;

        random_text(&x, text, len);
        n = tokenizer_encode(t, text, len, (unsigned)(round % 2), ids, tokenizer_encode_bound(len));
        assert_true(n >= 0 && gives_back(t, ids, n, text, len));
    }
}

/* A word of a megabyte: anything quadratic would take hours. */
static void test_long_word(void **state)
{
    const size_t len = 1 << 20;
    char *text = malloc(len);
    uint32_t *ids = malloc(tokenizer_encode_bound(len) * sizeof(*ids));
    static const char *const patterns[] = {"he", "a", " ", "\xff", "her"};

    (void)state;
    assert_true(text && ids);
    for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        const size_t period = strlen(patterns[p]);
        int64_t n;

        for (size_t i = 0; i < len; i++)
            text[i] = patterns[p][i % period];
        n = tokenizer_encode(t, text, len, 0, ids, tokenizer_encode_bound(len));
        assert_true(n > 0 && gives_back(t, ids, n, text, len));
    }
    free(text);
    free(ids);
}

struct worker {
    pthread_t thread;
    uint64_t seed;
    bool ok;
};

static void *encode_many(void *argument)
{
    struct worker *w = argument;
    char text[120];
    uint32_t ids[122];

    w->ok = true;
    for (int round = 0; round < 500; round++) {
        const size_t len = next(&w->seed) % sizeof(text);
        int64_t n;

        random_text(&w->seed, text, len);
        n = tokenizer_encode(t, text, len, 0, ids, 122);
        w->ok = w->ok && n >= 0 && gives_back(t, ids, n, text, len);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct worker workers[4];

    (void)state;
    for (uint64_t i = 0; i < 4; i++) {
        workers[i].seed = i * 7919 + 1;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, encode_many, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_true(workers[i].ok);
    }
}

/* A vocabulary written here: BOS and EOS wanted, a user-defined token, a byte without a token. */
static struct tokenizer *small(const char *model, const char *pre, uint32_t bos, int *rc,
                               struct gguf_error *err)
{
    static const struct gguf_string tokens[] = {{"<s>", 3}, {"</s>", 4}, {"a", 1},
                                                {"b", 1},   {"ab", 2},   {"[user]", 6}};
    static const struct gguf_string merges[] = {{"a b", 3}, {"a zz", 4}, {"nonsense", 8}};
    static const int32_t types[] = {3, 3, 1, 1, 1, 4};
    struct gguf_writer *w = gguf_writer_create();
    struct tokenizer *out = NULL;
    struct gguf *g;
    char path[PATH_BYTES];

    gguf_writer_string(w, "tokenizer.ggml.model", model);
    gguf_writer_string(w, "tokenizer.ggml.pre", pre);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, 6);
    gguf_writer_strings(w, "tokenizer.ggml.merges", merges, 3);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", types, 6);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", bos);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 1);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_writer_bool(w, "tokenizer.ggml.add_eos_token", true);
    assert_int_equal(gguf_writer_save(w, model_test_path("small.gguf", path)), 0);
    gguf_writer_destroy(w);
    assert_int_equal(gguf_open(path, &g, err), 0);
    *rc = tokenizer_open(g, &out, err);
    gguf_close(g);
    return out;
}

static void test_flags_of_the_file(void **state)
{
    struct gguf_error err;
    int rc;
    uint32_t ids[8];
    struct tokenizer *s = small("gpt2", "default", 0, &rc, &err);
    static const uint32_t expected[] = {0, 4, 5, 3, 1};

    (void)state;
    assert_int_equal(rc, 0);
    /* "z" has no token and gives nothing; [user] is kept whole though specials are not parsed. */
    assert_int_equal(tokenizer_encode(s, "ab[user]zb", 10, TOKENIZER_ADD_SPECIAL, ids, 8), 5);
    assert_memory_equal(ids, expected, sizeof(expected));
    assert_int_equal(tokenizer_encode(s, "<s>", 3, TOKENIZER_PARSE_SPECIAL, ids, 8), 1);
    assert_int_equal(ids[0], 0);
    assert_false(tokenizer_has_byte(s, 'z'));
    assert_true(tokenizer_is_eog(s, 1) && !tokenizer_is_control(s, 5));
    tokenizer_close(s);
}

/* Found by fuzzing: a file whose merges do not add up to text.  "ab" is a control token here, and the
 * text of "Gx" (in GPT-2's alphabet a space and x) is no concatenation of its parts' bytes. */
static void test_merges_that_do_not_add_up(void **state)
{
    static const char *const texts[] = {
        "a", "b", "ab", "\xc4\xa0", "\xe4\xbd\xa0", "\xc4\xa0\xe4\xbd\xa0"};
    static const char *const merges[] = {"a b", "\xc4\xa0 \xe4\xbd\xa0"};
    const int32_t types[] = {1, 1, 3, 1, 1, 1};
    struct gguf_writer *w = gguf_writer_create();
    struct gguf_string strings[6];
    char path[PATH_BYTES];
    struct tokenizer *s;
    uint32_t ids[8];

    (void)state;
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    for (int i = 0; i < 6; i++)
        strings[i] = (struct gguf_string){texts[i], strlen(texts[i])};
    gguf_writer_strings(w, "tokenizer.ggml.tokens", strings, 6);
    gguf_writer_i32s(w, "tokenizer.ggml.token_type", types, 6);
    for (int i = 0; i < 2; i++)
        strings[i] = (struct gguf_string){merges[i], strlen(merges[i])};
    gguf_writer_strings(w, "tokenizer.ggml.merges", strings, 2);
    assert_int_equal(gguf_writer_save(w, model_test_path("merges.gguf", path)), 0);
    gguf_writer_destroy(w);
    s = model_test_tokenizer(path);
    assert_int_equal(tokenizer_encode(s, "ab", 2, 0, ids, 8), 2);
    assert_true(ids[0] == 0 && ids[1] == 1);
    assert_int_equal(tokenizer_encode(s, "ab", 2, TOKENIZER_PARSE_SPECIAL, ids, 8), 1);
    assert_int_equal(ids[0], 2);
    tokenizer_close(s);
}

static void test_refused(void **state)
{
    struct gguf_error err;
    int rc;

    (void)state;
    assert_null(small("bert", "default", 0, &rc, &err));
    assert_int_equal(rc, -ENOTSUP);
    assert_non_null(strstr(err.text, ": bert is not known (known: gpt2"));
    assert_null(small("llama", "default", 0, &rc, &err));
    assert_int_equal(rc, -EINVAL);
    assert_non_null(strstr(err.text, "tokenizer.ggml.scores"));
    assert_null(small("gpt2", "klingon", 0, &rc, &err));
    assert_int_equal(rc, -ENOTSUP);
    assert_non_null(strstr(err.text, "klingon is not known (known: gpt-2, smollm, llama-bpe,"));
    assert_null(small("gpt2", "default", 6, &rc, &err));
    assert_int_equal(rc, -EINVAL);
    assert_non_null(strstr(err.text, "tokenizer.ggml.bos_token_id"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_all_bytes_survive),
        cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_merges_that_do_not_add_up),
        cmocka_unit_test(test_flags_of_the_file),
    };
    const int rc = cmocka_run_group_tests(tests, setup, teardown);

    model_test_clean();
    return rc;
}
