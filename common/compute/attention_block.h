/* attention_block.h - a block of query rows over the KV that they see; internal to attention.
 *
 * A row is one query head of one query.  A block is the rows of one job, or of several that share
 * KV, at some neighbouring KV heads, up to ATTN_ROWS in all.  It walks tiles of ATTN_TILE tokens at
 * fixed positions in ascending order, and in a tile its heads, as they lie in memory: scores of all
 * rows of the head; per row mask and online softmax (m, l and o rescaled when the maximum grows);
 * o += weights * V.  A row takes part in a tile only if it sees a token of it, and its weighted sum
 * stops at its own last token: rows of a block do not disturb each other, and what lies behind a
 * row is not read into it.
 *
 * Pure functions over the caller's memory; one thread per room. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_BLOCK_H
#define OMNI_COMMON_COMPUTE_ATTENTION_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compute/attention.h"
#include "common/compute/kernels.h"

enum {
    ATTN_ROWS =
        64, /* 8 queries of groups of 8, or 8 KV heads of them; 64 * 128 floats are 32 KiB */
};

/* Online softmax state of rows: o[r] / sum of l[r] is the attention so far. */
struct attn_accum {
    float *m; /* [n_rows], to base 2; nothing seen yet: -infinity */
    float *l; /* [n_rows][16] partial sums */
    float *o; /* [n_rows][ldo] */
    uint32_t ldo;
};

/* What a thread will most likely compute after its block's end: it points tile->ahead there, at the
 * n-th head's tile, so that the next block does not begin with a wait for memory.  A guess; nothing
 * depends on it. */
typedef void attn_beyond_fn(void *ctx, struct attn_tile *tile, uint32_t n);

/* One thread's working memory. */
struct attn_room {
    float *q;                 /* [rows of a call: element-major][dk rounded up to 16] */
    float *s;                 /* [ATTN_ROWS][ATTN_TILE] scores, then weights */
    float *span, *total;      /* two accumulators */
    float q_scale[ATTN_ROWS]; /* scores of a row are multiplied by it (KV_TYPE_I8) */
    float alpha[ATTN_ROWS];   /* what a tile rescales the row by */
    uint32_t pos[ATTN_ROWS];  /* of a head's row's query */
    uint32_t seen[ATTN_ROWS]; /* tokens 0..seen-1 of the tile concern the row; 0: not at all */
    attn_beyond_fn *beyond;   /* NULL: nothing is known */
    void *beyond_ctx;
    struct attn_tile tile; /* where the tile lies */
};

/* Rows r0..r0+n_rows-1 at each of n_heads KV heads; n_rows * n_heads <= ATTN_ROWS.  The rows of a KV
 * head are numbered job by job, query by query.  Several jobs: of the same n_q, with the same KV in
 * all spans that are computed.  Accumulators lie head by head, n_rows each. */
struct attn_block {
    const struct attn_job *jobs; /* n_jobs, side by side */
    uint32_t n_jobs;
    const struct kv_layer *layer;
    uint32_t head, n_heads; /* KV heads */
    uint32_t group;         /* query heads per KV head */
    uint32_t r0, n_rows;
};

size_t attn_accum_floats(uint32_t n_rows, uint32_t dv);
struct attn_accum attn_accum_at(float *memory, uint32_t n_rows, uint32_t dv);
void attn_accum_clear(struct attn_accum *a, uint32_t n_rows);

/* The same accumulators from row `first` on. */
struct attn_accum attn_accum_from(const struct attn_accum *a, uint32_t first);

/* to := to and then from.  An empty side leaves the other as it is. */
void attn_accum_merge(const struct kernels *kernels, const struct attn_accum *to,
                      const struct attn_accum *from, uint32_t n_rows);

/* Position of the block's last query. */
uint32_t attn_block_last(const struct attn_block *b);

/* Queries into the room, scaled; room->tile asks for token t0 on.  Before attn_block_span. */
void attn_block_begin(const struct kernels *kernels, const struct attn_block *b,
                      struct attn_room *room, uint32_t t0);

/* Points tile->ahead at the n-th head's tile of the block from t0 on, in the order of the walk, if
 * there is one. */
void attn_block_look_ahead(const struct attn_block *b, struct attn_tile *tile, uint32_t t0,
                           uint32_t n);

/* The block's rows over the tokens of one span, from scratch, into *a.  ends: afterwards the thread
 * goes on with another block or span, not the next one. */
void attn_block_span(const struct kernels *kernels, const struct attn_block *b,
                     struct attn_room *room, struct attn_accum *a, uint32_t span, bool ends);

/* Output of all rows of a block of one job. */
void attn_block_finish(const struct kernels *kernels, const struct attn_block *b,
                       const struct attn_accum *a);

#endif
