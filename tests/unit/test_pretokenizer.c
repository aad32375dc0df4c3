#include "model_test.h"

#include "common/model/pretokenizer.h"

#include <errno.h>
#include <string.h>

/* The pieces, each followed by a bar. */
struct pieces {
    char text[512];
    size_t n;
};

static int add_piece(void *context, const char *piece, size_t len)
{
    struct pieces *p = context;

    assert_true(len > 0 && p->n + len + 1 < sizeof(p->text));
    memcpy(p->text + p->n, piece, len);
    p->n += len;
    p->text[p->n++] = '|';
    return 0;
}

static void expect(const char *scheme, const char *text, const char *cut)
{
    const struct gguf_string name = {scheme, strlen(scheme)};
    struct pretokenizer *p;
    struct pieces found = {.n = 0};

    assert_int_equal(pretokenizer_open(name, &p, NULL), 0);
    assert_int_equal(pretokenizer_cut(p, text, strlen(text), add_piece, &found), 0);
    assert_string_equal(found.text, cut);
    pretokenizer_close(p);
}

static void test_gpt2(void **state)
{
    (void)state;
    expect("gpt-2", "", "");
    expect("gpt-2", "Hello world", "Hello| world|");
    expect("gpt-2", "I'll don't it's", "I|'ll| don|'t| it|'s|");
    expect("gpt-2", "a  b   c", "a| | b|  | c|");
    expect("gpt-2", "end  ", "end|  |");
    expect("gpt-2", "x 123 4567", "x| 123| 4567|");
    expect("gpt-2", "a,b!! (c)", "a|,|b|!!| (|c|)|");
    expect("gpt-2", "a\n\nb", "a|\n|\n|b|");
    expect("default", "a 12", "a| 12|");
}

static void test_smollm(void **state)
{
    (void)state;
    expect("smollm", "a 123b", "a| |1|2|3|b|");
    expect("smollm", "  7", "  |7|");
    expect("smollm", "x\xc2\xbdy", "x|\xc2\xbd|y|");
}

static void test_unicode(void **state)
{
    (void)state;
    expect("gpt-2", "na\xc3\xafve \xe6\x9d\xb1\xe4\xba\xac!",
           "na\xc3\xafve| \xe6\x9d\xb1\xe4\xba\xac|!|");
    /* No-break space is white space, U+180E is not. */
    expect("gpt-2", "a\xc2\xa0 b", "a|\xc2\xa0| b|");
    expect("gpt-2", "a\xe1\xa0\x8e!", "a|\xe1\xa0\x8e!|");
}

/* Runs of ill-formed bytes are pieces, and the text before one ends there. */
static void test_ill_formed(void **state)
{
    (void)state;
    expect("gpt-2", "a \xff\xfe b", "a| |\xff\xfe| b|");
    expect("gpt-2", "\xe6\x9d", "\xe6\x9d|");
    expect("gpt-2", "\xc3\xa9\xc3", "\xc3\xa9|\xc3|");
    expect("smollm", "1\x80\x31", "1|\x80|1|");
}

static int stop(void *context, const char *piece, size_t len)
{
    (void)context;
    (void)piece;
    (void)len;
    return -EAGAIN;
}

static void test_callback_stops(void **state)
{
    struct pretokenizer *p;

    (void)state;
    assert_int_equal(pretokenizer_open((struct gguf_string){"gpt-2", 5}, &p, NULL), 0);
    assert_int_equal(pretokenizer_cut(p, "a b", 3, stop, NULL), -EAGAIN);
    assert_int_equal(pretokenizer_cut(p, "\xff", 1, stop, NULL), -EAGAIN);
    pretokenizer_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),           cmocka_unit_test(test_smollm),
        cmocka_unit_test(test_unicode),        cmocka_unit_test(test_ill_formed),
        cmocka_unit_test(test_callback_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
