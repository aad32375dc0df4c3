/* scheduler.h - one decision per sweep: who computes, who moves, who waits.
 *
 * DESIGN.  A pure function from a state to a decision.  The engine describes what it holds (struct
 * sched_state), asks a policy, and carries the decision out; the simulator does the same with the
 * same code.  Nothing here touches blocks, slots or memory: the policy keeps its own count of free
 * blocks while it decides, so that what it decides can be carried out as it stands.
 *
 * Order of rows in a decision: latency-sensitive decodes, latency-sensitive chunks, best-effort
 * chunks, best-effort decodes (as the paper has it, arXiv 2603.12831); within a group oldest first,
 * latency-sensitive chunks by the time their first token is due.
 *
 * Rules that hold for every policy, and are tested on random states:
 *   - rows, sequences, blocks, copies, slots and returned rows stay within the state's bounds
 *   - a latency-sensitive sequence never waits for blocks that best effort could give up
 *   - no latency-sensitive sequence moves or yields
 *   - a sequence is in at most one list; one that moves or yields is in no row
 *   - a best-effort sequence that was passed over for be_starved_ns goes first among best effort
 *
 * Times in nanoseconds of the device's clock.  Plain data; no allocation: the caller gives the
 * arrays.  One thread. */
#ifndef OMNI_COMMON_SCHED_SCHEDULER_H
#define OMNI_COMMON_SCHED_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sched/latency.h"

enum sched_place {
    SCHED_WAITING, /* holds no KV */
    SCHED_DEVICE,  /* KV on the device, may be in rows */
    SCHED_LEAVING, /* being copied to an arena */
    SCHED_ARENA,   /* resident */
    SCHED_RETURNING
};

struct sched_seq {
    uint32_t id; /* the caller's; not interpreted */
    uint16_t class_idx;
    uint16_t tenant;
    uint8_t place;             /* enum sched_place */
    uint8_t latency_sensitive; /* of the first class */
    uint8_t in_slot;           /* ARENA: a token is under way */
    uint8_t has_output;        /* its prompt has been computed once */
    uint32_t n_kv;             /* positions computed */
    uint32_t n_todo;           /* to compute before the next token: 1 = a decode */
    uint32_t n_rest;           /* output tokens still allowed, the next one included */
    uint32_t n_blocks;         /* device blocks held */
    uint32_t worker; /* ARENA, LEAVING, RETURNING; else the preferred one, or SCHED_NONE */
    uint64_t arrival_ns;
    uint64_t first_due_ns;  /* latency-sensitive: arrival + TTFT objective; 0 = none */
    uint64_t tpot_slo_ns;   /* 0 = none */
    uint64_t last_token_ns; /* or 0 */
    uint64_t last_run_ns;   /* best effort: when it last got rows, or arrived */
};

#define SCHED_NONE UINT32_MAX

struct sched_worker {
    bool usable;            /* alive, and not late */
    uint32_t n_free_blocks; /* of its arena */
    uint32_t n_blocks;
    uint32_t n_free_slots;
    uint32_t n_resident;
};

/* What does not change from sweep to sweep. */
struct sched_limits {
    uint32_t block_tokens, n_groups;
    uint32_t rows_max;     /* common rows */
    uint32_t seqs_max;     /* sequences among them */
    uint32_t chunk_max;    /* prefill rows */
    uint32_t returned_max; /* returned rows per layer, and rows that enter */
    uint32_t copies_max;
    uint32_t n_blocks;       /* of the device */
    uint64_t kv_token_bytes; /* over all layers */
    uint32_t n_workers;
    uint64_t be_starved_ns;
};

struct sched_state {
    const struct sched_limits *limits;
    const struct latency_model *latency; /* NULL: nothing is priced */
    uint64_t now_ns;
    const struct sched_seq *seqs; /* oldest first */
    uint32_t n_seqs;
    const struct sched_worker *workers;
    uint32_t n_free_blocks;
    uint32_t n_copies;    /* under way */
    double returned_rows; /* per layer, moving average */
};

struct sched_rows {
    uint32_t seq; /* index into state.seqs */
    uint32_t n_rows;
};

struct sched_move {
    uint32_t seq;
    uint32_t worker;
};

struct sched_decision {
    struct sched_rows *rows; /* [n_seqs] room for all */
    uint32_t n_seqs, n_rows;
    uint32_t n_seqs_a;      /* of them in batch A; the rest run as batch B (two-batch sweep) */
    struct sched_move *out; /* [copies_max] device -> arena */
    uint32_t n_out;
    uint32_t *in; /* [copies_max] arena -> device */
    uint32_t n_in;
    uint32_t *yield; /* [n_seqs] lose their KV, wait again; carried out first */
    uint32_t n_yield;
    uint32_t *enter; /* [returned_max] resident, begin a token */
    uint32_t n_enter;
    uint32_t p_max; /* returned rows per layer */
    uint32_t want;  /* and wait at a layer for so many, at most wait_ns in all */
    uint64_t wait_ns;
    struct latency_load load;
    uint64_t predicted_ns;
    uint32_t n_free_blocks; /* left when all is carried out */
};

struct sched_policy {
    const char *name;
    const char *doc; /* one line: what it stands for */
    void (*decide)(const struct sched_state *state, struct sched_decision *decision);
};

/* Memory for decisions over at most n_seqs sequences.  0 or -ENOMEM; fini is safe after both. */
int sched_decision_init(struct sched_decision *d, uint32_t n_seqs,
                        const struct sched_limits *limits);
void sched_decision_fini(struct sched_decision *d);

/* The policy of that name, or NULL; known gets all names, comma-separated. */
const struct sched_policy *sched_policy_find(const char *name, const char **known);

/* Blocks (all groups together) that the sequence must be given to hold n_tokens positions. */
uint32_t sched_growth(const struct sched_limits *limits, const struct sched_seq *seq,
                      uint32_t n_tokens);

/* Does the decision keep the rules above?  NULL, or which one it breaks.  For tests, and for a
 * debug build's engine. */
const char *sched_check(const struct sched_state *state, const struct sched_decision *decision);

#endif
