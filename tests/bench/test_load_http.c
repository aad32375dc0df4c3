/* A streamed answer, cut at every place where a read may end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bench/load_http.h"

static const char CHUNKED[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "9\r\ndata: one\r\n"
                              "b\r\n\n\ndata: two\r\n"
                              "1\r\n\n\r\n"
                              "0\r\n\r\n";

static void expect_lines(struct http_answer *a, const char *const *lines)
{
    for (; *lines != NULL; lines++)
        assert_string_equal(http_answer_line(a), *lines);
    assert_null(http_answer_line(a));
}

static void chunks_cut_anywhere_give_the_same_lines(void **state)
{
    static const char *const LINES[] = {"data: one", "", "data: two", NULL};
    size_t n = sizeof CHUNKED - 1;

    (void)state;
    for (size_t cut = 0; cut <= n; cut++) {
        struct http_answer a = {0};

        assert_int_equal(http_answer_feed(&a, CHUNKED, cut), 0);
        assert_int_equal(http_answer_feed(&a, CHUNKED + cut, n - cut), 0);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.state, HTTP_END);
        expect_lines(&a, LINES);
        http_answer_fini(&a);
    }
}

static void lines_come_as_soon_as_they_are_complete(void **state)
{
    struct http_answer a = {0};

    (void)state;
    for (size_t i = 0; i < sizeof CHUNKED - 1; i++) {
        assert_int_equal(http_answer_feed(&a, CHUNKED + i, 1), 0);
        const char *line = http_answer_line(&a);
        assert_true(line == NULL || strcmp(line, "data: one") == 0 || *line == '\0' ||
                    strcmp(line, "data: two") == 0);
    }
    http_answer_fini(&a);
}

static void a_plain_body_is_kept_for_people(void **state)
{
    static const char TEXT[] = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull";
    struct http_answer a = {0};

    (void)state;
    assert_int_equal(http_answer_feed(&a, TEXT, sizeof TEXT - 1), 0);
    assert_int_equal(a.status, 503);
    assert_string_equal(a.body, "full");
    http_answer_fini(&a);
}

static void what_is_no_such_answer_is_refused(void **state)
{
    static const char *const BAD[] = {
        "SSH-2.0\r\n", "\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "fffffffff\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct http_answer a = {0};

        assert_int_equal(http_answer_feed(&a, BAD[i], strlen(BAD[i])), -EPROTO);
        http_answer_fini(&a);
    }
}

static void a_body_without_end_is_refused(void **state)
{
    static const char HEAD[] = "HTTP/1.1 200 OK\r\n\r\n";
    static char much[1 << 20];
    struct http_answer a = {0};
    int rc = http_answer_feed(&a, HEAD, sizeof HEAD - 1);

    (void)state;
    memset(much, 'x', sizeof much);
    for (int i = 0; i < 8 && rc == 0; i++)
        rc = http_answer_feed(&a, much, sizeof much);
    assert_int_equal(rc, -EMSGSIZE);
    http_answer_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_cut_anywhere_give_the_same_lines),
        cmocka_unit_test(lines_come_as_soon_as_they_are_complete),
        cmocka_unit_test(a_plain_body_is_kept_for_people),
        cmocka_unit_test(what_is_no_such_answer_is_refused),
        cmocka_unit_test(a_body_without_end_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
