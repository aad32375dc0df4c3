/* Damaged files of every family: cut at every 4 KiB, and with flipped header bytes.  What cannot be
 * used is an error that says where; what can be used can be used. */
#include "model_test.h"

#include "chars_vocab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUT = 4096 };

struct subject {
    char path[PATH_BYTES];
    unsigned char *data;
    size_t size, header; /* header: bytes before the first tensor's data */
};

static void measure_header(struct subject *s)
{
    struct gguf *g;
    struct gguf_error err;

    assert_int_equal(gguf_open_memory(s->data, s->size, &g, &err), 0);
    s->header = s->size;
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
        if (gguf_tensor_at(g, i)->file_off < s->header)
            s->header = (size_t)gguf_tensor_at(g, i)->file_off;
    gguf_close(g);
}

static void open_family(struct subject *s, const char *name, uint32_t n_layers)
{
    struct model_random_options o;

    assert_true(model_random_family(name, &o));
    o.n_layers = n_layers;
    assert_int_equal(model_random_write(model_test_path("cut.gguf", s->path), &o), 0);
    s->data = model_test_read(s->path, &s->size);
    measure_header(s);
}

/* A vocabulary of SentencePiece's kind, and a tensor behind it. */
static void open_vocabulary(struct subject *s)
{
    struct gguf_writer *w = gguf_writer_create();
    const uint64_t dims[2] = {64, 64};
    uint64_t bytes;

    chars_vocab_add(w, NULL);
    assert_non_null(gguf_writer_tensor(w, "w", GGUF_TENSOR_F32, dims, 2, &bytes));
    assert_int_equal(gguf_writer_save(w, model_test_path("cut.gguf", s->path)), 0);
    gguf_writer_destroy(w);
    s->data = model_test_read(s->path, &s->size);
    measure_header(s);
}

static void write_prefix(const struct subject *s, const char *path, size_t size)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(s->data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* A field and its place. */
static void check_message(const struct gguf_error *err, size_t size)
{
    const char *offset = strstr(err->text, "offset ");

    if (!offset || offset < err->text + 5 || strspn(offset + 7, "0123456789") == 0)
        fail_msg("of %zu bytes: no field and offset in: %s", size, err->text);
}

/* Of a file that is whole: what is missing has no place, and a tensor is found by its name. */
static void check_refusal(const struct gguf_error *err, size_t size)
{
    const char *text = err->text;

    if (strncmp(text, "tensor ", 7) == 0 && strlen(text) > 12)
        return;
    if (strncmp(text, "metadata key ", 13) == 0 && strstr(text, ": missing"))
        return;
    if (strstr(text, " (absent): "))
        return;
    check_message(err, size);
}

static unsigned cut_everywhere(const struct subject *s)
{
    char path[PATH_BYTES];
    struct gguf_error err;
    struct model *m;
    unsigned n = 0;

    model_test_path("prefix.gguf", path);
    for (size_t size = CUT; size < s->size; size += CUT, n++) {
        write_prefix(s, path, size);
        assert_int_equal(model_open(path, &m, &err), -EINVAL);
        assert_null(m);
        check_message(&err, size);
    }
    return n;
}

static void test_cut_at_every_4_kib(void **state)
{
    const char *name;
    struct subject s;
    unsigned n = 0;

    (void)state;
    for (uint32_t i = 0; (name = model_random_family_name(i)) != NULL; i++) {
        struct model *m;
        struct gguf_error err;

        open_family(&s, name, 4);
        n += cut_everywhere(&s);
        assert_int_equal(model_open(s.path, &m, &err), 0);
        model_close(m);
        free(s.data);
    }
    open_vocabulary(&s);
    n += cut_everywhere(&s);
    free(s.data);
    printf("cuts=%u\n", n);
    assert_true(n > 1500);
}

static void use_view(const struct weight_view *w)
{
    float *row = malloc((size_t)w->n_cols * sizeof(*row));

    assert_non_null(row);
    weight_dequant_row_ref(w, w->n_rows - 1, row);
    free(row);
}

static void use_model(const struct model *m)
{
    use_view(&m->token_embd);
    use_view(&m->output);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];
        double frequencies[2048];

        use_view(&y->attn_v);
        use_view(&y->ffn_up);
        if (y->attn_k_bias.data)
            use_view(&y->attn_k_bias);
        if (y->attn_k_norm.data)
            use_view(&y->attn_k_norm);
        rope_frequencies(&y->attn.rope, 100, frequencies);
    }
}

static void use_tokenizer(const struct tokenizer *t)
{
    static const char text[] = "ab aba</s>  \xc3\xa9[T] the\xff\n12";
    uint32_t ids[64];
    char back[256];
    const int64_t n = tokenizer_encode(t, text, sizeof(text), TOKENIZER_PARSE_SPECIAL, ids, 64);

    assert_true(n >= 0);
    assert_true(tokenizer_decode(t, ids, (size_t)n, back, sizeof(back)) >= 0);
}

/* 1 if any part of it was refused. */
static int use(const unsigned char *data, size_t size)
{
    struct gguf_error err = {""};
    struct tokenizer *t = NULL;
    struct model *m = NULL;
    struct gguf *g;
    int refused = 0;

    if (gguf_open_memory(data, size, &g, &err)) {
        check_message(&err, size);
        return 1;
    }
    if (tokenizer_open(g, &t, &err) == 0)
        use_tokenizer(t);
    else
        check_refusal(&err, size);
    refused |= t == NULL;
    tokenizer_close(t);
    err.text[0] = 0;
    if (model_create(g, &m, &err)) {
        check_refusal(&err, size);
        gguf_close(g);
        return 1;
    }
    use_model(m);
    model_close(m);
    return refused;
}

static void flip_everywhere(struct subject *s)
{
    unsigned n_refused = 0;

    for (size_t i = 0; i < s->header; i++) {
        const unsigned char bit = (unsigned char)(1u << i % 8);

        s->data[i] ^= bit;
        n_refused += (unsigned)use(s->data, s->size);
        s->data[i] ^= bit;
    }
    assert_true(n_refused > s->header / 20);
    free(s->data);
}

static void test_flipped_header_bytes(void **state)
{
    static const char *const names[] = {"qwen2-yarn", "qwen3", "phi3-long", "llama3"};
    struct subject s;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        open_family(&s, names[i], 1);
        flip_everywhere(&s);
    }
    open_vocabulary(&s);
    flip_everywhere(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_4_kib),
        cmocka_unit_test(test_flipped_header_bytes),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
