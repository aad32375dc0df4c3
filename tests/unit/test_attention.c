/* Attention over paged KV: right against float64; the same bits whether a query is computed alone,
 * in a chunk, by more threads, by another instruction set, or with other tokens behind it. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "common/base/half.h"
#include "common/compute/attention.h"
#include "tests/unit/compute_common.h"

enum { BLOCK_TOKENS = 64 };

/* Compiled a second time with OMNI_EMULATED, beside kernels_emulated_*.c: then the instruction sets
 * that those emulate run, and no others. */
#ifdef OMNI_EMULATED
enum { EVERY = 5 }; /* shapes: emulated registers are slow */
#else
enum { EVERY = 1 };
#endif

static bool runs(enum isa isa)
{
#ifdef OMNI_EMULATED
    return isa == ISA_AVX512FP16 || isa == ISA_AMX;
#else
    return isa_supported(isa);
#endif
}

/* Does it multiply as nobody else does?  Then its bits are its own. */
static bool has_own_bits(enum isa isa, enum kv_type type)
{
    return (type == KV_TYPE_BF16 && isa >= ISA_AVX512BF16) ||
           (type == KV_TYPE_F16 && isa == ISA_AVX512FP16);
}

struct variant {
    const char *name;
    enum kv_type type;
    struct kv_layer_spec layer;
    uint32_t n_tokens;
};

#define FULL(heads, kv_heads, dk_, dv_)                                                            \
    {                                                                                              \
        .attention = KV_ATTENTION_FULL, .n_heads = heads, .n_kv_heads = kv_heads, .dk = dk_,       \
        .dv = dv_, .scale = 0.2f                                                                   \
    }
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

/* One sequence's KV and queries. */
struct sequence {
    struct kv_geometry geometry;
    struct kv_view view;
    uint32_t *table;
    uint32_t n_tokens;
    uint32_t q_width, out_width;
    float *q, *k, *v;
};

/* Blocks in scattered order; everything not written is 0xff: NaN in every float type. */
static struct sequence *sequence_make(const struct variant *var, uint64_t seed)
{
    struct sequence *s = calloc(1, sizeof *s);
    struct kv_geometry_config config = {
        .type = var->type, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    const struct kv_layer *l;
    uint32_t n_blocks = var->n_tokens / BLOCK_TOKENS + 1;
    const char *field;

    assert_non_null(s);
    assert_int_equal(geometry_init(&s->geometry, &config, &var->layer, 1, &field), 0);
    l = &s->geometry.layer[0];
    s->n_tokens = var->n_tokens;
    s->q_width = kv_layer_q_width(l);
    s->out_width = kv_layer_out_width(l);
    s->table = malloc(n_blocks * sizeof *s->table);
    for (uint32_t i = 0; i < n_blocks; i++)
        s->table[i] = n_blocks - 1 - i;
    s->view = (struct kv_view){.base = malloc((size_t)n_blocks * s->geometry.block_bytes),
                               .table = s->table,
                               .block_bytes = s->geometry.block_bytes,
                               .block_tokens = BLOCK_TOKENS,
                               .n_blocks = n_blocks,
                               .type = var->type,
                               .layer = l};
    memset(s->view.base, 0xff, (size_t)n_blocks * s->geometry.block_bytes);
    s->q = random_floats(&seed, (size_t)s->n_tokens * s->q_width);
    s->k = random_floats(&seed, (size_t)s->n_tokens * kv_layer_k_width(l));
    s->v = random_floats(&seed, (size_t)s->n_tokens * kv_layer_v_width(l));
    for (size_t i = 0; i < (size_t)s->n_tokens * s->q_width; i++)
        s->q[i] *= 4.0f; /* so that the softmax is far from flat */
    return s;
}

static void sequence_append(struct sequence *s, uint32_t pos, uint32_t n)
{
    uint32_t k = kv_layer_k_width(s->view.layer), v = kv_layer_v_width(s->view.layer);

    attn_append(&s->view, pos, n, s->k + (size_t)pos * k, k, s->v + (size_t)pos * v, v);
}

static void sequence_free(struct sequence *s)
{
    free(s->view.base);
    free(s->table);
    free(s->q);
    free(s->k);
    free(s->v);
    free(s);
}

static struct attn_job job_of(const struct sequence *s, uint32_t pos, uint32_t n_q, float *out)
{
    return (struct attn_job){.q = s->q + (size_t)pos * s->q_width,
                             .out = out,
                             .n_q = n_q,
                             .pos = pos,
                             .kv = s->view,
                             .ldq = s->q_width,
                             .ldo = s->out_width};
}

/* A team and its scratch. */
struct setup {
    struct team *team;
    struct attn_scratch *scratch;
};

static struct setup setup_make(enum isa isa, uint32_t n_threads)
{
    struct setup s;

    assert_int_equal(team_create(&s.team, n_threads, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&s.scratch, isa, n_threads, 256, 256), 0);
    return s;
}

static void setup_free(struct setup *s)
{
    attn_scratch_destroy(s->scratch);
    team_destroy(s->team);
}

/* All tokens' outputs, computed one query at a time while the sequence grows: what lies behind a
 * token when it is computed is 0xff. */
static float *decode_all(const struct variant *var, enum isa isa, uint64_t seed)
{
    struct sequence *s = sequence_make(var, seed);
    struct setup setup = setup_make(isa, 1);
    float *out = malloc((size_t)s->n_tokens * s->out_width * sizeof *out);

    assert_non_null(out);
    for (uint32_t pos = 0; pos < s->n_tokens; pos++) {
        struct attn_job job = job_of(s, pos, 1, out + (size_t)pos * s->out_width);

        sequence_append(s, pos, 1);
        attn_run(setup.team, setup.scratch, &job, 1);
    }
    setup_free(&setup);
    sequence_free(s);
    return out;
}

/* The same, with all KV there already, in chunks. */
static float *prefill_all(const struct variant *var, enum isa isa, uint32_t n_threads,
                          uint32_t chunk, uint64_t seed)
{
    struct sequence *s = sequence_make(var, seed);
    struct setup setup = setup_make(isa, n_threads);
    float *out = malloc((size_t)s->n_tokens * s->out_width * sizeof *out);

    assert_non_null(out);
    sequence_append(s, 0, s->n_tokens);
    for (uint32_t pos = 0; pos < s->n_tokens; pos += chunk) {
        uint32_t left = s->n_tokens - pos;
        struct attn_job job =
            job_of(s, pos, left < chunk ? left : chunk, out + (size_t)pos * s->out_width);

        attn_run(setup.team, setup.scratch, &job, 1);
    }
    setup_free(&setup);
    sequence_free(s);
    return out;
}

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

/* Element e of a head of K or V as stored, in the definition's words. */
static double stored(const struct kv_view *kv, bool value, uint32_t head, uint32_t pos, uint32_t e)
{
    const struct kv_layer *l = kv->layer;
    const uint8_t *block = kv_view_block(kv, pos);
    uint32_t t = pos % kv->block_tokens;
    const uint8_t *at = block + (value ? kv_v_offset(l, kv->type, head, t, e)
                                       : kv_k_offset(l, kv->type, head, t, e));
    uint32_t scale_off = (value ? l->v_scale_off : l->k_scale_off);
    uint16_t h;
    float f;

    switch ((enum kv_type)kv->type) {
    case KV_TYPE_F16:
        memcpy(&h, at, 2);
        return (double)half_to_float(h);
    case KV_TYPE_BF16:
        memcpy(&h, at, 2);
        return (double)half_float_from_bits((uint32_t)h << 16);
    case KV_TYPE_F32:
        memcpy(&f, at, 4);
        return (double)f;
    case KV_TYPE_I8:
        memcpy(&f, block + kv_scale_offset(l, scale_off, head, t), 4);
        return (double)f * (double)(int8_t)*at;
    }
    return NAN;
}

/* The query's element as a kernel takes it: int16 of the head's largest beside int8, bf16 or f16 for
 * products of such. */
static double query64(const struct sequence *s, enum isa isa, const float *q, uint32_t e)
{
    const struct kv_layer *l = s->view.layer;
    float factor = l->softcap != 0 ? l->scale : l->scale * 1.44269504088896341f;
    float top = 0, scaled = q[e] * factor;
    uint32_t bits;

    if (s->view.type == KV_TYPE_I8) {
        for (uint32_t i = 0; i < l->dk; i++)
            top = fabsf(q[i]) > top ? fabsf(q[i]) : top;
        return (double)rintf(q[e] / top * 32767.0f) * (double)top / 32767.0;
    }
    if (!has_own_bits(isa, s->view.type))
        return (double)q[e];
    if (s->view.type == KV_TYPE_F16)
        return (double)half_to_float(float_to_half(scaled)) / (double)factor;
    memcpy(&bits, &scaled, sizeof bits);
    bits = (bits + 0x7fffU + (bits >> 16 & 1)) & 0xffff0000U;
    memcpy(&scaled, &bits, sizeof bits);
    return (double)scaled / (double)factor;
}

static double score64(const struct sequence *s, const double *q, uint32_t h, uint32_t t)
{
    const struct kv_layer *l = s->view.layer;
    uint32_t group = (uint32_t)l->n_heads / l->n_kv_heads;
    double sum = 0;

    for (uint32_t e = 0; e < l->dk; e++)
        sum += q[e] * stored(&s->view, false, h / group, t, e);
    sum *= (double)l->scale;
    return l->softcap != 0 ? (double)l->softcap * tanh(sum / (double)l->softcap) : sum;
}

static void attention64(const struct sequence *s, enum isa isa, uint32_t pos, uint32_t h,
                        double *out)
{
    const struct kv_layer *l = s->view.layer;
    const float *query = s->q + (size_t)pos * s->q_width + (size_t)h * l->dk;
    uint32_t group = (uint32_t)l->n_heads / l->n_kv_heads;
    double sum = 0, q[256];

    for (uint32_t e = 0; e < l->dk; e++)
        q[e] = query64(s, isa, query, e);
    memset(out, 0, l->dv * sizeof *out);
    for (uint32_t t = 0; t <= pos; t++) {
        double w;

        if (l->window != 0 && t + l->window <= pos && t >= l->n_sinks)
            continue;
        w = exp(score64(s, q, h, t)); /* scores stay far below overflow here */
        sum += w;
        for (uint32_t e = 0; e < l->dv; e++)
            out[e] += w * stored(&s->view, true, h / group, t, e);
    }
    for (uint32_t e = 0; e < l->dv; e++)
        out[e] /= sum;
}

/* |v| <= 1 (about), so an output's error is that of its weights.
 *   float: the relative error of exp(score) is the score's absolute error, some dozens of roundings
 *     (2^-24) at magnitude 16 at most, that of exp2 (2^-22), and again as much for the sum.
 *     Observed below 1e-6; 5e-6 leaves room for other random numbers.
 *   i8: weights are whole 32,767ths of a tile's largest; 64 half steps at most a tile, and the
 *     tiles' largest weights together are at most the sum: 64 * 0.5 / 32,767.  Observed: 2e-5.
 *   bf16 by dot products or tiles: weights are rounded to 8 bits, 2^-9 each, and their sum with
 *     them.
 *   f16 in f16: a product is added to at most 7 others before they are rounded no more, each time by
 *     up to 2^-12 of a sum that is about 2 here: over the 64 to 256 elements of a score roundings
 *     that know nothing of each other come to 16 * 2^-12 * 2 * 0.6 = 5e-3, and the same for values.  Observed below 2e-3. */
static double tolerance(const struct variant *var, enum isa isa)
{
    if (var->type == KV_TYPE_I8)
        return 5e-6 + 32.0 / 32767;
    if (has_own_bits(isa, var->type))
        return var->type == KV_TYPE_F16 ? 5e-3 : 5e-6 + 0x1p-8;
    return 5e-6;
}

static void check_against_float64(const struct variant *var, enum isa isa, uint32_t n_threads)
{
    struct sequence *s = sequence_make(var, 11);
    float *out = prefill_all(var, isa, n_threads, 5000, 11);

    sequence_append(s, 0, s->n_tokens);
    for (uint32_t pos = 0; pos < s->n_tokens; pos = pos * 2 + 1) {
        for (uint32_t h = 0; h < var->layer.n_heads; h++) {
            const float *got = out + (size_t)pos * s->out_width + (size_t)h * var->layer.dv;
            double want[256];

            attention64(s, isa, pos, h, want);
            for (uint32_t e = 0; e < var->layer.dv; e++)
                if (!(fabs((double)got[e] - want[e]) <= tolerance(var, isa)))
                    fail_msg("%s (%s) pos %u head %u element %u: %.9g, expected %.9g", var->name,
                             isa_name(isa), pos, h, e, (double)got[e], want[e]);
        }
    }
    free(out);
    sequence_free(s);
}

#ifdef OMNI_EMULATED
#define RAN "emulated"
#else
#define RAN "ran"
#endif

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
