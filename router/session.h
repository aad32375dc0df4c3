/* session.h - the table of client sessions: one bound PAIR each, at a fresh random address.
 *
 * DESIGN.  A hello is answered with the address of a PAIR that was bound for it; whoever dials it
 * first has the session, and nobody else can (PAIR takes one peer).  The life of a session:
 *
 *   FREE -> BOUND     session_create; nobody has dialled yet
 *   BOUND -> OPEN     somebody is connected
 *   BOUND, OPEN -> CLOSING   told why; closed when that has been sent, or after SESSION_CLOSE_MS
 *   any -> FREE       session_destroy
 *
 * A session that nobody dials within lease_ms, whose peer has gone, that was silent for lease_ms,
 * or that does not read for slow_client_ms has ended: session_check says so, the caller ends its
 * requests and destroys it.  Silence does not count while the router itself does not read (outbox
 * more than half full): then slow_client_ms decides.
 * nanomsg has 512 sockets in a process, so at most 448 sessions.  One thread. */
#ifndef OMNI_ROUTER_SESSION_H
#define OMNI_ROUTER_SESSION_H

#include "router/pair.h"

enum {
    SESSIONS_MAX = 448,
    SESSION_CLIENT_BYTES = 65,
    SESSION_CLOSE_MS = 200,    /* for the last words of a session */
    SESSION_BAD_MESSAGES = 16, /* a client that sends more malformed ones is disconnected */
};

#define SESSION_NONE UINT32_MAX

enum session_state { SESSION_FREE, SESSION_BOUND, SESSION_OPEN, SESSION_CLOSING };

enum session_fate {
    SESSION_FINE,
    SESSION_NOT_DIALLED, /* within lease_ms */
    SESSION_GONE,        /* the peer has closed its socket or died */
    SESSION_SILENT,      /* nothing heard for lease_ms */
    SESSION_SLOW,        /* does not read */
    SESSION_CLOSED,      /* CLOSING, and the last words are out or late */
};

struct session {
    enum session_state state;
    uint32_t index, generation;
    struct pair pair;
    bool over_tcp;
    uint16_t port;             /* over_tcp */
    uint64_t closing_since_ns; /* CLOSING */
    uint32_t n_bad_messages;
    uint32_t first_request;           /* list of its requests, linked in the request table */
    uint32_t first_dirty, last_dirty; /* those with output to be sent, in order */
    char client[SESSION_CLIENT_BYTES];
};

struct session_config {
    uint32_t sessions_max; /* at most SESSIONS_MAX */
    uint32_t lease_ms, slow_client_ms;
    size_t outbox_bytes;
    const char *dir;        /* of the ipc sockets, mode 0700 */
    const char *tcp_listen; /* address of tcp sessions; "" = none */
    uint16_t tcp_port_first, tcp_port_last;
};

struct session_table {
    struct session_config config; /* strings belong to the caller */
    struct poller *poller;
    uint32_t n; /* not FREE */
    uint16_t next_port;
    struct session *sessions; /* [sessions_max], owned */
};

enum session_result { SESSION_CREATED, SESSION_TABLE_FULL, SESSION_NOT_BOUND };

/* Removes session sockets that a killed router left in dir.  0 or -errno; fini is safe after a
 * failed init and destroys all sessions. */
int session_table_init(struct session_table *t, const struct session_config *config,
                       struct poller *poller);
void session_table_fini(struct session_table *t);

/* Binds a new session; SESSION_NOT_BOUND: no address or descriptor for it (logged). */
enum session_result session_create(struct session_table *t, bool over_tcp, struct str client,
                                   uint64_t now_ns, struct session **out);
void session_destroy(struct session_table *t, struct session *s);

/* NULL if it has been destroyed since. */
struct session *session_find(struct session_table *t, uint32_t index, uint32_t generation);

/* Moves BOUND to OPEN, and judges. */
enum session_fate session_check(const struct session_table *t, struct session *s, uint64_t now_ns);

/* A message has come. */
void session_heard(struct session *s);

/* The session takes no more messages and ends once what it was told is out. */
void session_begin_close(struct session *s, uint64_t now_ns);

const char *session_state_name(enum session_state state);
const char *session_fate_name(enum session_fate fate);

#endif
