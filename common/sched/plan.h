/* plan.h - what policies are built from: the state sorted into groups, and a decision's books.
 *
 * A policy calls plan_open (one pass over the sequences), then gives rows, moves and yields in the
 * order in which it wants to be fair, and plan_close, which puts the rows in their order and prices
 * the sweep.  Every plan_* function either does a thing and keeps the books, or refuses and leaves
 * them as they were; a sequence that was given rows, moved or yielded is refused from then on.
 *
 * Groups are linked lists through the decision's scratch, one per class; nothing is sorted but the
 * latency-sensitive prompts, which come in nearly in order.  Only policies include this. */
#ifndef OMNI_COMMON_SCHED_PLAN_H
#define OMNI_COMMON_SCHED_PLAN_H

#include <stddef.h>

#include "common/sched/price.h"
#include "common/sched/scheduler.h"

enum plan_group {
    PLAN_LS_DECODE,
    PLAN_LS_PREFILL, /* by the time the first token is due */
    PLAN_BE_PREFILL, /* on the device or waiting */
    PLAN_BE_DECODE,
    PLAN_RESIDENT, /* on a usable worker, no token under way */
    PLAN_GROUPS
};

enum plan_mark { PLAN_IDLE, PLAN_IN_ROWS, PLAN_MOVES, PLAN_YIELDS, PLAN_ENTERS, PLAN_ELSEWHERE };

struct plan_list {
    uint32_t head, tail; /* tail: while plan_open fills it */
};

/* Working memory of one decision. */
struct sched_scratch {
    uint32_t n_seqs_max;
    uint8_t *mark;                          /* [n_seqs_max] enum plan_mark */
    bool *reserves;                         /* [n_seqs_max] is in decision.place */
    uint32_t *next;                         /* [n_seqs_max] of the same list */
    struct sched_rows *picked[PLAN_GROUPS]; /* [n_seqs_max] rows given, by group */
};

/* Sums that policies weigh. */
struct plan_sums {
    uint32_t n[PLAN_GROUPS];
    uint32_t n_waiting;    /* of any class */
    uint32_t n_be_waiting; /* of them best effort */
    uint32_t n_be_device;  /* best effort that computes there */
    uint32_t n_leaving, n_returning, n_under_way, n_elsewhere;
    uint32_t leaving_blocks;                       /* come free when copies end */
    uint32_t yieldable_blocks;                     /* best effort could give up now */
    uint64_t ls_promise;                           /* blocks that latency-sensitive ones may need */
    uint64_t resident_tokens[LATENCY_WORKERS_MAX]; /* KV of residents, by worker */
    uint64_t prompt_in, prompt_out; /* of best-effort prompts: all tokens, likely output */
    uint64_t be_decode_rest;   /* output that its decodes on the device will likely still make */
    uint64_t be_decode_tokens; /* KV of its decodes on the device */
};

struct plan {
    const struct sched_state *state;
    const struct sched_limits *limits;
    const struct sched_seq *seqs;
    struct sched_decision *d;
    struct sched_scratch *scratch;
    struct price price;
    struct plan_list list[PLAN_GROUPS][SCHED_CLASSES_MAX];
    uint32_t n_picked[PLAN_GROUPS];
    uint32_t starved[PLAN_GROUPS]; /* the sequence that was passed over too long, or SCHED_NONE */
    struct plan_sums sums;
    struct sched_worker workers[LATENCY_WORKERS_MAX]; /* free blocks and slots count down */
    uint32_t n_free;                                  /* device blocks */
    uint32_t rows_left, seqs_left, chunk_left, copies_left;
    uint32_t yield_class, yield_at; /* where the search for the newest goes on */
    uint32_t out_class, out_at;
    double ls_budget_ns; /* least that remains of a TPOT objective; INFINITY without one */
};

/* All groups by class and age; a starved best-effort sequence heads its group. */
void plan_open(struct plan *p, const struct sched_state *state, struct sched_decision *d);
/* Rows in order, what it all costs.  Batch B gets the chunks if two is set. */
void plan_close(struct plan *p, bool two);

/* The group's next sequence after seq (SCHED_NONE: its first), or SCHED_NONE. */
uint32_t plan_next(const struct plan *p, enum plan_group group, uint32_t seq);

/* n rows to a sequence of the group, with the blocks they need.  False: no room, or no blocks. */
bool plan_give(struct plan *p, enum plan_group group, uint32_t seq, uint32_t n);

/* The newest best effort of the last class on the device loses its KV.  False: nobody is left. */
bool plan_yield(struct plan *p);

/* Free blocks for a latency-sensitive sequence to hold n_tokens, by yields if need be.  False, and
 * nobody yields: even all best effort together would not do. */
bool plan_make_room(struct plan *p, uint32_t seq, uint32_t n_tokens);

/* Starts a copy to the preferred worker, else to the one with most free blocks.  False: none can
 * take the whole request, or no copy is free. */
bool plan_move_out(struct plan *p, uint32_t seq);
/* Is there a worker that could?  Where it has a reservation no other may. */
bool plan_worker_for(const struct plan *p, uint32_t seq, uint32_t *worker);
/* Starts a copy of an idle resident back.  False: no blocks, no copy free. */
bool plan_move_in(struct plan *p, uint32_t seq);
/* The newest decode of the last best-effort class that is in nothing yet; SCHED_NONE: none.  The
 * search goes on where it stopped: one that was refused is not offered again. */
uint32_t plan_newest_decode(struct plan *p);

/* Reserves a place at a worker for best effort on the device, or with rows: its full blocks are copied
 * there as they fill.  False: it has one, or none can take the whole request. */
bool plan_reserve(struct plan *p, uint32_t seq);

bool plan_enter(struct plan *p, uint32_t seq);
/* All entries are taken back. */
void plan_forget_enters(struct plan *p);

/* A waiting best-effort sequence goes to the CPU-only engine. */
bool plan_hand_over(struct plan *p, uint32_t seq);

/* Does best effort hold blocks anywhere? */
static inline bool plan_nobody_begun(const struct plan *p)
{
    const struct plan_sums *s = &p->sums;

    return s->n_be_device + s->n_leaving + s->n_returning + s->n_under_way + s->n[PLAN_RESIDENT] ==
           0;
}

/* Starved, and to have rows whatever the time.  Of those that wait only one, and only while nobody
 * has begun: in a long queue all of them starve. */
static inline bool plan_is_forced(const struct plan *p, enum plan_group group, uint32_t seq)
{
    return seq != SCHED_NONE && seq == p->starved[group] &&
           (p->seqs[seq].place != SCHED_WAITING || plan_nobody_begun(p));
}

static inline bool plan_is_idle(const struct plan *p, uint32_t seq)
{
    return p->scratch->mark[seq] == PLAN_IDLE;
}

/* ---- Passes, shared by policies: plan_pass.c ------------------------------------------------- */

/* Every latency-sensitive decode, whatever it costs and whatever best effort holds. */
void plan_ls_decodes(struct plan *p);

/* Latency-sensitive chunks while the sweep stays within budget_ns, at most rows of them.  The most
 * urgent gets a block's worth of rows in any case: prompts go on. */
void plan_ls_chunks(struct plan *p, double budget_ns, uint32_t rows);

/* Both by a number of tokens instead of time: decodes take from it, chunks get the rest of it, a
 * block's worth at least.  Returns the tokens left to best effort. */
uint32_t plan_ls_by_tokens(struct plan *p);

/* Tokens of a sweep: token_budget, or the largest chunk that slo_use_pct of the TPOT objective has
 * time for behind the longest prompt of these classes, while decodes read all of the device's KV. */
uint32_t plan_token_budget(const struct plan *p, bool latency_sensitive);

/* May best effort decode at workers alone?  Then it leaves as its prompt is done. */
static inline bool plan_decodes_at_workers(const struct plan *p)
{
    return p->limits->params.offload == SCHED_OFFLOAD_ALWAYS && p->limits->n_workers > 0;
}

/* All decodes, oldest first, as far as copies and arenas go. */
void plan_send_decodes_out(struct plan *p);

/* Best-effort decodes on the device while the sweep stays within budget_ns; the starved one always.
 * Sets be_stuck where one cannot grow.  Where they may not decode there they are sent out. */
void plan_be_decodes(struct plan *p, double budget_ns, uint32_t rows);

/* Best-effort chunks in order, at most `rows`, the sweep within budget_ns; keep device blocks stay
 * free when one begins.  Sets be_starved. */
void plan_be_chunks(struct plan *p, double budget_ns, uint32_t rows, uint32_t keep);

/* May a waiting best-effort prompt begin, `keep` blocks left to others (unless it is
 * the only one)? */
bool plan_may_begin(const struct plan *p, uint32_t seq, uint32_t n_free, uint32_t keep);

/* What a sweep with a chunk is worth, in tokens per ns: `all` is the whole sweep with its n rows,
 * `chunks` the `prompts` below with them, which is what would run as batch B. */
struct plan_worth {
    double (*per_ns)(const void *of, const struct latency_load *all,
                     const struct latency_load *chunks, uint32_t n);
    const void *of;
    struct latency_load prompts; /* latency-sensitive chunks */
    bool two_batch;              /* steps behind those are worth looking at too */
};

/* As plan_be_chunks, but of all sizes that fit the one that makes the sweep worth most per time,
 * among the largest and those that fill a step of the dense staircase.  plan_chunk.c */
void plan_be_chunks_by_stairs(struct plan *p, double budget_ns, uint32_t keep,
                              const struct plan_worth *worth);

/* The dense staircase of the kind that most layers are of; NULL without a model. */
const struct latency_stairs *plan_stairs(const struct plan *p);

/* Idle residents, at most n. */
void plan_enters(struct plan *p, uint32_t n);

/* Decodes that cannot grow, and no copy out under way that would help: the newest yields. */
void plan_unstick(struct plan *p);

/* The newest yield at once until all other decodes can grow in this very sweep. */
void plan_preempt_for_decodes(struct plan *p);

/* The newest decodes go out until reserve blocks are free or come free when copies end; at most `most`
 * are on their way.  Where somebody waited for blocks and none is, one goes in any case. */
void plan_relieve(struct plan *p, uint32_t reserve, uint32_t most);

/* Blocks that best-effort decodes on the device need to make one token each. */
uint32_t plan_decode_growth(const struct plan *p);

/* The oldest resident that may enter comes back, if `keep` blocks stay free beside all that it may
 * ever need, and no other is on its way.  Or as many of the oldest as that holds for. */
void plan_copy_back(struct plan *p, uint32_t keep);
void plan_copy_all_back(struct plan *p, uint32_t keep);

/* Blocks, as a share of the device's. */
static inline uint32_t plan_share(const struct plan *p, uint32_t pct)
{
    return (uint32_t)((uint64_t)p->limits->n_blocks * pct / 100);
}

/* slo_use_pct of what the tightest latency-sensitive row leaves; sweep_max_ns where there is none.
 */
double plan_budget(const struct plan *p);

extern const struct sched_policy policy_group, policy_omni, policy_paper, policy_sync,
    policy_headroom, policy_ls_first, policy_harvest, policy_stream;

#endif
