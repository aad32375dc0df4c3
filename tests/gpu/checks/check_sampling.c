/* Sampling against the CPU's sampler: the same token for every kind of filter, adjustment, seed and
 * position, by one block a row and by many; the log-probability within what float sums of n_vocab terms
 * are off (1e-5 of it). */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/sampling.h"
#include "gpu-engine/device/sampler.h"
#include "tests/gpu/checks/checks.h"

enum { KINDS = 10, LOG_MAX = 64, BIASES = 5, STOPS = 3 };

static const struct sampling_row HOW[KINDS] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 1, .top_p = 1},
    {.temperature = 0.7f, .top_p = 1, .min_p = 0.05f},
    {.temperature = 1, .top_p = 1, .top_k = 40},
    {.temperature = 1.3f, .top_p = 0.9f},
    {.temperature = 0.8f, .top_p = 0.95f, .top_k = 20},
    {.temperature = 2, .top_p = 0.5f, .min_p = 0.001f, .top_k = 1000},
    {.temperature = 1, .top_p = 1, .top_k = 1},
    {.temperature = 1, .top_p = 0.0f},
    {.temperature = 1, .top_p = 0.99f, .top_k = 1000000},
};

/* A row's adjustments, as the GPU has them and as the CPU has them. */
struct adjusted {
    struct sampling_adjust *gpu;
    struct device_adjust cpu;
};

/* Every third row has penalties, every fourth biases (one token twice), some may not stop yet. */
static int adjust_make(struct check_run *r, struct adjusted *out, uint32_t row, uint32_t n_vocab,
                       uint32_t pos)
{
    struct sampling_adjust *a;
    struct sampling_bias *biases;
    uint32_t *log, *stops, n_prompt = pos / 2;

    CHECK_ALLOC(r, a, CHECK_PINNED, 1);
    CHECK_ALLOC(r, log, CHECK_PINNED, LOG_MAX + 1);
    CHECK_ALLOC(r, biases, CHECK_PINNED, BIASES);
    CHECK_ALLOC(r, stops, CHECK_PINNED, STOPS);
    for (uint32_t i = 0; i < pos; i++) /* many twice */
        log[i] = check_below(r, n_vocab < 40 ? n_vocab : 40);
    for (uint32_t i = 0; i < BIASES; i++)
        biases[i] = (struct sampling_bias){check_below(r, n_vocab), check_uniform(r, -8.0f, 12.0f)};
    biases[BIASES - 1].token = biases[0].token;
    for (uint32_t i = 0; i < STOPS; i++)
        stops[i] = check_below(r, n_vocab);
    *a = (struct sampling_adjust){.log = log,
                                  .n_prompt = n_prompt,
                                  .repetition = row % 3 == 0 ? 1.3f : 1.0f,
                                  .presence = row % 3 == 0 ? 0.7f : 0.0f,
                                  .frequency = row % 6 == 0 ? 0.4f : 0.0f,
                                  .n_biases = row % 4 == 0 ? BIASES : 0,
                                  .biases = biases,
                                  .min_tokens = row % 5 == 0 ? LOG_MAX : 1,
                                  .n_stops = STOPS,
                                  .stops = stops};
    out->gpu = a;
    out->cpu = (struct device_adjust){.log = log,
                                      .n_prompt = n_prompt,
                                      .repetition = a->repetition,
                                      .presence = a->presence,
                                      .frequency = a->frequency,
                                      .n_biases = a->n_biases,
                                      .biases = (const struct device_bias *)biases,
                                      .min_tokens = a->min_tokens,
                                      .n_stops = STOPS,
                                      .stops = stops};
    return 0;
}

static int compare_top(struct check_run *r, struct sampler *sampler, const struct sampling *a,
                       uint32_t row)
{
    struct device_logprob want[SAMPLING_TOP_MAX];
    const struct sampling_top *got = a->top + (size_t)row * SAMPLING_TOP_MAX;
    uint32_t n =
        sampler_top(sampler, a->logits + (size_t)row * a->n_vocab, a->row[row].n_top, want);

    for (uint32_t i = 0; i < n; i++) {
        if (got[i].token != want[i].token)
            return check_fail(r, "row %u, alternative %u: token %u, expected %u", row, i,
                              got[i].token, want[i].token);
        CHECK_DO(check_floats(r, "alternative", &got[i].logprob, &want[i].logprob, 1, 1e-5, 1.0));
    }
    return 0;
}

static int compare_row(struct check_run *r, struct sampler *sampler, const struct sampling *a,
                       uint32_t row, const struct device_adjust *adjust)
{
    const struct sampling_row *how = &a->row[row];
    const struct device_sampling want = {.seed = how->seed,
                                         .temperature = how->temperature,
                                         .top_p = how->top_p,
                                         .min_p = how->min_p,
                                         .top_k = how->top_k,
                                         .adjust = adjust};
    float logprob;
    uint32_t token =
        sampler_draw(sampler, a->logits + (size_t)row * a->n_vocab, &want, how->pos, &logprob);

    if (a->tokens[row] != token)
        return check_fail(r, "row %u of %u tokens: token %u, expected %u", row, a->n_vocab,
                          a->tokens[row], token);
    if (how->adjust != NULL && how->adjust->log[how->pos] != token)
        return check_fail(r, "row %u: the log ends with %u, not %u", row,
                          how->adjust->log[how->pos], token);
    return check_floats(r, "logprob", &a->logprobs[row], &logprob, 1, 1e-5, 1.0);
}

static int compare(struct check_run *r, const struct sampling *a, const struct adjusted *adjusted)
{
    struct sampler sampler;
    int rc = sampler_init(&sampler, a->n_vocab) == 0 ? 0 : check_fail(r, "no memory");

    for (uint32_t i = 0; rc == 0 && i < a->rows.n; i++) {
        rc = compare_row(r, &sampler, a, i, a->row[i].adjust != NULL ? &adjusted[i].cpu : NULL);
        if (rc == 0 && a->top != NULL)
            rc = compare_top(r, &sampler, a, i);
    }
    sampler_fini(&sampler);
    return rc;
}

/* Logits in steps of 1/8 in every third row, so that many are equal. */
static int logits_make(struct check_run *r, struct sampling *a)
{
    float *logits;

    CHECK_ALLOC(r, logits, CHECK_POOL, (size_t)a->rows.n * a->n_vocab);
    for (uint32_t i = 0; i < a->rows.n; i++) {
        for (uint32_t v = 0; v < a->n_vocab; v++) {
            float x = check_uniform(r, -6.0f, 6.0f);
            logits[(size_t)i * a->n_vocab + v] = i % 3 == 0 ? roundf(x * 8) / 8 : x * 2;
        }
    }
    a->logits = logits;
    return 0;
}

static int vocab_check(struct check_run *r, uint32_t n_vocab, uint32_t n_rows, bool wide)
{
    struct sampling a = {.rows = {.n = n_rows}, .n_vocab = n_vocab, .adjusts = wide};
    struct adjusted *adjusted;
    struct sampling_row *row;

    CHECK_ALLOC(r, adjusted, CHECK_PINNED, n_rows);
    CHECK_ALLOC(r, row, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a.tokens, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a.logprobs, CHECK_POOL, n_rows);
    CHECK_DO(logits_make(r, &a));
    if (wide) {
        CHECK_ALLOC(r, a.top, CHECK_POOL, (size_t)n_rows * SAMPLING_TOP_MAX);
        a.scratch_rows = n_rows + 3;
        a.scratch = check_alloc(r, CHECK_POOL, sampling_scratch(a.scratch_rows, n_vocab, 1));
        if (a.scratch == NULL)
            return -1;
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        row[i] = HOW[i % KINDS];
        row[i].seed = (uint64_t)check_below(r, 1u << 30) << 20 | i;
        row[i].pos = wide ? check_below(r, LOG_MAX) : check_below(r, 5000);
        row[i].n_top = wide && i % 2 ? 1 + i % SAMPLING_TOP_MAX : 0;
        if (wide && i % 7 != 0) {
            CHECK_DO(adjust_make(r, &adjusted[i], i, n_vocab, row[i].pos));
            row[i].adjust = adjusted[i].gpu;
        }
    }
    a.row = row;
    for (int again = 0; again < (wide ? 2 : 1); again++) { /* counts and bins are as they were */
        a.rows.n = again ? n_rows - n_rows / 3 : n_rows;
        CHECK_DO(check_wait(r, "sampling", sampling(&a, r->stream)));
        CHECK_DO(compare(r, &a, adjusted));
    }
    return 0;
}

int check_sampling(struct check_run *r)
{
    CHECK_DO(vocab_check(r, 1, KINDS, false));
    CHECK_DO(vocab_check(r, 777, 3 * KINDS, false));
    return vocab_check(r, 5003, 2 * KINDS, false);
}

int check_sampling_wide(struct check_run *r)
{
    CHECK_DO(vocab_check(r, 1, KINDS, true));
    CHECK_DO(vocab_check(r, 300, 3 * KINDS, true));
    return vocab_check(r, 9001, 2 * KINDS, true);
}
