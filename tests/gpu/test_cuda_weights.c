/* test_cuda_weights.c - a model's weights on the (shim's) GPU against the file's, element for element:
 * every type of the file, fused and tied matrices, both ways of reading, dummy loads, failures. */
#include "common/model/model_random.h"
#include "gpu-engine/device/cuda/cuda_kv.h"
#include "gpu-engine/device/cuda/cuda_weights.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/weight_fill.h"
#include "tests/gpu/shim/runtime.h"
#include "tests/gpu/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { CONTEXT = 96 };

static char path[64];

static struct model_random_options shape(void)
{
    struct model_random_options o = model_random_defaults();

    o.n_layers = 2;
    o.n_embd = 256; /* a super-block */
    o.n_heads = 4;
    o.n_ff = 256;
    o.mixed = false;
    for (uint32_t l = 0; l < o.n_layers; l++) {
        o.kv_heads[l] = 2;
        o.windows[l] = 0;
        o.experts[l] = false;
    }
    return o;
}

static struct model *model_make(const struct model_random_options *o)
{
    struct gguf_error err;
    struct model *m;

    assert_int_equal(model_random_write(path, o), 0);
    if (model_open(path, &m, &err) != 0)
        fail_msg("%s", err.text);
    return m;
}

static void *from_device(const void *device, size_t bytes)
{
    void *host = malloc(bytes);

    assert_non_null(host);
    assert_int_equal(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
}

static struct cuda_weights *load(const struct model *m, const struct cuda_weights_options *o)
{
    struct cuda_weights *w;
    struct error err;

    if (cuda_weights_create(&w, m, o, &err) != 0)
        fail_msg("%s: %s", err.text, shim_runtime_error());
    return w;
}

/* ---- Comparing ---------------------------------------------------------------------------------- */

/* Rows of a view against a part of a matrix; returns the part behind it. */
static const uint16_t *compare_view(const struct weight_view *v, uint32_t type, const uint16_t *got)
{
    float *row = malloc(v->n_cols * sizeof *row);

    assert_non_null(row);
    for (uint64_t r = 0; r < v->n_rows; r++, got += v->n_cols) {
        weight_dequant_row_ref(v, r, row);
        for (uint64_t c = 0; c < v->n_cols; c++) {
            if (got[c] != element_from_float(type, row[c]))
                fail_msg("%s[%llu][%llu]: %04x, expected %.9g", v->name, (unsigned long long)r,
                         (unsigned long long)c, got[c], (double)row[c]);
        }
    }
    free(row);
    return got;
}

static void compare_matrix(const struct cuda_matrix *m, uint32_t type,
                           const struct weight_view *const *views, uint32_t n)
{
    uint16_t *host = from_device(m->w, (size_t)m->n_out * m->n_in * sizeof *host);
    const uint16_t *at = host;

    assert_int_equal((uintptr_t)m->w % 256, 0);
    for (uint32_t i = 0; i < n; i++)
        at = compare_view(views[i], type, at);
    assert_ptr_equal(at, host + (size_t)m->n_out * m->n_in);
    free(host);
}

static void compare_vector(const struct weight_view *v, const float *device)
{
    if (v->data == NULL) {
        assert_null(device);
        return;
    }
    float *got = from_device(device, v->n_cols * sizeof *got);
    float *want = malloc(v->n_cols * sizeof *want);
    assert_non_null(want);
    weight_dequant_row_ref(v, 0, want);
    assert_memory_equal(got, want, v->n_cols * sizeof *want);
    free(got);
    free(want);
}

static void compare_bias(const struct model_layer *l, const struct cuda_matrix *qkv, uint32_t type)
{
    const struct weight_view *const views[] = {&l->attn_q_bias, &l->attn_k_bias, &l->attn_v_bias};

    if (l->attn_q_bias.data == NULL) {
        assert_null(qkv->bias);
        assert_null(qkv->bias16);
        return;
    }
    float *got = from_device(qkv->bias, qkv->n_out * sizeof *got);
    uint16_t *got16 = from_device(qkv->bias16, qkv->n_out * sizeof *got16);
    float *want = malloc(qkv->n_out * sizeof *want);
    uint64_t at = 0;
    assert_non_null(want);
    for (int i = 0; i < 3; i++) {
        weight_dequant_row_ref(views[i], 0, want + at);
        at += views[i]->n_cols;
    }
    assert_int_equal(at, qkv->n_out);
    assert_memory_equal(got, want, at * sizeof *want);
    for (uint64_t i = 0; i < at; i++)
        assert_int_equal(got16[i], element_from_float(type, want[i]));
    free(got);
    free(got16);
    free(want);
}

static void compare_angles(const struct rope_desc *rope, const struct cuda_rope *got)
{
    double frequency[256];
    float *angles = from_device(got->angles, (size_t)CONTEXT * rope->n_dims * sizeof *angles);

    assert_int_equal(got->n_dims, rope->n_dims);
    assert_int_equal(got->is_neox, rope->style == ROPE_NEOX);
    rope_frequencies(rope, CONTEXT, frequency);
    for (uint32_t i = 0; i < CONTEXT * rope->n_dims / 2; i++) {
        uint32_t pos = i / (rope->n_dims / 2);
        double angle = pos * frequency[i % (rope->n_dims / 2)], size = (double)rope->magnitude;
        assert_true(fabs((double)angles[2 * i] - size * cos(angle)) < 1e-6 * size);
        assert_true(fabs((double)angles[2 * i + 1] - size * sin(angle)) < 1e-6 * size);
    }
    free(angles);
}

static void compare_layer(const struct model_layer *l, const struct cuda_layer_weights *w,
                          uint32_t type)
{
    const struct weight_view *const qkv[] = {&l->attn_q, &l->attn_k, &l->attn_v};
    const struct weight_view *const output[] = {&l->attn_output};
    const struct weight_view *const gate_up[] = {&l->ffn_gate, &l->ffn_up};
    const struct weight_view *const down[] = {&l->ffn_down};

    compare_matrix(&w->qkv, type, qkv, 3);
    compare_matrix(&w->output, type, output, 1);
    compare_matrix(&w->gate_up, type, gate_up, 2);
    compare_matrix(&w->down, type, down, 1);
    compare_vector(&l->attn_norm, w->attn_norm);
    compare_vector(&l->ffn_norm, w->ffn_norm);
    compare_vector(&l->attn_q_norm, w->q_norm);
    compare_vector(&l->attn_k_norm, w->k_norm);
    compare_bias(l, &w->qkv, type);
    compare_angles(&l->attn.rope, &w->rope);
    assert_true(w->attn_eps > 0 && w->ffn_eps > 0);
    assert_true((w->head_eps > 0) == (w->q_norm != NULL));
}

static void compare_model(const struct model *m, const struct cuda_weights *w)
{
    const struct weight_view *const embd[] = {&m->token_embd}, *const head[] = {&m->output};
    struct cuda_matrix table = {.w = w->token_embd, .n_out = m->n_vocab, .n_in = m->n_embd};

    compare_matrix(&table, w->type, embd, 1);
    compare_matrix(&w->head, w->type, head, 1);
    compare_vector(&m->output_norm, w->output_norm);
    for (uint32_t l = 0; l < m->n_layers; l++)
        compare_layer(&m->layers[l], &w->layers[l], w->type);
    assert_ptr_equal(w->layers[0].rope.angles, w->layers[1].rope.angles);
}

static void check_load(const struct model_random_options *o, uint32_t type, bool no_uring)
{
    struct model *m = model_make(o);
    struct cuda_weights_options options = {
        .type = type, .context_max = CONTEXT, .no_uring = no_uring};
    struct cuda_weights *w = load(m, &options);

    compare_model(m, w);
    assert_int_equal(w->head.w == w->token_embd, o->tied);
    cuda_weights_destroy(w);
    model_close(m);
    assert_int_equal(shim_runtime_n_live(), 0);
}

/* ---- Tests -------------------------------------------------------------------------------------- */

static void test_every_type(void **state)
{
    struct model_random_options o = shape();
    (void)state;

    for (int type = 0; type < WEIGHT_TYPES; type++) {
        o.type = o.embd_type = (enum weight_type)type;
        o.tied = type % 2;
        check_load(&o, type % 3 ? KV_TYPE_BF16 : KV_TYPE_F16, type % 4 == 1);
    }
}

static void test_families(void **state)
{
    struct model_random_options o = shape();
    (void)state;

    o.bias = true; /* Qwen2 */
    o.head_norm = true;
    check_load(&o, 0, false);
    o.bias = o.head_norm = false;
    o.arch = "phi3"; /* q, k, v in one matrix of the file, gate and up in another */
    o.fused = true;
    o.type = WEIGHT_Q8_0;
    check_load(&o, 0, false);
}

/* More chunks than slots: 8 MiB each, copied to their place, or converted in two. */
static void test_long_matrix(void **state)
{
    struct model_random_options o = shape();
    (void)state;

    o.n_layers = 1;
    o.n_ff = 24576;
    o.n_embd = 256;
    o.n_vocab = 9000;
    o.tied = true;
    o.type = WEIGHT_BF16;
    o.embd_type = WEIGHT_F32;
    struct model *m = model_make(&o);
    struct cuda_weights_options options = {.context_max = CONTEXT};
    struct cuda_weights *w = load(m, &options);
    const struct weight_view *const gate_up[] = {&m->layers[0].ffn_gate, &m->layers[0].ffn_up};
    const struct weight_view *const embd[] = {&m->token_embd};
    struct cuda_matrix table = {.w = w->token_embd, .n_out = m->n_vocab, .n_in = m->n_embd};

    assert_int_equal(w->type, KV_TYPE_BF16);
    compare_matrix(&table, w->type, embd, 1);
    compare_matrix(&w->layers[0].gate_up, w->type, gate_up, 2);
    cuda_weights_destroy(w);
    model_close(m);
}

struct told {
    uint64_t done, total;
    int n;
};

static void note(void *arg, uint64_t done, uint64_t total)
{
    struct told *t = arg;

    assert_true(done >= t->done && done <= total);
    assert_true(t->n > 0 || done == 0);
    *t = (struct told){done, total, t->n + 1};
}

/* Nothing of the file but its shapes: the data may be anything, and the values are seed's and place's. */
static void test_dummy(void **state)
{
    struct model_random_options o = shape();
    struct told told = {0};
    struct cuda_weights_options options = {.type = KV_TYPE_BF16,
                                           .context_max = CONTEXT,
                                           .dummy = true,
                                           .seed = 42,
                                           .progress = note,
                                           .progress_arg = &told};
    (void)state;

    o.type = WEIGHT_Q4_K;
    struct model *m = model_make(&o);
    struct cuda_weights *w = load(m, &options), *again;
    assert_true(told.total > 0 && told.done == told.total);
    told = (struct told){0};
    again = load(m, &options);
    size_t n = (size_t)m->n_vocab * m->n_embd;
    uint16_t *table = from_device(w->token_embd, n * 2),
             *same = from_device(again->token_embd, n * 2);
    struct weight_fill want = {
        .n_values = n, .seed = 42, .span = sqrtf(3.0f / (float)m->n_embd), .type = KV_TYPE_BF16};
    want.out = malloc(n * 2);
    assert_non_null(want.out);
    weight_fill_ref(&want);
    assert_memory_equal(table, want.out, n * 2);
    assert_memory_equal(table, same, n * 2);
    float *norm = from_device(w->output_norm, m->n_embd * sizeof *norm);
    assert_true(norm[0] == 1.0f && norm[m->n_embd - 1] == 1.0f);
    options.seed = 43;
    told = (struct told){0};
    cuda_weights_destroy(again);
    again = load(m, &options);
    free(same);
    same = from_device(again->token_embd, n * 2);
    assert_memory_not_equal(table, same, n * 2);
    cuda_weights_destroy(w);
    cuda_weights_destroy(again);
    free(table);
    free(same);
    free(want.out);
    free(norm);
    model_close(m);
}

/* A shape whose file has no data loads as well: 1 GB on paper. */
static void test_hollow(void **state)
{
    struct model_random_options o = shape();
    struct cuda_weights_options options = {.context_max = CONTEXT, .dummy = true, .seed = 1};
    uint64_t bytes = 0;
    (void)state;

    o.hollow = true;
    o.type = o.embd_type = WEIGHT_BF16;
    o.n_layers = 100;
    for (uint32_t l = 0; l < o.n_layers; l++)
        o.windows[l] = 0, o.experts[l] = false, o.kv_heads[l] = 4;
    o.n_embd = 1024;
    o.n_ff = 1024;
    struct model *m = model_make(&o);
    struct stat on_disk;
    assert_int_equal(stat(path, &on_disk), 0);
    assert_int_equal(cuda_weights_bytes(m, &options, &bytes, NULL), 0);
    assert_true(bytes > UINT64_C(1) << 30);
    assert_true((uint64_t)on_disk.st_blocks * 512 < bytes / 16);
    model_close(m);
    o = shape();
    o.hollow = true;
    m = model_make(&o);
    struct cuda_weights *w = load(m, &options);
    uint16_t *down = from_device(w->layers[1].down.w, 4096);
    uint32_t n_zero = 0;
    for (int i = 0; i < 2048; i++)
        n_zero += down[i] == 0;
    assert_true(n_zero < 10);
    free(down);
    cuda_weights_destroy(w);
    model_close(m);
}

static void test_bytes(void **state)
{
    struct model_random_options o = shape();
    struct cuda_weights_options options = {.context_max = CONTEXT};
    uint64_t bytes;
    (void)state;

    o.tied = false;
    struct model *m = model_make(&o);
    assert_int_equal(cuda_weights_bytes(m, &options, &bytes, NULL), 0);
    struct cuda_weights *w = load(m, &options);
    assert_int_equal(bytes, w->bytes);
    uint64_t table = (uint64_t)m->n_vocab * m->n_embd * 2;
    uint64_t layer = 2ull * m->n_embd * (2ull * m->n_embd + m->n_embd + 3ull * 256);
    assert_true(w->swept_bytes >= table + 2 * layer);
    assert_true(w->swept_bytes < table + 2 * layer + 16384); /* norms, alignment */
    assert_true(w->bytes > w->swept_bytes + table);
    cuda_weights_destroy(w);
    model_close(m);
}

/* Each CUDA call that a load makes fails once: an error, and nothing is left. */
static void test_failures(void **state)
{
    static const char *const calls[] = {"cudaMalloc",
                                        "cudaMemGetInfo",
                                        "cudaHostAlloc",
                                        "cudaStreamCreateWithFlags",
                                        "cudaEventCreateWithFlags",
                                        "cudaMemcpy",
                                        "cudaMemcpyAsync",
                                        "cudaEventRecord",
                                        "cudaStreamSynchronize"};
    struct model_random_options o = shape();
    struct cuda_weights_options options = {.context_max = CONTEXT};
    struct model *m = model_make(&o);
    (void)state;

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct cuda_weights *w = NULL;
        struct error err = {""};
        shim_runtime_fail(calls[i], cudaErrorMemoryAllocation);
        if (cuda_weights_create(&w, m, &options, &err) >= 0)
            fail_msg("%s failed and nobody noticed", calls[i]);
        assert_null(w);
        assert_true(err.text[0] != '\0');
        if (shim_runtime_n_live() != 0)
            fail_msg("%s: something is left", calls[i]);
    }
    model_close(m);
}

static void test_refusals(void **state)
{
    struct model_random_options o = shape();
    struct cuda_weights_options options = {.context_max = CONTEXT};
    struct cuda_weights *w;
    struct error err;
    (void)state;

    o.experts[1] = true;
    struct model *m = model_make(&o);
    assert_int_equal(cuda_weights_create(&w, m, &options, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "layer 1"));
    model_close(m);
    o = shape();
    m = model_make(&o);
    shim_runtime_set_memory(256 << 10);
    assert_int_equal(cuda_weights_create(&w, m, &options, &err), -ENOMEM);
    assert_non_null(strstr(err.text, "MiB are free"));
    model_close(m);
    assert_int_equal(shim_runtime_n_live(), 0);
}

/* A file that is cut while it is open: an error that names the tensor, not a signal. */
static void test_cut_file(void **state)
{
    struct model_random_options o = shape();
    struct cuda_weights_options options = {.context_max = CONTEXT, .dummy = false};
    struct cuda_weights *w;
    struct error err;
    (void)state;

    o.type = o.embd_type = WEIGHT_F32;
    for (int no_uring = 0; no_uring < 2; no_uring++) {
        struct model *m = model_make(&o);
        uint64_t off = 0;
        options.no_uring = no_uring;
        assert_true(gguf_file(m->gguf, m->layers[1].ffn_down.data, &off) >= 0);
        assert_int_equal(truncate(path, (off_t)(off + 4096)), 0);
        /* Norms are read through the mapping: none may lie behind the cut. */
        assert_true((uintptr_t)m->layers[1].ffn_norm.data < (uintptr_t)m->layers[1].ffn_down.data);
        assert_true((uintptr_t)m->output_norm.data < (uintptr_t)m->layers[1].ffn_down.data);
        assert_int_equal(cuda_weights_create(&w, m, &options, &err), -EIO);
        assert_non_null(strstr(err.text, "shorter"));
        model_close(m);
        assert_int_equal(shim_runtime_n_live(), 0);
    }
}

static int setup(void **state)
{
    (void)state;
    shim_runtime_reset(3, 1);
    shim_set_schedule((struct shim_schedule){.order = SHIM_FORWARD, .landing = SHIM_LATE});
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_type, setup),
        cmocka_unit_test_setup(test_families, setup),
        cmocka_unit_test_setup(test_long_matrix, setup),
        cmocka_unit_test_setup(test_dummy, setup),
        cmocka_unit_test_setup(test_hollow, setup),
        cmocka_unit_test_setup(test_bytes, setup),
        cmocka_unit_test_setup(test_failures, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_cut_file, setup),
    };

    snprintf(path, sizeof path, "/tmp/test_cuda_weights.%d.gguf", (int)getpid());
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    shim_fini();
    return rc;
}
