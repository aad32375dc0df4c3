#include "proto/client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "proto/client_private.h"

enum {
    OPEN_TIMEOUT_MS = 2000,
    EVENTS_BYTES_MAX = 64 << 20,
    /* One message of the largest size and some small ones; pages that are not used cost nothing. */
    OUTBOX_BYTES = MESSAGE_BYTES_MAX + (1 << 20),
    DIAL_LOOK_MS = 2,
};

/* ---- Life ------------------------------------------------------------------------------------ */

static int init_sync(struct client *c)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->arrived, &attr);
    pthread_condattr_destroy(&attr);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return c->wake_fd >= 0 ? 0 : -errno;
}

static int client_create(struct client **out, const struct client_options *options)
{
    struct client *c = calloc(1, sizeof *c);

    if (c == NULL)
        return -ENOMEM;
    c->session = -1;
    snprintf(c->url, sizeof c->url, "%s", options->url);
    snprintf(c->name, sizeof c->name, "%s", options->name != NULL ? options->name : "client");
    c->open_timeout_ms = options->open_timeout_ms != 0 ? options->open_timeout_ms : OPEN_TIMEOUT_MS;
    c->events_bytes_max =
        options->events_bytes_max != 0 ? options->events_bytes_max : EVENTS_BYTES_MAX;
    int err = init_sync(c);

    c->outbox_memory = malloc(OUTBOX_BYTES);
    if (err == 0 && c->outbox_memory == NULL)
        err = -ENOMEM;
    if (err != 0) {
        client_close(c);
        return err;
    }
    outbox_init(&c->outbox, c->outbox_memory, OUTBOX_BYTES);
    *out = c;
    return 0;
}

static void drop_events(struct client *c)
{
    while (c->first != NULL) {
        struct client_node *node = c->first;

        c->first = node->next;
        client_node_free(node);
    }
    client_node_free(c->reading);
    c->reading = NULL;
    c->last = NULL;
    c->events_bytes = 0;
}

static void wake(struct client *c)
{
    const uint64_t one = 1;
    ssize_t ignored = write(c->wake_fd, &one, sizeof one);

    (void)ignored; /* it only fails when the counter is high already: the thread wakes anyway */
}

/* Stops the thread and closes the socket; what was queued on either side is dropped. */
static void end_session(struct client *c)
{
    if (c->thread_runs) {
        pthread_mutex_lock(&c->lock);
        c->closing = true;
        pthread_mutex_unlock(&c->lock);
        wake(c);
        pthread_join(c->thread, NULL);
        c->thread_runs = false;
    }
    wire_close(c->session);
    c->session = -1;
    pthread_mutex_lock(&c->lock);
    drop_events(c);
    outbox_init(&c->outbox, c->outbox_memory, OUTBOX_BYTES);
    c->closing = c->lost_told = false;
    c->lost = true;
    pthread_mutex_unlock(&c->lock);
}

/* Signals are for the application's threads. */
static int start_thread(struct client *c)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int err = pthread_create(&c->thread, NULL, client_thread_main, c);

    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->thread_runs = err == 0;
    return -err;
}

static int wait_connected(int sock, uint64_t deadline_ns)
{
    while (wire_connections(sock) == 0) {
        if (clock_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
        clock_sleep_ns(DIAL_LOOK_MS * NS_PER_MS);
    }
    return 0;
}

static int begin_session(struct client *c, struct error *error)
{
    uint64_t deadline_ns = clock_now_ns() + c->open_timeout_ms * NS_PER_MS;
    char url[WIRE_URL_BYTES];
    int err = client_handshake(c->url, c->name, c->open_timeout_ms, &c->info, url, error);

    if (err != 0)
        return err;
    c->session = wire_pair_dial(url);
    err = c->session < 0 ? c->session : wait_connected(c->session, deadline_ns);
    if (err != 0)
        return error_set(error, err, "cannot reach the session at %s: %s", url, strerror(-err));
    pthread_mutex_lock(&c->lock);
    c->lost = false;
    pthread_mutex_unlock(&c->lock);
    err = start_thread(c);
    return err == 0 ? 0 : error_set(error, err, "cannot start a thread: %s", strerror(-err));
}

int client_open(struct client **out, const struct client_options *options, struct error *error)
{
    struct client *c;
    int err = wire_url_check(options->url);

    *out = NULL;
    if (err != 0)
        return error_set(error, err, "not an address: %s", options->url);
    err = client_create(&c, options);
    if (err != 0)
        return error_set(error, err, "cannot make a client: %s", strerror(-err));
    err = begin_session(c, error);
    if (err != 0) {
        client_close(c);
        return err;
    }
    *out = c;
    return 0;
}

int client_reopen(struct client *c, struct error *error)
{
    end_session(c);
    int err = begin_session(c, error);

    if (err != 0)
        end_session(c);
    return err;
}

void client_close(struct client *c)
{
    if (c == NULL)
        return;
    end_session(c);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_cond_destroy(&c->arrived);
    pthread_mutex_destroy(&c->lock);
    free(c->outbox_memory);
    free(c);
}

const struct client_info *client_info(const struct client *c)
{
    return &c->info;
}

/* ---- Requests -------------------------------------------------------------------------------- */

void client_id_new(struct request_id *id)
{
    /* 16 bytes come whole once the kernel's generator is seeded, and are waited for until then. */
    ssize_t n = getrandom(id->bytes, sizeof id->bytes, 0);

    invariant(n == (ssize_t)sizeof id->bytes);
}

static int send_message(struct client *c, const struct message *m, struct error *error)
{
    struct codec_error fault;
    int err = -ENOTCONN;

    pthread_mutex_lock(&c->lock);
    if (!c->lost)
        err = outbox_push(&c->outbox, m, &fault);
    pthread_mutex_unlock(&c->lock);
    if (err == 0)
        wake(c);
    if (err == -ENOTCONN)
        return error_set(error, err, "the session is lost");
    if (err == -ENOBUFS)
        return error_set(error, -EAGAIN, "too much is waiting to be sent");
    return err == 0 ? 0 : error_set(error, err, "%s", fault.text);
}

int client_generate(struct client *c, const struct message_generate *request, struct error *error)
{
    struct message m = {.type = MESSAGE_GENERATE, .generate = *request};

    return send_message(c, &m, error);
}

int client_resume(struct client *c, const struct request_id *id, const char *class_name,
                  uint32_t from_token)
{
    struct message m = {
        .type = MESSAGE_GENERATE,
        .generate = {.id = *id,
                     .class = str_of(class_name),
                     .resume_from = from_token,
                     .has_resume_from = true},
    };

    return send_message(c, &m, NULL);
}

int client_cancel(struct client *c, const struct request_id *id)
{
    struct message m = {.type = MESSAGE_CANCEL, .cancel = {.id = *id}};

    return send_message(c, &m, NULL);
}

int client_status(struct client *c, uint32_t seq)
{
    struct message m = {.type = MESSAGE_STATUS, .status = {.seq = seq}};

    return send_message(c, &m, NULL);
}

/* ---- Events ---------------------------------------------------------------------------------- */

/* Under the lock.  Waits until there is an event or the session is lost. */
static void wait_event(struct client *c, uint32_t timeout_ms)
{
    struct timespec deadline = clock_timespec(clock_now_ns() + timeout_ms * NS_PER_MS);

    while (c->first == NULL && !c->lost) {
        if (timeout_ms == 0 || pthread_cond_timedwait(&c->arrived, &c->lock, &deadline) != 0)
            return;
    }
}

/* Under the lock. */
static struct client_node *take_event(struct client *c)
{
    struct client_node *node = c->first;

    if (node == NULL)
        return NULL;
    c->first = node->next;
    if (c->first == NULL)
        c->last = NULL;
    c->events_bytes -= node->cost;
    return node;
}

/* Under the lock; no event is left. */
static int take_lost(struct client *c, struct client_event *event)
{
    if (!c->lost)
        return -ETIMEDOUT;
    if (c->lost_told)
        return -ENOTCONN;
    c->lost_told = true;
    *event = (struct client_event){.kind = CLIENT_LOST, .code = c->lost_code, .text = c->lost_text};
    return 0;
}

int client_next_event(struct client *c, uint32_t timeout_ms, struct client_event *event)
{
    int err = 0;

    client_node_free(c->reading);
    c->reading = NULL;
    pthread_mutex_lock(&c->lock);
    wait_event(c, timeout_ms);
    c->reading = take_event(c);
    if (c->reading != NULL)
        *event = (struct client_event){.kind = CLIENT_MESSAGE, .message = &c->reading->message};
    else
        err = take_lost(c, event);
    pthread_mutex_unlock(&c->lock);
    return err;
}
