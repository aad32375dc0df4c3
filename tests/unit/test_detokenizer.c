#include "model_test.h"

#include "common/model/detokenizer.h"
#include "common/model/utf8.h"

#include <errno.h>
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

/* The token of one byte: generated vocabularies have them at 3 + byte. */
static uint32_t byte_token(unsigned char c)
{
    const char *bytes;
    size_t len;

    assert_int_equal(tokenizer_piece(t, 3u + c, &bytes, &len), 0);
    assert_true(len == 1 && (unsigned char)bytes[0] == c);
    return 3u + c;
}

/* Pushes bytes as tokens, one by one; each output must be well formed by itself. */
static void stream(const char *bytes, size_t n, char *out, size_t *n_out)
{
    struct detokenizer d;
    char part[128];
    int64_t got;

    detokenizer_init(&d, t);
    *n_out = 0;
    for (size_t i = 0; i <= n; i++) {
        got = i < n ? detokenizer_push(&d, byte_token((unsigned char)bytes[i]), part, sizeof(part))
                    : detokenizer_flush(&d, part, sizeof(part));
        assert_true(got >= 0);
        assert_int_equal(utf8_valid_prefix(part, (size_t)got), got);
        memcpy(out + *n_out, part, (size_t)got);
        *n_out += (size_t)got;
    }
}

static void expect(const char *bytes, const char *text)
{
    char out[256];
    size_t n;

    stream(bytes, strlen(bytes), out, &n);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(out, text, n);
}

#define BAD "\xef\xbf\xbd"

static void test_characters(void **state)
{
    (void)state;
    expect("abc", "abc");
    expect("\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x99\x82!", "\xc3\xa9\xe6\x9d\xb1\xf0\x9f\x99\x82!");
}

/* The examples of the Unicode standard (3.9, U+FFFD substitution of maximal subparts), and tails.
 */
static void test_broken(void **state)
{
    (void)state;
    expect("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A");
    expect("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A");
    expect("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", BAD BAD BAD BAD BAD "A" BAD BAD "B");
    expect("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", BAD BAD BAD BAD "A");
    expect("x\xf0\x9f\x99", "x" BAD);
    expect("\xe6", BAD);
    expect("\xc3\xc3\xa9", BAD "\xc3\xa9");
}

/* Random bytes: always well formed; and well-formed text comes out as it is. */
static void test_random(void **state)
{
    uint64_t x = 42;
    char bytes[40], out[256];
    size_t n;

    (void)state;
    for (int round = 0; round < 5000; round++) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
            bytes[i] = (char)(round % 2   ? x >> 56
                              : (x >> 62) ? 0x80 | (x >> 56 & 0x3f)
                                          : 0xc0 | (x >> 58));
        }
        stream(bytes, sizeof(bytes), out, &n);
        if (utf8_valid_prefix(bytes, sizeof(bytes)) == sizeof(bytes))
            assert_memory_equal(bytes, out, sizeof(bytes));
    }
}

static void test_control_and_errors(void **state)
{
    struct detokenizer d;
    char out[256];

    (void)state;
    detokenizer_init(&d, t);
    assert_true(detokenizer_push_max(&d) <= sizeof(out));
    assert_int_equal(detokenizer_push(&d, byte_token(0xc3), out, sizeof(out)), 0);
    assert_int_equal(detokenizer_push(&d, tokenizer_eos(t), out, sizeof(out)), 0);
    assert_int_equal(detokenizer_push(&d, byte_token(0xa9), out, sizeof(out)), 2);
    assert_int_equal(detokenizer_push(&d, tokenizer_n_vocab(t), out, sizeof(out)), -EINVAL);
    assert_int_equal(detokenizer_push(&d, byte_token('a'), out, 2), -ENOSPC);
    assert_int_equal(detokenizer_flush(&d, out, sizeof(out)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_control_and_errors),
    };
    const int rc = cmocka_run_group_tests(tests, setup, teardown);

    model_test_clean();
    return rc;
}
