/* Opening a session: one question over REQ, one answer. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/client_private.h"

enum { ANSWER_ARENA_BYTES = 1 << 16, HELLO_BYTES = 512 };

static int send_hello(int sock, const char *name, struct error *error)
{
    struct message m = {
        .type = MESSAGE_HELLO,
        .hello = {.version = PROTO_VERSION, .client = str_of(name), .has_client = true},
    };
    struct codec_error fault;
    unsigned char buf[HELLO_BYTES];
    ssize_t n = message_encode(&m, buf, sizeof buf, &fault);

    if (n < 0)
        return error_set(error, (int)n, "client name: %s", fault.text);
    return wire_send(sock, buf, (size_t)n);
}

/* Waits for a message until deadline_ns; its size, -ETIMEDOUT or the socket's error. */
static ssize_t recv_until(int sock, uint64_t deadline_ns, void **bytes)
{
    struct pollfd pfd = {.fd = wire_poll_fd(sock), .events = POLLIN};

    for (;;) {
        ssize_t n = wire_recv(sock, bytes);
        uint64_t now_ns = clock_now_ns();

        if (n != -EAGAIN)
            return n;
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        poll(&pfd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
    }
}

static void copy_str(char *out, size_t cap, struct str text)
{
    snprintf(out, cap, "%.*s", (int)text.n, text.n != 0 ? text.data : "");
}

static int take_welcome(const struct message_welcome *w, struct client_info *info,
                        char session_url[WIRE_URL_BYTES], struct error *error)
{
    if (w->version != PROTO_VERSION)
        return error_set(error, -EPROTO, "the router speaks protocol version %u, this client %d",
                         w->version, PROTO_VERSION);
    if (w->url.n >= WIRE_URL_BYTES)
        return error_set(error, -EPROTO,
                         "the router names a session address of %u bytes, at most "
                         "%d are possible",
                         w->url.n, WIRE_URL_BYTES - 1);
    *info = (struct client_info){
        .epoch = w->epoch, .lease_ms = w->lease_ms, .n_ctx = w->n_ctx, .n_classes = w->classes.n};
    copy_str(session_url, WIRE_URL_BYTES, w->url);
    copy_str(info->model, sizeof info->model, w->model);
    for (uint32_t i = 0; i < w->classes.n; i++)
        copy_str(info->classes[i], sizeof info->classes[i], w->classes.data[i]);
    return 0;
}

static int read_answer(const void *bytes, size_t n, struct client_info *info,
                       char session_url[WIRE_URL_BYTES], struct error *error)
{
    _Alignas(16) unsigned char memory[ANSWER_ARENA_BYTES];
    struct codec_arena arena;
    struct codec_error fault;
    struct message m;

    codec_arena_init(&arena, memory, sizeof memory);
    if (message_decode(bytes, n, &m, &arena, &fault) != 0)
        return error_set(error, -EPROTO, "the router's answer is malformed: %s", fault.text);
    if (m.type == MESSAGE_WELCOME)
        return take_welcome(&m.welcome, info, session_url, error);
    if (m.type != MESSAGE_ERROR)
        return error_set(error, -EPROTO, "the router answers hello with %s", message_name(m.type));
    return error_set(error, -ECONNREFUSED, "the router refuses: %s: %.*s",
                     error_code_name(m.error.code), (int)m.error.message.n, m.error.message.data);
}

int client_handshake(const char *url, const char *name, uint32_t timeout_ms,
                     struct client_info *info, char session_url[WIRE_URL_BYTES],
                     struct error *error)
{
    uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    int sock = wire_req_dial(url);
    void *bytes = NULL;

    if (sock < 0)
        return error_set(error, sock, "cannot dial %s: %s", url, strerror(-sock));
    int err = send_hello(sock, name, error);
    ssize_t n = err == 0 ? recv_until(sock, deadline_ns, &bytes) : err;

    if (n == -ETIMEDOUT)
        error_set(error, -ETIMEDOUT, "no router answers at %s (waited %u ms); is the group up?",
                  url, timeout_ms);
    else if (n < 0 && err == 0)
        error_set(error, (int)n, "no answer from %s: %s", url, strerror((int)-n));
    err = n < 0 ? (int)n : read_answer(bytes, (size_t)n, info, session_url, error);
    if (n >= 0)
        wire_release(bytes);
    wire_close(sock);
    return err;
}
