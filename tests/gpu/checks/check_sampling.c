/* Sampling against the CPU's sampler: the same token for every kind of filter, seed and position; the
 * log-probability within what float sums of n_vocab terms are off (1e-5 of it). */
#include <math.h>

#include "gpu-engine/device/cuda/sampling.h"
#include "gpu-engine/device/sampler.h"
#include "tests/gpu/checks/checks.h"

enum { KINDS = 10 };

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

static int compare(struct check_run *r, const struct sampling *a)
{
    struct sampler sampler;
    int rc = sampler_init(&sampler, a->n_vocab) == 0 ? 0 : check_fail(r, "no memory");

    for (uint32_t i = 0; rc == 0 && i < a->rows.n; i++) {
        const struct sampling_row *how = &a->row[i];
        const struct device_sampling want = {.seed = how->seed,
                                             .temperature = how->temperature,
                                             .top_p = how->top_p,
                                             .min_p = how->min_p,
                                             .top_k = how->top_k};
        float logprob;
        uint32_t token =
            sampler_draw(&sampler, a->logits + (size_t)i * a->n_vocab, &want, how->pos, &logprob);
        if (a->tokens[i] != token)
            rc = check_fail(r, "row %u: token %u, expected %u", i, a->tokens[i], token);
        else
            rc = check_floats(r, "logprob", &a->logprobs[i], &logprob, 1, 1e-5, 1.0);
    }
    sampler_fini(&sampler);
    return rc;
}

/* Logits in steps of 1/8, so that many are equal. */
static int vocab_check(struct check_run *r, uint32_t n_vocab, uint32_t n_rows)
{
    struct sampling a = {.rows = {.n = n_rows}, .n_vocab = n_vocab};
    struct sampling_row *row;
    float *logits;

    CHECK_ALLOC(r, row, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, logits, CHECK_POOL, (size_t)n_rows * n_vocab);
    CHECK_ALLOC(r, a.tokens, CHECK_POOL, n_rows);
    CHECK_ALLOC(r, a.logprobs, CHECK_POOL, n_rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        row[i] = HOW[i % KINDS];
        row[i].seed = (uint64_t)check_below(r, 1u << 30) << 20 | i;
        row[i].pos = check_below(r, 5000);
        for (uint32_t v = 0; v < n_vocab; v++) {
            float x = check_uniform(r, -6.0f, 6.0f);
            logits[(size_t)i * n_vocab + v] = i % 3 == 0 ? roundf(x * 8) / 8 : x * 2;
        }
    }
    a.row = row;
    a.logits = logits;
    CHECK_DO(check_wait(r, "sampling", sampling(&a, r->stream)));
    return compare(r, &a);
}

int check_sampling(struct check_run *r)
{
    CHECK_DO(vocab_check(r, 1, KINDS));
    CHECK_DO(vocab_check(r, 777, 3 * KINDS));
    return vocab_check(r, 5003, 2 * KINDS);
}
