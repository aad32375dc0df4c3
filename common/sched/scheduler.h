/* scheduler.h - one decision per sweep: who computes, who moves, who waits.
 *
 * DESIGN.  A pure function from a state to a decision.  The engine describes what it holds (struct
 * sched_state), asks a policy, and carries the decision out; the simulator does the same with the
 * same code.  Nothing here touches blocks, slots or memory: the policy keeps its own count of free
 * blocks while it decides, so that what it decides can be carried out as it stands, in this order:
 * prefixes of rows that begin are shared, yields, moves in, moves out, reservations, rows, entries.
 *
 * Order of rows in a batch: latency-sensitive decodes, latency-sensitive chunks, best-effort
 * chunks, best-effort decodes (as the paper has it, arXiv 2603.12831); within a group by class,
 * then oldest first; latency-sensitive chunks by rank, then by the time their first token is due.
 *
 * Rules that hold for every policy, and are tested on random states:
 *   - rows, sequences, blocks, copies, slots and returned rows stay within the state's bounds
 *   - a latency-sensitive sequence never waits for blocks that best effort could give up: all of its
 *     blocks but those of a sequence that is being copied, which come free when the copy ends
 *   - no latency-sensitive sequence moves or yields
 *   - a sequence is in at most one list; one that moves or yields is in no row
 *   - no best-effort prompt begins while one that has begun gets no rows
 *   - among best effort of the same kind (decode, prompt that has begun, prompt that waits, resident
 *     that may enter) the one passed over longest goes first once that is be_starved_ns, whatever
 *     its class; and if it has begun, it gets a row even if latency-sensitive rows use up the time.
 *     So with n of them on the device each gets rows within be_starved_ns + n sweeps.  Of those
 *     that wait the first begins at the latest when nobody else has; blocks alone may delay it,
 *     but nobody begins before it.
 *
 * No allocation while deciding: the decision owns its arrays.  One thread. */
#ifndef OMNI_COMMON_SCHED_SCHEDULER_H
#define OMNI_COMMON_SCHED_SCHEDULER_H

#include <stddef.h>

#include "common/sched/scheduler_state.h"

struct sched_rows {
    uint32_t seq; /* index into state.seqs */
    uint32_t n_rows;
};

struct sched_move {
    uint32_t seq;
    uint32_t worker;
};

struct sched_scratch; /* of the policies, see plan.h */

struct sched_decision {
    struct sched_rows *rows; /* [n_seqs] room for all */
    uint32_t n_seqs, n_rows;
    uint32_t n_seqs_a;      /* of them in batch A; the rest run as batch B (two-batch sweep) */
    struct sched_move *out; /* [copies_max] device -> arena */
    uint32_t n_out;
    struct sched_move
        *place; /* [n_seqs] get a reservation at a worker, and go on: on the device, or with
                                 rows of this sweep */
    uint32_t n_place;
    uint32_t *in; /* [copies_max] arena -> device */
    uint32_t n_in;
    uint32_t *yield; /* [n_seqs] lose their KV, wait again; carried out first */
    uint32_t n_yield;
    uint32_t *enter; /* [returned_max] resident, begin a token */
    uint32_t n_enter;
    uint32_t *elsewhere; /* [elsewhere_max] WAITING, handed to a CPU-only engine for good */
    uint32_t n_elsewhere;

    /* Returned rows. */
    uint32_t p_max;     /* per layer */
    uint32_t p_total;   /* over all layers, taken as the sweep meets them: lowest layers first;
                           UINT32_MAX = no bound */
    bool ride;          /* a job may come back into the sweep that posted it */
    uint32_t want;      /* and wait at a layer for so many; UINT32_MAX = all its jobs under way */
    uint64_t wait_ns;   /* at most so long in the whole sweep */
    uint32_t n_enter_b; /* the last so many of `enter` go with batch B (`sync`) */

    /* What the device must be able to do for some policies; false with the others. */
    bool stream;     /* rows may be of ARENA sequences: their KV is read over the host link */
    bool checkpoint; /* best-effort blocks are copied to host memory as they fill, so that a move
                        out has the last block of each group left to copy: those with a reservation,
                        which they keep on their way back, or all, by a device that does it itself */

    bool be_starved;            /* a best-effort sequence could not begin for want of blocks */
    bool be_stuck;              /* one that decodes could not grow */
    struct latency_load load;   /* of the sweep; of batch A, if there are two */
    struct latency_load load_b; /* of batch B */
    uint64_t predicted_ns;
    uint32_t n_free_blocks; /* left when all is carried out; LEAVING ones not counted */

    struct sched_scratch *scratch;
};

struct sched_policy {
    const char *name;
    const char *doc; /* one line: what it stands for */
    void (*decide)(const struct sched_state *state, struct sched_decision *decision);
    bool heeds_gaps; /* best effort makes no sweep longer than slo_use_pct of the tightest TPOT
                        objective among its decodes */
};

/* Memory for decisions over at most n_seqs sequences.  0 or -ENOMEM; fini is safe after both. */
int sched_decision_init(struct sched_decision *d, uint32_t n_seqs,
                        const struct sched_limits *limits);
void sched_decision_fini(struct sched_decision *d);

/* The policy of that name, or NULL; known (if not NULL) gets all names, comma-separated. */
const struct sched_policy *sched_policy_find(const char *name, const char **known);

/* All policies, ended by NULL. */
const struct sched_policy *const *sched_policies(void);

/* The idea that the n characters at word name, as a bit of enum sched_without; 0 = none. */
uint32_t sched_without_find(const char *word, size_t n);

/* Ideas by name, separated by commas, as bits of enum sched_without.  0, or -EINVAL: one of them is not
 * known; *known (if not NULL) gets all names. */
int sched_without_parse(const char *names, uint32_t *without, const char **known);

/* Blocks (all groups together) that the sequence must be given to hold n_tokens positions. */
uint32_t sched_growth(const struct sched_limits *limits, const struct sched_seq *seq,
                      uint32_t n_tokens);

/* Blocks that an arena promises at a move out: prompt and all output that may still come. */
uint32_t sched_promise(const struct sched_limits *limits, const struct sched_seq *seq);

/* Does the decision keep the rules above?  NULL, or which one it breaks.  For tests, and for a
 * debug build's engine. */
const char *sched_check(const struct sched_state *state, const struct sched_decision *decision);

#endif
