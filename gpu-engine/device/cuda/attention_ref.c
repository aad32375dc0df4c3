#include "gpu-engine/device/cuda/attention_ref.h"

#include <math.h>

#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/prefill_attention.h"

enum { HEAD_DIM_MAX = 128 };

static const uint16_t *row_at(const struct cuda_kv *kv, uint64_t off, uint32_t seq, uint32_t head,
                              uint32_t token)
{
    uint32_t block = kv->tables[(size_t)seq * kv->table_stride + token / kv->block_tokens];

    return (const uint16_t *)(const void *)(kv->pool + cuda_kv_row(kv, off, block, head,
                                                                   token % kv->block_tokens));
}

static double dot(const struct cuda_kv *kv, const uint16_t *a, const uint16_t *b)
{
    double sum = 0;

    for (uint32_t e = 0; e < kv->head_dim; e++)
        sum += (double)element_to_float(kv->type, a[e]) * (double)element_to_float(kv->type, b[e]);
    return sum;
}

void attention_ref_query(const struct cuda_kv *kv, uint32_t seq, uint32_t head, uint32_t first,
                         uint32_t end, float scale, const uint16_t *q, uint16_t *out)
{
    double sum[HEAD_DIM_MAX] = {0}, max = -INFINITY, total = 0;

    for (uint32_t t = first; t < end; t++)
        max = fmax(max, (double)scale * dot(kv, q, row_at(kv, kv->k_off, seq, head, t)));
    for (uint32_t t = first; t < end; t++) {
        double w = exp((double)scale * dot(kv, q, row_at(kv, kv->k_off, seq, head, t)) - max);
        const uint16_t *v = row_at(kv, kv->v_off, seq, head, t);

        total += w;
        for (uint32_t e = 0; e < kv->head_dim; e++)
            sum[e] += w * (double)element_to_float(kv->type, v[e]);
    }
    for (uint32_t e = 0; e < kv->head_dim; e++)
        out[e] = element_from_float(kv->type, (float)(sum[e] / total));
}

void decode_attention_ref(const struct decode_attention *a)
{
    uint32_t group = a->n_heads / a->kv.n_kv_heads;

    for (uint32_t s = 0; s < a->n_seqs; s++) {
        uint32_t n = a->ctx_len[s], first = a->window != 0 && n > a->window ? n - a->window : 0;

        for (uint32_t h = 0; n > 0 && h < a->n_heads; h++) {
            size_t at = ((size_t)s * a->n_heads + h) * a->kv.head_dim;
            attention_ref_query(&a->kv, s, h / group, first, n, a->scale, a->q + at, a->out + at);
        }
    }
}

void prefill_attention_ref(const struct prefill_attention *a)
{
    uint32_t group = a->n_heads / a->kv.n_kv_heads;

    for (uint32_t i = 0; i < a->n_chunks; i++) {
        const struct prefill_chunk *c = &a->chunk[i];

        for (uint32_t n = 0; n < c->n_rows * a->n_heads; n++) {
            uint32_t row = n / a->n_heads, h = n % a->n_heads, end = c->pos + row + 1;
            uint32_t first = a->window != 0 && end > a->window ? end - a->window : 0;
            size_t at = ((size_t)(c->first_row + row) * a->n_heads + h) * a->kv.head_dim;

            attention_ref_query(&a->kv, c->table, h / group, first, end, a->scale, a->q + at,
                                a->out + at);
        }
    }
}
