/* sequence.h - an admitted request inside the engine, and the table of all of them.
 *
 * A sequence is a list of known token ids (prompt, then output) and n_kv, the number of leading
 * positions whose KV is complete in all layers.  What remains to compute is tokens[n_kv..n_tokens):
 * one token = a decode, several = a prefill (also after its KV was dropped and is computed again).
 * When n_kv reaches n_tokens a new token is sampled.
 *
 * Ownership.  The control thread takes a free sequence, fills it, and hands it over through the
 * arrivals queue; from then on it is the engine thread's, except `ask`, which both may set and look
 * at, and `state`, which the control thread may look at.  The engine thread gives it back.  `lock`
 * guards the free list, the queue and the id map. */
#ifndef OMNI_GPU_ENGINE_SEQUENCE_H
#define OMNI_GPU_ENGINE_SEQUENCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/shm/directory.h"
#include "gpu-engine/device/device.h"
#include "proto/messages.h"

enum { SEQUENCE_STOP_TOKENS_MAX = 64, SEQUENCE_BIASES_MAX = 256 };

#define SEQUENCE_NONE UINT32_MAX

/* FREE      in the free list.                                             -> ARRIVED
 * ARRIVED   accepted, in the arrivals queue.                              -> WAITING
 * WAITING   holds no KV; wants device blocks.                             -> COMPUTING, ENDED
 * COMPUTING KV on the device; a member of sweeps (prefill or decode);
 *           full blocks may be copied to an arena beside them.            -> COPY_OUT, WAITING,
 *                                                                            ENDED
 * COPY_OUT  best effort; KV being copied to an arena; in no sweep.        -> RESIDENT, ENDED
 * RESIDENT  KV in an arena, holds a slot; decodes there.                  -> COPY_IN, ENDED
 * COPY_IN   KV being copied back; in no sweep.                            -> COMPUTING, ENDED
 * ENDED     answered; gives its memory back as soon as nobody can touch it. -> FREE */
enum sequence_state {
    SEQUENCE_FREE,
    SEQUENCE_ARRIVED,
    SEQUENCE_WAITING,
    SEQUENCE_COMPUTING,
    SEQUENCE_COPY_OUT,
    SEQUENCE_RESIDENT,
    SEQUENCE_COPY_IN,
    SEQUENCE_ENDED,
    SEQUENCE_STATES
};

/* What was asked of a running sequence; the highest wins. */
enum sequence_ask { SEQUENCE_GO_ON, SEQUENCE_ASK_STOP, SEQUENCE_ASK_CANCEL };

/* A copy's two steps: the device between its KV and staging, the exchange between staging and
 * arena.  Out: device, then exchange.  In: exchange, then device. */
enum sequence_copy { SEQUENCE_COPY_NONE, SEQUENCE_COPY_DEVICE, SEQUENCE_COPY_EXCHANGE };

struct sequence {
    /* Looked at by both threads at any time; the engine's loops pass over free ones by state.  None
     * of the three publishes anything but itself: what a sequence is made of goes from the control
     * thread to the engine's under the table's lock. */
    _Atomic(enum sequence_state) state;
    _Atomic int ask;         /* enum sequence_ask */
    _Atomic uint32_t n_told; /* output tokens sent to the router; written by the engine thread */

    /* fixed at arrival */
    struct request_id id;
    uint32_t class_idx;
    bool latency_sensitive; /* of the first class */
    uint32_t n_prompt, max_tokens;
    uint32_t preferred_worker; /* or SEQUENCE_NONE */
    struct device_sampling sampling;
    uint32_t stop_tokens[SEQUENCE_STOP_TOKENS_MAX];
    uint32_t n_stop_tokens;
    struct device_adjust adjust; /* sampling.adjust points here if there is anything to adjust */
    struct device_bias biases[SEQUENCE_BIASES_MAX];
    bool wants_logprobs;
    uint64_t arrival_ns;
    uint64_t ttft_slo_ns, tpot_slo_ns; /* its own objectives; 0 = its class's */
    uint32_t tenant;
    uint32_t n_predicted; /* latency-sensitive: output, as predicted at admission */
    bool on_budget;       /* admitted though predicted late: the objective leaves misses */
    uint64_t order;       /* grows with every arrival: newest = largest */

    /* engine thread */
    uint32_t *tokens; /* [context_max + 1] */
    uint32_t n_tokens, n_kv;
    uint32_t n_swept;        /* rows in the sweep that is in flight */
    struct sequence_ref ref; /* directory entry; gen 0 = none (latency-sensitive) */

    uint32_t *blocks;  /* [n_groups][table_max] device blocks */
    uint32_t n_blocks; /* per group */
    uint32_t n_sealed; /* full blocks that were sealed */
    uint64_t chain;    /* hash of the last sealed block */

    uint32_t worker;        /* of the arena blocks */
    uint32_t *arena_blocks; /* [n_groups][table_max] */
    uint32_t n_arena_blocks;
    uint32_t slot; /* job slot, or SEQUENCE_NONE: no place in an arena is reserved */
    /* Leading blocks, per group, whose KV is in the arena, and will be when the copy has ended. */
    uint32_t n_mirrored, n_mirroring;
    bool in_slot; /* a token of it is under way in the device's slot */
    enum sequence_copy copy;
    uint64_t copy_ticket; /* of the step under way */

    enum finish_reason reason;
    uint32_t n_device_tokens, n_worker_tokens;
    uint64_t n_ridden, n_parked;
    uint64_t first_token_ns, last_token_ns;
    uint64_t last_run_ns, last_move_ns; /* rows or an entry; became resident or came back */
    uint32_t n_recomputed;              /* KV positions that were dropped and computed again */
    bool token_late;                    /* with deadlines per token: one came after its own */
    bool outgrown;  /* latency-sensitive: its KV was dropped for older ones, see overflow.h ... */
    bool held_back; /* ... and there is no room for it yet */

    uint32_t next; /* free list or arrivals queue */
};

struct sequence_table {
    uint32_t n;
    uint32_t table_max; /* blocks of a full context */
    uint32_t n_groups;
    uint32_t context_max;
    struct sequence *all;
    uint32_t *token_storage, *block_storage;

    pthread_mutex_t lock;
    uint32_t free_head;
    uint32_t n_free;
    uint32_t arrivals_head, arrivals_tail;
    uint64_t n_arrived;

    uint32_t n_in_state[SEQUENCE_STATES]; /* engine thread; ARRIVED and FREE are not counted */
};

/* 0 or -ENOMEM; a failed init is safe to fini. */
int sequence_table_init(struct sequence_table *t, uint32_t n, uint32_t n_groups, uint32_t table_max,
                        uint32_t context_max);
void sequence_table_fini(struct sequence_table *t);

/* Control thread: a free sequence to fill, or NULL.  Then arrive (hand over) or forget. */
struct sequence *sequence_take(struct sequence_table *t);
void sequence_arrive(struct sequence_table *t, struct sequence *s);
void sequence_forget(struct sequence_table *t, struct sequence *s);

/* Control thread: sets what is asked of the request; -ENOENT if it is not here. */
int sequence_ask(struct sequence_table *t, const struct request_id *id, enum sequence_ask ask);
/* Control thread: the requests that are not ended, and how many tokens each has told; at most
 * n_max, returns their number. */
uint32_t sequence_list(struct sequence_table *t, struct held_request *out, uint32_t n_max);

/* sequence_ask for all (a router that is gone). */
void sequence_ask_all(struct sequence_table *t, enum sequence_ask ask);

/* Engine thread: next arrival in order, now WAITING; NULL if there is none. */
struct sequence *sequence_next_arrival(struct sequence_table *t);

/* Engine thread: checked change of state. */
void sequence_set_state(struct sequence_table *t, struct sequence *s, enum sequence_state to);

/* Engine thread: ENDED -> FREE. */
void sequence_give_back(struct sequence_table *t, struct sequence *s);

const char *sequence_state_name(enum sequence_state state);

static inline uint32_t sequence_idx(const struct sequence_table *t, const struct sequence *s)
{
    return (uint32_t)(s - t->all);
}

/* Tokens whose KV must be computed before the next one can be sampled. */
static inline uint32_t sequence_n_todo(const struct sequence *s)
{
    return s->n_tokens - s->n_kv;
}

static inline uint32_t sequence_n_output(const struct sequence *s)
{
    return s->n_tokens - s->n_prompt;
}

#endif
