/* fake_engine.h - the engine's end of the control link, scripted, in a thread of the test.
 *
 * Speaks the whole protocol (hello, pings, admission, tokens of one sweep in one message, done) but
 * computes nothing: the output of every request is the same script, over and over. */
#ifndef OMNI_TESTS_UNIT_FAKE_ENGINE_H
#define OMNI_TESTS_UNIT_FAKE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/messages.h"
#include "proto/wire.h"

enum { FAKE_REQUESTS_MAX = 64, FAKE_SCRIPT_MAX = 4096, FAKE_WORKERS = 2 };

struct fake_request {
    bool active;
    struct request_id id;
    uint32_t class_index, max_tokens, n_out;
};

struct fake_engine {
    /* Set before the start. */
    uint32_t index, requests_max, kv_blocks;
    uint32_t sweep_ms, tokens_a_sweep;
    uint64_t epoch;
    uint32_t n_script;
    uint32_t script[FAKE_SCRIPT_MAX]; /* every request's output, repeated */
    struct request_id held;           /* reported in engine_hello if has_held */
    bool has_held;

    /* Set at any time. */
    _Atomic bool paused;     /* no tokens */
    _Atomic bool mute;       /* neither reads nor writes, as if stopped */
    _Atomic int refuse_code; /* >= 0: refuses submits with that error_code and retry_after */

    _Atomic bool echoes; /* before it answers a submit, an earlier run of that id speaks and ends */

    /* Read at any time. */
    _Atomic uint32_t n_submits, n_cancels, n_stops, n_refused, n_router_hellos, n_sweeps;

    pthread_mutex_t lock;              /* guards what follows */
    uint32_t order[FAKE_REQUESTS_MAX]; /* class_index of each submit, in order */
    char tenants[FAKE_REQUESTS_MAX];   /* first letter of each submit's tenant; '-': none */
    uint64_t last_seed;
    uint32_t last_n_prompt, last_worker;
    bool last_has_worker;
    struct request_id last_cancelled;

    struct fake_request requests[FAKE_REQUESTS_MAX]; /* the thread's own */
    char url[WIRE_URL_BYTES];
    uint64_t model_hash;
    int socket;
    pthread_t thread;
    _Atomic bool stop;
};

void fake_engine_init(struct fake_engine *e, const char *script_text);
void fake_engine_start(struct fake_engine *e, const char *dir, uint64_t model_hash);
/* As a kill: the socket closes, nothing more is said. */
void fake_engine_kill(struct fake_engine *e);

#endif
