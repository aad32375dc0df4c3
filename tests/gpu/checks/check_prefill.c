/* Prefill attention: chunks at the edges of tiles, behind prefixes, several in one launch, windows.
 * Tolerance: as of decode attention. */
#include <math.h>
#include <string.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/prefill_attention.h"
#include "tests/gpu/checks/checks.h"

struct prefill_shape {
    uint32_t n_kv_heads, group, head_dim, type, block_tokens, window, n_chunks;
    struct prefill_chunk chunk[3];
    uint32_t n_sinks, row_type; /* row_type 0: as type */
    float softcap;
};

static const struct prefill_shape SHAPES[] = {
    {1, 2, 128, KV_TYPE_BF16, 64, 0, 2, {{0, 70, 0, 1}, {70, 3, 61, 0}}, 0, 0, 0},
    {2, 1, 64, KV_TYPE_F16, 32, 0, 3, {{5, 1, 0, 2}, {6, 17, 130, 0}, {23, 64, 64, 1}}, 0, 0, 0},
    {1, 3, 64, KV_TYPE_BF16, 96, 50, 2, {{0, 66, 40, 0}, {66, 16, 127, 1}}, 0, 0, 0},
    {1, 1, 80, KV_TYPE_F16, 32, 0, 2, {{0, 33, 0, 0}, {33, 5, 70, 1}}, 0, 0, 0},
    {1, 2, 96, KV_TYPE_BF16, 64, 0, 1, {{0, 18, 50, 0}}, 0, 0, 0},
    {1, 2, 256, KV_TYPE_BF16, 32, 0, 2, {{0, 67, 0, 0}, {67, 4, 40, 1}}, 0, 0, 0},
    {1, 1, 128, KV_TYPE_BF16, 32, 0, 1, {{0, 150, 20, 0}}, 0, 0, 0},
    /* Sinks, near and far from the window; capped scores. */
    {1, 1, 64, KV_TYPE_BF16, 32, 20, 3, {{0, 70, 0, 0}, {70, 16, 300, 1}, {86, 9, 66, 2}}, 4, 0, 0},
    {1, 2, 128, KV_TYPE_F16, 32, 30, 1, {{0, 65, 170, 0}}, 70, 0, 2.0f},
    {1, 1, 256, KV_TYPE_F16, 32, 40, 1, {{0, 20, 120, 0}}, 3, 0, 1.0f},
    /* 8 bits; rows of one type, pool of another. */
    {2, 2, 128, KV_TYPE_I8, 64, 0, 2, {{0, 70, 0, 1}, {70, 3, 61, 0}}, 0, KV_TYPE_BF16, 0},
    {1, 1, 64, KV_TYPE_I8, 32, 24, 1, {{0, 40, 100, 0}}, 5, KV_TYPE_F16, 4.0f},
    {1, 1, 80, KV_TYPE_I8, 32, 0, 1, {{0, 17, 40, 0}}, 0, KV_TYPE_BF16, 0},
    {1, 1, 96, KV_TYPE_I8, 32, 0, 1, {{0, 17, 20, 0}}, 0, KV_TYPE_F16, 0},
    {1, 1, 256, KV_TYPE_I8, 32, 0, 1, {{0, 35, 31, 0}}, 0, KV_TYPE_BF16, 0},
    {1, 2, 128, KV_TYPE_F16, 32, 0, 1, {{0, 20, 10, 0}}, 0, KV_TYPE_BF16, 0},
};

/* The chunk's own tokens are in the pool, and nothing behind them. */
static int chunks_fill(struct check_run *r, struct prefill_attention *a,
                       const struct prefill_shape *s, uint32_t *n_rows)
{
    struct prefill_chunk *chunk;
    uint32_t tokens_max = 0;

    CHECK_ALLOC(r, chunk, CHECK_POOL, s->n_chunks);
    memcpy(chunk, s->chunk, s->n_chunks * sizeof *chunk);
    for (uint32_t i = 0; i < s->n_chunks; i++) {
        uint32_t end = chunk[i].pos + chunk[i].n_rows,
                 row_end = chunk[i].first_row + chunk[i].n_rows;
        tokens_max = end > tokens_max ? end : tokens_max;
        *n_rows = row_end > *n_rows ? row_end : *n_rows;
        a->rows_max = chunk[i].n_rows > a->rows_max ? chunk[i].n_rows : a->rows_max;
    }
    a->chunk = chunk;
    CHECK_DO(check_kv(r, &a->kv, s->n_chunks, tokens_max));
    for (uint32_t i = 0; i < s->n_chunks; i++)
        check_kv_fill(r, &a->kv, chunk[i].table, chunk[i].pos + chunk[i].n_rows);
    return 0;
}

/* One group of rows a warp, and two: the same bits. */
static int run_groups(struct check_run *r, struct prefill_attention *a, size_t n)
{
    struct prefill_attention two = *a;

    a->groups = 1;
    two.groups = 2;
    CHECK_ALLOC(r, two.out, CHECK_POOL, n);
    CHECK_DO(check_wait(r, "prefill_attention", prefill_attention(a, r->stream)));
    CHECK_DO(check_wait(r, "prefill_attention, two groups", prefill_attention(&two, r->stream)));
    return check_bytes(r, "prefill_attention, two groups", two.out, a->out, n * sizeof *two.out);
}

static int check_shape(struct check_run *r, const struct prefill_shape *s)
{
    struct prefill_attention a = {.n_chunks = s->n_chunks,
                                  .n_heads = s->n_kv_heads * s->group,
                                  .window = s->window,
                                  .n_sinks = s->n_sinks,
                                  .softcap = s->softcap,
                                  .kv = {.block_tokens = s->block_tokens,
                                         .n_kv_heads = s->n_kv_heads,
                                         .head_dim = s->head_dim,
                                         .type = s->type,
                                         .row_type = s->row_type}};
    struct prefill_attention want;
    uint32_t n_rows = 0, row_type = cuda_kv_row_type(&a.kv);
    uint16_t *q;

    a.scale = 1.0f / sqrtf((float)s->head_dim);
    CHECK_DO(chunks_fill(r, &a, s, &n_rows));
    size_t n = (size_t)n_rows * a.n_heads * s->head_dim;
    CHECK_ALLOC(r, q, CHECK_POOL, n);
    CHECK_ALLOC(r, a.out, CHECK_POOL, n);
    check_fill(r, row_type, q, n, 4.0f);
    a.q = q;
    want = a;
    if ((want.out = check_copy(r, a.out, n * sizeof *a.out)) == NULL)
        return -1;
    prefill_attention_ref(&want);
    CHECK_DO(run_groups(r, &a, n));
    return check_elements(r, "prefill_attention", row_type, a.out, want.out, n,
                          1.5 * fmax(element_epsilon(s->type), element_epsilon(row_type)), 1.0);
}

int check_prefill_attention(struct check_run *r)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++)
        CHECK_DO(check_shape(r, &SHAPES[i]));
    return 0;
}
