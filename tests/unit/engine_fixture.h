/* engine_fixture.h - an engine and its workers as threads of this process, and a router that the
 * test plays: real shared memory, real socket, real attention, no other process.  So tsan sees both
 * ends of the rings.  OMNI_TEST_DEVICE names the device (cpu): nothing of a test depends on it. */
#ifndef OMNI_TESTS_UNIT_ENGINE_FIXTURE_H
#define OMNI_TESTS_UNIT_ENGINE_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "cmocka_all.h"
#include "common/model/model_random.h"
#include "cpu-attnd/attnd.h"
#include "gpu-engine/host.h"

enum {
    GROUP_REQUESTS = 40,
    GROUP_OUTPUT_MAX = 128,
    GROUP_WORKERS = 3,
    GROUP_SOON_MS = 60 * 1000, /* a hang, not a measure: tsan on a busy machine is slow */
};

/* What the router hears of a request. */
struct group_request {
    uint32_t tokens[GROUP_OUTPUT_MAX];
    uint32_t n_tokens;
    bool answered, accepted, ended;
    bool failed;
    enum error_code code; /* of a refusal or an error */
    struct message_engine_done done;
};

struct group_worker {
    struct engine_group *group;
    struct attnd attnd;
    uint32_t index;
    pthread_t thread;
};

struct engine_group {
    char dir[32]; /* in /dev/shm: sockets, model and segments of this group */
    struct omni_config config;
    struct host host;
    /* In place of the configured one, with what it may believe of the workers; NULL: none. */
    const struct sched_policy *policy;
    struct latency_worker pace;
    bool priced; /* with made-up times of the device, which it corrects; a profile takes long */
    struct group_worker workers[GROUP_WORKERS];
    pthread_t engine_thread;
    _Atomic bool stop_engine, stop_workers, hold_workers;
    _Atomic bool engine_up;
    int sock;
    unsigned char *arena, *bytes;
    uint64_t pinged_ns;
    bool greeted;
    struct message_engine_state state; /* without its lists */
    struct group_request requests[GROUP_REQUESTS];
    void (*look)(struct engine *e); /* called by group_stop at the end, all threads gone; or NULL */
    uint64_t stats[ENGINE_N_STATS]; /* after group_stop */
};

/* Writes the model and sets the configuration; change it with group_set before group_start. */
void group_init(struct engine_group *g, const struct model_random_options *model);
void group_set(struct engine_group *g, const char *assignment);
/* host_init alone, which must refuse; *err says why. */
void group_expect_refusal(struct engine_group *g, struct error *err);
/* Starts the engine and waits for its introduction; starts the workers and waits until it sees
 * them; both. */
void group_start_engine(struct engine_group *g);
void group_start_workers(struct engine_group *g);
void group_start(struct engine_group *g);

/* Submits request i; greedy if seed is 0. */
void group_submit(struct engine_group *g, uint32_t i, uint32_t class_idx, const uint32_t *prompt,
                  uint32_t n_prompt, uint32_t max_tokens, uint64_t seed);
void group_cancel(struct engine_group *g, uint32_t i);

/* Serves the socket until done(g, arg), or fails the test. */
typedef bool group_condition(const struct engine_group *g, uint32_t arg);
void group_wait(struct engine_group *g, group_condition *done, uint32_t arg);

/* Conditions: request i has ended; it has produced a token; requests 0..n-1 have ended. */
bool group_has_ended(const struct engine_group *g, uint32_t i);
bool group_has_begun(const struct engine_group *g, uint32_t i);
bool group_all_ended(const struct engine_group *g, uint32_t n);

/* Waits until the engine holds nothing, stops all threads, checks that every block and slot is
 * free, and removes the group's files.  The statistics stay. */
void group_stop(struct engine_group *g);

#endif
