/* Decode attention: group sizes, widths, types; contexts around the edges of tiles, blocks and pieces;
 * windows, sinks in pieces of their own, capped scores; rows that are not there; rows of another type
 * than the pool's.
 *
 * Tolerance: weights and outputs are rounded to 16 bits once each, so an output is off by up to one and a
 * half roundings of its own size or, where values cancel, of the values' (at most 1 here); sums in float
 * and exp2f add less than a rounding.  The coarser of the two types counts. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/element.h"
#include "tests/gpu/checks/checks.h"

struct decode_shape {
    uint32_t n_kv_heads, group, head_dim, type, block_tokens, split_tokens, window, n_seqs;
    uint32_t ctx_len[6];
    uint32_t n_sinks, row_type; /* row_type 0: as type */
    float softcap;
};

static const struct decode_shape SHAPES[] = {
    {2, 4, 128, KV_TYPE_BF16, 64, 128, 0, 6, {1, 16, 17, 64, 128, 129}, 0, 0, 0},
    {1, 8, 128, KV_TYPE_F16, 32, 64, 0, 4, {63, 200, 0, 257}, 0, 0, 0},
    {2, 1, 64, KV_TYPE_F16, 32, 128, 0, 3, {31, 33, 300}, 0, 0, 0},
    {1, 16, 64, KV_TYPE_BF16, 96, 64, 0, 2, {95, 97}, 0, 0, 0},
    {1, 7, 128, KV_TYPE_BF16, 32, 64, 40, 4, {39, 40, 41, 190}, 0, 0, 0},
    {3, 3, 64, KV_TYPE_BF16, 64, 256, 100, 2, {256, 511}, 0, 0, 0},
    /* Widths. */
    {1, 2, 80, KV_TYPE_BF16, 32, 64, 0, 3, {1, 70, 129}, 0, 0, 0},
    {2, 1, 96, KV_TYPE_F16, 64, 64, 0, 2, {47, 100}, 0, 0, 0},
    {1, 5, 256, KV_TYPE_BF16, 32, 64, 0, 3, {15, 64, 140}, 0, 0, 0},
    /* Sinks: in the window's piece, touching it, pieces away, more than there are tokens. */
    {1, 2, 64, KV_TYPE_BF16, 32, 64, 50, 4, {40, 60, 90, 400}, 4, 0, 0},
    {1, 2, 64, KV_TYPE_F16, 32, 64, 20, 3, {100, 200, 30}, 70, 0, 0},
    {1, 1, 128, KV_TYPE_BF16, 32, 128, 17, 2, {130, 260}, 1, 0, 0},
    /* Capped scores. */
    {1, 4, 256, KV_TYPE_F16, 32, 64, 64, 2, {33, 150}, 3, 0, 5.0f},
    {1, 2, 128, KV_TYPE_BF16, 64, 64, 0, 2, {20, 90}, 0, 0, 0.5f},
    /* 8 bits. */
    {2, 3, 128, KV_TYPE_I8, 64, 128, 0, 5, {1, 16, 31, 129, 0}, 0, KV_TYPE_BF16, 0},
    {1, 8, 64, KV_TYPE_I8, 32, 64, 30, 3, {29, 33, 170}, 5, KV_TYPE_F16, 0},
    {1, 1, 80, KV_TYPE_I8, 32, 64, 0, 2, {37, 65}, 0, KV_TYPE_BF16, 0},
    {1, 2, 96, KV_TYPE_I8, 32, 64, 0, 2, {18, 66}, 0, KV_TYPE_F16, 3.0f},
    {1, 2, 256, KV_TYPE_I8, 32, 64, 0, 2, {21, 70}, 0, KV_TYPE_BF16, 0},
    /* Rows of one type, pool of another. */
    {1, 4, 128, KV_TYPE_F16, 32, 64, 0, 2, {17, 80}, 0, KV_TYPE_BF16, 0},
    {1, 4, 64, KV_TYPE_BF16, 32, 64, 0, 2, {17, 80}, 0, KV_TYPE_F16, 0},
};

static int check_shape(struct check_run *r, const struct decode_shape *s)
{
    struct decode_attention a = {.n_seqs = s->n_seqs,
                                 .n_heads = s->n_kv_heads * s->group,
                                 .split_tokens = s->split_tokens,
                                 .window = s->window,
                                 .n_sinks = s->n_sinks,
                                 .softcap = s->softcap,
                                 .kv = {.block_tokens = s->block_tokens,
                                        .n_kv_heads = s->n_kv_heads,
                                        .head_dim = s->head_dim,
                                        .type = s->type,
                                        .row_type = s->row_type}};
    size_t n = (size_t)a.n_seqs * a.n_heads * s->head_dim;
    uint32_t row_type = cuda_kv_row_type(&a.kv);
    double rounding = fmax(element_epsilon(s->type), element_epsilon(row_type));
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
    check_fill(r, row_type, q, n, 4.0f);
    a.q = q;
    a.ctx_len = ctx_len;
    for (uint32_t i = 0; i < s->n_seqs; i++)
        check_kv_fill(r, &a.kv, i, ctx_len[i]);
    CHECK_DO(check_wait(r, "decode_attention", decode_attention(&a, r->stream)));

    struct decode_attention want = a;
    if ((want.out = check_alloc(r, CHECK_PINNED, n * sizeof *want.out)) == NULL)
        return -1;
    decode_attention_ref(&want);
    return check_elements(r, "decode_attention", row_type, a.out, want.out, n, 1.5 * rounding, 1.0);
}

int check_decode_attention(struct check_run *r)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++)
        CHECK_DO(check_shape(r, &SHAPES[i]));
    return 0;
}
