/* SentencePiece's BPE on a vocabulary of a dozen tokens: what llama.cpp's algorithm says, by hand. */
#include "model_test.h"

#include "chars_vocab.h"

#include "common/model/detokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

/* false_key: a key of the file that is false, or NULL; scores: others than the words', or NULL. */
static struct tokenizer *open_small(const char *arch, const char *false_key, const float *scores,
                                    int *rc, struct gguf_error *err)
{
    struct gguf_writer *w = gguf_writer_create();
    char path[PATH_BYTES];
    struct gguf *g;
    struct tokenizer *t = NULL;

    gguf_writer_string(w, "general.architecture", arch);
    if (false_key)
        gguf_writer_bool(w, false_key, false);
    chars_vocab_add(w, scores);
    assert_int_equal(gguf_writer_save(w, model_test_path("chars.gguf", path)), 0);
    gguf_writer_destroy(w);
    assert_int_equal(gguf_open(path, &g, err), 0);
    *rc = tokenizer_open(g, &t, err);
    gguf_close(g);
    return t;
}

static struct tokenizer *open_good(const char *arch, const char *false_key)
{
    struct gguf_error err;
    int rc;
    struct tokenizer *t = open_small(arch, false_key, NULL, &rc, &err);

    if (!t)
        fail_msg("%s", err.text);
    return t;
}

static void expect(const struct tokenizer *t, const char *text, unsigned flags,
                   const uint32_t *expected, int64_t n)
{
    uint32_t ids[64];
    char back[64];

    assert_int_equal(tokenizer_encode(t, text, strlen(text), flags, ids, 64), n);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] != expected[i])
            fail_msg("\"%s\": token %ld: expected %u, found %u", text, (long)i, expected[i],
                     ids[i]);
    if (flags & TOKENIZER_ADD_SPECIAL)
        return;
    assert_int_equal(tokenizer_decode(t, ids, (size_t)n, back, sizeof(back)), strlen(text));
    assert_memory_equal(back, text, strlen(text));
}

#define EXPECT(t, text, flags, ...)                                                                \
    expect(t, text, flags, (const uint32_t[]){__VA_ARGS__},                                        \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* "aba" is the best token, but "ab" must be made first; of two for one score the left one is. */
static void test_scores_decide(void **state)
{
    struct tokenizer *t = open_good("llama", NULL);

    (void)state;
    EXPECT(t, "ab", 0, ID_SPACE_AB);
    EXPECT(t, "aba", 0, ID_SPACE, ID_ABA);
    EXPECT(t, "abab", 0, ID_SPACE, ID_ABA, ID_B); /* the first "ab" meets an "a" */
    EXPECT(t, "a  ab", 0, ID_SPACE, ID_A, ID_SPACES, ID_AB);
    EXPECT(t, "\xc3\xa9", 0, ID_SPACE, ID_E_ACUTE);
    tokenizer_close(t);
}

/* "bc" is made of b and a character that is no token; alone that gives its bytes. */
static void test_characters_without_a_token(void **state)
{
    struct tokenizer *t = open_good("llama", NULL);

    (void)state;
    EXPECT(t, "bc", 0, ID_SPACE, ID_BC);
    EXPECT(t, "cb", 0, ID_SPACE, ID_BYTES + 'c', ID_B);
    EXPECT(t, "\xc3\xa8\xff", 0, ID_SPACE, ID_BYTES + 0xc3, ID_BYTES + 0xa8, ID_BYTES + 0xff);
    /* The character that vocabularies use for a space is not one. */
    EXPECT(t, SPACE, 0, ID_SPACE, ID_BYTES + 0xe2, ID_BYTES + 0x96, ID_BYTES + 0x81);
    tokenizer_close(t);
}

/* Control tokens are never made of plain text, nor byte tokens of their names. */
static void test_special(void **state)
{
    struct tokenizer *t = open_good("llama", NULL);
    uint32_t ids[64];
    int64_t n = tokenizer_encode(t, "</s><0x41>", 10, 0, ids, 64);

    (void)state;
    assert_int_equal(n, 11);
    EXPECT(t, "ab</s>ab", TOKENIZER_PARSE_SPECIAL, ID_SPACE_AB, ID_EOS, ID_SPACE_AB);
    EXPECT(t, "ab[T]ab", 0, ID_SPACE_AB, ID_USER, ID_SPACE_AB);
    EXPECT(t, "ab", TOKENIZER_ADD_SPECIAL, ID_BOS, ID_SPACE_AB);
    EXPECT(t, "<|end|> ab", TOKENIZER_PARSE_SPECIAL, ID_STRIP, ID_SPACES, ID_AB);
    tokenizer_close(t);
}

static void test_flags_of_the_file(void **state)
{
    struct tokenizer *t = open_good("llama", "tokenizer.ggml.add_space_prefix");
    uint32_t ids[8];

    (void)state;
    EXPECT(t, "ab", 0, ID_AB);
    EXPECT(t, " ab</s>ab", TOKENIZER_PARSE_SPECIAL, ID_SPACE_AB, ID_EOS, ID_AB);
    tokenizer_close(t);
    t = open_good("llama", "tokenizer.ggml.add_bos_token");
    EXPECT(t, "ab", TOKENIZER_ADD_SPECIAL, ID_SPACE_AB);
    tokenizer_close(t);
    /* Phi-3: white space behind a special token belongs to it. */
    t = open_good("phi3", NULL);
    assert_int_equal(tokenizer_encode(t, "<|end|>\n ab", 11, TOKENIZER_PARSE_SPECIAL, ids, 8), 2);
    assert_true(ids[0] == ID_STRIP && ids[1] == ID_SPACE_AB);
    assert_true(tokenizer_strips_after(t, ID_STRIP) && !tokenizer_strips_after(t, ID_BOS));
    tokenizer_close(t);
}

static void test_streamed(void **state)
{
    static const uint32_t ids[] = {ID_SPACE_AB, ID_BYTES + 0xc3, ID_BYTES + 0xa8, ID_EOS, ID_SPACE};
    struct tokenizer *t = open_good("llama", NULL);
    struct detokenizer d;
    char text[64], piece[64];
    size_t n = 0;

    (void)state;
    detokenizer_init(&d, t);
    for (size_t i = 0; i < 5; i++) {
        const int64_t len = detokenizer_push(&d, ids[i], piece, sizeof(piece));

        assert_true(len >= 0);
        memcpy(text + n, piece, (size_t)len);
        n += (size_t)len;
    }
    assert_int_equal(n, 6);
    assert_memory_equal(text, " ab\xc3\xa8 ", 6);
    tokenizer_close(t);
}

static void test_refused(void **state)
{
    float scores[CHARS_VOCAB_TOKENS] = {0};
    struct gguf_error err;
    int rc;

    (void)state;
    scores[7] = __builtin_nanf("");
    assert_null(open_small("llama", NULL, scores, &rc, &err));
    assert_int_equal(rc, -EINVAL);
    assert_non_null(strstr(err.text, "tokenizer.ggml.scores at offset"));
    assert_non_null(strstr(err.text, "element 7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_decide), cmocka_unit_test(test_characters_without_a_token),
        cmocka_unit_test(test_special),       cmocka_unit_test(test_flags_of_the_file),
        cmocka_unit_test(test_streamed),      cmocka_unit_test(test_refused),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
