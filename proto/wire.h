/* wire.h - nanomsg as this system uses it: sockets that are opened one way, and never block.
 *
 * Every socket takes messages of at most MESSAGE_BYTES_MAX (a larger one would make nanomsg's
 * default receiver drop the connection and dial again, for ever), and lingers nowhere.  Addresses
 * are "ipc://<path>" or "tcp://<address>:<port>".  nanomsg aborts the process on an ipc path longer
 * than sockaddr_un holds, so that is checked here first.  Sending and receiving return at once;
 * wait with poll(2) on wire_poll_fd.
 *
 * A socket may be used by any thread, here by one at a time.  No process may fork after its first
 * socket: nanomsg's own threads and descriptors do not survive it.  Functions return 0 or a socket
 * or a size, else -errno. */
#ifndef OMNI_PROTO_WIRE_H
#define OMNI_PROTO_WIRE_H

#include <sys/types.h>

#include "proto/messages.h"

enum {
    WIRE_PATH_BYTES_MAX = 107, /* sizeof sun_path - 1 */
    WIRE_URL_BYTES =
        WIRE_PATH_BYTES_MAX + 7, /* "ipc://", the path, a zero; tcp addresses are shorter */
    WIRE_PING_MS = 500,          /* a ping on every link this often ... */
    WIRE_LOST_MS = 2000,         /* ... and silence for this long means lost */
};

/* Directory of all groups' sockets: process_run_base. */
int wire_run_dir(const char *configured, char *out, size_t cap);

/* "ipc://<run_dir>/<group>/<name>"; -ENAMETOOLONG where the path passes WIRE_PATH_BYTES_MAX. */
int wire_url(char out[WIRE_URL_BYTES], const char *run_dir, const char *group, const char *name);

/* The address on which a group's router answers hello. */
int wire_url_router(char out[WIRE_URL_BYTES], const char *run_dir, const char *group);

/* -ENAMETOOLONG or -EINVAL (neither ipc:// nor tcp://) for addresses nanomsg would not survive. */
int wire_url_check(const char *url);

/* False if it is certain that nobody listens at an ipc address (no such file, or one whose process
 * has died); does not block, and disturbs nobody. */
bool wire_is_listening(const char *url);

/* Bind: the socket file gets mode 0600 (umask 0177 meanwhile, for the whole process); a file left
 * by a dead process is replaced.  -EADDRINUSE where a living one listens. */
int wire_pair_bind(const char *url);
int wire_rep_bind(const char *url);

/* Dial: succeeds whether or not anybody listens; nanomsg keeps trying, every 100 ms at most. */
int wire_pair_dial(const char *url);
int wire_req_dial(const char *url);

void wire_close(int sock);

/* 0, -EAGAIN: the peer does not take it now (slow, or nobody is connected), else -errno. */
int wire_send(int sock, const void *data, size_t n);

/* Returns the size and a message to be given back with wire_release; -EAGAIN if there is none. */
ssize_t wire_recv(int sock, void **message);
void wire_release(void *message);

/* Readable when wire_recv would give something; valid until wire_close. */
int wire_poll_fd(int sock);

/* Readable when wire_send would not say -EAGAIN. */
int wire_poll_send_fd(int sock);

/* Established connections now: 0 means that the peer of a PAIR is not there. */
int wire_connections(int sock);

#endif
