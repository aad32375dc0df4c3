/* admission.h - may one more latency-sensitive request come in?
 *
 * DESIGN.  Asked with the state of the last sweep: the latency-sensitive sequences that run and wait,
 * the policy that decides their sweeps, the latency model that prices them.  The answer is found by
 * running the schedule ahead: the policy itself is asked sweep by sweep who gets rows, with the new
 * request among the others, until every prompt has its first token; then the decodes run out, which
 * costs one price, or one for each that ends.  So chunk sizes, the order of prompts and the slowing
 * of decodes by chunks are the engine's own, whatever the policy.  (One giant batch of all prompts,
 * as the piggybacking paper's formula has it, would ask for more time than chunks need.)
 *
 * It fits if it and every admitted request that would be in time without it stay in time, and if
 * there is KV for all of them: prompt and predicted output.  Best effort yields blocks, so that its
 * blocks count as free; time it fills up as it did in the last sweeps, of those that leave prompts
 * waiting apart from the others.  A part of the time to
 * the first token is left for what predictions miss: a queue that is full to the brink would turn
 * each small error into a late request.
 *
 * Where several tenants are active each has a share, by weight, of the device's blocks, of the time
 * to a first token and of the time between tokens; what others have not used of theirs is kept for
 * them.  Alone, a tenant may have all.
 *
 * Pure functions over plain data; the scratch owns all memory.  One thread per scratch. */
#ifndef OMNI_COMMON_SCHED_ADMISSION_H
#define OMNI_COMMON_SCHED_ADMISSION_H

#include "common/sched/fair_share.h"
#include "common/sched/objective.h"
#include "common/sched/scheduler.h"

/* What is known when it is asked; sequences as they will be when the sweep in flight has ended. */
struct admission_view {
    const struct sched_policy *policy;
    const struct sched_limits *limits;
    const struct latency_model *latency; /* NULL: nothing is priced, blocks alone decide */
    enum objective_deadlines deadlines;
    uint64_t now_ns; /* when the next sweep can begin */
    /* What best effort adds: to a sweep that has room, up to one of sweep_most_ns; to every sweep,
     * since some of it is not to starve. */
    double be_ns, sweep_most_ns, be_least_ns;
    double be_busy_ns; /* what it adds to a sweep that leaves prompts waiting, in place of be_ns */
    const struct sched_seq *seqs; /* latency-sensitive ones, oldest first; n_rest as predicted */
    const struct objective_past *past; /* of each */
    uint32_t n_seqs;
    const struct fair_share *fair; /* shares of tenants */
    uint32_t tenants_active;       /* bits: asked for something of late */
    uint32_t misses_left;          /* of a statistical objective */
};

enum admission_reason {
    ADMISSION_FITS,
    ADMISSION_BLOCKS, /* KV for it beside the others */
    ADMISSION_SEATS,  /* rows of a sweep */
    ADMISSION_TTFT,   /* its own first token would be late */
    ADMISSION_TPOT,   /* its own tokens would */
    ADMISSION_OTHERS, /* those of admitted ones would */
    ADMISSION_SHARE,  /* other tenants could not have their shares */
    ADMISSION_REASONS
};

struct admission_verdict {
    enum admission_reason reason; /* FITS, also if on the budget of misses */
    uint32_t n_late;              /* requests that it makes late, itself included */
    double overrun;          /* of them the most, as a share of the objective: 0.1 = 10 % late */
    uint64_t ttft_ns;        /* predicted; 0 = not found */
    uint64_t retry_after_ns; /* if refused: when it would fit; UINT64_MAX: never; 0: not known */
    bool retry_found;        /* else the search was given up there: it may be too soon */
    uint64_t needed, there;  /* of what was short: blocks, rows, nanoseconds */
};

struct admission_run; /* one schedule that is run ahead */

struct admission_scratch {
    struct admission_run *base, *trial; /* without it, with it */
    double *before;                     /* [n_max] lateness without it */
    struct sched_decision decision;
    uint32_t n_steps; /* policy decisions of the last judgement */
};

/* For views of at most n_seqs sequences and for those limits.  0 or -ENOMEM; fini is safe after
 * both. */
int admission_scratch_init(struct admission_scratch *s, uint32_t n_seqs,
                           const struct sched_limits *limits);
void admission_scratch_fini(struct admission_scratch *s);

/* candidate: SCHED_WAITING, n_todo its prompt, n_rest its predicted output, its objectives. */
void admission_judge(const struct admission_view *view, const struct sched_seq *candidate,
                     struct admission_scratch *s, struct admission_verdict *verdict);

/* Time that a decode leaves a sweep that begins now: its TPOT, or up to its next token's deadline. */
double admission_span_ns(const struct sched_seq *s, double now_ns);

/* The most blocks that the sequence is predicted to hold. */
uint32_t admission_blocks(const struct sched_limits *limits, const struct sched_seq *s);

#endif
