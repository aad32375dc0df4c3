/* attnd_fixture.h - an engine's side of shared memory for tests of the attention worker, and the
 * worker itself, ticking in the test's thread or in one of its own.
 *
 * Every engine keeps a private copy of its arena.  A job is computed there directly with attn_run,
 * on one thread; output and KV of the worker must be those bytes. */
#ifndef OMNI_TESTS_UNIT_ATTND_FIXTURE_H
#define OMNI_TESTS_UNIT_ATTND_FIXTURE_H

#include "tests/unit/cmocka_all.h"

#include <pthread.h>

#include "common/base/config.h"
#include "common/shm/job_engine.h"
#include "cpu-attnd/attnd.h"
#include "tests/unit/shm_test.h"

enum {
    FIXTURE_SLOTS = 16,
    FIXTURE_QUERIES = 3,
    FIXTURE_BLOCKS = 192,
    FIXTURE_CTX_MAX = 2048,
    FIXTURE_BLOCK_TOKENS = 32
};

struct fixture_engine {
    uint32_t idx;
    struct kv_geometry geometry;
    struct engine_page page;
    struct directory directory;
    struct job_table table;
    struct arena arena;
    uint32_t epoch;
    uint32_t next_block;
    uint8_t *shadow; /* what the arena's blocks must hold */
    float *expected; /* [FIXTURE_SLOTS][FIXTURE_QUERIES * out_width] */
    uint32_t generation[FIXTURE_SLOTS];
    uint64_t deadline_ns, sweep; /* of the jobs posted next */
    uint32_t seed;
};

/* Opens all segments of engine idx under that epoch (higher than before), without waiting for a
 * worker.  n_groups: layer groups of its geometry, which has 4 layers that differ.  variant 1 has
 * other widths than variant 0. */
void fixture_engine_open(struct fixture_engine *e, uint32_t idx, uint32_t epoch, uint32_t n_groups,
                         uint32_t variant);
/* Waits until a worker has acknowledged the epoch or none is there, then frees all slots. */
void fixture_engine_settle(struct fixture_engine *e);
void fixture_engine_close(struct fixture_engine *e);

/* A sequence with random KV of n_tokens in every layer of its groups, RESIDENT at worker 0, with
 * room for FIXTURE_QUERIES more.  Its first n_shared tokens (whole blocks) are those of donor. */
struct sequence_ref fixture_sequence(struct fixture_engine *e, uint32_t n_tokens);
struct sequence_ref fixture_sequence_sharing(struct fixture_engine *e, uint32_t n_tokens,
                                             struct sequence_ref donor, uint32_t n_shared);

/* Posts a job with random q, k, v (not yet flushed), and computes what must come back. */
void fixture_post(struct fixture_engine *e, uint32_t slot, struct sequence_ref seq, uint32_t layer,
                  uint32_t pos, uint32_t n_q);
/* The same with the caller's fields; q, k, v stay as they are, nothing is expected. */
void fixture_post_desc(struct fixture_engine *e, uint32_t slot, const struct job_desc *desc);

/* Waits for the job (at most some seconds, ticking a if it is not NULL), takes it and compares
 * output and arena with what was expected, byte for byte. */
void fixture_take(struct fixture_engine *e, uint32_t slot, struct attnd *a);
/* The same for a job that must come back as refused; the arena must be unchanged. */
void fixture_take_refused(struct fixture_engine *e, uint32_t slot, struct attnd *a);
bool fixture_is_done(const struct fixture_engine *e, uint32_t slot);

/* ---- The worker ---- */

/* Configuration of a group of n_engines engines in shm_test_dir, two threads per worker. */
void fixture_config(struct omni_config *c, uint32_t n_engines);

/* In a thread of its own, from attnd_init to attnd_shutdown. */
struct fixture_worker {
    struct omni_config config;
    struct attnd attnd;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic uint32_t n_attached; /* engines, after the latest tick */
    double cpu_seconds;          /* of the dispatching thread, after the join */
};
void fixture_worker_start(struct fixture_worker *w, uint32_t n_engines);
void fixture_worker_join(struct fixture_worker *w);

/* Waits until condition(arg) holds; fails the test after some seconds.  Ticks a if not NULL. */
void fixture_wait(bool (*condition)(void *arg), void *arg, struct attnd *a);

#endif
