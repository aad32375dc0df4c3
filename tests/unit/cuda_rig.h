/* cuda_rig.h - a device without an engine, and a real worker beside it: sweeps built by hand.
 *
 * Two rigs over one model: the cpu device, whose answers are the reference, and the CUDA device over
 * the stand-in for its runtime (tests/gpu/shim).  Sequences are told their tokens by the reference, so
 * that each position is compared by itself, whatever a device would have drawn before it.
 *
 * Offloaded rows go through real shared memory (exchange_shm.h) to a worker of cpu-attnd's, a thread of
 * this program. */
#ifndef OMNI_TESTS_UNIT_CUDA_RIG_H
#define OMNI_TESTS_UNIT_CUDA_RIG_H

#include <pthread.h>
#include <stdatomic.h>

#include "cmocka_all.h"
#include "common/model/model_random.h"
#include "cpu-attnd/attnd.h"
#include "gpu-engine/device/device.h"
#include "gpu-engine/exchange_shm.h"

enum {
    RIG_CONTEXT = 256,
    RIG_BLOCK_TOKENS = 32,
    RIG_TABLE = RIG_CONTEXT / RIG_BLOCK_TOKENS,
    RIG_BLOCKS = 61, /* no multiple of 7 */
    RIG_ROWS = 64,
    RIG_SEQS = 8,
    RIG_SLOTS = 6,
    RIG_RETURNED = 4,
    RIG_N_Q = 2,
    RIG_ON_DEVICE = UINT16_MAX,
};

/* What a device said at a position. */
struct rig_answer {
    uint32_t token;
    float logprob;
    uint32_t n_top; /* the reference always tells two */
    struct device_logprob top[2];
    bool is_there;
};

struct rig_seq {
    uint32_t tokens[RIG_CONTEXT + 1];
    uint32_t n_tokens, n_kv;
    struct device_sampling sampling;
    struct device_adjust adjust; /* used where told so; the reference's always tells two tokens */
    bool adjusts;
    uint32_t blocks[RIG_TABLE];
    uint32_t slot; /* or RIG_ON_DEVICE */
    struct sequence_ref ref;
    uint32_t arena[RIG_TABLE];
    bool in_slot; /* its row is between two sweeps: */
    uint32_t n_q; /* so many tokens of it */
    uint32_t n_ridden, n_parked;
    struct rig_answer answers[RIG_CONTEXT + 1]; /* by position of the token */
};

struct rig {
    const struct device_ops *ops;
    char dir[64], model_path[96];
    struct model *model;
    struct kv_geometry geometry;
    struct omni_config config;
    struct exchange_shm *shm; /* NULL: nothing is offloaded */
    struct attnd worker;
    pthread_t worker_thread;
    _Atomic bool stop, hold; /* the worker: ends; does not look */
    struct device *device;
    _Atomic uint32_t n_notified;
    uint32_t free_blocks[RIG_BLOCKS], n_free;
    uint32_t n_arena_used;
    struct rig_seq *slot_owner[RIG_SLOTS];
    uint64_t n_sweeps;
    struct device_pick picks[KV_LAYERS_MAX];
    uint64_t arrivals[KV_LAYERS_MAX + 1];
    struct device_pace pace;
    uint64_t wait_total_ns;
    bool no_riding;
    /* The pending sweep. */
    struct device_seq seqs[RIG_SEQS];
    struct rig_seq *members[RIG_SEQS];
    struct device_enter enters[RIG_RETURNED];
    uint32_t leaves[RIG_SLOTS];
    uint32_t n_seqs, n_seqs_b, n_enters, n_leaves;
    struct device_done done; /* of the last sweep; its pointers hold until the next */
};

struct rig_options {
    const struct device_ops *ops;
    const struct model_random_options *model;
    enum kv_type kv;
    bool offloads;
    uint32_t n_kv_blocks; /* 0: RIG_BLOCKS */
};

void rig_open(struct rig *r, const struct rig_options *o);
/* The device alone: what it says. */
int rig_open_device(struct rig *r, const struct rig_options *o);
void rig_close(struct rig *r);

void rig_seq_init(struct rig *r, struct rig_seq *s, const uint32_t *tokens, uint32_t n);
void rig_prompt(const struct rig *r, uint32_t seed, uint32_t *tokens, uint32_t n);

/* The sequence's next n rows; the last is sampled. */
void rig_add(struct rig *r, struct rig_seq *s, uint32_t n);
/* The next n tokens enter as an offloaded row. */
void rig_enter(struct rig *r, struct rig_seq *s, uint32_t n);

struct device_sweep rig_sweep_of(struct rig *r);
/* Runs the pending sweep; takes answers in. */
void rig_sweep(struct rig *r);
/* Answers of a polled sweep whose members are still those of the rig. */
void rig_take(struct rig *r);

/* The sequence's tokens below `end`, in chunks. */
void rig_prefill(struct rig *r, struct rig_seq *s, uint32_t end, uint32_t chunk);
/* Sweeps until the entered row of s has come out. */
void rig_until_out(struct rig *r, struct rig_seq *s);

/* KV to the arena, and back; the device's blocks are spoilt in between. */
void rig_offload(struct rig *r, struct rig_seq *s, uint32_t slot);
void rig_fetch(struct rig *r, struct rig_seq *s);
void rig_copy(struct rig *r, const struct rig_seq *s, enum device_copy_direction direction,
              void *const *staging, uint64_t *ticket);

#endif
