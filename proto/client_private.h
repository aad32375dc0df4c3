/* client_private.h - the inside of struct client, shared by client*.c.
 *
 * Who touches what: options, info and session are written while no thread runs; the fields below
 * "lock" are shared under it by the application and the thread (client_thread.c); `reading` belongs
 * to whoever calls client_next_event.  The session's socket is used by the thread alone while it
 * runs. */
#ifndef OMNI_PROTO_CLIENT_PRIVATE_H
#define OMNI_PROTO_CLIENT_PRIVATE_H

#include <pthread.h>

#include "proto/client.h"
#include "proto/outbox.h"

enum {
    CLIENT_TICK_MS = 100, /* how often the thread looks for a connection that has gone */
    /* Silence before the router counts as lost: the bound of 2 s less the tick. */
    CLIENT_SILENCE_MS = 1800,
    /* To see whether a closed session had a living router, which may be busy: the bound of 2 s less
     * the tick and some room.  A dead one refuses at once. */
    CLIENT_PROBE_MS = 1500,
};

/* A received message, decoded in place: bytes is nanomsg's, the arrays are behind the node. */
struct client_node {
    struct client_node *next;
    void *bytes;
    size_t cost; /* of both, for the bound */
    struct message message;
    _Alignas(16) unsigned char arena[];
};

struct client {
    char url[WIRE_URL_BYTES];
    char name[65];
    uint32_t open_timeout_ms;
    uint64_t events_bytes_max;
    struct client_info info;
    int session;
    int wake_fd; /* written to when the outbox has something, or the client closes */
    pthread_t thread;
    bool thread_runs;

    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct outbox outbox;
    void *outbox_memory;
    struct client_node *first, *last;
    uint64_t events_bytes;
    bool closing;
    bool lost;
    bool lost_told;
    enum error_code lost_code;
    char lost_text[256];

    struct client_node *reading;
};

/* Hello and its answer: fills in info and the address of the session.  Errors as client_open. */
int client_handshake(const char *url, const char *name, uint32_t timeout_ms,
                     struct client_info *info, char session_url[WIRE_URL_BYTES],
                     struct error *error);

/* The thread: argument and result as pthread_create wants them. */
void *client_thread_main(void *client);

void client_node_free(struct client_node *node);

#endif
