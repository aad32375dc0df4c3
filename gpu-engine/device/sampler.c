#include "gpu-engine/device/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int sampler_init(struct sampler *s, uint32_t n_vocab)
{
    s->n_vocab = n_vocab;
    s->candidates = calloc(n_vocab, sizeof *s->candidates);
    s->adjusted = calloc(n_vocab, sizeof *s->adjusted);
    s->counts = calloc(n_vocab, sizeof *s->counts);
    return s->candidates == NULL || s->adjusted == NULL || s->counts == NULL ? -ENOMEM : 0;
}

void sampler_fini(struct sampler *s)
{
    free(s->candidates);
    free(s->adjusted);
    free(s->counts);
    *s = (struct sampler){.n_vocab = 0};
}

/* ---- Philox4x32-10 ---------------------------------------------------------------------- */

static void philox_round(uint32_t c[4], const uint32_t key[2])
{
    uint64_t a = UINT64_C(0xD2511F53) * c[0];
    uint64_t b = UINT64_C(0xCD9E8D57) * c[2];
    uint32_t out[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
                       (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};

    for (int i = 0; i < 4; i++)
        c[i] = out[i];
}

double sampler_uniform(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (int i = 0; i < 10; i++) {
        philox_round(c, key);
        key[0] += UINT32_C(0x9E3779B9);
        key[1] += UINT32_C(0xBB67AE85);
    }
    return (double)((((uint64_t)c[0] << 32) | c[1]) >> 11) * 0x1p-53;
}

/* ---- Candidates: a max-heap, so that only the kept head is ever sorted ----------------------- */

static int candidate_before(const struct sampler_candidate *a, const struct sampler_candidate *b)
{
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

static void heap_sift(struct sampler_candidate *heap, uint32_t n, uint32_t at)
{
    struct sampler_candidate moved = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && candidate_before(&heap[child + 1], &heap[child]))
            child++;
        if (!candidate_before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* Moves the best candidate behind the shrunk heap and returns it. */
static struct sampler_candidate heap_pop(struct sampler_candidate *heap, uint32_t *n)
{
    struct sampler_candidate best = heap[0];

    heap[0] = heap[--*n];
    heap_sift(heap, *n, 0);
    heap[*n] = best;
    return best;
}

static uint32_t argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return best;
}

static double log_sum_exp(const float *logits, uint32_t n, float max)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)expf(logits[i] - max);
    return (double)max + log(sum);
}

/* Fills the candidates that pass min-p; weight 1 is the best token's. */
static uint32_t candidates_fill(struct sampler *s, const float *logits, float max,
                                const struct device_sampling *how, double *total)
{
    uint32_t n = 0;

    *total = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        float weight = expf((logits[i] - max) / how->temperature);
        if (weight < how->min_p || !(weight > 0))
            continue;
        s->candidates[n++] = (struct sampler_candidate){.weight = weight, .id = i};
        *total += (double)weight;
    }
    return n;
}

/* Keeps the head that top-k and top-p leave.  The head is popped to the array's end, best last;
 * returns its first index and the head's weight in *total. */
static uint32_t candidates_cut(struct sampler *s, uint32_t n, const struct device_sampling *how,
                               double *total)
{
    uint32_t k = how->top_k > 0 && how->top_k < n ? how->top_k : n;
    uint32_t heap_n = n;
    double kept = 0, head = 0;

    for (uint32_t i = n / 2; i-- > 0;)
        heap_sift(s->candidates, n, i);
    if (k < n) { /* top-p is a share of what top-k left */
        for (uint32_t i = 0; i < k; i++)
            head += (double)heap_pop(s->candidates, &heap_n).weight;
        for (uint32_t i = n; i-- > n - k;) {
            kept += (double)s->candidates[i].weight;
            if (kept >= (double)how->top_p * head || i == n - k) {
                *total = kept;
                return i;
            }
        }
    }
    do {
        kept += (double)heap_pop(s->candidates, &heap_n).weight;
    } while (heap_n > 0 && kept < (double)how->top_p * *total);
    *total = kept;
    return heap_n;
}

static uint32_t draw(const struct sampler_candidate *first, uint32_t n, double target)
{
    double sum = 0;

    for (uint32_t i = n; i-- > 0;) {
        sum += (double)first[i].weight;
        if (sum > target)
            return first[i].id;
    }
    return first[0].id;
}

static uint32_t draw_adjusted(struct sampler *s, const float *logits,
                              const struct device_sampling *how, uint32_t pos)
{
    uint32_t best = argmax(logits, s->n_vocab), first = 0;
    double total;

    if (!(how->temperature > 0))
        return best;
    uint32_t n = candidates_fill(s, logits, logits[best], how, &total);

    if (n == 0)
        return best;
    if (how->top_k > 0 || how->top_p < 1)
        first = candidates_cut(s, n, how, &total);
    return draw(s->candidates + first, n - first, sampler_uniform(how->seed, pos) * total);
}

uint32_t sampler_draw(struct sampler *s, const float *logits, const struct device_sampling *how,
                      uint32_t pos, float *logprob)
{
    const float *drawn_from =
        how->adjust != NULL ? sampler_adjust(s, logits, how->adjust, pos) : logits;
    uint32_t token = draw_adjusted(s, drawn_from, how, pos);
    float max = logits[argmax(logits, s->n_vocab)];

    *logprob = (float)((double)logits[token] - log_sum_exp(logits, s->n_vocab, max));
    return token;
}

/* ---- Alternatives ---------------------------------------------------------------------------- */

/* Puts id behind those that are at least as likely; the last of n_top falls off. */
static uint32_t top_insert(const float *logits, uint32_t id, uint32_t n, uint32_t n_top,
                           struct device_logprob *out)
{
    uint32_t at = n < n_top ? n : n_top - 1;

    for (; at > 0 && logits[out[at - 1].token] < logits[id]; at--)
        out[at] = out[at - 1];
    out[at].token = id;
    return n < n_top ? n + 1 : n;
}

uint32_t sampler_top(const struct sampler *s, const float *logits, uint32_t n_top,
                     struct device_logprob *out)
{
    uint32_t n = 0;

    if (n_top == 0)
        return 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (n < n_top || logits[i] > logits[out[n - 1].token])
            n = top_insert(logits, i, n, n_top, out);
    }
    double norm = log_sum_exp(logits, s->n_vocab, logits[out[0].token]);

    for (uint32_t i = 0; i < n; i++)
        out[i].logprob = (float)((double)logits[out[i].token] - norm);
    return n;
}
