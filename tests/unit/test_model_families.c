/* What the loader makes of the families: descriptors, operations, views; and what it refuses. */
#include "model_test.h"

#include "common/model/gguf_write.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct model *open_family(const char *name)
{
    struct model_random_options o;

    assert_true(model_random_family(name, &o));
    return model_test_open_random(&o);
}

/* The kinds of a layer's first list, one letter each. */
static const char *pre_of(const struct model_layer *y)
{
    static char out[MODEL_PRE_OPS + 1];
    static const char letters[DENSE_OP_KINDS] = {[DENSE_NORM] = 'n',
                                                 [DENSE_QKV] = 'q',
                                                 [DENSE_BIAS] = 'b',
                                                 [DENSE_ROPE] = 'r',
                                                 [DENSE_HEAD_NORM] = 'h'};

    for (uint32_t i = 0; i < y->n_pre; i++)
        out[i] = letters[y->pre[i].kind];
    out[y->n_pre] = 0;
    return out;
}

static void test_operations(void **state)
{
    static const struct {
        const char *name, *pre;
        enum rope_style style;
    } cases[] = {{"llama2", "nqr", ROPE_INTERLEAVED}, {"mistral", "nqr", ROPE_INTERLEAVED},
                 {"qwen2", "nqbr", ROPE_NEOX},        {"qwen3", "nqhr", ROPE_NEOX},
                 {"phi3", "nqr", ROPE_NEOX},          {"smollm3", "nqr", ROPE_INTERLEAVED}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model *m = open_family(cases[i].name);

        assert_string_equal(pre_of(&m->layers[0]), cases[i].pre);
        assert_int_equal(m->layers[0].attn.rope.style, cases[i].style);
        for (uint32_t k = 0; k < m->layers[0].n_pre; k++)
            assert_true(dense_op_cost(&m->layers[0].pre[k], 3).flops > 0);
        model_close(m);
    }
}

static void test_every_fourth_layer_of_smollm3_does_not_rotate(void **state)
{
    struct model *m = open_family("smollm3");

    (void)state;
    assert_string_equal(pre_of(&m->layers[3]), "nq");
    assert_int_equal(m->layers[3].attn.rope.n_dims, 0);
    assert_int_equal(m->layers[2].attn.rope.n_dims, 16);
    model_close(m);
}

static void test_windows_of_mistral(void **state)
{
    struct model *m = open_family("mistral");

    (void)state;
    for (uint32_t i = 0; i < m->n_layers; i++)
        assert_true(m->layers[i].attn.kind == ATTENTION_WINDOW && m->layers[i].attn.window == 48);
    model_close(m);
}

/* Nothing is copied: q, k, v and gate, up are parts of one tensor each. */
static void test_fused_matrices_are_views(void **state)
{
    struct model *m = open_family("phi3");
    const struct model_layer *y = &m->layers[1];
    const struct gguf_tensor *qkv = gguf_find_tensor(m->gguf, "blk.1.attn_qkv.weight");
    const struct gguf_tensor *up = gguf_find_tensor(m->gguf, "blk.1.ffn_up.weight");

    (void)state;
    assert_ptr_equal(y->attn_q.data, qkv->data);
    assert_ptr_equal(y->attn_k.data, weight_row(&y->attn_q, y->attn_q.n_rows));
    assert_ptr_equal(y->attn_v.data, weight_row(&y->attn_k, y->attn_k.n_rows));
    assert_int_equal(y->attn_q.n_rows + y->attn_k.n_rows + y->attn_v.n_rows, qkv->dims[1]);
    assert_ptr_equal(y->ffn_gate.data, up->data);
    assert_ptr_equal(y->ffn_up.data, weight_row(&y->ffn_gate, 128));
    model_close(m);
}

static void test_frequencies(void **state)
{
    const float table[2] = {1, 8}, far[2] = {2, 16};
    struct rope_desc r = {.theta = 100, .n_dims = 4, .factor = 1, .n_ctx_orig = 64};
    double f[4];

    (void)state;
    rope_frequencies(&r, 64, f);
    assert_true(f[0] == 1 && fabs(f[1] - 0.1) < 1e-12);
    r.scaling = ROPE_LINEAR;
    r.factor = 4;
    rope_frequencies(&r, 64, f);
    assert_true(f[0] == 0.25 && fabs(f[1] - 0.025) < 1e-12);
    r.scaling = ROPE_PLAIN;
    r.factors = table;
    r.factors_long = far;
    rope_frequencies(&r, 64, f);
    assert_true(f[0] == 1 && fabs(f[1] - 0.1 / 8) < 1e-12);
    rope_frequencies(&r, 65, f);
    assert_true(f[0] == 0.5 && fabs(f[1] - 0.1 / 16) < 1e-12);
    /* YaRN: of 8 pairs the fast ones stay, the slow ones are divided, and it is monotone. */
    r = (struct rope_desc){.theta = 1e6f,
                           .n_dims = 8,
                           .scaling = ROPE_YARN,
                           .factor = 4,
                           .n_ctx_orig = 4096,
                           .beta_fast = 32,
                           .beta_slow = 1};
    rope_frequencies(&r, 1, f);
    assert_true(f[0] == 1 && fabs(f[3] - pow(1e6, -0.75) / 4) < 1e-12);
    assert_true(f[1] <= pow(1e6, -0.25) && f[2] >= pow(1e6, -0.5) / 4 && f[1] > f[2]);
}

/* Other tables or factors are other models. */
static void test_hash_covers_rotation(void **state)
{
    struct model_random_options o;
    struct model *a, *b;

    (void)state;
    assert_true(model_random_family("qwen2-yarn", &o));
    a = model_test_open_random(&o);
    o.factor = 2;
    b = model_test_open_random(&o);
    assert_true(a->hash != b->hash);
    assert_false(rope_equal(&a->layers[0].attn.rope, &b->layers[0].attn.rope));
    assert_true(rope_equal(&a->layers[0].attn.rope, &a->layers[1].attn.rope));
    model_close(a);
    model_close(b);
}

/* One bad number in a table, found by name and place. */
static void test_bad_tables(void **state)
{
    struct model_random_options o;
    struct model *m = open_family("llama3");
    char path[PATH_BYTES];
    struct gguf_error err;
    size_t size;
    const size_t at = (size_t)gguf_find_tensor(m->gguf, "rope_freqs.weight")->file_off;
    unsigned char *data;
    struct gguf *g;

    (void)state;
    model_close(m);
    assert_true(model_random_family("llama3", &o));
    assert_int_equal(model_random_write(model_test_path("table.gguf", path), &o), 0);
    data = model_test_read(path, &size);
    memset(data + at + 4, 0, 4);
    assert_int_equal(gguf_open_memory(data, size, &g, &err), 0);
    assert_int_equal(model_create(g, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "tensor rope_freqs.weight: value 1"));
    gguf_close(g);
    free(data);
}

/* Half of a family's tensors is not the family. */
static void test_biases_come_together(void **state)
{
    static const char name[] = "blk.0.attn_k.bias";
    struct model_random_options o;
    char path[PATH_BYTES];
    struct gguf_error err;
    struct model *m;
    struct gguf *g;
    size_t size;

    (void)state;
    assert_true(model_random_family("qwen2", &o));
    assert_int_equal(model_random_write(model_test_path("bias.gguf", path), &o), 0);
    unsigned char *data = model_test_read(path, &size);
    unsigned char *at = memmem(data, size, name, sizeof(name) - 1);

    assert_non_null(at);
    at[sizeof(name) - 2] = 'z';
    assert_int_equal(gguf_open_memory(data, size, &g, &err), 0);
    assert_int_equal(model_create(g, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "tensor blk.0.attn_k.bias: missing"));
    gguf_close(g);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_every_fourth_layer_of_smollm3_does_not_rotate),
        cmocka_unit_test(test_windows_of_mistral),
        cmocka_unit_test(test_fused_matrices_are_views),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_hash_covers_rotation),
        cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_biases_come_together),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
