#include "model_test.h"

#include "common/model/gguf_write.h"
#include "ref_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seam: everything that may differ between layers does, and comes out of the file as it went in. */
static void test_layers_differ(void **state)
{
    struct model_random_options o = model_random_defaults();
    struct model *m;

    (void)state;
    o.k_width = 24;
    o.v_width = 16;
    m = model_test_open_random(&o);
    assert_int_equal(m->n_layers, 6);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];

        assert_int_equal(y->attn.n_kv_heads, o.kv_heads[i]);
        assert_int_equal(y->attn.window, o.windows[i]);
        assert_int_equal(y->attn.kind, o.windows[i] ? ATTENTION_WINDOW : ATTENTION_FULL);
        assert_int_equal(y->attn.n_sinks, o.windows[i] ? 4 : 0);
        assert_int_equal(y->attn.k_width, 24);
        assert_int_equal(y->attn.v_width, 16);
        assert_int_equal(y->mlp.kind, o.experts[i] ? MLP_EXPERTS : MLP_GATED);
        assert_int_equal(y->mlp.n_used, o.experts[i] ? 2 : 0);
        assert_int_equal(y->ffn_up.n_slices, o.experts[i] ? 4 : 1);
        assert_int_equal(y->post[2].kind, o.experts[i] ? DENSE_EXPERTS : DENSE_GATED);
        assert_int_equal(attention_token_bytes(&y->attn, 2), 2 * o.kv_heads[i] * (24 + 16));
    }
    assert_int_equal(model_token_bytes(m, 2), 2 * 2 * (2 + 1 + 4) * 40);
    assert_int_equal(m->k_width_max, 4 * 24);
    assert_int_equal(m->a_width_max, 4 * 16);
    model_close(m);
}

static void test_all_types_in_one_file(void **state)
{
    const struct model_random_options o = model_random_defaults();
    struct model *m = model_test_open_random(&o);
    bool seen[WEIGHT_TYPES] = {false};

    (void)state;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        seen[m->layers[i].attn_q.type] = true;
        seen[m->layers[i].ffn_down.type] = true;
    }
    assert_true(seen[WEIGHT_F32] && seen[WEIGHT_F16] && seen[WEIGHT_Q8_0] && seen[WEIGHT_Q4_1]);
    model_close(m);
}

static void test_tied(void **state)
{
    struct model_random_options o = model_random_defaults();
    struct model *m;

    (void)state;
    o.tied = true;
    m = model_test_open_random(&o);
    assert_ptr_equal(m->output.data, m->token_embd.data);
    model_close(m);
    o.tied = false;
    m = model_test_open_random(&o);
    assert_ptr_not_equal(m->output.data, m->token_embd.data);
    model_close(m);
}

/* Equal files have equal hashes; another seed, type or hyper-parameter has another. */
static void test_hash(void **state)
{
    struct model_random_options o = model_random_defaults();
    uint64_t hash[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct model_random_options p = o;
        struct model *m;

        p.seed += i == 2;
        p.mixed = i != 3;
        p.n_sinks += i == 4;
        m = model_test_open_random(&p);
        hash[i] = m->hash;
        model_close(m);
    }
    assert_true(hash[0] == hash[1]);
    for (int i = 1; i < 5; i++)
        for (int j = i + 1; j < 5; j++)
            assert_true(hash[i] != hash[j]);
}

static void test_options_that_do_not_fit(void **state)
{
    struct model_random_options o = model_random_defaults();
    char path[PATH_BYTES];

    (void)state;
    model_test_path("never.gguf", path);
    o.kv_heads[3] = 3; /* does not divide 4 heads */
    assert_int_equal(model_random_write(path, &o), -EINVAL);
    o = model_random_defaults();
    o.n_ff = 100; /* no multiple of a quantised block */
    assert_int_equal(model_random_write(path, &o), -EINVAL);
    o = model_random_defaults();
    o.n_vocab = 10;
    assert_int_equal(model_random_write(path, &o), -EINVAL);
}

/* A file from scratch whose keys are all right, for the errors below. */
struct scratch {
    struct gguf_writer *w;
    char path[PATH_BYTES];
};

static void scratch_begin(struct scratch *s, const char *architecture)
{
    s->w = gguf_writer_create();
    model_test_path("scratch.gguf", s->path);
    gguf_writer_string(s->w, "general.architecture", architecture);
    gguf_writer_u32(s->w, "llama.context_length", 64);
    gguf_writer_u32(s->w, "llama.embedding_length", 8);
    gguf_writer_u32(s->w, "llama.block_count", 1);
    gguf_writer_u32(s->w, "llama.feed_forward_length", 16);
    gguf_writer_f32(s->w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

static void scratch_tensor(struct scratch *s, const char *name, uint64_t rows, uint64_t cols,
                           enum gguf_tensor_type type)
{
    const uint64_t dims[2] = {cols, rows};
    uint64_t bytes;

    assert_non_null(gguf_writer_tensor(s->w, name, type, dims, rows == 1 ? 1 : 2, &bytes));
}

/* All tensors of a one-layer model with 2 heads of 4, with attn_k of k_rows. */
static void scratch_tensors(struct scratch *s, uint64_t k_rows)
{
    scratch_tensor(s, "token_embd.weight", 10, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "output_norm.weight", 1, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.attn_norm.weight", 1, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.attn_q.weight", 8, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.attn_k.weight", k_rows, 8, GGUF_TENSOR_F16);
    scratch_tensor(s, "blk.0.attn_v.weight", 8, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.attn_output.weight", 8, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.ffn_norm.weight", 1, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.ffn_gate.weight", 16, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.ffn_up.weight", 16, 8, GGUF_TENSOR_F32);
    scratch_tensor(s, "blk.0.ffn_down.weight", 8, 16, GGUF_TENSOR_F32);
}

/* Saves; the model must be refused with a message that has this text, or open if text is NULL. */
static void scratch_expect(struct scratch *s, const char *text)
{
    struct model *m;
    struct gguf_error err;
    int rc;

    assert_int_equal(gguf_writer_save(s->w, s->path), 0);
    gguf_writer_destroy(s->w);
    rc = model_open(s->path, &m, &err);
    if (rc && (!text || !strstr(err.text, text)))
        fail_msg("expected \"%s\", found: %s", text ? text : "success", err.text);
    if (!rc && text)
        fail_msg("opened, expected: %s", text);
    model_close(m);
}

static void test_plain_llama(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    scratch_tensors(&s, 8);
    scratch_expect(&s, NULL);
}

static void test_unknown_architecture(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "mamba");
    scratch_expect(&s, "mamba is not known (known: llama, qwen2, qwen3, phi3, smollm3)");
}

static void test_wrong_shape(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    scratch_tensors(&s, 4);
    scratch_expect(&s, "tensor blk.0.attn_k.weight: expected [8 8 1 1], found [8 4 1 1]");
}

static void test_missing_tensor(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    scratch_tensor(&s, "token_embd.weight", 10, 8, GGUF_TENSOR_F32);
    scratch_expect(&s, "tensor output_norm.weight: missing");
}

/* A tensor that nobody asks for means a model that would be computed wrongly. */
static void test_tensor_not_known(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    scratch_tensors(&s, 8);
    scratch_tensor(&s, "blk.0.attn_output.bias", 1, 8, GGUF_TENSOR_F32);
    scratch_expect(&s, "tensor blk.0.attn_output.bias: not known");
}

static void test_type_not_supported(void **state)
{
    struct scratch s;

    (void)state;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    scratch_tensor(&s, "token_embd.weight", 10, 8, 26); /* whole numbers */
    scratch_expect(&s, "tensor token_embd.weight: type I32 is not supported");
}

static void test_bad_hyper_parameters(void **state)
{
    struct scratch s;
    const uint32_t two[2] = {2, 2};

    (void)state;
    scratch_begin(&s, "llama");
    scratch_tensors(&s, 8);
    scratch_expect(&s, "llama.attention.head_count: missing");
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 0);
    scratch_tensors(&s, 8);
    scratch_expect(&s, ": expected 1 to 16384, found 0");
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    gguf_writer_u32s(s.w, "llama.attention.head_count_kv", two, 2);
    scratch_tensors(&s, 8);
    scratch_expect(&s, "expected one value per layer (1), found 2");
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    gguf_writer_string(s.w, "llama.rope.scaling.type", "dynamic");
    scratch_tensors(&s, 8);
    scratch_expect(&s, ": dynamic is not supported");
}

static void test_attention_kinds_refused(void **state)
{
    static const char *const kinds[] = {"latent", "recurrent", "window"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct gguf_string kind = {kinds[i], strlen(kinds[i])};
        struct scratch s;

        scratch_begin(&s, "llama");
        gguf_writer_u32(s.w, "llama.attention.head_count", 2);
        gguf_writer_strings(s.w, "omni.attention.kind", &kind, 1);
        scratch_tensors(&s, 8);
        scratch_expect(&s, kinds[i]);
    }
}

static void test_vocabulary_larger_than_embedding(void **state)
{
    const struct gguf_string token = {"a", 1};
    struct gguf_string tokens[11];
    struct scratch s;

    (void)state;
    for (int i = 0; i < 11; i++)
        tokens[i] = token;
    scratch_begin(&s, "llama");
    gguf_writer_u32(s.w, "llama.attention.head_count", 2);
    gguf_writer_strings(s.w, "tokenizer.ggml.tokens", tokens, 11);
    scratch_tensors(&s, 8);
    scratch_expect(&s, "11 tokens, but token_embd.weight has 10 rows");
}

/* Greedy output of a random model visits many tokens and never a control token. */
static void test_random_greedy_is_varied(void **state)
{
    const struct model_random_options o = model_random_defaults();
    struct model *m = model_test_open_random(&o);
    struct ref_model *r = ref_model_create(m, 128);
    uint32_t count[320] = {0}, distinct = 0, token = 40;

    (void)state;
    for (int i = 0; i < 96; i++) {
        token = ref_model_argmax(ref_model_step(r, token), m->n_vocab);
        assert_true(token >= 3);
        distinct += count[token]++ == 0;
        assert_true(count[token] < 24);
    }
    assert_true(distinct >= 40);
    ref_model_destroy(r);
    model_close(m);
}

/* Reads the integers of "key": [ ... ] from a JSON text. */
static uint32_t read_ids(const char *json, const char *key, uint32_t *out, uint32_t cap)
{
    const char *p = strstr(json, key);
    uint32_t n = 0;

    assert_non_null(p);
    p = strchr(p, '[');
    while (n < cap && p && *p != ']') {
        char *end;

        out[n++] = (uint32_t)strtoul(p + 1, &end, 10);
        p = end;
    }
    return n;
}

/* A trained model, against the greedy ids of an independent program. */
static void test_stories_greedy(void **state)
{
    char path[PATH_BYTES];
    struct model *m;
    struct gguf_error err;
    struct ref_model *r;
    uint32_t golden[256], token = 1;
    size_t size;
    unsigned char *json;
    char *text;

    (void)state;
    if (!model_test_shared("models/stories260K/golden_stories260K.json", path))
        skip();
    json = model_test_read(path, &size);
    text = strndup((char *)json, size);
    free(json);
    assert_int_equal(read_ids(strstr(text, "greedy_from_bos"), "\"ids\"", golden, 256), 256);
    free(text);
    assert_true(model_test_shared("models/stories260K/stories260K-f32.gguf", path));
    if (model_open(path, &m, &err))
        fail_msg("%s", err.text);
    r = ref_model_create(m, 256);
    for (int i = 0; i < 256; i++) {
        token = ref_model_argmax(ref_model_step(r, token), m->n_vocab);
        assert_int_equal(token, golden[i]);
    }
    ref_model_destroy(r);
    model_close(m);
}

/* The demo model: shapes as published, tied embeddings. */
static void test_demo_model(void **state)
{
    char path[PATH_BYTES];
    struct model *m;
    struct gguf_error err;

    (void)state;
    if (!model_test_demo(path))
        skip();
    if (model_open(path, &m, &err))
        fail_msg("%s", err.text);
    assert_int_equal(m->n_layers, 30);
    assert_int_equal(m->n_embd, 576);
    assert_int_equal(m->n_vocab, 49152);
    assert_int_equal(m->layers[29].attn.n_heads, 9);
    assert_int_equal(m->layers[29].attn.n_kv_heads, 3);
    assert_int_equal(m->layers[0].attn_q.type, WEIGHT_Q4_1);
    assert_int_equal(m->token_embd.type, WEIGHT_Q8_0);
    assert_ptr_equal(m->output.data, m->token_embd.data);
    assert_int_equal(model_token_bytes(m, 2), 30 * 2 * 3 * 64 * 2);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers_differ),
        cmocka_unit_test(test_all_types_in_one_file),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_options_that_do_not_fit),
        cmocka_unit_test(test_plain_llama),
        cmocka_unit_test(test_unknown_architecture),
        cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_missing_tensor),
        cmocka_unit_test(test_tensor_not_known),
        cmocka_unit_test(test_type_not_supported),
        cmocka_unit_test(test_bad_hyper_parameters),
        cmocka_unit_test(test_attention_kinds_refused),
        cmocka_unit_test(test_vocabulary_larger_than_embedding),
        cmocka_unit_test(test_random_greedy_is_varied),
        cmocka_unit_test(test_stories_greedy),
        cmocka_unit_test(test_demo_model),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);

    model_test_clean();
    return rc;
}
