/* poller.h - one epoll set over the descriptors that nanomsg gives for its sockets.
 *
 * nanomsg's NN_RCVFD and NN_SNDFD are readable while a receive or a send would not block; they are
 * level-triggered, so nothing is lost if an event is left alone.  What became ready is named by a
 * key: kind, index and generation of the object, so that an event for an object that was closed in
 * the meantime is recognised.  Owned by the router's one thread. */
#ifndef OMNI_ROUTER_POLLER_H
#define OMNI_ROUTER_POLLER_H

#include <stdint.h>

enum poll_kind { POLL_DOOR, POLL_ENGINE, POLL_SESSION, POLL_WAKE };

struct poll_key {
    enum poll_kind kind;
    uint32_t index;      /* below 2^24 */
    uint32_t generation; /* 0 where objects are never replaced */
};

struct poller {
    int epoll_fd;
};

enum { POLLER_EVENTS_MAX = 64 }; /* taken in one turn; the rest waits for the next */

/* 0 or -errno; fini is safe after a failed init. */
int poller_init(struct poller *p);
void poller_fini(struct poller *p);

/* Watches fd for readability.  0 or -errno. */
int poller_add(struct poller *p, int fd, struct poll_key key);

/* No error if fd was not watched. */
void poller_remove(struct poller *p, int fd);

/* Waits at most timeout_ms and writes the keys of what is ready.  Returns their number; 0 after the
 * time-out or a signal; -errno. */
int poller_wait(struct poller *p, int timeout_ms, struct poll_key keys[POLLER_EVENTS_MAX]);

#endif
