/* The door to a server that streams completions over HTTP, as llama.cpp's does.  A connection per
 * request, epoll over all; an answer's lines are handed on one by one before another is read. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/load_door.h"
#include "tests/bench/load_http.h"

enum { READ_BYTES = 16384, NUMBER_BYTES = 11, BODY_FIXED_BYTES = 256, HEAD_BYTES = 256 };

struct connection {
    struct connection *next;
    int fd;
    uint32_t number;
    char *out; /* the request */
    size_t out_n, out_sent;
    struct http_answer answer;
    uint32_t n_tokens; /* handed on */
    bool is_stopped;   /* the server said that it was the last */
    bool is_cancelled;
};

struct door_http {
    struct load_door base;
    int epoll;
    struct sockaddr_in address;
    struct connection *connections;
    struct connection *current; /* read, and perhaps not yet handed on */
    uint32_t n_cancelled;
};

/* ---- Connections ----------------------------------------------------------------------------- */

static void remove_connection(struct door_http *d, struct connection *c)
{
    struct connection **at = &d->connections;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    if (d->current == c)
        d->current = NULL;
    d->n_cancelled -= c->is_cancelled;
    close(c->fd);
    http_answer_fini(&c->answer);
    free(c->out);
    free(c);
}

/* The whole request in memory: head and JSON.  NULL: no memory. */
static char *request_text(const struct load_send *ask, size_t *n)
{
    size_t body_max = BODY_FIXED_BYTES + (size_t)ask->n_prompt * NUMBER_BYTES;
    char *body = malloc(body_max), *text = malloc(HEAD_BYTES + body_max);
    int at = 0, head = 0;

    if (body != NULL && text != NULL) {
        at = snprintf(body, body_max,
                      "{\"n_predict\":%u,\"stream\":true,\"ignore_eos\":true,\"temperature\":0,"
                      "\"cache_prompt\":false,\"prompt\":[",
                      ask->n_output);
        for (uint32_t i = 0; i < ask->n_prompt; i++)
            at += snprintf(body + at, body_max - (size_t)at, i == 0 ? "%u" : ",%u", ask->prompt[i]);
        at += snprintf(body + at, body_max - (size_t)at, "]}");
        head = snprintf(text, HEAD_BYTES,
                        "POST /completion HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                        at);
        memcpy(text + head, body, (size_t)at);
    }
    free(body);
    *n = (size_t)(head + at);
    if (at == 0)
        free(text);
    return at == 0 ? NULL : text;
}

static int connect_to(const struct door_http *d, struct connection *c)
{
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -errno;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (const struct sockaddr *)&d->address, sizeof d->address) != 0 &&
        errno != EINPROGRESS)
        return -errno;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    return epoll_ctl(d->epoll, EPOLL_CTL_ADD, c->fd, &e) == 0 ? 0 : -errno;
}

static int http_send(struct load_door *door, const struct load_send *ask, struct error *error)
{
    struct door_http *d = (struct door_http *)door;
    struct connection *c = calloc(1, sizeof *c);
    int rc = c == NULL ? -ENOMEM : 0;

    if (rc == 0 && (c->out = request_text(ask, &c->out_n)) == NULL)
        rc = -ENOMEM;
    if (rc == 0) {
        c->number = ask->number;
        rc = connect_to(d, c);
    }
    if (rc == 0) {
        c->next = d->connections;
        d->connections = c;
        return 0;
    }
    if (c != NULL) {
        if (c->fd > 0)
            close(c->fd);
        free(c->out);
        free(c);
    }
    return error_set(error, rc, "http: %s", strerror(-rc));
}

static void http_cancel(struct load_door *door, uint32_t number)
{
    struct door_http *d = (struct door_http *)door;

    for (struct connection *c = d->connections; c != NULL; c = c->next) {
        if (c->number != number || c->is_cancelled)
            continue;
        shutdown(c->fd, SHUT_RDWR);
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, c->fd, NULL);
        c->is_cancelled = true;
        d->n_cancelled++;
    }
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void end_connection(struct door_http *d, struct connection *c, enum load_event_kind kind,
                           const char *text, struct load_event *event)
{
    *event = (struct load_event){.kind = kind, .number = c->number};
    snprintf(event->text, sizeof event->text, "%.150s", text);
    remove_connection(d, c);
}

/* A line of a stream.  True: it made an event. */
static bool on_line(struct connection *c, const char *line, struct load_event *event)
{
    json_t *object = strncmp(line, "data: ", 6) == 0 ? json_loads(line + 6, 0, NULL) : NULL;
    json_t *count = json_object_get(object, "tokens_predicted");
    json_int_t n = json_integer_value(count);
    bool is_more = n > c->n_tokens;

    c->is_stopped |= json_is_true(json_object_get(object, "stop"));
    json_decref(object);
    if (!is_more)
        return false;
    *event = (struct load_event){
        .kind = LOAD_TOKENS, .number = c->number, .n_tokens = (uint32_t)n - c->n_tokens};
    c->n_tokens = (uint32_t)n;
    return true;
}

/* What has come of a request and was not handed on.  False: nothing. */
static bool take_from(struct door_http *d, struct connection *c, struct load_event *event)
{
    const char *line;

    while (c->answer.status == 200 && !c->is_stopped &&
           (line = http_answer_line(&c->answer)) != NULL) {
        if (on_line(c, line, event))
            return true;
    }
    if (!c->is_stopped)
        return false;
    end_connection(d, c, LOAD_DONE, "", event);
    return true;
}

/* The connection ended before the stream did. */
static void on_end(struct door_http *d, struct connection *c, const char *why,
                   struct load_event *event)
{
    int status = c->answer.status;
    char text[200];

    snprintf(text, sizeof text, "http %d: %s: %.100s", status, why,
             c->answer.body_n > 0 ? c->answer.body : "");
    end_connection(d, c, status == 503 || status == 429 ? LOAD_REFUSED : LOAD_FAILED, text, event);
}

static void write_some(struct door_http *d, struct connection *c)
{
    ssize_t n = send(c->fd, c->out + c->out_sent, c->out_n - c->out_sent, MSG_NOSIGNAL);

    c->out_sent += n > 0 ? (size_t)n : 0;
    if (c->out_sent < c->out_n)
        return;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(d->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* True: an event. */
static bool read_some(struct door_http *d, struct connection *c, struct load_event *event)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    int rc = n > 0 ? http_answer_feed(&c->answer, bytes, (size_t)n) : 0;
    if (n <= 0 || rc != 0) {
        on_end(d, c, n < 0 ? strerror(errno) : rc != 0 ? strerror(-rc) : "closed", event);
        return true;
    }
    d->current = c;
    if (take_from(d, c, event))
        return true;
    if (c->answer.state != HTTP_END)
        return false;
    on_end(d, c, "ended early", event);
    return true;
}

static bool next_cancelled(struct door_http *d, struct load_event *event)
{
    struct connection *c = d->connections;

    while (c != NULL && !c->is_cancelled)
        c = c->next;
    if (c == NULL)
        return false;
    end_connection(d, c, LOAD_CANCELLED, "", event);
    return true;
}

static bool http_next(struct load_door *door, uint32_t wait_ms, struct load_event *event)
{
    struct door_http *d = (struct door_http *)door;
    struct epoll_event e;

    if (d->n_cancelled > 0 && next_cancelled(d, event))
        return true;
    if (d->current != NULL && take_from(d, d->current, event))
        return true;
    d->current = NULL;
    if (epoll_wait(d->epoll, &e, 1, (int)wait_ms) != 1)
        return false;
    struct connection *c = e.data.ptr;
    if (c->out_sent < c->out_n && (e.events & EPOLLOUT) != 0)
        write_some(d, c);
    return (e.events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0 && read_some(d, c, event);
}

static void http_close(struct load_door *door)
{
    struct door_http *d = (struct door_http *)door;

    while (d->connections != NULL)
        remove_connection(d, d->connections);
    close(d->epoll);
    free(d);
}

static const struct load_door_ops HTTP_OPS = {
    .send = http_send, .cancel = http_cancel, .next = http_next, .close = http_close};

int door_http_open(struct load_door **out, uint16_t port, struct error *error)
{
    struct door_http *d = calloc(1, sizeof *d);
    int epoll = d == NULL ? -1 : epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0) {
        free(d);
        return error_set(error, -ENOMEM, "http: no memory or no descriptor");
    }
    d->base.ops = &HTTP_OPS;
    d->epoll = epoll;
    d->address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *out = &d->base;
    return 0;
}
