#include "common/compute/attention_cut.h"

uint32_t attn_job_spans(const struct attn_job *job)
{
    return (job->pos + job->n_q - 1) / ATTN_SPAN_TOKENS + 1;
}

static uint32_t job_rows(const struct attn_job *job)
{
    return job->n_q * ((uint32_t)job->kv.layer->n_heads / job->kv.layer->n_kv_heads);
}

static bool same_kv(const struct kv_view *x, const struct kv_view *y)
{
    return x->base == y->base && x->layer == y->layer && x->type == y->type &&
           x->block_tokens == y->block_tokens && x->block_bytes == y->block_bytes;
}

/* Whole spans, up to n, that both jobs see and find in the same blocks. */
static uint32_t common_spans(const struct attn_job *a, const struct attn_job *b, uint32_t n)
{
    uint64_t same = 0, block = a->kv.block_tokens;

    if (!same_kv(&a->kv, &b->kv) || a->n_q != b->n_q)
        return 0;
    n = attn_min(n, (attn_min(a->pos, b->pos) + 1) / ATTN_SPAN_TOKENS);
    while (same * block < (uint64_t)n * ATTN_SPAN_TOKENS && a->kv.table[same] == b->kv.table[same])
        same++;
    return attn_min(n, (uint32_t)(same * block / ATTN_SPAN_TOKENS));
}

/* Tokens of the first n spans that both jobs see, sinks once: what one of them need not read. */
static uint64_t common_tokens(const struct attn_job *a, const struct attn_job *b, uint32_t n)
{
    const struct kv_layer *l = a->kv.layer;
    uint64_t end = (uint64_t)n * ATTN_SPAN_TOKENS, later = a->pos > b->pos ? a->pos : b->pos, from;

    if (l->window == 0 || later < l->window)
        return end;
    from = later + 1 - l->window;
    from = from > l->n_sinks ? from : l->n_sinks;
    return (end < l->n_sinks ? end : l->n_sinks) + (end > from ? end - from : 0);
}

/* The same of a bundle's jobs, each beside the first: what the bundle saves, or a little less where
 * windows of the others have more in common. */
static uint64_t bundle_saves(const struct attn_job *first, uint32_t n_jobs, uint32_t n_spans)
{
    uint64_t sum = 0;

    if (first->kv.layer->window == 0)
        return (uint64_t)n_spans * ATTN_SPAN_TOKENS * (n_jobs - 1);
    for (uint32_t i = 1; i < n_jobs; i++)
        sum += common_tokens(first, first + i, n_spans);
    return sum;
}

/* The longest bundle that begins with the job: as long as another job saves more tokens than the
 * ones before lose by it, and a tile at least. */
static void bundle(const struct attn_job *first, uint32_t n_jobs, struct attn_cut *c)
{
    uint32_t most = attn_min(ATTN_ROWS / job_rows(first), n_jobs), n = UINT32_MAX;

    for (; c->n_jobs < most; c->n_jobs++) {
        uint64_t saves;

        n = common_spans(first, first + c->n_jobs, n);
        if (n == 0 || common_tokens(first, first + c->n_jobs, n) < ATTN_TILE)
            break;
        saves = bundle_saves(first, c->n_jobs + 1, n);
        if (saves < c->saves)
            break;
        c->n_shared = n;
        c->saves = saves;
    }
}

struct attn_cut attn_cut_at(const struct attn_job *first, uint32_t n_jobs, uint32_t heads_max)
{
    const struct kv_layer *l = first->kv.layer;
    struct attn_cut c = {.n_jobs = 1};
    uint32_t rows;

    if (first->n_q == 0)
        return c;
    if (job_rows(first) <= ATTN_ROWS)
        bundle(first, n_jobs, &c);
    c.n_rows = job_rows(first) * c.n_jobs;
    c.ranges = (c.n_rows - 1) / ATTN_ROWS + 1;
    rows = attn_min(c.n_rows, ATTN_ROWS);
    c.n_heads = attn_min(attn_min(ATTN_ROWS / rows, l->n_kv_heads), heads_max);
    c.n_pieces = c.ranges * ((l->n_kv_heads - 1U) / c.n_heads + 1);
    c.n_units = c.n_shared;
    for (uint32_t i = 0; i < c.n_jobs; i++) {
        c.n_units += attn_job_spans(&first[i]) - c.n_shared;
        c.n_slots += attn_job_spans(&first[i]);
    }
    return c;
}

struct attn_block attn_piece_at(const struct attn_job *first, const struct attn_cut *c,
                                uint32_t piece)
{
    const struct kv_layer *l = first->kv.layer;
    uint32_t r0 = piece % c->ranges * ATTN_ROWS, head = piece / c->ranges * c->n_heads;

    return (struct attn_block){.jobs = first,
                               .n_jobs = c->n_jobs,
                               .layer = l,
                               .head = head,
                               .n_heads = attn_min(c->n_heads, l->n_kv_heads - head),
                               .group = (uint32_t)l->n_heads / l->n_kv_heads,
                               .r0 = r0,
                               .n_rows = attn_min(c->n_rows - r0, ATTN_ROWS)};
}

struct attn_block attn_piece_of_job(const struct attn_block *b, uint32_t job)
{
    struct attn_block own = *b;

    own.jobs += job;
    own.n_jobs = 1;
    own.n_rows /= b->n_jobs;
    return own;
}

uint64_t attn_shared_tokens(const struct attn_job *jobs, uint32_t n_jobs)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < n_jobs;) {
        struct attn_cut c = attn_cut_at(&jobs[i], n_jobs - i, ATTN_ROWS);

        n += c.saves;
        i += c.n_jobs;
    }
    return n;
}
