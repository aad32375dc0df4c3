#include "router/door.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

static int door_url(const struct router *router, struct door *d)
{
    const struct omni_config *c = &router->config;
    int n = d->tcp ? snprintf(d->url, sizeof d->url, "tcp://%s:%u", c->router_tcp_listen,
                              c->router_tcp_port)
                   : snprintf(d->url, sizeof d->url, "ipc://%s/router.sock", router->dir);

    return n < 0 || (size_t)n >= sizeof d->url ? -ENAMETOOLONG : 0;
}

int door_open(struct router *router, uint32_t index, struct error *err)
{
    struct door *d = &router->doors[index];

    *d = (struct door){.socket = -1, .tcp = index == DOOR_TCP};
    if (d->tcp && router->config.router_tcp_listen[0] == '\0')
        return 0;
    int rc = door_url(router, d);

    if (rc == 0) {
        d->socket = wire_rep_bind(d->url);
        rc = d->socket < 0 ? d->socket : wire_poll_fd(d->socket);
    }
    if (rc >= 0)
        rc = poller_add(&router->poller, rc, (struct poll_key){.kind = POLL_DOOR, .index = index});
    return rc < 0 ? error_set(err, rc, "cannot listen at %s: %s", d->url, strerror(-rc)) : 0;
}

void door_close(struct door *d)
{
    if (d->socket < 0)
        return;
    wire_close(d->socket);
    d->socket = -1;
    if (!d->tcp)
        unlink(d->url + strlen("ipc://"));
}

static void reply(const struct door *d, const struct message *m)
{
    unsigned char bytes[4096];
    struct codec_error error;
    ssize_t n = message_encode(m, bytes, sizeof bytes, &error);

    if (n < 0) {
        log_error("message_not_sent", "message=%s field=%s reason=\"%s\"", message_name(m->type),
                  error.field, error.text);
        return;
    }
    int rc = wire_send(d->socket, bytes, (size_t)n);

    if (rc < 0 && rc != -EAGAIN) /* whoever asked has gone */
        log_debug("reply_not_sent", "error=%d", -rc);
}

static void refuse(struct router *router, const struct door *d, enum error_code code,
                   const char *field, uint32_t retry_after_ms, const char *text)
{
    const struct message m = {.type = MESSAGE_ERROR,
                              .error = {.code = code,
                                        .message = text_clean(text),
                                        .has_field = field != NULL && field[0] != '\0',
                                        .field = text_clean(field),
                                        .retryable = retry_after_ms > 0,
                                        .has_retry_after_ms = retry_after_ms > 0,
                                        .retry_after_ms = retry_after_ms}};

    router->counters.values[COUNTER_SESSIONS_REFUSED]++;
    reply(d, &m);
}

static void welcome(struct router *router, const struct door *d, const struct session *s)
{
    const struct message m = {
        .type = MESSAGE_WELCOME,
        .welcome = {.version = PROTO_VERSION,
                    .epoch = router->epoch,
                    .url = str_of(s->pair.url),
                    .lease_ms = router->config.router_lease_ms,
                    .model = str_of(router->text.model_name),
                    .n_ctx = router->text.n_ctx,
                    .classes = {.data = router->class_strs, .n = router->n_classes}}};

    router->counters.values[COUNTER_SESSIONS_OPENED]++;
    reply(d, &m);
}

static void on_hello(struct router *router, const struct door *d, const struct message_hello *h)
{
    const struct str client = h->has_client ? h->client : str_of("");
    const uint32_t retry_ms = router->config.router_lease_ms;
    struct session *s = NULL;
    char text[160];

    if (h->version != PROTO_VERSION) {
        snprintf(text, sizeof text, "protocol version %u is not known, this router speaks %u",
                 h->version, PROTO_VERSION);
        refuse(router, d, ERROR_UNSUPPORTED_VERSION, "version", 0, text);
        return;
    }
    switch (session_create(&router->sessions, d->tcp, client, clock_now_ns(), &s)) {
    case SESSION_CREATED:
        welcome(router, d, s);
        break;
    case SESSION_TABLE_FULL:
        snprintf(text, sizeof text, "all %u sessions are in use",
                 router->sessions.config.sessions_max);
        refuse(router, d, ERROR_NO_CAPACITY, NULL, retry_ms, text);
        break;
    case SESSION_NOT_BOUND:
        refuse(router, d, ERROR_NO_CAPACITY, NULL, retry_ms, "no socket for another session");
        break;
    }
}

static void on_bytes(struct router *router, const struct door *d, const void *bytes, size_t n)
{
    struct codec_error error;
    struct message m;

    router->counters.values[COUNTER_MESSAGES_IN]++;
    if (message_decode(bytes, n, &m, &router->arena, &error) < 0) {
        router->counters.values[COUNTER_BAD_MESSAGES]++;
        refuse(router, d, ERROR_BAD_REQUEST, error.field, 0, error.text);
    } else if (m.type != MESSAGE_HELLO) {
        router->counters.values[COUNTER_BAD_MESSAGES]++;
        refuse(router, d, ERROR_BAD_REQUEST, "t", 0, "only hello is answered here");
    } else {
        on_hello(router, d, &m.hello);
    }
}

void door_on_readable(struct router *router, struct door *d)
{
    for (int i = 0; i < ROUTER_MESSAGES_A_TURN; i++) {
        void *bytes;
        ssize_t n = wire_recv(d->socket, &bytes);

        if (n < 0)
            return;
        codec_arena_init(&router->arena, router->arena.data, router->arena.cap);
        on_bytes(router, d, bytes, (size_t)n);
        wire_release(bytes);
    }
}
