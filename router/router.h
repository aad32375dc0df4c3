/* router.h - the only door of a group: clients on one side, engines on the other.
 *
 * One thread, one event loop: messages come in through router_poll, each is handled to its end by
 * router_on_message, time passes in router_tick, and what was produced leaves at the end of each
 * turn.  Nothing blocks, so no lock is needed and no client can hold up another.
 * Parts: session (who is there), request (what they asked for), class queues and dispatch (which
 * engine next), engine_link (who computes), lifecycle (how requests end and move), deliver (output
 * to sessions), text and stream (words and tokens).  Holds no tensors and no KV. */
#ifndef OMNI_ROUTER_ROUTER_H
#define OMNI_ROUTER_ROUTER_H

#include "common/base/config.h"
#include "common/sched/class_queue.h"
#include "router/counters.h"
#include "router/engine_link.h"
#include "router/request.h"
#include "router/session.h"

enum {
    ROUTER_ITEMS_MAX = 1024,     /* requests in one tokens message; more go into the next */
    ROUTER_RESULTS_MAX = 1024,   /* finished results kept at most, beside those that run */
    ROUTER_MESSAGES_A_TURN = 16, /* taken from one peer before the others are looked at */
};

struct door {
    int socket; /* REP; -1: none */
    bool tcp;
    char url[WIRE_URL_BYTES];
};

enum { DOOR_IPC, DOOR_TCP, N_DOORS };

struct router {
    struct omni_config config;
    char dir[WIRE_PATH_BYTES_MAX + 1]; /* <run.dir>/<group> */
    uint64_t epoch, started_ns;
    bool backlog;               /* some socket did not take all that it should have */
    uint64_t noted_ns;          /* last look at the clock */
    uint64_t next_judgement_ns; /* liveness, leases and results are looked at then */
    bool has_orphans;           /* some request may be one: look at the next tick */
    uint64_t served_ns;         /* last time that some engine was ready; at first, of the start */

    uint32_t n_classes;
    char class_names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX];
    struct str class_strs[CONFIG_CLASSES_MAX]; /* views of the names */

    struct poller poller;
    struct text text;
    struct session_table sessions;
    struct request_table requests;
    struct class_queue queue;
    struct config_tenants tenants;
    uint64_t retry_ns[CONFIG_CLASSES_MAX]; /* class is blocked until then; 0: it is not */
    uint32_t n_engines;
    struct engine_link engines[ENGINES_MAX];
    struct door doors[N_DOORS];
    struct counters counters;

    struct codec_arena arena; /* of the message being handled; owned */
    struct token_item items[ROUTER_ITEMS_MAX];
};

/* Who sent a message: exactly one is set. */
struct origin {
    struct session *session;
    struct engine_link *engine;
};

/* Opens model, doors and engine links.  dir: <run.dir>/<group>, private and there; stats_dir: of
 * the statistics page, NULL for none.  0 or -errno with err; shutdown is safe after each. */
int router_init(struct router *r, const struct omni_config *config, const char *dir,
                const char *stats_dir, struct error *err);

/* Watches one more descriptor, which only ends the wait of router_poll.  0 or -errno. */
int router_watch(struct router *r, int fd);

/* Takes over what may change while it runs: router.result_keep_s, router.slow_client_ms. */
void router_reconfigure(struct router *r, const struct omni_config *config);

/* One turn: waits (at most until something is due), handles what came, ticks.  0 or -errno. */
int router_poll(struct router *r);

/* One message from a session or an engine, decoded and allowed to travel this way. */
void router_on_message(struct router *r, struct origin from, const struct message *m);

/* Everything that happens because time passes. */
void router_tick(struct router *r, uint64_t now_ns);

/* Tells the clients, gives them a moment to hear it, closes and unlinks all. */
void router_shutdown(struct router *r);

#endif
