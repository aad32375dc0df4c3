/* Decode attention: group sizes, widths, types; contexts around the edges of tiles, blocks and pieces;
 * windows; rows that are not there.
 *
 * Tolerance: weights and outputs are rounded to 16 bits once each, so an output is off by up to one and a
 * half roundings of its own size or, where values cancel, of the values' (at most 1 here); sums in float
 * and exp2f add less than a rounding. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/element.h"
#include "tests/gpu/checks/checks.h"

struct decode_shape {
    uint32_t n_kv_heads, group, head_dim, type, block_tokens, split_tokens, window, n_seqs;
    uint32_t ctx_len[6];
};

static const struct decode_shape SHAPES[] = {
    {2, 4, 128, KV_TYPE_BF16, 64, 128, 0, 6, {1, 16, 17, 64, 128, 129}},
    {1, 8, 128, KV_TYPE_F16, 32, 64, 0, 4, {63, 200, 0, 257}},
    {2, 1, 64, KV_TYPE_F16, 32, 128, 0, 3, {31, 33, 300}},
    {1, 16, 64, KV_TYPE_BF16, 96, 64, 0, 2, {95, 97}},
    {1, 7, 128, KV_TYPE_BF16, 32, 64, 40, 4, {39, 40, 41, 190}},
    {3, 3, 64, KV_TYPE_BF16, 64, 256, 100, 2, {256, 511}},
};

static int check_shape(struct check_run *r, const struct decode_shape *s)
{
    struct decode_attention a = {.n_seqs = s->n_seqs,
                                 .n_heads = s->n_kv_heads * s->group,
                                 .split_tokens = s->split_tokens,
                                 .window = s->window,
                                 .kv = {.block_tokens = s->block_tokens,
                                        .n_kv_heads = s->n_kv_heads,
                                        .head_dim = s->head_dim,
                                        .type = s->type}};
    size_t n = (size_t)a.n_seqs * a.n_heads * s->head_dim;
    double rounding = element_epsilon(s->type);
    uint32_t *ctx_len;
    uint16_t *q;

    a.scale = 1.0f / sqrtf((float)s->head_dim);
    for (uint32_t i = 0; i < s->n_seqs; i++)
        a.ctx_max = s->ctx_len[i] > a.ctx_max ? s->ctx_len[i] : a.ctx_max;
    CHECK_DO(check_kv(r, &a.kv, s->n_seqs, a.ctx_max));
    CHECK_ALLOC(r, ctx_len, CHECK_POOL, s->n_seqs);
    CHECK_ALLOC(r, q, CHECK_POOL, n);
    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    if ((a.partial = check_alloc(r, CHECK_POOL, decode_attention_scratch(&a))) == NULL)
        return -1;
    memset(a.partial, 0xff, decode_attention_scratch(&a));
    memcpy(ctx_len, s->ctx_len, s->n_seqs * sizeof *ctx_len);
    check_fill(r, s->type, q, n, 4.0f);
    a.q = q;
    a.ctx_len = ctx_len;
    for (uint32_t i = 0; i < s->n_seqs; i++)
        check_kv_fill(r, &a.kv, i, ctx_len[i]);
    CHECK_DO(check_wait(r, "decode_attention", decode_attention(&a, r->stream)));

    struct decode_attention want = a;
    if ((want.out = check_alloc(r, CHECK_PINNED, n * sizeof *want.out)) == NULL)
        return -1;
    decode_attention_ref(&want);
    return check_elements(r, "decode_attention", s->type, a.out, want.out, n, 1.5 * rounding, 1.0);
}

int check_decode_attention(struct check_run *r)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++)
        CHECK_DO(check_shape(r, &SHAPES[i]));
    return 0;
}
