#include "router/pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nanomsg/nn.h>

#include "common/base/log.h"

static int watch(struct pair *p, bool wanted)
{
    if (wanted == p->watched)
        return 0;
    if (wanted) {
        int rc = poller_add(p->poller, p->receive_fd, p->key);

        if (rc < 0)
            return rc;
    } else {
        poller_remove(p->poller, p->receive_fd);
    }
    p->watched = wanted;
    return 0;
}

static int open_socket(struct pair *p)
{
    p->socket = wire_pair_bind(p->url);
    if (p->socket < 0)
        return p->socket;
    p->receive_fd = wire_poll_fd(p->socket);
    if (p->receive_fd < 0)
        return p->receive_fd;
    return watch(p, true);
}

int pair_open(struct pair *p, struct poller *poller, struct poll_key key, const char *url,
              size_t outbox_bytes, uint64_t now_ns)
{
    *p = (struct pair){.socket = -1, .poller = poller, .key = key, .heard_ns = now_ns};
    const size_t n = strlen(url);

    if (n >= sizeof p->url)
        return -ENAMETOOLONG;
    memcpy(p->url, url, n + 1);
    p->outbox_data = malloc(outbox_bytes);
    if (!p->outbox_data)
        return -ENOMEM;
    outbox_init(&p->outbox, p->outbox_data, outbox_bytes);
    int rc = open_socket(p);

    if (rc < 0)
        pair_close(p);
    return rc;
}

void pair_close(struct pair *p)
{
    const char *const scheme = "ipc://";

    if (p->socket >= 0) {
        watch(p, false);
        wire_close(p->socket);
        if (strncmp(p->url, scheme, strlen(scheme)) == 0)
            unlink(p->url + strlen(scheme));
    }
    p->socket = -1;
    free(p->outbox_data);
    p->outbox_data = NULL;
    outbox_init(&p->outbox, NULL, 0);
}

bool pair_connected(const struct pair *p)
{
    return p->socket >= 0 && wire_connections(p->socket) > 0;
}

bool pair_was_connected(const struct pair *p)
{
    return p->socket >= 0 && nn_get_statistic(p->socket, NN_STAT_ACCEPTED_CONNECTIONS) > 0;
}

bool pair_has_room(const struct pair *p)
{
    const struct outbox *box = &p->outbox;

    if (box->n_messages == 0)
        return true;
    const size_t used =
        box->tail >= box->head ? box->tail - box->head : box->cap - box->head + box->tail;

    return used <= box->cap / 2;
}

int pair_send(struct pair *p, const struct message *m, uint64_t now_ns)
{
    struct codec_error error;
    int rc = outbox_push(&p->outbox, m, &error);

    if (rc == -EINVAL)
        log_error("message_not_sent", "message=%s field=%s reason=\"%s\"", message_name(m->type),
                  error.field, error.text);
    if (rc == 0)
        pair_flush(p, now_ns); /* a broken socket is found by the next tick */
    return rc;
}

int pair_flush(struct pair *p, uint64_t now_ns)
{
    int rc = outbox_flush(&p->outbox, p->socket, now_ns);

    if (rc < 0 && rc != -EAGAIN && rc != -EINTR)
        return rc;
    const bool room = pair_has_room(p);

    if (room)
        p->full_since_ns = 0;
    else if (p->full_since_ns == 0)
        p->full_since_ns = now_ns;
    return watch(p, room);
}

uint64_t pair_stuck_ns(const struct pair *p, uint64_t now_ns)
{
    const uint64_t stuck = outbox_stuck_ns(&p->outbox, now_ns);
    const uint64_t full =
        p->full_since_ns != 0 && now_ns > p->full_since_ns ? now_ns - p->full_since_ns : 0;

    return stuck > full ? stuck : full;
}

ssize_t pair_receive(struct pair *p, void **data, uint64_t now_ns)
{
    if (!pair_has_room(p))
        return 0;
    ssize_t n = wire_recv(p->socket, data);

    if (n == -EAGAIN || n == -EINTR)
        return 0;
    if (n >= 0)
        p->heard_ns = now_ns;
    return n;
}
