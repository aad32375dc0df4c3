#include "gpu-engine/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proto/codec.h"
#include "proto/outbox.h"
#include "proto/wire.h"

enum {
    CONTROL_OUTBOX_BYTES = 8 << 20,                      /* the tokens of thousands of sweeps */
    CONTROL_ARENA_BYTES = MESSAGE_BYTES_MAX + (1 << 20), /* prompts are the largest arrays */
    CONTROL_TICK_MS = 100,
    CONTROL_STALL_MS = 500, /* a turn that begins so late: this thread itself was stopped */
};

struct control {
    struct control_config config;
    int sock;
    int wake_fd;
    pthread_t thread;
    bool thread_up;
    /* Words of their own, they publish nothing else: stopping is set by who closes, connected by the
     * control thread. */
    _Atomic bool stopping, connected;

    pthread_mutex_t lock; /* guards the outbox */
    struct outbox outbox;
    void *outbox_memory;
    bool overflowed;

    /* control thread */
    void *arena_memory;
    uint64_t router_epoch; /* 0 = none met */
    uint64_t heard_ns, pinged_ns, turned_ns;
};

/* ---- Sending --------------------------------------------------------------------------------- */

static void wake(struct control *c)
{
    uint64_t one = 1;
    ssize_t ignored = write(c->wake_fd, &one, sizeof one);

    (void)ignored; /* a full counter wakes just as well */
}

void control_send(struct control *c, const struct message *m)
{
    struct codec_error error;

    pthread_mutex_lock(&c->lock);
    int rc = outbox_push(&c->outbox, m, &error);
    if (rc == -ENOBUFS)
        c->overflowed = true;
    pthread_mutex_unlock(&c->lock);
    if (rc != 0)
        log_error("control_send", "message=%s error=%d detail=\"%s\"", message_name(m->type), rc,
                  rc == -ENOBUFS ? "outbox full" : error.text);
    wake(c);
}

static void flush(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    outbox_flush(&c->outbox, c->sock, clock_now_ns());
    pthread_mutex_unlock(&c->lock);
}

static bool outbox_is_empty(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    bool empty = c->outbox.n_messages == 0;
    pthread_mutex_unlock(&c->lock);
    return empty;
}

static bool outbox_overflowed(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    bool overflowed = c->overflowed;
    pthread_mutex_unlock(&c->lock);
    return overflowed;
}

/* What an old router was to be told means nothing to a new one. */
static void forget_outbox(struct control *c)
{
    pthread_mutex_lock(&c->lock);
    outbox_init(&c->outbox, c->outbox_memory, CONTROL_OUTBOX_BYTES);
    c->overflowed = false;
    pthread_mutex_unlock(&c->lock);
}

static void send_hello(struct control *c)
{
    struct message m = {.type = MESSAGE_ENGINE_HELLO};

    c->config.handlers.introduce(c->config.handlers.arg, &m.engine_hello);
    control_send(c, &m);
}

static void send_ping_or_pong(struct control *c, enum message_type type)
{
    struct message m = {.type = type};

    if (type == MESSAGE_PING)
        m.ping.epoch = c->config.epoch;
    else
        m.pong.epoch = c->config.epoch;
    control_send(c, &m);
}

/* ---- The router's life ----------------------------------------------------------------------- */

static void lose_router(struct control *c, const char *why)
{
    if (c->router_epoch == 0)
        return;
    log_warn("router_lost", "epoch=%llu reason=\"%s\"", (unsigned long long)c->router_epoch, why);
    c->router_epoch = 0;
    atomic_store(&c->connected, false);
    forget_outbox(c);
    c->config.handlers.router_lost(c->config.handlers.arg);
}

static void meet_router(struct control *c, uint64_t epoch, bool asked)
{
    bool is_new = epoch != c->router_epoch;

    if (is_new) {
        lose_router(c, "it was restarted");
        forget_outbox(c); /* also what was said while no router was there */
        c->router_epoch = epoch;
        atomic_store(&c->connected, true);
        log_info("router_met", "epoch=%llu", (unsigned long long)epoch);
    }
    if (is_new || asked)
        send_hello(c);
}

static void on_message(struct control *c, const struct message *m)
{
    const struct control_handlers *h = &c->config.handlers;

    switch (m->type) {
    case MESSAGE_PING:
        meet_router(c, m->ping.epoch, false);
        send_ping_or_pong(c, MESSAGE_PONG);
        break;
    case MESSAGE_PONG:
        meet_router(c, m->pong.epoch, false);
        break;
    case MESSAGE_ROUTER_HELLO:
        meet_router(c, m->router_hello.epoch, true);
        break;
    case MESSAGE_SUBMIT:
        h->submit(h->arg, &m->submit);
        break;
    case MESSAGE_CANCEL:
        h->cancel(h->arg, &m->cancel.id);
        break;
    case MESSAGE_STOP:
        h->stop(h->arg, &m->stop.id);
        break;
    default:
        log_warn("control_message", "message=%s detail=\"not for an engine\"",
                 message_name(m->type));
        break;
    }
}

static void refuse(struct control *c, const struct codec_error *error)
{
    struct message m = {.type = MESSAGE_ENGINE_ERROR};

    m.engine_error = (struct message_engine_error){.has_id = error->has_id,
                                                   .id = error->id,
                                                   .code = ERROR_BAD_REQUEST,
                                                   .message = str_of(error->text)};
    control_send(c, &m);
}

static void receive_all(struct control *c)
{
    struct codec_arena arena;
    struct codec_error error;
    struct message m;
    void *bytes;
    ssize_t n;

    while ((n = wire_recv(c->sock, &bytes)) >= 0) {
        c->heard_ns = clock_now_ns();
        codec_arena_init(&arena, c->arena_memory, CONTROL_ARENA_BYTES);
        if (message_decode(bytes, (size_t)n, &m, &arena, &error) == 0)
            on_message(c, &m);
        else
            refuse(c, &error);
        wire_release(bytes);
    }
}

static void tick(struct control *c)
{
    uint64_t now = clock_now_ns();

    /* Whoever did not run has heard nothing of anybody: a router that was stopped along with us
     * gets a fresh lease. */
    if (now - c->turned_ns > CONTROL_STALL_MS * NS_PER_MS)
        c->heard_ns = now;
    c->turned_ns = now;
    if (now - c->pinged_ns >= WIRE_PING_MS * NS_PER_MS && outbox_is_empty(c)) {
        send_ping_or_pong(c, MESSAGE_PING);
        c->pinged_ns = now;
    }
    if (now - c->heard_ns > WIRE_LOST_MS * NS_PER_MS)
        lose_router(c, "silent");
    if (outbox_overflowed(c))
        lose_router(c, "it does not read");
}

static void *control_main(void *arg)
{
    struct control *c = arg;
    struct pollfd fds[2] = {{.fd = wire_poll_fd(c->sock), .events = POLLIN},
                            {.fd = c->wake_fd, .events = POLLIN}};
    uint64_t count;

    while (!atomic_load(&c->stopping)) {
        poll(fds, 2, outbox_is_empty(c) ? CONTROL_TICK_MS : 1);
        if ((fds[1].revents & POLLIN) != 0 && read(c->wake_fd, &count, sizeof count) < 0)
            log_debug("control_wake", "errno=%d", errno);
        receive_all(c);
        tick(c);
        flush(c);
    }
    flush(c);
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static int open_socket(struct control *c, struct error *err)
{
    c->sock = wire_pair_dial(c->config.url);
    if (c->sock < 0)
        return error_set(err, c->sock, "cannot dial the router at %s", c->config.url);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0)
        return error_set(err, -errno, "no eventfd");
    return 0;
}

int control_create(struct control **out, const struct control_config *config, struct error *err)
{
    struct control *c = calloc(1, sizeof *c);

    if (c == NULL)
        return error_set(err, -ENOMEM, "no memory for the control thread");
    c->config = *config;
    c->sock = c->wake_fd = -1;
    c->heard_ns = c->turned_ns = clock_now_ns();
    pthread_mutex_init(&c->lock, NULL);
    c->outbox_memory = malloc(CONTROL_OUTBOX_BYTES);
    c->arena_memory = malloc(CONTROL_ARENA_BYTES);
    int rc = c->outbox_memory == NULL || c->arena_memory == NULL
                 ? error_set(err, -ENOMEM, "no memory for the control thread")
                 : open_socket(c, err);
    if (rc == 0) {
        outbox_init(&c->outbox, c->outbox_memory, CONTROL_OUTBOX_BYTES);
        *out = c; /* the thread's handlers may send */
        rc = -pthread_create(&c->thread, NULL, control_main, c);
        c->thread_up = rc == 0;
    }
    if (rc != 0) {
        *out = NULL;
        control_destroy(c);
    }
    return rc;
}

void control_destroy(struct control *c)
{
    if (c == NULL)
        return;
    atomic_store(&c->stopping, true);
    if (c->thread_up) {
        wake(c);
        pthread_join(c->thread, NULL);
    }
    if (c->sock >= 0)
        wire_close(c->sock);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_mutex_destroy(&c->lock);
    free(c->outbox_memory);
    free(c->arena_memory);
    free(c);
}

bool control_connected(const struct control *c)
{
    return atomic_load(&c->connected);
}
