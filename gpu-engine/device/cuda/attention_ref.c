#include "gpu-engine/device/cuda/attention_ref.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/prefill_attention.h"

enum { HEAD_DIM_MAX = 256 };

/* Where a head's token is: K or V, by its offsets. */
struct place {
    const uint8_t *row;
    float scale;
};

static struct place place_of(const struct cuda_kv *kv, bool is_v, uint32_t seq, uint32_t head,
                             uint32_t token)
{
    uint32_t block = kv->tables[(size_t)seq * kv->table_stride + token / kv->block_tokens];
    uint32_t at = token % kv->block_tokens;
    struct place p = {.row =
                          kv->pool + cuda_kv_row(kv, is_v ? kv->v_off : kv->k_off, block, head, at),
                      .scale = 1.0f};

    if (kv->type == KV_TYPE_I8)
        memcpy(&p.scale,
               kv->pool +
                   cuda_kv_scale(kv, is_v ? kv->v_scale_off : kv->k_scale_off, block, head, at),
               sizeof p.scale);
    return p;
}

static double element_of(const struct cuda_kv *kv, const struct place *p, uint32_t e)
{
    uint16_t bits;

    if (kv->type == KV_TYPE_I8)
        return (double)(int8_t)p->row[e] * (double)p->scale;
    memcpy(&bits, p->row + (size_t)e * 2, sizeof bits);
    return (double)element_to_float(kv->type, bits);
}

/* Tensor cores multiply elements of one type: q is rounded to the pool's, or to f16 for 8 bits. */
static double query_of(const struct cuda_kv *kv, uint16_t q)
{
    uint32_t type = kv->type == KV_TYPE_I8 ? KV_TYPE_F16 : kv->type, from = cuda_kv_row_type(kv);

    if (from == type)
        return (double)element_to_float(type, q);
    return (double)element_to_float(type, element_from_float(type, element_to_float(from, q)));
}

static double score_of(const struct cuda_kv *kv, const struct attention_seen *seen,
                       const uint16_t *q, const struct place *k)
{
    double sum = 0;

    for (uint32_t e = 0; e < kv->head_dim; e++)
        sum += query_of(kv, q[e]) * element_of(kv, k, e);
    sum *= (double)seen->scale;
    return seen->softcap == 0 ? sum : (double)seen->softcap * tanh(sum / (double)seen->softcap);
}

/* The next visible token from t on. */
static uint32_t next_seen(const struct attention_seen *seen, uint32_t t)
{
    return t >= seen->n_sinks && t < seen->first ? seen->first : t;
}

void attention_ref_query(const struct cuda_kv *kv, uint32_t seq, uint32_t head,
                         const struct attention_seen *seen, const uint16_t *q, uint16_t *out)
{
    double sum[HEAD_DIM_MAX] = {0}, max = -INFINITY, total = 0;

    for (uint32_t t = next_seen(seen, 0); t < seen->end; t = next_seen(seen, t + 1)) {
        struct place k = place_of(kv, false, seq, head, t);
        max = fmax(max, score_of(kv, seen, q, &k));
    }
    for (uint32_t t = next_seen(seen, 0); t < seen->end; t = next_seen(seen, t + 1)) {
        struct place k = place_of(kv, false, seq, head, t), v = place_of(kv, true, seq, head, t);
        double w = exp(score_of(kv, seen, q, &k) - max);

        total += w;
        for (uint32_t e = 0; e < kv->head_dim; e++)
            sum[e] += w * element_of(kv, &v, e);
    }
    for (uint32_t e = 0; e < kv->head_dim; e++)
        out[e] = element_from_float(cuda_kv_row_type(kv), (float)(sum[e] / total));
}

/* What a query with `end` tokens before and with it sees. */
static struct attention_seen seen_by(uint32_t end, uint32_t window, uint32_t n_sinks, float scale,
                                     float softcap)
{
    return (struct attention_seen){.first = window != 0 && end > window ? end - window : 0,
                                   .end = end,
                                   .n_sinks = n_sinks,
                                   .scale = scale,
                                   .softcap = softcap};
}

void decode_attention_ref(const struct decode_attention *a)
{
    uint32_t group = a->n_heads / a->kv.n_kv_heads;

    for (uint32_t s = 0; s < a->n_seqs; s++) {
        struct attention_seen seen =
            seen_by(a->ctx_len[s], a->window, a->n_sinks, a->scale, a->softcap);

        for (uint32_t h = 0; seen.end > 0 && h < a->n_heads; h++) {
            size_t at = ((size_t)s * a->n_heads + h) * a->kv.head_dim;
            attention_ref_query(&a->kv, s, h / group, &seen, a->q + at, a->out + at);
        }
    }
}

void prefill_attention_ref(const struct prefill_attention *a)
{
    uint32_t group = a->n_heads / a->kv.n_kv_heads;

    for (uint32_t i = 0; i < a->n_chunks; i++) {
        const struct prefill_chunk *c = &a->chunk[i];

        for (uint32_t n = 0; n < c->n_rows * a->n_heads; n++) {
            uint32_t row = n / a->n_heads, h = n % a->n_heads;
            struct attention_seen seen =
                seen_by(c->pos + row + 1, a->window, a->n_sinks, a->scale, a->softcap);
            size_t at = ((size_t)(c->first_row + row) * a->n_heads + h) * a->kv.head_dim;

            attention_ref_query(&a->kv, c->table, h / group, &seen, a->q + at, a->out + at);
        }
    }
}
