/* outbox.h - a bounded queue of encoded messages in front of a socket that may not block.
 *
 * Whoever has something to say pushes; whoever owns the socket flushes, at once and again when
 * wire_poll_send_fd says that the peer has room.
 * Full means that the peer is slow: the owner disconnects it after a time of its choosing, see
 * outbox_stuck_ns.  Messages keep their order, and are encoded right into the queue.
 *
 * Layout of the caller's memory: records of a 32-bit length and the message, each record in one
 * piece; a length of OUTBOX_WRAP sends the reader back to the start.  One thread. */
#ifndef OMNI_PROTO_OUTBOX_H
#define OMNI_PROTO_OUTBOX_H

#include "proto/codec.h"

struct outbox {
    unsigned char *data;
    size_t cap;
    size_t head; /* first unsent record */
    size_t tail; /* where the next one goes; == head: empty */
    uint32_t n_messages;
    uint64_t stuck_since_ns; /* when the first unsent record was first refused; 0: it was not */
};

/* data: cap bytes of the caller, which must outlive the outbox. */
void outbox_init(struct outbox *box, void *data, size_t cap);

/* 0; -ENOBUFS: full, nothing was added; else as message_encode (-EINVAL: error names the field). */
int outbox_push(struct outbox *box, const struct message *m, struct codec_error *error);

/* Sends as much as sock takes.  0: all of it; -EAGAIN: some is left; else the socket's error. */
int outbox_flush(struct outbox *box, int sock, uint64_t now_ns);

/* How long the first message has waited for a peer that does not read; 0 when none waits. */
uint64_t outbox_stuck_ns(const struct outbox *box, uint64_t now_ns);

#endif
