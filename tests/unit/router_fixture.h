/* router_fixture.h - what the router's tests share: a router in a thread, and a bare client that
 * does exactly what it is told (the client library is too well behaved for most tests).  The engine
 * is in fake_engine.h. */
#ifndef OMNI_TESTS_UNIT_ROUTER_FIXTURE_H
#define OMNI_TESTS_UNIT_ROUTER_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/client.h"
#include "proto/codec.h"
#include "router/router.h"

/* ---- A model file, and a directory of its own ------------------------------------------------ */

/* Writes a tiny random model once per program.  Its path. */
const char *fixture_model(void);
void fixture_remove_model(void);

/* The tokens of a text in that model, without special ones.  Their number. */
uint32_t fixture_tokens(const char *text, uint32_t *ids, uint32_t cap);

/* ---- The router ------------------------------------------------------------------------------ */

struct router_thread {
    char dir[64];
    struct omni_config config; /* of fixture_config, changed by the test before the start */
    struct router router;      /* look at it only after router_thread_stop */
    pthread_t thread;
    int stop_fd;
    _Atomic bool stop;
};

/* Defaults with the model, one engine, and times that suit a test. */
void router_thread_init(struct router_thread *t);
void router_thread_start(struct router_thread *t);
/* Shuts it down, unless it is down already. */
void router_thread_stop(struct router_thread *t);
/* Stops, checks that the directory is empty, and removes it. */
void router_thread_fini(struct router_thread *t);

/* A client of the library. */
struct client *router_thread_client(const struct router_thread *t);

/* ---- A bare client --------------------------------------------------------------------------- */

struct bare {
    int socket;
    void *bytes;
    unsigned char *arena;
    struct message message;
    char url[WIRE_URL_BYTES]; /* of the session */
    uint64_t pinged_ns;
};

/* Says hello with this version; the answer (welcome or error) is in b->message. */
void bare_hello(struct bare *b, const char *door_url, uint32_t version);
/* Says hello and dials. */
void bare_open(struct bare *b, const struct router_thread *t);
void bare_close(struct bare *b);

void bare_send(struct bare *b, const struct message *m);
void bare_send_bytes(struct bare *b, const void *bytes, size_t n);
/* Pings if that is due: a client that is to stay alive calls it often. */
void bare_ping(struct bare *b);
/* The next message, in b->message until the next call.  False after the time-out. */
bool bare_receive(struct bare *b, uint32_t timeout_ms);
/* The next message of a type; others are dropped. */
bool bare_expect(struct bare *b, enum message_type type, uint32_t timeout_ms);

/* ---- Waiting --------------------------------------------------------------------------------- */

/* Bounds in time are five times what is promised: these machines are shared. */
enum { FIXTURE_LOST_MS = 5 * 2000, FIXTURE_SOON_MS = 5000 };

/* Waits until the counter is at least n. */
bool wait_count(_Atomic uint32_t *count, uint32_t n, uint32_t timeout_ms);

/* One number out of the router's status, by keys separated by '/', such as "counters/sessions" or
 * "engines/0/outstanding"; negative if it is not there. */
double status_number(struct bare *b, const char *path);
bool wait_status(struct bare *b, const char *path, double value, uint32_t timeout_ms);

#endif
