/* engine_link.h - one engine as the router sees it: a bound PAIR, liveness, and what it can take.
 *
 * DESIGN.  The router binds engine-<i>.sock; the engine dials and says engine_hello on every
 * connection, so any start order works.  Liveness is judged as for clients: nobody connected, or
 * silence for ENGINE_SILENT_MS though a ping goes out every 500 ms.  A lost engine's requests end
 * at once with a retryable error; whatever it still sends is answered with router_hello, and its
 * engine_hello (with the requests that it still holds) starts it anew.  Epochs tell a restart from
 * a reconnection: an engine of another epoch holds nothing of what was submitted before.
 *
 *   ABSENT -> READY <-> LOST;   REFUSED: another protocol version or another model
 *
 * The functions named engine_on_* handle its messages.  One thread. */
#ifndef OMNI_ROUTER_ENGINE_LINK_H
#define OMNI_ROUTER_ENGINE_LINK_H

#include "router/pair.h"

enum {
    ENGINES_MAX = 8,
    ENGINE_WORKERS_MAX = 16,
    /* Three pings unanswered: with the tick, less than the 2 s in which clients must know. */
    ENGINE_SILENT_MS = 1600,
};

enum engine_state { ENGINE_ABSENT, ENGINE_READY, ENGINE_LOST, ENGINE_REFUSED };

/* A worker as the engine reported it last, and what the router has sent its way. */
struct engine_worker {
    enum worker_health health;
    uint32_t blocks_free, blocks_total, resident, jobs;
    uint32_t pid;            /* 0: no process */
    uint32_t blocks_claimed; /* blocks of outstanding requests that prefer it */
    uint64_t arena_bytes, huge_bytes;
};

struct engine_link {
    enum engine_state state;
    uint32_t index;
    struct pair pair;
    uint64_t pinged_ns;  /* last ping sent */
    uint64_t greeted_ns; /* last router_hello sent; 0: none since it was ready */

    /* From engine_hello. */
    uint64_t epoch;
    uint32_t pid, n_ctx, kv_blocks_total, block_tokens, n_workers, requests_max;

    /* From engine_state, zero until the first one. */
    uint32_t waiting, running, offloaded, kv_blocks_free;
    uint64_t sweeps;
    struct engine_worker workers[ENGINE_WORKERS_MAX];

    /* The router's own account of what it has submitted and not heard the end of. */
    uint32_t n_outstanding, blocks_claimed;
};

struct router;

/* 0 or -errno; close is safe after a failed open. */
int engine_open(struct router *router, uint32_t index, uint64_t now_ns);
void engine_close(struct engine_link *e);

/* Liveness, pings, outbox. */
void engine_tick(struct router *router, struct engine_link *e, uint64_t now_ns);

void engine_on_hello(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_ping(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_pong(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_submit_reply(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_tokens(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_done(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_error(struct router *router, struct engine_link *e, const struct message *m);
void engine_on_state(struct router *router, struct engine_link *e, const struct message *m);

/* Tells an engine to end a request: cancel, or stop after a stop string. */
void engine_send_end(struct router *router, struct engine_link *e, const struct request_id *id,
                     bool stop);

const char *engine_state_name(enum engine_state state);

#endif
