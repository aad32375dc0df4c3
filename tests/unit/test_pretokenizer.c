#include "model_test.h"

#include "common/model/pretokenizer.h"

#include <errno.h>
#include <stdlib.h>
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

/* Patterns that differ in contractions, digits and capitals.  The pieces are what Hugging Face's
 * tokenizers makes of the models' own patterns. */
static void test_patterns_after_llama3(void **state)
{
    static const struct {
        const char *text, *llama3, *tekken, *gpt4o;
    } cases[] = {
        {"Hello world", "Hello| world|", "Hello| world|", "Hello| world|"},
        {"HELLOWorld helloWORLD HelloWORLDagain", "HELLOWorld| helloWORLD| HelloWORLDagain|",
         "HELLOWorld| hello|WORLD| Hello|WORLDagain|",
         "HELLOWorld| hello|WORLD| Hello|WORLDagain|"},
        {"I'll DON'T it's WE'VE x'S", "I|'ll| DON|'T| it|'s| WE|'VE| x|'S|",
         "I|'ll| DON|'T| it|'s| WE|'VE| x|'S|", "I'll| DON'T| it's| WE'VE| x'S|"},
        {"a  b   c", "a| | b|  | c|", "a| | b|  | c|", "a| | b|  | c|"},
        {"end  ", "end|  |", "end|  |", "end|  |"},
        {"x 123 4567 89", "x| |123| |456|7| |89|", "x| |1|2|3| |4|5|6|7| |8|9|",
         "x| |123| |456|7| |89|"},
        {"a,b!! (c)//\n", "a|,b|!!| (|c|)//\n|", "a|,b|!!| (|c|)//\n|", "a|,b|!!| (|c|)//\n|"},
        {"a\n\nb \n c", "a|\n\n|b| \n| c|", "a|\n\n|b| \n| c|", "a|\n\n|b| \n| c|"},
        {"http://x.org/y/\n/z", "http|://|x|.org|/y|/\n|/z|", "http|://|x|.org|/y|/\n/|z|",
         "http|://|x|.org|/y|/\n/|z|"},
        {"na\u00efve \u6771\u4eac! \u0130stanbul \u01c5a",
         "na\u00efve| \u6771\u4eac|!| \u0130stanbul| \u01c5a|",
         "na\u00efve| \u6771\u4eac|!| \u0130stanbul| \u01c5a|",
         "na\u00efve| \u6771\u4eac|!| \u0130stanbul| \u01c5a|"},
        {"cafe\u0301 e\u0301B\u0301", "cafe|\u0301| e|\u0301B|\u0301|",
         "cafe\u0301| e\u0301|B\u0301|", "cafe\u0301| e\u0301|B\u0301|"},
        {"a\u00a0 b\u180e!", "a|\u00a0| b|\u180e!|", "a|\u00a0| b|\u180e!|",
         "a|\u00a0| b|\u180e!|"},
        {"\r\n\r\nWin", "\r\n\r\n|Win|", "\r\n\r\n|Win|", "\r\n\r\n|Win|"},
        {"'tis 'S", "'t|is| '|S|", "'tis| '|S|", "'tis| '|S|"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect("llama-bpe", cases[i].text, cases[i].llama3);
        expect("smaug-bpe", cases[i].text, cases[i].llama3);
        expect("dbrx", cases[i].text, cases[i].llama3);
        expect("tekken", cases[i].text, cases[i].tekken);
        expect("gpt-4o", cases[i].text, cases[i].gpt4o);
    }
    expect("deepseek-r1-qwen", "x 123", "x| |1|2|3|");
}

static int count_piece(void *context, const char *piece, size_t len)
{
    size_t *n = context;

    (void)piece;
    *n += len;
    return 0;
}

/* A pattern that tries every place of a long word before it takes another way: once, not again and
 * again; and no limit of the matcher is reached. */
static void test_a_long_word_in_capitals(void **state)
{
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES);

    (void)state;
    assert_non_null(text);
    memset(text, 'A', BYTES);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "gpt-4o" : "tekken";
        struct pretokenizer *p;
        size_t n = 0;

        assert_int_equal(pretokenizer_open((struct gguf_string){name, 6}, &p, NULL), 0);
        assert_int_equal(pretokenizer_cut(p, text, BYTES, count_piece, &n), 0);
        assert_int_equal(n, BYTES);
        pretokenizer_close(p);
    }
    free(text);
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
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_smollm),
        cmocka_unit_test(test_unicode),
        cmocka_unit_test(test_ill_formed),
        cmocka_unit_test(test_callback_stops),
        cmocka_unit_test(test_patterns_after_llama3),
        cmocka_unit_test(test_a_long_word_in_capitals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
