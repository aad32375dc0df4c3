#include "common/compute/attention_block.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/round.h"

enum {
    TILE = ATTN_TILE,
    LANES = 16,
    LINE_BYTES = 64,
    PAGE_BYTES = 4096,
    MANY_ROWS = 6, /* see ask_first */
    FEW_PAGES = 4,
    /* Tiles smaller than this are asked for two tiles ahead.  Measured on Zen 5: int8 heads of 64
     * (8 KiB tiles) 21 instead of 18 GB/s; 16 KiB tiles and larger lose 2 to 5 % by it. */
    AHEAD_BYTES = 12 * 1024
};

static const float LOG2_E = 1.44269504088896341f;

/* ---- Accumulators ---------------------------------------------------------------------------- */

size_t attn_accum_floats(uint32_t n_rows, uint32_t dv)
{
    return (size_t)n_rows * (1 + LANES + round_up_u32(dv, LANES));
}

struct attn_accum attn_accum_at(float *memory, uint32_t n_rows, uint32_t dv)
{
    uint32_t ldo = round_up_u32(dv, LANES);

    return (struct attn_accum){.o = memory,
                               .l = memory + (size_t)n_rows * ldo,
                               .m = memory + (size_t)n_rows * (ldo + LANES),
                               .ldo = ldo};
}

void attn_accum_clear(struct attn_accum *a, uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++)
        a->m[r] = -INFINITY;
    memset(a->l, 0, (size_t)n_rows * LANES * sizeof(float));
    memset(a->o, 0, (size_t)n_rows * a->ldo * sizeof(float));
}

static void row_merge(const struct kernels *kernels, const struct attn_accum *to,
                      const struct attn_accum *from, uint32_t r)
{
    float *o = to->o + (size_t)r * to->ldo, *l = to->l + (size_t)r * LANES;
    const float *from_o = from->o + (size_t)r * to->ldo, *from_l = from->l + (size_t)r * LANES;
    float max = to->m[r] > from->m[r] ? to->m[r] : from->m[r];
    float a, b;

    if (from->m[r] == -INFINITY && kernels->attn_sum(from_l) == 0.0f)
        return;
    if (to->m[r] == -INFINITY && kernels->attn_sum(l) == 0.0f) {
        to->m[r] = from->m[r];
        memcpy(l, from_l, LANES * sizeof(float));
        memcpy(o, from_o, to->ldo * sizeof(float));
        return;
    }
    a = kernels->attn_exp2_1(to->m[r] - max);
    b = kernels->attn_exp2_1(from->m[r] - max);
    kernels->attn_blend(o, a, from_o, b, to->ldo);
    kernels->attn_blend(l, a, from_l, b, LANES);
    to->m[r] = max;
}

struct attn_accum attn_accum_from(const struct attn_accum *a, uint32_t first)
{
    return (struct attn_accum){.o = a->o + (size_t)first * a->ldo,
                               .l = a->l + (size_t)first * LANES,
                               .m = a->m + first,
                               .ldo = a->ldo};
}

void attn_accum_merge(const struct kernels *kernels, const struct attn_accum *to,
                      const struct attn_accum *from, uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++)
        row_merge(kernels, to, from, r);
}

/* ---- Which tokens a row sees ----------------------------------------------------------------- */

/* Which query a row of a head is. */
struct row {
    const struct attn_job *job;
    uint32_t query, lane; /* lane: of the group's query heads */
};

static struct row row_of(const struct attn_block *b, uint32_t r)
{
    uint32_t per_job = b->jobs->n_q * b->group, at = b->r0 + r;

    return (struct row){
        .job = &b->jobs[at / per_job], .query = at % per_job / b->group, .lane = at % b->group};
}

uint32_t attn_block_last(const struct attn_block *b)
{
    uint32_t last = 0;

    if (b->n_jobs == 1)
        return b->jobs->pos + (b->r0 + b->n_rows - 1) / b->group;
    for (uint32_t i = 0; i < b->n_jobs; i++)
        if (b->jobs[i].pos + b->jobs[i].n_q - 1 > last)
            last = b->jobs[i].pos + b->jobs[i].n_q - 1;
    return last;
}

static bool sees(const struct kv_layer *l, uint32_t pos, uint32_t t)
{
    if (t > pos)
        return false;
    return l->window == 0 || pos - t < l->window || t < l->n_sinks;
}

/* Does a query at pos see any token of the tile that starts at t0? */
static bool sees_tile(const struct kv_layer *l, uint32_t pos, uint32_t t0)
{
    return t0 <= pos && (sees(l, pos, t0) || sees(l, pos, pos - t0 < TILE ? pos : t0 + TILE - 1));
}

static bool sees_all(const struct kv_layer *l, uint32_t pos, uint32_t t0)
{
    return t0 + TILE - 1 <= pos && (l->window == 0 || pos - t0 < l->window);
}

/* Fills room->seen; returns how many tokens of the tile any row needs. */
static uint32_t tile_extent(const struct attn_block *b, struct attn_room *room, uint32_t t0)
{
    uint32_t n = 0;

    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t pos = room->pos[r];

        room->seen[r] = 0;
        if (sees_tile(b->layer, pos, t0))
            room->seen[r] = pos - t0 < TILE ? pos - t0 + 1 : TILE;
        n = room->seen[r] > n ? room->seen[r] : n;
    }
    return n;
}

static void mask_row(const struct kv_layer *l, uint32_t pos, uint32_t t0, uint32_t n, float *s)
{
    if (sees_all(l, pos, t0))
        return;
    for (uint32_t t = 0; t < n; t++)
        if (!sees(l, pos, t0 + t))
            s[t] = -INFINITY;
}

/* ---- Where tiles lie ------------------------------------------------------------------------- */

/* Where panel t..t+31 (of a tile of 64, or by itself) of a KV head of the block's lies. */
static const uint8_t *tile_at(const struct attn_block *b, uint32_t t, uint32_t h)
{
    const struct kv_view *kv = &b->jobs->kv;

    return kv_view_block(kv, t) + kv_tile_offset(b->layer, b->head + h, t % kv->block_tokens);
}

/* The tokens from t0 on are what the kernels ask for. */
static void ask_for(const struct attn_block *b, struct attn_tile *tile, uint32_t t0, uint32_t h,
                    uint32_t last)
{
    tile->ahead[0] = tile_at(b, t0, h);
    if (b->layer->tile_tokens == TILE)
        tile->ahead[1] = tile->ahead[0] + (b->layer->v_off - b->layer->k_off);
    else if (t0 + KV_PANEL_TOKENS <= last)
        tile->ahead[1] = tile_at(b, t0 + KV_PANEL_TOKENS, h);
}

/* Where there are no such tokens it stays what it was. */
void attn_block_look_ahead(const struct attn_block *b, struct attn_tile *tile, uint32_t t0,
                           uint32_t n)
{
    uint32_t last = attn_block_last(b);

    t0 += n / b->n_heads * TILE;
    if (t0 <= last)
        ask_for(b, tile, t0, n % b->n_heads, last);
}

/* Points the tile at a head's tokens t0 on; a second panel that nobody sees stays what it was. */
static void tile_locate(const struct attn_block *b, struct attn_tile *tile, uint32_t t0, uint32_t h,
                        uint32_t last)
{
    const struct kv_layer *l = b->layer;
    bool whole = l->tile_tokens == TILE;
    const uint8_t *at = tile_at(b, t0, h);

    for (uint32_t i = 0; i < ATTN_PANELS; i++) {
        uint32_t t = whole ? i * KV_PANEL_TOKENS : 0;

        if (i > 0 && !whole && t0 + KV_PANEL_TOKENS <= last)
            at = tile_at(b, t0 + KV_PANEL_TOKENS, h);
        tile->k[i] = at + (size_t)t * l->k_token_stride;
        tile->v[i] = at + (l->v_off - l->k_off) + (size_t)t * l->v_token_stride;
        if (b->jobs->kv.type == KV_TYPE_I8) {
            tile->k_scale[i] = (const float *)(const void *)(at + (l->k_scale_off - l->k_off)) + t;
            tile->v_scale[i] = (const float *)(const void *)(at + (l->v_scale_off - l->k_off)) + t;
        }
    }
}

/* ---- A tile ---------------------------------------------------------------------------------- */

/* Rows per call of a kernel: as many as it takes, spread evenly. */
static uint32_t group_rows(const struct kernels *kernels, uint32_t n_rows)
{
    uint32_t n_groups = (n_rows - 1) / kernels->attn_group + 1;

    return (n_rows - 1) / n_groups + 1;
}

/* first: the head's first row of the block, here and below; scores are one head's at a time. */
static void tile_scores(const struct kernels *kernels, const struct attn_block *b,
                        struct attn_room *room, uint32_t first)
{
    const struct attn_type *type = &kernels->attn[b->jobs->kv.type];
    uint32_t per_group = group_rows(kernels, b->n_rows), ldk = round_up_u32(b->layer->dk, LANES);

    for (uint32_t r = 0; r < b->n_rows; r += per_group) {
        uint32_t n = b->n_rows - r < per_group ? b->n_rows - r : per_group;

        room->tile.q_scale = room->q_scale + first + r;
        type->scores(&room->tile, n, r == 0, room->q + (size_t)(first + r) * ldk, b->layer->dk,
                     room->s + (size_t)r * TILE);
    }
}

static void tile_weights(const struct kernels *kernels, const struct attn_block *b,
                         struct attn_room *room, const struct attn_accum *a, uint32_t t0)
{
    const struct kv_layer *l = b->layer;
    uint32_t type = b->jobs->kv.type;

    for (uint32_t r = 0; r < b->n_rows; r++) {
        float *s = room->s + (size_t)r * TILE;
        uint32_t n = round_up_u32(room->seen[r], LANES);

        if (n == 0)
            continue;
        if (l->softcap != 0.0f)
            kernels->attn_softcap(s, n, l->softcap, LOG2_E);
        mask_row(l, room->pos[r], t0, n, s);
        room->alpha[r] = kernels->attn[type].softmax(s, n, &a->m[r], a->l + (size_t)r * LANES);
    }
}

/* For runs of rows that stop at the same token. */
static void tile_values(const struct kernels *kernels, const struct attn_block *b,
                        const struct attn_room *room, const struct attn_accum *a)
{
    const struct attn_type *type = &kernels->attn[b->jobs->kv.type];
    uint32_t per_group = group_rows(kernels, b->n_rows);
    bool ask = true;

    for (uint32_t r = 0, end; r < b->n_rows; r = end) {
        struct attn_out out = {.s = room->s + (size_t)r * TILE,
                               .alpha = room->alpha + r,
                               .o = a->o + (size_t)r * a->ldo,
                               .ldo = a->ldo,
                               .dv = b->layer->dv};

        for (end = r + 1; end < b->n_rows && end - r < per_group; end++)
            if (room->seen[end] != room->seen[r])
                break;
        if (room->seen[r] == 0)
            continue;
        type->values(&room->tile, end - r, ask, &out, room->seen[r]);
        ask = false;
    }
}

static void tile_run(const struct kernels *kernels, const struct attn_block *b,
                     struct attn_room *room, const struct attn_accum *a, uint32_t t0, uint32_t h)
{
    struct attn_accum rows = attn_accum_from(a, h * b->n_rows);

    tile_scores(kernels, b, room, h * b->n_rows);
    tile_weights(kernels, b, room, &rows, t0);
    tile_values(kernels, b, room, &rows);
}

/* ---- A block --------------------------------------------------------------------------------- */

/* The factor turns exp into exp2, except where the softcap comes between. */
static void load_queries(const struct kernels *kernels, const struct attn_block *b,
                         struct attn_room *room, uint32_t h)
{
    const struct kv_layer *l = b->layer;
    const struct attn_type *type = &kernels->attn[b->jobs->kv.type];
    uint32_t per_group = group_rows(kernels, b->n_rows), ldk = round_up_u32(l->dk, LANES);
    float factor = l->softcap != 0.0f ? l->scale : l->scale * LOG2_E;

    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t lane = r % per_group, first = r - lane, at = h * b->n_rows;
        uint32_t n = b->n_rows - first < per_group ? b->n_rows - first : per_group;
        struct row row = row_of(b, r);
        const float *q = row.job->q + row.query * row.job->ldq +
                         ((size_t)(b->head + h) * b->group + row.lane) * l->dk;

        room->pos[r] = row.job->pos + row.query;
        type->load_q(q, l->dk, factor, n, lane, room->q + (size_t)(at + first) * ldk,
                     &room->q_scale[at + r]);
    }
}

void attn_block_begin(const struct kernels *kernels, const struct attn_block *b,
                      struct attn_room *room, uint32_t t0)
{
    for (uint32_t h = 0; h < b->n_heads; h++)
        load_queries(kernels, b, room, h);
    room->tile.v_stride = b->layer->v_token_stride;
    room->tile.ahead[0] = room->tile.ahead[1] = tile_at(b, t0, 0);
}

/* Points tile->ahead at the n-th head's tile behind (t0, h), in the order of the walk; where the tiles
 * end, at what comes after the block. */
static void look_ahead(const struct attn_block *b, struct attn_room *room, struct attn_tile *tile,
                       uint32_t t0, uint32_t h, uint32_t n, uint32_t end)
{
    h += n;
    t0 += h / b->n_heads * TILE;
    if (t0 < end)
        ask_for(b, tile, t0, h % b->n_heads, end - 1);
    else if (room->beyond != NULL)
        room->beyond(room->beyond_ctx, tile, (t0 - end) / TILE * b->n_heads + h % b->n_heads);
}

/* Bytes of a head's tile. */
static uint32_t tile_bytes(const struct kv_layer *l)
{
    return l->k_head_stride * (TILE / l->tile_tokens);
}

static void prefetch(const uint8_t *p, size_t bytes, size_t step)
{
    for (size_t i = 0; i < bytes; i += step)
        prefetch_line(p + i);
}

/* Before a tile's products: two lines of each page of the tile ahead, and all of its scales.  The
 * kernels ask for the rest, line by line between products; by then the pages are known.  A walk
 * through the page tables holds up what comes behind it, and several at once hardly longer than one.
 * (Zen 5 in a virtual machine, 4 KiB pages, blocks of 64: f16 64 wide, groups of 1 and 4: 26.9 and
 * 25.7 instead of 22.8 and 21.7 GB/s; 48 KiB further ahead, page by page, is a loss; and so it is
 * where many rows compute long over a tile of few pages: groups of 8, 64 wide, 17.2 instead of 18.4.) */
static void ask_first(const struct attn_block *b, const struct attn_tile *tile)
{
    const struct kv_layer *l = b->layer;
    uint32_t n = l->tile_tokens < TILE ? 2 : 1; /* ahead[1] is a tile of its own, or inside */
    bool pages = b->n_rows < MANY_ROWS || tile_bytes(l) > FEW_PAGES * PAGE_BYTES;

    for (uint32_t i = 0; i < n; i++) {
        if (pages)
            prefetch(tile->ahead[i], l->k_head_stride, PAGE_BYTES / 2);
        if (b->jobs->kv.type == KV_TYPE_I8)
            prefetch(tile->ahead[i] + (l->k_scale_off - l->k_off),
                     2 * sizeof(float) * l->tile_tokens, LINE_BYTES);
    }
}

void attn_block_span(const struct kernels *kernels, const struct attn_block *b,
                     struct attn_room *room, struct attn_accum *a, uint32_t span, bool ends)
{
    uint32_t last = attn_block_last(b), t0 = span * ATTN_SPAN_TOKENS;
    uint32_t end = last - t0 < ATTN_SPAN_TOKENS ? last + 1 : t0 + ATTN_SPAN_TOKENS;
    uint32_t ahead = tile_bytes(b->layer) < AHEAD_BYTES ? 2 : 1, after = ends ? end : last + 1;

    attn_accum_clear(a, b->n_rows * b->n_heads);
    for (; t0 < end; t0 += TILE) {
        room->tile.n = tile_extent(b, room, t0);
        for (uint32_t h = 0; room->tile.n > 0 && h < b->n_heads; h++) {
            tile_locate(b, &room->tile, t0, h, last);
            look_ahead(b, room, &room->tile, t0, h, ahead, after);
            ask_first(b, &room->tile);
            tile_run(kernels, b, room, a, t0, h);
        }
    }
}

void attn_block_finish(const struct kernels *kernels, const struct attn_block *b,
                       const struct attn_accum *a)
{
    uint32_t dv = b->layer->dv;

    for (uint32_t i = 0; i < b->n_rows * b->n_heads; i++) {
        struct row row = row_of(b, i % b->n_rows);
        size_t head = (size_t)(b->head + i / b->n_rows) * b->group + row.lane;
        float *out = row.job->out + row.query * row.job->ldo + head * dv;
        float sum = kernels->attn_sum(a->l + (size_t)i * LANES);

        kernels->divide(out, a->o + (size_t)i * a->ldo, sum, dv);
    }
}
