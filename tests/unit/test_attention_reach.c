/* How far a query sees: windows, sinks and softcap at every head width, type and instruction set;
 * contexts of 65,536 tokens and more, whole and by spans over threads. */
#include <math.h>

#include "tests/unit/attention_fixture.h"

static const struct {
    uint32_t window, n_sinks;
    float softcap;
} reaches[] = {
    {40, 0, 0.0f},   /* ends within tiles */
    {1, 0, 0.0f},    /* itself alone */
    {64, 64, 0.0f},  /* whole tiles */
    {33, 5, 2.0f},   /* sinks, and scores that the cap bends */
    {100, 3, 30.0f}, /* scores that it hardly bends */
    {0, 0, 2.0f},    /* everything, capped */
};
enum { N_REACHES = sizeof reaches / sizeof reaches[0], N_TYPES = 4, N_WIDTHS = 6 };
static const enum kv_type types[N_TYPES] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_I8, KV_TYPE_F32};

static struct variant windowed(uint32_t width, enum kv_type type, uint32_t reach, uint32_t group)
{
    struct variant var = {.name = "windows", .type = type, .n_tokens = 215};

    var.layer = (struct kv_layer_spec)FULL(2 * group, 2, width, width);
    var.layer.attention = reaches[reach].window != 0 ? KV_ATTENTION_WINDOW : KV_ATTENTION_FULL;
    var.layer.window = reaches[reach].window;
    var.layer.n_sinks = reaches[reach].n_sinks;
    var.layer.softcap = reaches[reach].softcap;
    var.layer.scale = 1.6f / (float)width;
    return var;
}

/* The same bits in small chunks and on other threads as all at once. */
static void check_chunks(const struct variant *var, enum isa isa)
{
    size_t n = (size_t)var->n_tokens * var->layer.n_heads * var->layer.dv;
    float *whole = prefill_all(var, isa, 1, 5000, 5), *parts = prefill_all(var, isa, 3, 3, 5);

    assert_same_bits(parts, whole, n, var->name);
    free(whole);
    free(parts);
}

static void test_windows(void **state)
{
    static const uint32_t widths[N_WIDTHS] = {64, 80, 96, 128, 192, 256};
    uint32_t n = 0;

    (void)state;
    for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++) {
        for (uint32_t i = 0; runs(isa) && i < N_WIDTHS * N_TYPES * N_REACHES;
             i += isa == ISA_REF ? 7 : EVERY, n++) {
            struct variant var = windowed(widths[i % N_WIDTHS], types[i / N_WIDTHS % N_TYPES],
                                          i / (N_WIDTHS * N_TYPES), 1 + n % 5);

            check_against_float64(&var, isa, 1 + n % 2);
            if (n % 3 == 0)
                check_chunks(&var, isa);
        }
    }
}

/* ---- Long contexts --------------------------------------------------------------------------- */

enum { LONG_HEADS = 3, LONG_WIDTH = 64 };

/* The last query's output on n_threads threads. */
static void run_last(const struct sequence *s, enum isa isa, uint32_t n_threads, float *out)
{
    struct setup setup = setup_make(isa, n_threads);
    struct attn_job job = job_of(s, s->n_tokens - 1, 1, out);

    attn_run(setup.team, setup.scratch, &job, 1);
    setup_free(&setup);
}

static double largest_difference(const float *got, const double *want, uint32_t n)
{
    double most = 0;

    for (uint32_t e = 0; e < n; e++) {
        double d = fabs((double)got[e] - want[e]);

        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

static void check_long(const struct variant *var, const struct sequence *s, enum isa isa)
{
    float one[LONG_HEADS * LONG_WIDTH], three[LONG_HEADS * LONG_WIDTH];
    double want[LONG_WIDTH], most = 0;

    run_last(s, isa, 1, one);
    run_last(s, isa, 3, three);
    assert_same_bits(three, one, LONG_HEADS * LONG_WIDTH, var->name);
    for (uint32_t h = 0; h < LONG_HEADS; h += 2) {
        attention64(s, isa, s->n_tokens - 1, h, want);
        double d = largest_difference(one + h * LONG_WIDTH, want, LONG_WIDTH);

        if (!(d <= tolerance(var, isa)))
            fail_msg("%s (%s) head %u: off by %g", var->name, isa_name(isa), h, d);
        most = d > most ? d : most;
    }
    print_message("%s, %u tokens, %s: off by %.1e (%.0e allowed)\n", var->name, var->n_tokens,
                  isa_name(isa), most, tolerance(var, isa));
}

/* The tolerance of short contexts holds: a row's weights add up to one however many there are, and
 * spans keep the sums short. */
static void test_long_contexts(void **state)
{
    static const struct variant longs[] = {
        {"f16", KV_TYPE_F16, FULL(LONG_HEADS, 1, LONG_WIDTH, LONG_WIDTH), 131072},
        {"bf16", KV_TYPE_BF16, FULL(LONG_HEADS, 1, LONG_WIDTH, LONG_WIDTH), 65537},
        {"i8", KV_TYPE_I8, FULL(LONG_HEADS, 1, LONG_WIDTH, LONG_WIDTH), 65600},
        {"f32", KV_TYPE_F32, FULL(LONG_HEADS, 1, LONG_WIDTH, LONG_WIDTH), 65536},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof longs / sizeof longs[0]; i++) {
        struct sequence *s = sequence_make(&longs[i], 31 + i);

        for (uint32_t e = 0; e < s->n_tokens * LONG_WIDTH; e++)
            s->v[e] = 0.5f + 0.5f * s->v[e]; /* so that outputs do not average out to 0 */
        sequence_append(s, 0, s->n_tokens);
        for (enum isa isa = ISA_REF; isa < ISA_COUNT; isa++)
            if (runs(isa))
                check_long(&longs[i], s, isa);
        sequence_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_long_contexts),
    };

    return cmocka_run_group_tests_name("attention_reach", tests, NULL, NULL);
}
