/* cuda_weights_read.c - see cuda_weights_read.h. */
#include "gpu-engine/device/cuda/cuda_weights_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/invariant.h"

#ifdef OMNI_URING
#include <liburing.h>
#endif

/* A read under way; reads may end in any order, and in pieces. */
struct slot {
    struct weights_read read;
    size_t done;
    int error;
    bool ended;
};

struct weights_reader {
    uint32_t depth, n_asked, n_waited; /* read i is slots[i % depth] */
    bool has_ring;
#ifdef OMNI_URING
    struct io_uring ring;
#endif
    struct slot slots[];
};

int weights_reader_create(struct weights_reader **out, uint32_t depth, bool no_uring)
{
    struct weights_reader *r = calloc(1, sizeof *r + depth * sizeof r->slots[0]);

    if (r == NULL)
        return -ENOMEM;
    r->depth = depth;
#ifdef OMNI_URING
    r->has_ring = !no_uring && io_uring_queue_init(depth, &r->ring, 0) == 0;
#else
    (void)no_uring;
#endif
    *out = r;
    return 0;
}

void weights_reader_destroy(struct weights_reader *r)
{
    if (r == NULL)
        return;
    while (r->n_waited < r->n_asked)
        (void)weights_reader_wait(r);
#ifdef OMNI_URING
    if (r->has_ring)
        io_uring_queue_exit(&r->ring);
#endif
    free(r);
}

const char *weights_reader_name(const struct weights_reader *r)
{
    return r->has_ring ? "io_uring" : "pread";
}

/* ---- One after another -------------------------------------------------------------------------- */

static int read_all(const struct weights_read *read)
{
    size_t done = 0;

    while (done < read->bytes) {
        ssize_t n = pread(read->fd, (char *)read->to + done, read->bytes - done,
                          (off_t)(read->file_off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static void read_now(struct slot *s)
{
    s->ended = true;
    if (s->read.fd >= 0)
        s->error = read_all(&s->read);
    else
        memcpy(s->read.to, s->read.data, s->read.bytes);
}

/* ---- io_uring ----------------------------------------------------------------------------------- */

#ifdef OMNI_URING

/* Queues what is left of a read. */
static int slot_submit(struct weights_reader *r, struct slot *s)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
    size_t left = s->read.bytes - s->done;

    invariant(sqe != NULL); /* as many entries as slots, each with one read */
    io_uring_prep_read(sqe, s->read.fd, (char *)s->read.to + s->done,
                       left < (1u << 30) ? (unsigned)left : 1u << 30, s->read.file_off + s->done);
    io_uring_sqe_set_data(sqe, s);
    int rc = io_uring_submit(&r->ring);
    return rc < 0 ? rc : 0;
}

static void slot_end(struct slot *s, int error)
{
    s->error = error;
    s->ended = true;
}

/* A completion: an error, the end, or a piece after which the rest is asked for. */
static void slot_complete(struct weights_reader *r, struct slot *s, int result)
{
    if (result == -EINTR || result == -EAGAIN)
        result = 0;
    else if (result <= 0) {
        slot_end(s, result < 0 ? result : -EIO);
        return;
    }
    s->done += (size_t)result;
    if (s->done == s->read.bytes) {
        slot_end(s, 0);
        return;
    }
    int rc = slot_submit(r, s);
    if (rc != 0)
        slot_end(s, rc);
}

static int ring_wait(struct weights_reader *r, const struct slot *s)
{
    while (!s->ended) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_wait_cqe(&r->ring, &cqe);

        if (rc == -EINTR)
            continue;
        if (rc < 0)
            return rc;
        struct slot *completed = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&r->ring, cqe);
        slot_complete(r, completed, result);
    }
    return 0;
}

#else

static int slot_submit(struct weights_reader *r, struct slot *s)
{
    (void)r;
    read_now(s);
    return 0;
}

static int ring_wait(struct weights_reader *r, const struct slot *s)
{
    (void)r;
    (void)s;
    return 0;
}

#endif

/* ---- Both ----------------------------------------------------------------------------------------- */

int weights_reader_ask(struct weights_reader *r, const struct weights_read *read)
{
    struct slot *s = &r->slots[r->n_asked % r->depth];
    int rc = 0;

    invariant(r->n_asked - r->n_waited < r->depth && read->bytes > 0);
    *s = (struct slot){.read = *read};
    if (r->has_ring && read->fd >= 0)
        rc = slot_submit(r, s);
    else
        read_now(s);
    r->n_asked += rc == 0;
    return rc;
}

int weights_reader_wait(struct weights_reader *r)
{
    struct slot *s = &r->slots[r->n_waited % r->depth];

    invariant(r->n_waited < r->n_asked);
    int rc = ring_wait(r, s);
    r->n_waited++;
    return rc != 0 ? rc : s->error;
}
