/* pair.h - one bound PAIR socket with an outbox: what a client session and an engine link share.
 *
 * The router binds and the other side dials; addresses are the router's alone.  Nothing here
 * blocks: the poller says when to call pair_receive, and what the socket does not take waits in the
 * bounded outbox until pair_flush.  Messages are read only while at least half of the outbox is
 * free, so that a peer which asks without reading the answers stops itself, and the answer to a
 * message that was read always has room.  One thread; not to be moved in memory while open. */
#ifndef OMNI_ROUTER_PAIR_H
#define OMNI_ROUTER_PAIR_H

#include "proto/outbox.h"
#include "proto/wire.h"
#include "router/poller.h"

struct pair {
    int socket; /* -1: closed */
    int receive_fd;
    bool watched; /* receive_fd is in the poller */
    struct poller *poller;
    struct poll_key key;
    struct outbox outbox;
    void *outbox_data;      /* owned */
    uint64_t heard_ns;      /* last message; at first the time of opening */
    uint64_t full_since_ns; /* no room since then; 0: there is room */
    char url[WIRE_URL_BYTES];
};

/* 0 or -errno (-EADDRINUSE, -ENAMETOOLONG, ...); close is safe after a failed open and twice. */
int pair_open(struct pair *p, struct poller *poller, struct poll_key key, const char *url,
              size_t outbox_bytes, uint64_t now_ns);
void pair_close(struct pair *p);

/* Somebody is connected now; somebody ever was. */
bool pair_connected(const struct pair *p);
bool pair_was_connected(const struct pair *p);

/* At least half of the outbox is free: the rule for reading, and for adding output in bulk. */
bool pair_has_room(const struct pair *p);

/* Puts a message behind the others and sends what the socket takes.  0; -ENOBUFS: it did not fit,
 * nothing changed; -EINVAL: a field breaks its bound (logged). */
int pair_send(struct pair *p, const struct message *m, uint64_t now_ns);

/* Sends what the socket takes, and watches for messages as the room allows.  0, also while
 * something is left, else the socket's -errno. */
int pair_flush(struct pair *p, uint64_t now_ns);

/* How long the peer has not read: its first message was refused for so long, or there was no room
 * for so long. */
uint64_t pair_stuck_ns(const struct pair *p, uint64_t now_ns);

/* One message: its size and *data, to be given back with wire_release; 0: there is none, or no room
 * for an answer; -errno. */
ssize_t pair_receive(struct pair *p, void **data, uint64_t now_ns);

#endif
