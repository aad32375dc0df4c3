/* client.h - the C client library: a session with a group's router.
 *
 *     client_open(&c, &options, &error);
 *     client_id_new(&request.id); ... client_generate(c, &request, &error);
 *     while (client_next_event(c, 1000, &event) == 0) { ... }
 *     client_close(c);
 *
 * DESIGN.  A thread of the client's own pings the router every 500 ms and owns the session's
 * socket, so a router or session that is lost is told within 2 s whatever the application does;
 * nanomsg itself would reconnect in silence and block for ever.  What arrives is decoded on that
 * thread and queued, bounded, for client_next_event; what is sent goes through a bounded outbox.
 * When a session is lost its requests are not: client_reopen opens another one, and client_resume
 * attaches to each by id, from the first token that has not been seen (the router keeps them for a
 * while).
 *
 * All functions may be called by any thread, except: one thread at a time in client_next_event,
 * client_reopen and client_close.  No process may fork (without exec) after client_open. */
#ifndef OMNI_PROTO_CLIENT_H
#define OMNI_PROTO_CLIENT_H

#include "common/base/error.h"
#include "proto/messages.h"
#include "proto/wire.h"

struct client;

struct client_options {
    const char *url;           /* of the router's hello; see wire_url_router */
    const char *name;          /* shown in the router's status; NULL: "client" */
    uint32_t open_timeout_ms;  /* longest that open and reopen take; 0: 2000 */
    uint64_t events_bytes_max; /* unread events beyond this end the session; 0: 64 MiB */
};

enum { CLIENT_CLASSES_MAX = 16, CLIENT_CLASS_BYTES = 33, CLIENT_MODEL_BYTES = 257 };

/* What the router said in its welcome. */
struct client_info {
    uint64_t epoch;
    uint32_t lease_ms;
    uint32_t n_ctx;
    uint32_t n_classes;
    char classes[CLIENT_CLASSES_MAX][CLIENT_CLASS_BYTES]; /* most urgent first */
    char model[CLIENT_MODEL_BYTES];
};

enum client_event_kind {
    CLIENT_MESSAGE, /* tokens, done, error or status_reply */
    CLIENT_LOST,    /* the session is over; told once, and nothing follows it */
};

struct client_event {
    enum client_event_kind kind;
    const struct message *message; /* CLIENT_MESSAGE; valid until the next call of next_event */
    enum error_code code; /* CLIENT_LOST: router_lost, session_lost, or the router's word */
    const char *text;     /* CLIENT_LOST: for people */
};

/* Says hello, dials the session that the router names, and starts the thread.  0, -ETIMEDOUT
 * (nobody answers), -ECONNREFUSED (the router refuses: error has its words), -EPROTO (what answers
 * is no router of this version), -EINVAL, -ENOMEM or nanomsg's errno. */
int client_open(struct client **out, const struct client_options *options, struct error *error);

/* Another session after a lost one; unread events of the old one are dropped.  As client_open. */
int client_reopen(struct client *c, struct error *error);

/* Ends the session (the router cancels what is still running in it) and frees c; NULL is allowed.
 */
void client_close(struct client *c);

/* Valid until client_reopen or client_close. */
const struct client_info *client_info(const struct client *c);

/* A random request id. */
void client_id_new(struct request_id *id);

/* Requests to the router; the answers are events.  0; -ENOTCONN: the session is lost; -EAGAIN: the
 * outbox is full, take events and try again; -EINVAL: error names the field. */
int client_generate(struct client *c, const struct message_generate *request, struct error *error);
int client_resume(struct client *c, const struct request_id *id, const char *class_name,
                  uint32_t from_token);
int client_cancel(struct client *c, const struct request_id *id);
int client_status(struct client *c, uint32_t seq);

/* Waits at most timeout_ms (0: not at all) for the next event.  0; -ETIMEDOUT: none came;
 * -ENOTCONN: CLIENT_LOST has been told before. */
int client_next_event(struct client *c, uint32_t timeout_ms, struct client_event *event);

#endif
