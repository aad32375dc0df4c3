#include "proto/outbox.h"

#include <errno.h>
#include <string.h>

#include "proto/wire.h"

enum { LENGTH_BYTES = sizeof(uint32_t) };
#define OUTBOX_WRAP UINT32_MAX

void outbox_init(struct outbox *box, void *data, size_t cap)
{
    *box = (struct outbox){.data = data, .cap = cap};
}

static void put_length(struct outbox *box, size_t at, uint32_t n)
{
    memcpy(box->data + at, &n, sizeof n);
}

static uint32_t get_length(const struct outbox *box, size_t at)
{
    uint32_t n;

    memcpy(&n, box->data + at, sizeof n);
    return n;
}

/* Encodes a record into [at, end).  Returns its bytes or -errno. */
static ssize_t put_record(struct outbox *box, size_t at, size_t end, const struct message *m,
                          struct codec_error *error)
{
    if (end - at <= LENGTH_BYTES)
        return -ENOBUFS;
    ssize_t n = message_encode(m, box->data + at + LENGTH_BYTES, end - at - LENGTH_BYTES, error);

    if (n < 0)
        return n;
    put_length(box, at, (uint32_t)n);
    return n + LENGTH_BYTES;
}

/* The free space is one piece (tail before head) or two: behind the tail, then before the head.
 * tail never catches up with head from behind, or full would look like empty. */
int outbox_push(struct outbox *box, const struct message *m, struct codec_error *error)
{
    ssize_t n;

    if (box->n_messages == 0)
        box->head = box->tail = 0;
    if (box->tail < box->head) {
        n = put_record(box, box->tail, box->head - 1, m, error);
    } else {
        n = put_record(box, box->tail, box->cap, m, error);
        if (n == -ENOBUFS && box->head > 1) {
            n = put_record(box, 0, box->head - 1, m, error);
            if (n >= 0 && box->cap - box->tail >= LENGTH_BYTES)
                put_length(box, box->tail, OUTBOX_WRAP);
            if (n >= 0)
                box->tail = 0;
        }
    }
    if (n < 0)
        return (int)n;
    box->tail += (size_t)n;
    box->n_messages++;
    return 0;
}

static void skip_wrap(struct outbox *box)
{
    if (box->cap - box->head < LENGTH_BYTES || get_length(box, box->head) == OUTBOX_WRAP)
        box->head = 0;
}

int outbox_flush(struct outbox *box, int sock, uint64_t now_ns)
{
    while (box->n_messages > 0) {
        skip_wrap(box);
        uint32_t n = get_length(box, box->head);
        int err = wire_send(sock, box->data + box->head + LENGTH_BYTES, n);

        if (err == -EAGAIN && box->stuck_since_ns == 0)
            box->stuck_since_ns = now_ns;
        if (err != 0)
            return err;
        box->stuck_since_ns = 0;
        box->head += LENGTH_BYTES + n;
        box->n_messages--;
    }
    return 0;
}

uint64_t outbox_stuck_ns(const struct outbox *box, uint64_t now_ns)
{
    return box->stuck_since_ns != 0 && now_ns > box->stuck_since_ns ? now_ns - box->stuck_since_ns
                                                                    : 0;
}
