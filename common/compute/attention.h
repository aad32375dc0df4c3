/* attention.h - attention over the paged KV cache: prefill rows, decode rows and offloaded jobs.
 *
 * The same code serves the cpu device and the workers, and the result of a query is a function of
 * its q and of the KV it sees, bit for bit: not of the other queries in the call, of the number of
 * threads, or of how many tokens follow.  For that,
 *   - KV is walked in tiles of 64 tokens at fixed absolute positions, in ascending order;
 *   - spans of ATTN_SPAN_TOKENS at fixed absolute positions each start a fresh (max, sum, acc) and
 *     are merged in ascending order, so a split over threads falls on span boundaries only;
 *   - a token that a query does not see contributes neither to its maximum, its sum nor its output.
 *
 * K and V are streamed once for all query heads of a KV head and up to a block of queries, and
 * once for neighbouring jobs whose sequences begin with the same blocks, as far as those reach.
 * KV may hold any bits (it is shared memory): NaN and infinity spread, nothing crashes.  Block
 * tables are the caller's to check. */
#ifndef OMNI_COMMON_COMPUTE_ATTENTION_H
#define OMNI_COMMON_COMPUTE_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "common/compute/isa.h"
#include "common/compute/team.h"
#include "common/kv/geometry.h"

enum { ATTN_SPAN_TOKENS = 1024 };

/* n_q consecutive queries of one sequence at one layer.  Query i sits at position pos + i and sees
 * positions 0..pos+i, cut by the layer's window and sinks.  Their k and v must have been appended.
 */
struct attn_job {
    const float *q; /* [n_q][n_heads * dk], rows ldq floats apart */
    float *out;     /* [n_q][n_heads * dv], rows ldo floats apart; written, not read */
    uint32_t n_q;
    uint32_t pos;
    struct kv_view kv;
    size_t ldq, ldo;
};

/* Working memory of one team's attention; used by one attn_run at a time. */
struct attn_scratch;

/* For teams of up to n_threads and heads of up to dk_max, dv_max elements (a geometry's largest).
 * 0, -EINVAL, -ENOMEM. */
int attn_scratch_create(struct attn_scratch **out, enum isa isa, uint32_t n_threads,
                        uint32_t dk_max, uint32_t dv_max);
void attn_scratch_destroy(struct attn_scratch *s); /* NULL is allowed */

/* Computes all jobs; they may belong to different sequences, layers and geometries.  Jobs of the
 * same n_q that share blocks gain by standing side by side.  Blocks until done; allocates nothing. */
void attn_run(struct team *team, struct attn_scratch *s, const struct attn_job *jobs,
              uint32_t n_jobs);

/* Tokens of KV that attn_run reads once instead of again, over all jobs, where neighbours share
 * blocks: of those that the jobs see, windows and sinks regarded. */
uint64_t attn_shared_tokens(const struct attn_job *jobs, uint32_t n_jobs);

/* Rounds n tokens' k [n][n_kv_heads * dk] and v [n][n_kv_heads * dv] (rows ldk, ldv floats apart)
 * once to the KV type and stores them at positions pos..pos+n-1.  To the nearest, ties to even;
 * KV_TYPE_I8 has one scale per token and head, the largest magnitude / 127.  Any thread; the
 * positions must lie inside the table.  Repeating it writes the same bytes. */
void attn_append(const struct kv_view *kv, uint32_t pos, uint32_t n, const float *k, size_t ldk,
                 const float *v, size_t ldv);

#endif
