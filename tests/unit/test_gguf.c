#include "model_test.h"

#include "common/model/gguf_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A file built by hand, byte by byte, so that reader and writer do not share a mistake. */
struct image {
    unsigned char data[4096];
    size_t n;
};

static void put(struct image *f, const void *data, size_t n)
{
    memcpy(f->data + f->n, data, n);
    f->n += n;
}

static void put_u32(struct image *f, uint32_t v)
{
    put(f, &v, sizeof(v));
}

static void put_u64(struct image *f, uint64_t v)
{
    put(f, &v, sizeof(v));
}

static void put_text(struct image *f, const char *s)
{
    put_u64(f, strlen(s));
    put(f, s, strlen(s));
}

static void put_header(struct image *f, uint32_t version, uint64_t n_tensors, uint64_t n_entries)
{
    put(f, "GGUF", 4);
    put_u32(f, version);
    put_u64(f, n_tensors);
    put_u64(f, n_entries);
}

static void put_tensor(struct image *f, const char *name, uint64_t rows, uint64_t cols,
                       uint32_t type, uint64_t off)
{
    put_text(f, name);
    put_u32(f, 2);
    put_u64(f, cols);
    put_u64(f, rows);
    put_u32(f, type);
    put_u64(f, off);
}

static void put_padding(struct image *f, size_t to)
{
    while (f->n % to)
        f->data[f->n++] = 0;
}

/* Opens it in memory of its exact size, so that a sanitizer sees any step beyond. */
static int open_image(const struct image *f, struct gguf **g, struct gguf_error *err, void **copy)
{
    *copy = malloc(f->n);
    memcpy(*copy, f->data, f->n);
    return gguf_open_memory(*copy, f->n, g, err);
}

static void expect_refused(const struct image *f, const char *field)
{
    struct gguf *g;
    struct gguf_error err;
    void *copy;

    assert_true(open_image(f, &g, &err, &copy) < 0);
    assert_null(g);
    if (!strstr(err.text, field))
        fail_msg("expected \"%s\" in: %s", field, err.text);
    free(copy);
}

static void test_by_hand(void **state)
{
    struct image f = {.n = 0};
    struct gguf *g;
    struct gguf_error err;
    void *copy;
    uint32_t u = 0;
    const struct gguf_tensor *t;
    const float values[2] = {1.5f, -2.0f};

    (void)state;
    put_header(&f, 3, 1, 1);
    put_text(&f, "answer");
    put_u32(&f, GGUF_U32);
    put_u32(&f, 42);
    put_tensor(&f, "w", 1, 2, GGUF_TENSOR_F32, 0);
    put_padding(&f, 32);
    put(&f, values, sizeof(values));
    assert_int_equal(open_image(&f, &g, &err, &copy), 0);
    assert_int_equal(gguf_get_u32(g, "answer", &u, &err), 0);
    assert_int_equal(u, 42);
    t = gguf_find_tensor(g, "w");
    assert_non_null(t);
    assert_int_equal(t->bytes, 8);
    assert_int_equal(t->file_off % 32, 0);
    assert_memory_equal(t->data, values, sizeof(values));
    assert_null(gguf_find_tensor(g, "v"));
    gguf_close(g);
    free(copy);
}

static struct gguf *write_and_open(const char *path)
{
    static const uint32_t u32s[3] = {7, 8, 9};
    static const int32_t i32s[2] = {-1, 5};
    const struct gguf_string strings[3] = {{"one", 3}, {"", 0}, {"three", 5}};
    const uint64_t dims[2] = {32, 3};
    struct gguf_writer *w = gguf_writer_create();
    uint64_t bytes;
    unsigned char *data;
    struct gguf *g;
    struct gguf_error err;

    gguf_writer_u32(w, "u", 12);
    gguf_writer_f32(w, "f", 0.25f);
    gguf_writer_bool(w, "b", true);
    gguf_writer_string(w, "s", "text");
    gguf_writer_u32s(w, "us", u32s, 3);
    gguf_writer_i32s(w, "is", i32s, 2);
    gguf_writer_strings(w, "strings", strings, 3);
    data = gguf_writer_tensor(w, "q", GGUF_TENSOR_Q8_0, dims, 2, &bytes);
    assert_non_null(data);
    assert_int_equal(bytes, 3 * 34);
    data[0] = 0xab;
    data[bytes - 1] = 0xcd;
    assert_int_equal(gguf_writer_save(w, path), 0);
    gguf_writer_destroy(w);
    if (gguf_open(path, &g, &err))
        fail_msg("%s", err.text);
    return g;
}

static void check_arrays(const struct gguf *g)
{
    struct gguf_error err;
    struct gguf_array a;
    struct gguf_cursor c = {0};
    struct gguf_string s;
    uint64_t u;

    assert_int_equal(gguf_get_array(g, "us", &a, &err), 0);
    assert_int_equal(a.n, 3);
    assert_int_equal(gguf_array_u64(&a, 2, &u), 0);
    assert_int_equal(u, 9);
    assert_int_equal(gguf_get_array(g, "is", &a, &err), 0);
    assert_int_equal(gguf_array_u64(&a, 0, &u), -EINVAL);
    assert_int_equal(gguf_array_u64(&a, 1, &u), 0);
    assert_int_equal(gguf_get_array(g, "strings", &a, &err), 0);
    assert_true(gguf_array_next(&a, &c, &s) && s.len == 3);
    assert_true(gguf_array_next(&a, &c, &s) && s.len == 0);
    assert_true(gguf_array_next(&a, &c, &s) && s.len == 5 && memcmp(s.data, "three", 5) == 0);
    assert_false(gguf_array_next(&a, &c, &s));
}

static void test_round_trip(void **state)
{
    char path[PATH_BYTES];
    struct gguf *g = write_and_open(model_test_path("a.gguf", path));
    struct gguf_error err;
    uint32_t u = 0;
    float f = 0;
    bool b = false;
    struct gguf_string s;
    const struct gguf_tensor *t = gguf_find_tensor(g, "q");

    (void)state;
    assert_int_equal(gguf_get_u32(g, "u", &u, &err), 0);
    assert_int_equal(gguf_get_f32(g, "f", &f, &err), 0);
    assert_int_equal(gguf_get_bool(g, "b", &b, &err), 0);
    assert_int_equal(gguf_get_string(g, "s", &s, &err), 0);
    assert_true(u == 12 && f == 0.25f && b && s.len == 4 && memcmp(s.data, "text", 4) == 0);
    check_arrays(g);
    assert_non_null(t);
    assert_int_equal(((const unsigned char *)t->data)[0], 0xab);
    assert_int_equal(((const unsigned char *)t->data)[t->bytes - 1], 0xcd);
    gguf_close(g);
}

static void test_getter_errors(void **state)
{
    char path[PATH_BYTES];
    struct gguf *g = write_and_open(model_test_path("a.gguf", path));
    struct gguf_error err;
    uint32_t u = 77;
    bool b;

    (void)state;
    assert_int_equal(gguf_get_u32(g, "nothing", &u, &err), -ENOENT);
    assert_int_equal(u, 77);
    assert_non_null(strstr(err.text, "nothing"));
    assert_int_equal(gguf_get_u32(g, "s", &u, &err), -EINVAL);
    assert_non_null(strstr(err.text, "s at offset"));
    assert_non_null(strstr(err.text, "found string"));
    assert_int_equal(gguf_get_bool(g, "u", &b, &err), -EINVAL);
    assert_true(gguf_is_array(g, "us") && !gguf_is_array(g, "u") && gguf_has(g, "u"));
    gguf_close(g);
}

static void test_bad_headers(void **state)
{
    struct image f = {.n = 0};

    (void)state;
    put(&f, "GGML", 4);
    put_u32(&f, 3);
    expect_refused(&f, "magic at offset 0");
    f.n = 0;
    put_header(&f, 1, 0, 0);
    expect_refused(&f, "version at offset 4");
    f.n = 0;
    put_header(&f, 0x03000000, 0, 0);
    expect_refused(&f, "big-endian");
    f.n = 0;
    put_header(&f, 3, UINT64_MAX, 0);
    expect_refused(&f, "tensor count at offset 8");
    f.n = 0;
    put_header(&f, 3, 0, UINT64_C(1) << 62);
    expect_refused(&f, "metadata count at offset 16");
}

static void test_bad_entries(void **state)
{
    struct image f = {.n = 0};

    (void)state;
    put_header(&f, 3, 0, 1);
    put_u64(&f, UINT64_MAX - 3); /* a length that wraps */
    put(&f, "aaaaaaaaaaaaaaaa", 16);
    expect_refused(&f, "metadata key at offset 24");
    f.n = 0;
    put_header(&f, 3, 0, 1);
    put_text(&f, "key");
    put_u32(&f, 99);
    expect_refused(&f, "key at offset 35: unknown type 99");
    f.n = 0;
    put_header(&f, 3, 0, 1);
    put_text(&f, "nested");
    put_u32(&f, GGUF_ARRAY);
    put_u32(&f, GGUF_ARRAY);
    put_u64(&f, 1);
    expect_refused(&f, "nested at offset 42: arrays of arrays");
    f.n = 0;
    put_header(&f, 3, 0, 1);
    put_text(&f, "long");
    put_u32(&f, GGUF_ARRAY);
    put_u32(&f, GGUF_U64);
    put_u64(&f, UINT64_C(1) << 61); /* times 8 wraps to 0 */
    expect_refused(&f, "long at offset");
    f.n = 0;
    put_header(&f, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_text(&f, "twice");
        put_u32(&f, GGUF_U8);
        put(&f, "x", 1);
    }
    expect_refused(&f, "twice");
}

static void refuse_tensor(uint64_t rows, uint64_t cols, uint32_t type, uint64_t off,
                          const char *text)
{
    struct image f = {.n = 0};

    put_header(&f, 3, 1, 0);
    put_tensor(&f, "w", rows, cols, type, off);
    put_padding(&f, 32);
    f.n += 64;
    expect_refused(&f, text);
}

static void test_bad_tensors(void **state)
{
    struct image f = {.n = 0};

    (void)state;
    refuse_tensor(0, 4, 0, 0, "tensor w at offset");
    refuse_tensor(UINT64_C(1) << 40, UINT64_C(1) << 40, 0, 0, "overflows");
    refuse_tensor(UINT64_C(1) << 31, UINT64_C(1) << 32, 0, 0, "overflows");
    refuse_tensor(1, 4, 4, 0, "unknown type 4");
    refuse_tensor(1, 33, 8, 0, "not a multiple of 32 (Q8_0)");
    refuse_tensor(1, 4, 0, 8, "not a multiple of 32");
    refuse_tensor(1, 17, 0, 0, "leave the file");
    refuse_tensor(1, 4, 0, UINT64_MAX - 31, "leave the file");
    put_header(&f, 3, 2, 0);
    put_tensor(&f, "same", 1, 4, 0, 0);
    put_tensor(&f, "same", 1, 4, 0, 32);
    put_padding(&f, 32);
    f.n += 64;
    expect_refused(&f, "tensor same: described twice");
    f.n = 0;
    put_header(&f, 3, 1, 0);
    put_text(&f, "five");
    put_u32(&f, 5);
    f.n += 64;
    expect_refused(&f, "tensor five at offset");
}

static void test_bad_alignment(void **state)
{
    static const uint32_t bad[] = {0, 1, 24, UINT32_C(1) << 31};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct image f = {.n = 0};

        put_header(&f, 3, 0, 1);
        put_text(&f, "general.alignment");
        put_u32(&f, GGUF_U32);
        put_u32(&f, bad[i]);
        expect_refused(&f, "general.alignment at offset");
    }
}

static void test_bad_paths(void **state)
{
    struct gguf *g;
    struct gguf_error err;

    (void)state;
    assert_int_equal(gguf_open("/nonexistent/x.gguf", &g, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x.gguf"));
    assert_int_equal(gguf_open("/tmp", &g, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_getter_errors), cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_entries),   cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_bad_alignment), cmocka_unit_test(test_bad_paths),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
