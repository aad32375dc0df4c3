/* device_fixture.h - the cpu device without an engine: sweeps built by hand, one after the other,
 * and a trace of what came out of each position, to be compared bit by bit.
 *
 * A request is a list of tokens; rows of it are added to the pending sweep, on the device or as an
 * offloaded row.  The trace keeps a hash of the hidden state behind the last layer, and the sampled
 * token with the bits of its log-probability (which come from all logits). */
#ifndef OMNI_TESTS_UNIT_DEVICE_FIXTURE_H
#define OMNI_TESTS_UNIT_DEVICE_FIXTURE_H

#include <stdbool.h>

#include "cmocka_all.h"
#include "common/model/model.h"
#include "common/model/model_random.h"
#include "gpu-engine/device/cpu/cpu_device.h"
#include "local_exchange.h"

enum {
    FIXTURE_CONTEXT = 1024,
    FIXTURE_ROWS = 256,
    FIXTURE_SEQS = 64,
    FIXTURE_SLOTS = 12,
    FIXTURE_RETURNED = 4,
    FIXTURE_N_Q = 4,
    FIXTURE_GROUPS = 2,
    FIXTURE_BLOCK_TOKENS = 32,
    FIXTURE_TABLE = FIXTURE_CONTEXT / FIXTURE_BLOCK_TOKENS,
    FIXTURE_ON_DEVICE = UINT16_MAX, /* no slot */
};

struct fixture_request {
    uint32_t idx; /* as a sequence of the exchange */
    uint32_t tokens[FIXTURE_CONTEXT + 1];
    uint32_t n_tokens, n_kv;
    struct device_sampling sampling;
    uint32_t blocks[FIXTURE_GROUPS * FIXTURE_TABLE];
    uint32_t n_blocks; /* per group */
    uint32_t slot;     /* or FIXTURE_ON_DEVICE */
    uint32_t arena_groups;
    uint32_t n_ridden, n_parked;
    /* The trace, by position. */
    uint64_t hidden[FIXTURE_CONTEXT]; /* 0 = not computed */
    uint32_t sampled[FIXTURE_CONTEXT + 1];
    float logprob[FIXTURE_CONTEXT + 1];
    bool is_sampled[FIXTURE_CONTEXT + 1];
};

struct fixture_options {
    const struct model_random_options *model; /* or: */
    const char *path;                         /* of a model file */
    enum kv_type kv;
    uint32_t n_groups, n_threads;
    uint32_t delay;       /* polls that results stay hidden at most */
    uint32_t n_kv_blocks; /* 0: 256 */
};

struct device_fixture {
    struct model *model;
    struct kv_geometry geometry;
    struct device *device;
    struct local_exchange *local;
    struct exchange *exchange;
    uint32_t free_blocks[1024];
    uint32_t n_free;
    uint32_t n_requests;
    struct fixture_request *slot_owner[FIXTURE_SLOTS];
    struct fixture_request filler[2];
    struct device_pick picks[KV_LAYERS_MAX];
    uint64_t arrivals[KV_LAYERS_MAX];
    /* The pending sweep. */
    uint64_t n_sweeps;
    struct device_seq seqs[FIXTURE_SEQS];
    struct fixture_request *members[FIXTURE_SEQS];
    struct device_enter enters[FIXTURE_RETURNED];
    uint32_t n_seqs, n_enters;
    uint32_t n_seqs_b, n_enters_b; /* the last so many of them are batch B's */
    uint32_t n_rows;
    /* Kept from sweep to sweep. */
    uint64_t wait_total_ns;
    struct device_pace pace;                       /* of the one worker; zero: not predicted */
    struct device_layer_log layers[KV_LAYERS_MAX]; /* of the last sweep */
};

void fixture_open(struct device_fixture *f, const struct fixture_options *o);
void fixture_close(struct device_fixture *f);

/* A request with device blocks for n_max tokens, scattered over the pool. */
void fixture_request_init(struct device_fixture *f, struct fixture_request *r,
                          const uint32_t *prompt, uint32_t n_prompt, uint32_t n_max);
void fixture_request_fini(struct device_fixture *f, struct fixture_request *r);

/* A prompt of n tokens out of a generator. */
void fixture_prompt(const struct device_fixture *f, uint32_t seed, uint32_t *tokens, uint32_t n);

/* Back to n_kv computed positions; the tokens behind n_tokens are forgotten, the trace stays. */
void fixture_rewind(struct fixture_request *r, uint32_t n_kv, uint32_t n_tokens);

/* ---- Sweeps ---------------------------------------------------------------------------------- */

/* The request's next n rows; the last one is sampled when it is the last known token. */
void fixture_add(struct device_fixture *f, struct fixture_request *r, uint32_t n);
/* The same n rows, each sampled: to see the logits of all of them. */
void fixture_add_each(struct device_fixture *f, struct fixture_request *r, uint32_t n);
/* Logits of the i-th sampled sequence of the last sweep, if it sampled at most CPU_LOGIT_ROWS. */
const float *fixture_logits(const struct device_fixture *f, uint32_t i);
/* n rows of somebody else (which: 0 or 1, once each per sweep). */
void fixture_add_filler(struct device_fixture *f, uint32_t which, uint32_t n);
/* All known tokens that are not computed enter as one offloaded row. */
void fixture_enter(struct device_fixture *f, struct fixture_request *r);

/* From now on sweeps may wait so long for `want` jobs of a layer, each predicted to take job_ms. */
void fixture_wait(struct device_fixture *f, uint32_t total_ms, uint16_t want, uint32_t job_ms);

/* Runs the pending sweep, empty or not, and takes its results in.  Returns the offloaded tokens. */
uint32_t fixture_sweep(struct device_fixture *f);

/* Computes all known tokens in chunks of at most n rows; samples the next one. */
void fixture_prefill(struct device_fixture *f, struct fixture_request *r, uint32_t chunk);

/* Decodes n tokens, where the request's KV is, in sweeps of its own. */
void fixture_decode(struct device_fixture *f, struct fixture_request *r, uint32_t n);

/* Copies the KV of these layer groups to the arena, overwrites what the device had of them, and
 * gives the request a slot. */
void fixture_offload(struct device_fixture *f, struct fixture_request *r, uint32_t slot,
                     uint32_t groups);

/* Copies it back, and gives the slot back. */
void fixture_fetch(struct device_fixture *f, struct fixture_request *r);

/* ---- Comparison ------------------------------------------------------------------------------ */

/* Everything that r computed from position `from` on equals what `reference` has there. */
void fixture_assert_equal(const struct fixture_request *reference, const struct fixture_request *r,
                          uint32_t from);

#endif
