/* Attention over paged KV: right against float64; the same bits whether a query is computed alone,
 * in a chunk, by more threads, by another instruction set, or with other tokens behind it. */
#include <errno.h>
#include <float.h>
#include <math.h>

#include "common/base/half.h"
#include "tests/unit/attention_fixture.h"

#define WINDOW(window_, sinks, cap)                                                                \
    {                                                                                              \
        .attention = KV_ATTENTION_WINDOW, .n_heads = 4, .n_kv_heads = 2, .dk = 32, .dv = 32,       \
        .window = window_, .n_sinks = sinks, .scale = 0.2f, .softcap = cap                         \
    }

static const struct variant variants[] = {
    {"f16 smollm2", KV_TYPE_F16, FULL(9, 3, 64, 64), 150},
    {"f16 group 1, widths 128", KV_TYPE_F16, FULL(2, 2, 128, 128), 100},
    {"f16 group 16, two spans", KV_TYPE_F16, FULL(16, 1, 16, 16), 1100},
    {"f16 widths 8 and 40", KV_TYPE_F16, FULL(4, 2, 8, 40), 70},
    {"f16 widths 80 and 24", KV_TYPE_F16, FULL(5, 5, 80, 24), 70},
    {"bf16", KV_TYPE_BF16, FULL(4, 2, 72, 64), 100},
    {"f32", KV_TYPE_F32, FULL(4, 2, 64, 64), 100},
    {"i8", KV_TYPE_I8, FULL(6, 2, 64, 48), 100},
    {"i8 odd widths", KV_TYPE_I8, FULL(4, 2, 37, 29), 90},
    {"bf16 odd widths, group 7", KV_TYPE_BF16, FULL(7, 1, 37, 29), 90},
    {"f16 odd widths", KV_TYPE_F16, FULL(3, 1, 37, 29), 90},
    {"window 40", KV_TYPE_F16, WINDOW(40, 0, 0.0f), 200},
    {"window 33, 5 sinks", KV_TYPE_F16, WINDOW(33, 5, 0.0f), 200},
    {"window 1", KV_TYPE_F16, WINDOW(1, 0, 0.0f), 70},
    {"window 90, sinks, spans, softcap", KV_TYPE_I8, WINDOW(90, 4, 2.0f), 1200},
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

static void test_chunks_threads_isas(void **state)
{
    static const uint32_t chunks[] = {1, 7, 64, 5000};

    (void)state;
    for (int i = 0; i < N_VARIANTS; i++) {
        const struct variant *var = &variants[i];
        size_t n = (size_t)var->n_tokens * var->layer.n_heads * var->layer.dv;
        enum isa first = runs(ISA_AVX2) ? ISA_AVX2 : ISA_REF;
        float *expected = decode_all(var, first, 7);

        for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
            bool own = runs(isa) && has_own_bits(isa, var->type);
            float *right = own ? decode_all(var, isa, 7) : expected;

            for (int c = isa == ISA_REF ? 3 : EVERY / 3; runs(isa) && c < 4; c += 1 + EVERY / 3) {
                float *out = prefill_all(var, isa, 1 + (uint32_t)c % 3, chunks[c], 7);

                assert_same_bits(out, right, n, var->name);
                free(out);
            }
            if (own)
                free(right);
        }
        free(expected);
    }
}

static void test_against_float64(void **state)
{
    (void)state;
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        for (int i = 0; runs(isa) && i < N_VARIANTS; i++)
            check_against_float64(&variants[i], isa, 1);
        print_message("%s: %s\n", isa_name(isa), runs(isa) ? RAN : "not here");
    }
}

/* All head widths with all groups, every type, over a context with tails. */
static void test_shapes(void **state)
{
    static const uint32_t widths[] = {64, 80, 96, 128, 192, 256};
    static const enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_I8, KV_TYPE_F32};
    struct variant var = {.name = "shapes", .layer = FULL(1, 1, 1, 1)};
    uint32_t n = 0;

    (void)state;
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        for (uint32_t i = 0; runs(isa) && i < 6 * 16; i += EVERY, n++) {
            var.layer.dk = var.layer.dv = widths[i / 16];
            var.layer.n_heads = 1 + i % 16;
            var.layer.scale = 1.6f / (float)widths[i / 16];
            var.type = types[(i + i / 16 + (uint32_t)isa) % 4];
            var.n_tokens = 65 + n % 66;
            check_against_float64(&var, isa, 1 + n % 2);
        }
    }
}

/* The same bits for up to 8 queries together, by every group; by ATTN_ROWS and beyond. */
static void test_queries_together(void **state)
{
    static const uint32_t groups[] = {1, 2, 3, 4, 5, 8, 11, 16};
    struct variant var = {.name = "queries", .layer = FULL(1, 1, 64, 64), .n_tokens = 150};

    (void)state;
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        for (uint32_t i = 0; runs(isa) && i < 8; i++) {
            size_t n = (size_t)var.n_tokens * groups[i] * 64;

            var.layer.n_heads = groups[i];
            var.type = (enum kv_type)(1 + i % 4);
            float *expected = prefill_all(&var, isa, 1, 1, 3);
            for (uint32_t n_q = 2; n_q <= 8; n_q += EVERY) {
                float *out = prefill_all(&var, isa, 1 + n_q % 2, n_q, 3);

                assert_same_bits(out, expected, n, "queries together");
                free(out);
            }
            free(expected);
        }
    }
}

/* A long decode alone is spread over threads by spans; in company it is not. */
static void test_spans_over_threads(void **state)
{
    const struct variant var = {"long", KV_TYPE_F16, FULL(4, 2, 64, 64), 5000};
    struct sequence *s = sequence_make(&var, 13);
    float expected[4 * 64], out[4 * 64], crowd[8 * 4 * 64];
    struct attn_job jobs[8];
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    sequence_append(s, 0, s->n_tokens);
    jobs[0] = job_of(s, 4990, 1, expected);
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        struct setup setup = setup_make(isa, n_threads);

        attn_run(setup.team, setup.scratch, jobs, 1);
        assert_same_bits(n_threads == 1 ? expected : out, expected, 4 * 64, "spans over threads");
        jobs[0].out = out;
        for (uint32_t i = 1; i < 8; i++)
            jobs[i] = job_of(s, i == 5 ? 4990 : 300 * i, i == 3 ? 0 : 1, crowd + (size_t)i * 256);
        attn_run(setup.team, setup.scratch, jobs, 8);
        assert_same_bits(crowd + 5 * 256, expected, 4 * 64, "in company");
        setup_free(&setup);
    }
    sequence_free(s);
}

/* Jobs of different geometries in one call, with several queries each. */
static void test_mixed_jobs(void **state)
{
    struct sequence *s[N_VARIANTS];
    struct attn_job jobs[N_VARIANTS];
    float *alone[N_VARIANTS], *out[N_VARIANTS];
    struct setup one, three;
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    one = setup_make(isa, 1);
    three = setup_make(isa, 3);
    for (int i = 0; i < N_VARIANTS; i++) {
        s[i] = sequence_make(&variants[i], 17 + (uint64_t)i);
        sequence_append(s[i], 0, s[i]->n_tokens);
        alone[i] = calloc(2 * s[i]->out_width, sizeof(float));
        out[i] = calloc(2 * s[i]->out_width, sizeof(float));
        jobs[i] = job_of(s[i], s[i]->n_tokens - 2, 2, alone[i]);
        attn_run(one.team, one.scratch, &jobs[i], 1);
        jobs[i].out = out[i];
    }
    attn_run(three.team, three.scratch, jobs, N_VARIANTS);
    for (int i = 0; i < N_VARIANTS; i++) {
        assert_same_bits(out[i], alone[i], 2 * s[i]->out_width, variants[i].name);
        free(alone[i]);
        free(out[i]);
        sequence_free(s[i]);
    }
    setup_free(&one);
    setup_free(&three);
}

/* Rounding once: appending again writes the same bytes, chunks do not matter, and the values are
 * the nearest ones. */
static void test_append(void **state)
{
    (void)state;
    for (int i = 0; i < N_VARIANTS; i++) {
        struct sequence *a = sequence_make(&variants[i], 19), *b = sequence_make(&variants[i], 19);
        size_t bytes = (size_t)a->view.n_blocks * a->geometry.block_bytes;
        const struct kv_layer *l = a->view.layer;

        sequence_append(a, 0, a->n_tokens);
        for (uint32_t pos = 0; pos < b->n_tokens; pos++)
            sequence_append(b, pos, 1);
        sequence_append(b, 3, 50);
        assert_memory_equal(a->view.base, b->view.base, bytes);
        for (uint32_t pos = 0; pos < a->n_tokens; pos += 13) {
            for (uint32_t e = 0; e < l->dk; e++) {
                double x = (double)a->k[(size_t)pos * kv_layer_k_width(l) + e];
                double got = stored(&a->view, false, 0, pos, e);
                double ulp = variants[i].type == KV_TYPE_F16    ? 0x1p-11 * fabs(x) + 0x1p-25
                             : variants[i].type == KV_TYPE_BF16 ? 0x1p-8 * fabs(x)
                             : variants[i].type == KV_TYPE_F32  ? 0
                                                                : 0.5001 / 127;

                assert_true(fabs(got - x) <= ulp);
            }
        }
        sequence_free(a);
        sequence_free(b);
    }
}

/* Stored f16 values are those of half.h, bit for bit, specials and tails included. */
static void test_append_rounds_as_defined(void **state)
{
    static const float specials[] = {65504.0f, 65520.0f, 1e30f,    -1e30f, 0x1p-24f,    0x1p-25f,
                                     0x3p-26f, -0.0f,    INFINITY, NAN,    0x1.ffep-15f};
    const struct variant var = {"f16", KV_TYPE_F16, FULL(2, 2, 40, 24), 3000};
    struct sequence *s = sequence_make(&var, 29);
    const struct kv_layer *l = s->view.layer;

    (void)state;
    for (uint32_t i = 0; i < s->n_tokens * 80; i++)
        s->k[i] = i % 9 == 0 ? specials[i / 9 % 11] : ldexpf(s->k[i], (int)(i % 40) - 24);
    sequence_append(s, 0, s->n_tokens);
    for (uint32_t pos = 0; pos < s->n_tokens; pos++) {
        for (uint32_t e = 0; e < 80; e++) {
            const uint8_t *at = kv_view_block(&s->view, pos) +
                                kv_k_offset(l, KV_TYPE_F16, e / 40, pos % BLOCK_TOKENS, e % 40);
            uint16_t got;

            memcpy(&got, at, sizeof got);
            assert_int_equal(got, float_to_half(s->k[pos * 80 + e]));
        }
    }
    sequence_free(s);
}

/* KV of any bits: no crash, and a query before them does not notice. */
static void test_hostile_values(void **state)
{
    (void)state;
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        if (!runs(isa))
            continue;
        for (int i = 0; i < N_VARIANTS; i++) {
            struct sequence *s = sequence_make(&variants[i], 23);
            struct setup setup = setup_make(isa, 1);
            float *out = calloc(60 * s->out_width, sizeof *out);
            float *clean = calloc(40 * s->out_width, sizeof *clean);
            struct attn_job job = job_of(s, 0, 40, clean);

            sequence_append(s, 0, 60);
            attn_run(setup.team, setup.scratch, &job, 1);
            for (uint32_t e = 0; e < kv_layer_k_width(s->view.layer); e++)
                s->k[40 * kv_layer_k_width(s->view.layer) + e] = e % 2 ? NAN : INFINITY;
            s->v[41 * kv_layer_v_width(s->view.layer)] = -INFINITY;
            s->k[42 * kv_layer_k_width(s->view.layer)] = FLT_MAX;
            sequence_append(s, 40, 3);
            job = job_of(s, 0, 60, out);
            attn_run(setup.team, setup.scratch, &job, 1);
            assert_same_bits(out, clean, 40 * s->out_width, variants[i].name);
            setup_free(&setup);
            sequence_free(s);
            free(out);
            free(clean);
        }
    }
}

static void test_scratch_bounds(void **state)
{
    struct attn_scratch *s;

    (void)state;
    assert_int_equal(attn_scratch_create(&s, ISA_REF, 0, 64, 64), -EINVAL);
    assert_null(s);
    assert_int_equal(attn_scratch_create(&s, ISA_REF, 1, 0, 64), -EINVAL);
    assert_int_equal(attn_scratch_create(&s, ISA_REF, 1, 64, 1025), -EINVAL);
    assert_int_equal(attn_scratch_create(&s, ISA_COUNT, 1, 64, 64), -EINVAL);
    attn_scratch_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_threads_isas),
        cmocka_unit_test(test_against_float64),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_queries_together),
        cmocka_unit_test(test_spans_over_threads),
        cmocka_unit_test(test_mixed_jobs),
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_append_rounds_as_defined),
        cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_scratch_bounds),
    };

    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
