/* scheduler_state.h - what a policy is told: the sequences, the workers, and the bounds.
 *
 * The engine (or the simulator) fills it before every sweep.  Plain data; times in nanoseconds of
 * the device's clock.  See scheduler.h for what is made of it. */
#ifndef OMNI_COMMON_SCHED_SCHEDULER_STATE_H
#define OMNI_COMMON_SCHED_SCHEDULER_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sched/latency.h"

#define SCHED_NONE UINT32_MAX

enum { SCHED_CLASSES_MAX = 8 };

enum sched_place {
    SCHED_WAITING,   /* holds no KV */
    SCHED_DEVICE,    /* KV on the device, may be in rows */
    SCHED_LEAVING,   /* being copied to an arena; its device blocks come free at the end */
    SCHED_ARENA,     /* resident */
    SCHED_RETURNING, /* being copied back; holds its device blocks already */
    SCHED_ELSEWHERE  /* with the CPU-only engine of the `headroom` policy, for good */
};

struct sched_seq {
    uint32_t id; /* the caller's; not interpreted */
    uint16_t class_idx;
    uint16_t tenant;
    uint8_t place;             /* enum sched_place */
    uint8_t latency_sensitive; /* of the first class, 0; best effort is of 1 and beyond */
    uint8_t in_slot;           /* ARENA: a token is under way */
    uint8_t has_output;        /* its prompt has been computed once */
    uint8_t reserved;          /* an arena keeps blocks and a slot for it, at `worker` */
    uint8_t in_copy;           /* DEVICE: full blocks are being copied; it may not yield now */
    uint32_t n_kv;             /* positions computed */
    uint32_t n_todo;           /* to compute before the next token: 1 = a decode; never 0 */
    uint32_t n_rest;           /* output tokens still allowed, the next one included */
    uint32_t n_likely;         /* of them expected; 0 = unknown, as many as allowed */
    uint32_t rank;     /* of latency-sensitive prompts, where tenants share (fair_share.h) */
    uint32_t n_blocks; /* device blocks held, per layer group */
    uint32_t n_freed;  /* of all groups: would come free if it went (shared ones would not) */
    uint32_t n_shared; /* WAITING: leading positions that others' blocks give it; whole blocks */
    uint32_t worker;   /* where it is reserved; else the preferred one, or SCHED_NONE */
    uint64_t arrival_ns;
    uint64_t first_due_ns;  /* latency-sensitive: arrival + TTFT objective; 0 = none */
    uint64_t tpot_slo_ns;   /* 0 = none */
    uint64_t next_due_ns;   /* of its next token where tokens have deadlines of their own; 0 = its
                               last one and tpot_slo_ns */
    uint64_t last_token_ns; /* or 0 */
    uint64_t last_run_ns;   /* best effort: when it last got rows, entered, or arrived */
    uint64_t last_move_ns;  /* when it last became resident or came back; 0 = never */
};

struct sched_worker {
    bool usable;            /* alive, and not late */
    uint32_t n_free_blocks; /* of its arena */
    uint32_t n_blocks;
    uint32_t n_free_slots;
    uint32_t n_resident;
};

enum sched_offload { SCHED_OFFLOAD_AUTO, SCHED_OFFLOAD_ALWAYS, SCHED_OFFLOAD_NEVER };

/* Switches of `omni`, for ablations: each takes one idea out. */
enum sched_without {
    SCHED_WITHOUT_RIDING = 1 << 0,
    SCHED_WITHOUT_TWO_BATCH = 1 << 1,
    SCHED_WITHOUT_WAITING = 1 << 2,
    SCHED_WITHOUT_STAIRS = 1 << 3,    /* chunks: the largest that fits */
    SCHED_WITHOUT_PLACEMENT = 1 << 4, /* always device first */
    SCHED_WITHOUT_COPY_BACK = 1 << 5,
    SCHED_WITHOUT_SPREAD = 1 << 6,  /* all idle residents enter at once */
    SCHED_WITHOUT_STAGING = 1 << 7, /* no prompt's worth of device blocks is kept free */
    SCHED_WITHOUT_SHARE = 1 << 8,   /* latency-sensitive prompts take all of a sweep's time */
};

/* A policy's free parameters.  Each policy's file says which ones it reads. */
struct sched_params {
    enum sched_offload offload; /* ALWAYS: of any policy, best effort decodes at workers alone */
    uint32_t
        auto_free_pct;     /* share of the device's blocks kept free for latency-sensitive growth */
    uint32_t slo_use_pct;  /* share of the TPOT objective that a sweep may be predicted to take */
    uint32_t token_budget; /* rows of a sweep; 0 = from the model and the objective */
    uint32_t headroom_pct; /* share of the device's blocks that best effort may not begin in */
    uint32_t without;      /* enum sched_without */
};

/* What does not change from sweep to sweep. */
struct sched_limits {
    uint32_t block_tokens, n_groups;
    uint32_t rows_max;     /* common rows */
    uint32_t seqs_max;     /* sequences among them */
    uint32_t chunk_max;    /* prefill rows */
    uint32_t returned_max; /* returned rows per layer, and rows that enter */
    uint32_t copies_max;
    uint32_t n_blocks;        /* of the device */
    uint64_t kv_token_bytes;  /* over all layers */
    uint32_t n_workers;       /* <= LATENCY_WORKERS_MAX */
    bool two_batch;           /* the device can alternate two batches in a sweep */
    bool checkpoints;         /* it copies blocks to host memory as they fill, by itself */
    double host_bytes_per_ns; /* device reads of host memory (`stream`); 0 = it cannot */
    uint32_t elsewhere_max;   /* sequences that a CPU-only engine takes (`headroom`) */
    uint64_t tpot_slo_ns;     /* of the first class by default, to tune budgets to; 0 = none */
    uint64_t sweep_max_ns;    /* a sweep with best effort and nobody to hurry for; 0 = no bound:
                                 who arrives meanwhile waits for its end */
    uint64_t be_starved_ns;   /* 0 = best effort is never starved */
    uint64_t be_settle_ns;    /* from moving to moving again */
    struct sched_params params;
};

struct sched_state {
    const struct sched_limits *limits;
    const struct latency_model *latency; /* NULL: nothing is priced */
    uint64_t now_ns;
    const struct sched_seq *seqs; /* oldest first */
    uint32_t n_seqs;
    const struct sched_worker *workers; /* [n_workers] */
    uint32_t n_free_blocks;
    uint32_t n_copies;    /* under way */
    double returned_rows; /* per layer, moving average */
    double sure_share;    /* nearly all sweeps take at most predicted / sure_share; 0 = not known */
    bool be_starved;      /* as the last decision said */
    bool be_stuck;
};

/* Blocks of all groups that hold n tokens. */
static inline uint32_t sched_blocks(const struct sched_limits *l, uint64_t n)
{
    return (uint32_t)((n + l->block_tokens - 1) / l->block_tokens) * l->n_groups;
}

/* Output that it will still make, as far as one knows. */
static inline uint32_t sched_likely(const struct sched_seq *s)
{
    return s->n_likely != 0 && s->n_likely < s->n_rest ? s->n_likely : s->n_rest;
}

/* At a token boundary, with its prompt computed: decodes, and may move. */
static inline bool sched_is_decode(const struct sched_seq *s)
{
    return s->place == SCHED_DEVICE && s->n_todo == 1 && s->has_output;
}

/* Positions it has when its next rows begin. */
static inline uint32_t sched_from(const struct sched_seq *s)
{
    return s->place == SCHED_WAITING ? s->n_shared : s->n_kv;
}

/* Rows until its next token: one at least, since that one is sampled from. */
static inline uint32_t sched_todo(const struct sched_seq *s)
{
    return s->place == SCHED_WAITING ? s->n_todo - s->n_shared : s->n_todo;
}

#endif
