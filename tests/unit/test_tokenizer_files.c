/* The tokenizer on a real vocabulary, against the ids of other programs; 77 if it is not there.
 *
 *   model_tokenizer_files NAME      gpt-2, llama-bpe, qwen2, llama-spm: of the reference data, with
 *                                   llama.cpp's cases; smollm2: of the demo model */
#include "model_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEPARATOR "\n__ggml_vocab_test__\n"

static const char *name;
static struct tokenizer *t; /* of this name */

/* Unpacks a .xz file of the reference data; false if it or xz is not there. */
static bool unpack(const char *file, char out[PATH_BYTES])
{
    char source[PATH_BYTES], command[3 * PATH_BYTES];

    if (!model_test_shared(file, source))
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
static const char *compare_line(const char *text, size_t len, unsigned flags, const char *p)
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

static struct tokenizer *open_vocabulary(void)
{
    char path[PATH_BYTES], file[96];

    if (strcmp(name, "smollm2") == 0)
        return model_test_demo(path) ? model_test_tokenizer(path) : NULL;
    snprintf(file, sizeof(file), "tokenizers/ggml-vocab-%s.gguf.xz", name);
    return unpack(file, path) ? model_test_tokenizer(path) : NULL;
}

static char *read_cases(const char *suffix)
{
    char path[PATH_BYTES], file[96];

    snprintf(file, sizeof(file), "tokenizers/ggml-vocab-%s.gguf.%s", name, suffix);
    assert_true(model_test_shared(file, path));
    return read_text(path);
}

/* The text comes back out of its ids. */
static void check_round_trip(const char *text, size_t len, unsigned flags)
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
static void test_cases(void **state)
{
    char *texts = read_cases("inp"), *ids = read_cases("out");
    const char *line = ids;
    int n = 0;

    (void)state;
    for (const char *at = texts; at; n++) {
        const char *end = strstr(at, SEPARATOR);
        const size_t len = end ? (size_t)(end - at) : strlen(at);

        line = compare_line(at, len, 0, line);
        check_round_trip(at, len, 0);
        at = end ? end + strlen(SEPARATOR) : NULL;
    }
    assert_int_equal(n, 47);
    free(texts);
    free(ids);
}

/* Prompts of llama2.c's own test, with BOS as the file wants it. */
static void test_llama2_prompts(void **state)
{
    char path[PATH_BYTES];
    const json_t *item;
    json_error_t error;
    size_t i;

    (void)state;
    assert_true(model_test_shared("tokenizers/llama2_prompt_cases.json", path));
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

/* Without the bytes that the vocabulary has no token for. */
static size_t keep_known(char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        if (tokenizer_has_byte(t, (unsigned char)text[i]))
            text[n++] = text[i];
    return n;
}

static void test_any_bytes_come_back(void **state)
{
    const int n_lacking = strcmp(name, "smollm2") == 0 ? 21 : 0;
    char text[5000];
    uint64_t x = 88172645463325252u;
    int n = 0;

    (void)state;
    for (int byte = 0; byte < 256; byte++)
        n += !tokenizer_has_byte(t, (unsigned char)byte);
    assert_int_equal(n, n_lacking);
    for (int round = 0; round < 400; round++) {
        const size_t want = (size_t)(next_random(&x) % (round % 40 ? 120 : sizeof(text)));
        const size_t len = keep_known(text, random_text(&x, text, want));

        check_round_trip(text, len, 0);
        check_round_trip(text, len, TOKENIZER_PARSE_SPECIAL);
    }
}

/* Ids do not depend on the cache of words: a long text word by word is the text as a whole. */
static void test_long_text_is_its_words(void **state)
{
    uint32_t whole[4096], part[64];
    char text[8192];
    size_t len = 0;
    int64_t n, at = 0;

    (void)state;
    if (strcmp(name, "llama-spm") == 0)
        skip(); /* every text has a space put in front */
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
}

/* ---- Time ------------------------------------------------------------------------------------ */

static double thread_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Processor seconds of one encoding, the text back out of its ids. */
static double seconds_of(const char *text, size_t len)
{
    const size_t cap = tokenizer_encode_bound(len);
    uint32_t *ids = malloc(cap * sizeof(*ids));
    const double start = thread_seconds();

    assert_non_null(ids);
    const int64_t n = tokenizer_encode(t, text, len, 0, ids, cap);
    const double seconds = thread_seconds() - start;

    assert_true(n > 0);
    assert_int_equal(tokenizer_decode(t, ids, (size_t)n, NULL, 0), len);
    free(ids);
    return seconds;
}

/* One unit over and over, behind it something else: eight times the text takes eight times the
 * time and some cache misses; 64 times would be quadratic. */
static void test_long_runs_are_not_quadratic(void **state)
{
    static const char *const units[] = {"a",  " ",  "\n",           "1", "\n ",
                                        "'s", "ab", "\xe4\xbd\xa0", "-"};
    enum { LONG = 1 << 20, SHORT = LONG / 8 };
    char *text = malloc(LONG + 1);

    (void)state;
    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        const size_t n = strlen(units[u]), end = LONG - LONG % n, part = SHORT - SHORT % n;

        for (size_t i = 0; i < end; i++)
            text[i] = units[u][i % n];
        text[end] = 'x';
        const double brief = seconds_of(text + end - part, part + 1);
        const double whole = seconds_of(text, end + 1);

        if (whole > 32 * brief + 0.1)
            fail_msg("\"%s\": %.4f s for %d bytes, %.4f s for %d", units[u], brief, SHORT, whole,
                     LONG);
    }
    free(text);
}

/* Words made of three parts: 28,800 of them, more than three times what the word cache holds; each
 * third one is a short word that a text is full of. */
static size_t put_word(uint32_t i, char *out, size_t cap)
{
    static const char *const heads[] = {
        "har", "con", "re",  "un",  "inter", "dis", "pre",  "sub",   "trans", "ob",
        "mar", "sil", "ver", "tem", "gran",  "fel", "over", "under", "per",   "pro",
        "ex",  "in",  "com", "de",  "bar",   "lem", "cand", "west",  "stead", "count"};
    static const char *const middles[] = {
        "bour",  "sider",  "port", "vent",  "lat",  "mit",  "scri",  "ten",  "duc",  "fer",
        "form",  "gress",  "ject", "man",   "nat",  "plic", "press", "quir", "rupt", "sist",
        "spect", "struct", "tain", "tract", "vers", "vid",  "voc",   "cept", "clud", "cord"};
    static const char *const tails[] = {
        "s",    "ed",   "ing",  "ation", "able", "ly",  "er",  "ment", "ive",  "al",  "ist",
        "ness", "ful",  "less", "ity",   "ous",  "ism", "or",  "ure",  "ance", "ent", "age",
        "ery",  "ward", "wise", "hood",  "ship", "dom", "ish", "en",   "ize",  "ary"};
    static const char *const plain[] = {"the", "of", "and", "a", "to", "in", "was", "that"};
    const uint32_t at = i * 7919;
    const int n = i % 3 == 0 ? snprintf(out, cap, "%s ", plain[i / 3 % 8])
                             : snprintf(out, cap, "%s%s%s%s", heads[at % 30], middles[at / 30 % 30],
                                        tails[at / 900 % 32], i % 17 == 0 ? ", " : " ");

    return (size_t)n < cap ? (size_t)n : cap;
}

/* 5 MB/s are asked for, of a text whose words the cache cannot hold: merging is what is measured
 * (tests/bench/run tokenizer measures a novel). */
static void test_english_is_fast(void **state)
{
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES);
    size_t len = 0;

    (void)state;
    assert_non_null(text);
    for (uint32_t i = 0; BYTES - len > 64; i++)
        len += put_word(i, text + len, BYTES - len);
    const double mb_s = (double)len * 1e-6 / seconds_of(text, len);

    printf("%s: %.1f MB/s\n", name, mb_s);
    assert_true(mb_s >= 5);
    free(text);
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
static void test_smollm2_cases(void **state)
{
    char path[PATH_BYTES], text[1024];
    char *cases;
    int n = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/tests/unit/data/smollm2_tokens.txt", OMNI_SOURCE_DIR);
    cases = read_text(path);
    for (const char *p = cases; *p;) {
        const char *colon = strchrnul(p, ':');

        if (*p == '#') {
            p = strchrnul(p, '\n') + 1;
            continue;
        }
        p = compare_line(text, from_hex(p, colon, text), TOKENIZER_PARSE_SPECIAL, colon + 1);
        n++;
    }
    assert_int_equal(n, 32);
    free(cases);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest common[] = {
        cmocka_unit_test(test_any_bytes_come_back),
        cmocka_unit_test(test_long_text_is_its_words),
        cmocka_unit_test(test_long_runs_are_not_quadratic),
        cmocka_unit_test(test_english_is_fast),
    };
    const struct CMUnitTest cases[] = {cmocka_unit_test(test_cases)};
    const struct CMUnitTest prompts[] = {cmocka_unit_test(test_llama2_prompts)};
    const struct CMUnitTest smollm2[] = {cmocka_unit_test(test_smollm2_cases)};
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: %s gpt-2|llama-bpe|qwen2|llama-spm|smollm2\n", argv[0]);
        return 2;
    }
    name = argv[1];
    t = open_vocabulary();
    if (!t) {
        printf("skipped: no vocabulary %s\n", name);
        model_test_clean();
        return 77;
    }
    rc = cmocka_run_group_tests(common, NULL, NULL);
    if (strcmp(name, "smollm2") == 0)
        rc += cmocka_run_group_tests(smollm2, NULL, NULL);
    else
        rc += cmocka_run_group_tests(cases, NULL, NULL);
    if (strcmp(name, "llama-spm") == 0)
        rc += cmocka_run_group_tests(prompts, NULL, NULL);
    tokenizer_close(t);
    model_test_clean();
    return rc;
}
