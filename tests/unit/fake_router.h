/* fake_router.h - a router that only talks: one thread, enough protocol to test a client against,
 * and orders to misbehave.  It "generates" the tokens 100, 101, ... with the text "a" each, and
 * keeps nothing but their number by request, so that any session may resume any request it has
 * seen. */
#ifndef OMNI_TESTS_UNIT_FAKE_ROUTER_H
#define OMNI_TESTS_UNIT_FAKE_ROUTER_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/wire.h"

enum fake_order {
    FAKE_SERVE,
    FAKE_MUTE,          /* takes everything, says nothing: hangs */
    FAKE_CLOSE_SESSION, /* closes all sessions without a word, then serves again */
    FAKE_SAY_AND_CLOSE, /* sends error shutting_down first */
    FAKE_RESTART_EPOCH, /* pongs with another epoch */
    FAKE_GARBAGE,       /* sends a malformed message */
    FAKE_END,           /* closes all sockets, and the thread ends */
};

enum { FAKE_SESSIONS_MAX = 8, FAKE_REQUESTS_MAX = 8 };

struct fake_session {
    int sock; /* -1: free */
};

struct fake_request {
    struct request_id id;
    uint32_t n_tokens;
};

struct fake_router {
    char url[WIRE_URL_BYTES];
    char dir[64];
    uint64_t epoch;
    _Atomic int order;
    _Atomic uint32_t version; /* told in welcome */
    _Atomic uint32_t n_pings;
    _Atomic uint32_t n_hellos;
    _Atomic uint32_t bulk; /* if not 0: each generate is answered with so many 1 MiB messages */
    _Atomic uint32_t cut_after;   /* if not 0: so many tokens, then FAKE_CLOSE_SESSION; once */
    _Atomic bool lose_generate;   /* the next generate is lost with its session; once */
    _Atomic uint32_t n_generates; /* requests begun */
    _Atomic uint32_t n_lost;
    char asked[128]; /* prompt, or last message, of the latest generate, cut; after its end */
    struct request_id lost; /* the one that was; after n_lost */
    int hello;
    struct fake_session sessions[FAKE_SESSIONS_MAX];
    struct fake_request requests[FAKE_REQUESTS_MAX];
    uint32_t n_requests;
    uint32_t n_sessions_made;
    pthread_t thread;
};

/* Fresh directory below /tmp, hello bound, thread started. */
void fake_router_start(struct fake_router *r, uint64_t epoch);

/* On the address of a router that has ended. */
void fake_router_start_at(struct fake_router *r, uint64_t epoch, const char *dir);

void fake_router_end(struct fake_router *r);
void fake_router_remove_dir(struct fake_router *r);

#endif
