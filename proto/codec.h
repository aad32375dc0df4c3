/* codec.h - messages to msgpack and back, in the caller's memory.
 *
 * On the wire a message is one msgpack map.  Its first key is "t", the name of the message; the
 * other keys are the field names of messages.def, in any order.  Whatever is not exactly that is
 * refused: an unknown, missing or repeated key, a value of another type or beyond its bound, text
 * that is not UTF-8, anything after the map.  Nothing unknown is skipped, so the nesting is that of
 * the tables (message, list, record) and needs no other limit.
 *
 * Encoding uses msgpack-c's packer, which writes through a callback and allocates nothing. Decoding
 * uses a cursor of our own (cursor.h): msgpack-c's unpacker builds an object of 24 bytes per value
 * on its heap zone before we may look at the first one, so 16 MiB from a client would cost 400 MiB.
 *
 * No allocation, no globals; any thread.  Strings of a decoded message point into the received
 * bytes; arrays lie in the arena.  Both must outlive the message. */
#ifndef OMNI_PROTO_CODEC_H
#define OMNI_PROTO_CODEC_H

#include <sys/types.h>

#include "proto/messages.h"

/* Memory for the arrays of decoded messages; reset by init before each message. */
struct codec_arena {
    unsigned char *data;
    size_t cap;
    size_t used;
};

/* An arena of this many bytes per byte of the largest message never runs out: the worst are an
 * engine's token items, 17 bytes at their shortest, whose struct has 112.  (A client's worst is a
 * list of one-byte token ids, which become four bytes each.) */
enum { CODEC_ARENA_FACTOR = 8, CODEC_ARENA_BYTES_EXTRA = 512 };

void codec_arena_init(struct codec_arena *arena, void *data, size_t cap);

enum codec_fault {
    CODEC_OK,
    CODEC_TRUNCATED,
    CODEC_TRAILING,
    CODEC_NOT_A_MESSAGE, /* not a map whose first key is "t" */
    CODEC_UNKNOWN_MESSAGE,
    CODEC_UNKNOWN_KEY,
    CODEC_DUPLICATE_KEY,
    CODEC_MISSING,
    CODEC_WRONG_TYPE,
    CODEC_TOO_BIG,   /* beyond the bound of the field */
    CODEC_BAD_VALUE, /* not UTF-8, not finite, negative, no such name */
    CODEC_NO_ROOM,   /* the caller's buffer or arena is too small */
};

struct codec_error {
    enum codec_fault fault;
    bool has_id; /* the message's id was read before the fault: the answer can name it */
    struct request_id id;
    char field[64]; /* "t", "max_tokens", "items[3].index"; empty: the message as a whole */
    char text[160]; /* one line for people, names the field */
};

/* Writes m into buf.  Returns the bytes written, or -ENOBUFS (buf too small), -EMSGSIZE (beyond
 * MESSAGE_BYTES_MAX) or -EINVAL (a field breaks its bound, as the receiver would find).  error may
 * be NULL. */
ssize_t message_encode(const struct message *m, void *buf, size_t cap, struct codec_error *error);

/* Reads exactly one message from len bytes.  0; -EMSGSIZE (len beyond MESSAGE_BYTES_MAX); -ENOBUFS
 * (arena too small); -EBADMSG (anything else).  On failure error is filled in, m->type is the type
 * if its name was read (else MESSAGE_NONE) and the rest of m must not be used. */
int message_decode(const void *buf, size_t len, struct message *m, struct codec_arena *arena,
                   struct codec_error *error);

#endif
