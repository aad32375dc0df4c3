/* Mutations of a small model file: an error or a usable model, never a step outside (the bytes lie
 * in memory of their exact size, so that the sanitizers of the asan preset see one). */
#include "model_test.h"

#include "common/model/chat_template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct subject {
    unsigned char *data;
    size_t size, header; /* header: bytes before the first tensor's data */
    unsigned n_opened, n_refused;
};

static void use_view(const struct weight_view *w)
{
    float *row = malloc((size_t)w->n_cols * sizeof(*row));
    const struct weight_view last = weight_slice(w, w->n_slices - 1);

    assert_non_null(row);
    weight_dequant_row_ref(&last, last.n_rows - 1, row);
    free(row);
}

static void use_model(const struct model *m)
{
    use_view(&m->token_embd);
    use_view(&m->output);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        use_view(&m->layers[i].attn_q);
        use_view(&m->layers[i].attn_v);
        use_view(&m->layers[i].ffn_down);
        assert_true(attention_token_bytes(&m->layers[i].attn, 2) > 0);
    }
}

static void use_tokenizer(const struct tokenizer *t)
{
    static const char text[] = "the <|im_start|>user\nand 12 of them\xff\xc3";
    uint32_t ids[64];
    const int64_t n = tokenizer_encode(t, text, sizeof(text), TOKENIZER_PARSE_SPECIAL, ids, 64);

    assert_true(n >= 0);
    for (int64_t i = 0; i < n; i++)
        assert_true(ids[i] < tokenizer_n_vocab(t));
}

/* Opens whatever can be opened.  Each failure must carry a message. */
static void try_open(struct subject *s, const unsigned char *data, size_t size)
{
    struct gguf *g;
    struct model *m = NULL;
    struct tokenizer *t = NULL;
    struct chat_template c;
    struct gguf_error err = {""};

    if (gguf_open_memory(data, size, &g, &err)) {
        assert_true(err.text[0] != 0);
        s->n_refused++;
        return;
    }
    s->n_opened++;
    if (tokenizer_open(g, &t, &err) == 0)
        use_tokenizer(t);
    tokenizer_close(t);
    chat_template_open(g, &c, &err);
    err.text[0] = 0;
    if (model_create(g, &m, &err)) {
        assert_true(err.text[0] != 0);
        gguf_close(g);
        return;
    }
    use_model(m);
    model_close(m);
}

static int setup(void **state)
{
    struct model_random_options o = model_random_defaults();
    struct subject *s = calloc(1, sizeof(*s));
    char path[PATH_BYTES];
    struct gguf *g;
    struct gguf_error err;

    o.n_layers = 3;
    o.n_embd = 32;
    o.n_heads = 4;
    o.n_ff = 32;
    assert_int_equal(model_random_write(model_test_path("fuzz.gguf", path), &o), 0);
    s->data = model_test_read(path, &s->size);
    assert_int_equal(gguf_open_memory(s->data, s->size, &g, &err), 0);
    s->header = s->size;
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
        if (gguf_tensor_at(g, i)->file_off < s->header)
            s->header = (size_t)gguf_tensor_at(g, i)->file_off;
    gguf_close(g);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct subject *s = *state;

    free(s->data);
    free(s);
    return 0;
}

static void test_unchanged(void **state)
{
    struct subject *s = *state;

    try_open(s, s->data, s->size);
    assert_int_equal(s->n_opened, 1);
}

static void mutate(struct subject *s, size_t at, unsigned char value)
{
    const unsigned char old = s->data[at];

    if (value == old)
        return;
    s->data[at] = value;
    try_open(s, s->data, s->size);
    s->data[at] = old;
}

static void test_every_header_byte(void **state)
{
    struct subject *s = *state;

    s->n_refused = 0;
    for (size_t at = 0; at < s->header; at++) {
        const unsigned char old = s->data[at];

        mutate(s, at, (unsigned char)(old ^ 1));
        mutate(s, at, 0xff);
        mutate(s, at, 0);
    }
    assert_true(s->n_refused > 1000);
}

static void test_truncation(void **state)
{
    struct subject *s = *state;
    const unsigned before = s->n_opened;
    unsigned n = 0;

    for (size_t size = 1; size < s->size; size += size < s->header ? 1 : 97, n++) {
        unsigned char *copy = malloc(size);

        assert_non_null(copy);
        memcpy(copy, s->data, size);
        try_open(s, copy, size);
        free(copy);
    }
    assert_true(n > s->header);
    /* Only the padding behind the last tensor may be missing. */
    assert_true(s->n_opened - before <= 1);
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Several bytes at once, and 64-bit fields set to numbers that tend to overflow. */
static void test_random_mutations(void **state)
{
    static const uint64_t evil[] = {0,          1,           UINT64_MAX,          UINT64_MAX - 7,
                                    UINT32_MAX, 0x80000000u, UINT64_C(1) << 63,   UINT64_C(1) << 61,
                                    0x7fffffff, 31,          UINT64_MAX / 2 + 31, 65536};
    struct subject *s = *state;
    uint64_t x = 88172645463325252u;
    unsigned char saved[8];

    for (int round = 0; round < 4000; round++) {
        const size_t at = (size_t)(next(&x) % (s->header - 8));
        const uint64_t value = evil[next(&x) % (sizeof(evil) / sizeof(evil[0]))];
        const size_t n = next(&x) % 2 ? 8 : 4;

        memcpy(saved, s->data + at, 8);
        memcpy(s->data + at, &value, n);
        try_open(s, s->data, s->size);
        memcpy(s->data + at, saved, 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_every_header_byte),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_random_mutations),
    };
    const int rc = cmocka_run_group_tests(tests, setup, teardown);

    model_test_clean();
    return rc;
}
