#include "model_test.h"

#include "common/model/stop_scanner.h"

#include <errno.h>
#include <string.h>

/* Feeds text in chunks of `step` bytes; returns what came out before the stop or the end. */
static size_t scan(const struct stop_string *stops, uint32_t n, const char *text, size_t len,
                   size_t step, char *out, bool *found)
{
    struct stop_scanner s;
    size_t n_out = 0, got;

    assert_int_equal(stop_scanner_init(&s, stops, n), 0);
    *found = false;
    for (size_t i = 0; i < len && !*found; i += step) {
        const size_t chunk = len - i < step ? len - i : step;
        const size_t max = stop_scanner_push_max(&s, chunk);

        *found = stop_scanner_push(&s, text + i, chunk, out + n_out, &got) == STOP_FOUND;
        assert_true(got <= max);
        n_out += got;
    }
    if (!*found)
        n_out += stop_scanner_flush(&s, out + n_out);
    stop_scanner_fini(&s);
    return n_out;
}

/* The same by looking at the whole text: the first end of any stop string, the longest of those
 * that end there. */
static size_t scan_ref(const struct stop_string *stops, uint32_t n, const char *text, size_t len,
                       bool *found)
{
    *found = false;
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;

        for (uint32_t i = 0; i < n; i++)
            if (stops[i].len <= end && stops[i].len > longest &&
                memcmp(text + end - stops[i].len, stops[i].text, stops[i].len) == 0)
                longest = stops[i].len;
        if (longest) {
            *found = true;
            return end - longest;
        }
    }
    return len;
}

static void expect(const char *const *words, uint32_t n, const char *text, const char *before)
{
    struct stop_string stops[4];

    for (uint32_t i = 0; i < n; i++)
        stops[i] = (struct stop_string){words[i], strlen(words[i])};
    for (size_t step = 1; step <= strlen(text) + 1; step++) {
        char out[256];
        bool found;
        const size_t n_out = scan(stops, n, text, strlen(text), step, out, &found);

        assert_int_equal(n_out, strlen(before));
        assert_memory_equal(out, before, n_out);
        assert_int_equal(found, strcmp(text, before) != 0);
    }
}

static void test_words(void **state)
{
    (void)state;
    expect((const char *[]){"END"}, 1, "some text END more", "some text ");
    expect((const char *[]){"END"}, 1, "EN EN EEN", "EN EN EEN");
    expect((const char *[]){"aab"}, 1, "aaaab", "aa");
    expect((const char *[]){"\n\n", "User:"}, 2, "Hi\nUser: x", "Hi\n");
    expect((const char *[]){"abcd", "bc"}, 2, "xabcx", "xa");
    expect((const char *[]){"abc", "bc"}, 2, "xabcx", "x");
    expect((const char *[]){"abcde", "cx"}, 2, "abcx", "ab");
    expect((const char *[]){"\xc3\xa9"}, 1, "caf\xc3\xa9", "caf");
    expect(NULL, 0, "nothing to find", "nothing to find");
}

static void test_nothing_is_given_early(void **state)
{
    const struct stop_string stop = {"STOP", 4};
    struct stop_scanner s;
    char out[16];
    size_t n;

    (void)state;
    assert_int_equal(stop_scanner_init(&s, &stop, 1), 0);
    assert_int_equal(stop_scanner_push(&s, "abSTO", 5, out, &n), STOP_NONE);
    assert_int_equal(n, 2);
    assert_int_equal(s.n_held, 3);
    assert_int_equal(stop_scanner_push(&s, "X", 1, out, &n), STOP_NONE);
    assert_int_equal(n, 4);
    assert_memory_equal(out, "STOX", 4);
    stop_scanner_fini(&s);
}

/* Two letters make overlaps common. */
static void test_random(void **state)
{
    uint64_t x = 7;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char words[3][6], text[24], out[32];
        struct stop_string stops[3];
        bool found, found_ref;
        size_t n_out, n_ref;

        for (int i = 0; i < 3; i++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
            stops[i] = (struct stop_string){words[i], 1 + (x >> 62) * (uint64_t)(i + 1)};
            for (size_t k = 0; k < 6; k++)
                words[i][k] = "ab"[x >> (40 + k) & 1];
            if (stops[i].len > 6)
                stops[i].len = 6;
        }
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        for (size_t k = 0; k < sizeof(text); k++)
            text[k] = "ab"[x >> (20 + k) & 1];
        n_ref = scan_ref(stops, 3, text, sizeof(text), &found_ref);
        n_out = scan(stops, 3, text, sizeof(text), 1 + (x >> 61), out, &found);
        assert_int_equal(found, found_ref);
        assert_int_equal(n_out, n_ref);
        assert_memory_equal(out, text, n_out);
    }
}

static void test_limits(void **state)
{
    static char large[STOP_SCANNER_BYTES_MAX + 1];
    struct stop_string many[STOP_SCANNER_STRINGS_MAX + 1];
    struct stop_scanner s;

    (void)state;
    memset(large, 'x', sizeof(large));
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
        many[i] = (struct stop_string){large, STOP_SCANNER_BYTES_MAX};
    assert_int_equal(stop_scanner_init(&s, many, STOP_SCANNER_STRINGS_MAX + 1), -E2BIG);
    stop_scanner_fini(&s);
    assert_int_equal(stop_scanner_init(&s, many, STOP_SCANNER_STRINGS_MAX), 0);
    stop_scanner_fini(&s);
    many[0].len++;
    assert_int_equal(stop_scanner_init(&s, many, 1), -E2BIG);
    many[0].len = 0;
    assert_int_equal(stop_scanner_init(&s, many, 1), -EINVAL);
    many[0] = (struct stop_string){"\xc3", 1};
    assert_int_equal(stop_scanner_init(&s, many, 1), -EINVAL);
    stop_scanner_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_nothing_is_given_early),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
