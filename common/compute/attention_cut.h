/* attention_cut.h - how jobs are cut into pieces that a thread computes; internal to attention.
 *
 * Bundle: jobs that stand side by side and share KV, that is, whose tables begin with the same
 * blocks; most are of one job.  Spans that lie in those blocks are computed once, for the rows of
 * all jobs; the spans behind, job by job.
 *
 * Piece: a bundle's rows at a range of KV heads, at most ATTN_ROWS; where a job alone has more rows
 * at a head, a range of those.  All KV heads in one piece read KV in one stream: ranges are to be
 * smaller only where there are too few pieces for the threads.
 *
 * Functions of the jobs alone, without state: every thread finds the same cuts by itself. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_CUT_H
#define OMNI_COMMON_COMPUTE_ATTENTION_CUT_H

#include "common/compute/attention_block.h"

/* How a bundle is cut. */
struct attn_cut {
    uint32_t n_jobs;
    uint32_t n_shared; /* spans that all its jobs have in common; 0 for one job */
    uint32_t n_rows;   /* at a KV head, of all jobs */
    uint32_t n_heads;  /* of a piece */
    uint32_t ranges;   /* pieces of a head, more than one only for one job */
    uint32_t n_pieces; /* 0: a job without queries */
    uint32_t n_units;  /* of a piece, span by span: the shared ones, then each job's others */
    uint32_t n_slots;  /* of a piece: each job's spans */
    uint64_t saves;    /* tokens that its jobs see and that are not read again for each */
};

static inline uint32_t attn_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Spans that the job's queries look at: up to the last one's position. */
uint32_t attn_job_spans(const struct attn_job *job);

/* The bundle that begins with the first of n_jobs jobs, in pieces of at most heads_max KV heads. */
struct attn_cut attn_cut_at(const struct attn_job *first, uint32_t n_jobs, uint32_t heads_max);

struct attn_block attn_piece_at(const struct attn_job *first, const struct attn_cut *c,
                                uint32_t piece);

/* The rows of one of the piece's jobs alone. */
struct attn_block attn_piece_of_job(const struct attn_block *b, uint32_t job);

#endif
