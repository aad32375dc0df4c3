/* The client's thread: keeps the session alive, and tells when it is not.
 *
 * Each turn: wait for the socket, the application or the tick; take in what came; ping when due;
 * flush; look whether the router is still there.  It ends when the client closes or when the
 * session is lost, and says which. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "proto/client_private.h"

enum {
    BATCH_MAX = 64, /* messages taken in before pings and the application get their turn */
    STALL_MS = 500, /* a turn that begins so late: this process itself was stopped */
};

struct turn {
    struct client *c;
    uint64_t now_ns;
    uint64_t heard_ns; /* when the router last said anything */
    uint64_t pinged_ns;
    bool has_last_word; /* the router told why it is about to close */
    enum error_code last_word;
    char last_text[160];
};

void client_node_free(struct client_node *node)
{
    if (node == NULL)
        return;
    wire_release(node->bytes);
    free(node);
}

/* Ends the session, once. */
static void lose(struct turn *t, enum error_code code, const char *text)
{
    struct client *c = t->c;

    pthread_mutex_lock(&c->lock);
    if (!c->lost) {
        c->lost = true;
        c->lost_code = code;
        snprintf(c->lost_text, sizeof c->lost_text, "%s", text);
    }
    pthread_cond_broadcast(&c->arrived);
    pthread_mutex_unlock(&c->lock);
}

/* The connection went without a word: does the router still answer, and is it the same one? */
static void lose_connection(struct turn *t)
{
    struct client *c = t->c;
    struct client_info info;
    char ignored[WIRE_URL_BYTES];

    if (t->has_last_word)
        lose(t, t->last_word, t->last_text);
    else if (!wire_is_listening(c->url) ||
             client_handshake(c->url, c->name, CLIENT_PROBE_MS, &info, ignored, NULL) != 0)
        lose(t, ERROR_ROUTER_LOST, "the router is gone");
    else if (info.epoch != c->info.epoch)
        lose(t, ERROR_ROUTER_LOST, "the router was restarted");
    else
        lose(t, ERROR_SESSION_LOST, "the router closed the session");
}

static void queue_event(struct turn *t, struct client_node *node)
{
    struct client *c = t->c;

    pthread_mutex_lock(&c->lock);
    bool room = c->events_bytes + node->cost <= c->events_bytes_max;

    if (room) {
        c->events_bytes += node->cost;
        if (c->last != NULL)
            c->last->next = node;
        else
            c->first = node;
        c->last = node;
        pthread_cond_signal(&c->arrived);
    }
    pthread_mutex_unlock(&c->lock);
    if (!room) {
        client_node_free(node);
        lose(t, ERROR_SLOW_CLIENT, "the application did not take its events in time");
    }
}

/* An error without an id that announces the end of the session. */
static void note_last_word(struct turn *t, const struct message_error *e)
{
    if (e->has_id || (e->code != ERROR_SESSION_LOST && e->code != ERROR_SLOW_CLIENT &&
                      e->code != ERROR_SHUTTING_DOWN))
        return;
    t->has_last_word = true;
    t->last_word = e->code;
    snprintf(t->last_text, sizeof t->last_text, "%.*s", (int)e->message.n, e->message.data);
}

static void on_message(struct turn *t, struct client_node *node)
{
    const struct message *m = &node->message;

    if (m->type == MESSAGE_PONG) {
        if (m->pong.epoch != t->c->info.epoch)
            lose(t, ERROR_ROUTER_LOST, "the router was restarted");
        client_node_free(node);
        return;
    }
    if (m->type == MESSAGE_ERROR)
        note_last_word(t, &m->error);
    queue_event(t, node);
}

/* Takes over bytes. */
static void on_bytes(struct turn *t, void *bytes, size_t n)
{
    size_t arena_bytes = n * CODEC_ARENA_FACTOR + CODEC_ARENA_BYTES_EXTRA;
    struct client_node *node = malloc(sizeof *node + arena_bytes);
    struct codec_arena arena;
    struct codec_error fault;

    if (node == NULL) {
        wire_release(bytes);
        lose(t, ERROR_INTERNAL, "out of memory");
        return;
    }
    node->next = NULL;
    node->bytes = bytes;
    node->cost = sizeof *node + arena_bytes + n;
    codec_arena_init(&arena, node->arena, arena_bytes);
    int err = message_decode(bytes, n, &node->message, &arena, &fault);

    if (err == 0 && message_may_travel(node->message.type, ROLE_ROUTER, ROLE_CLIENT)) {
        on_message(t, node);
        return;
    }
    client_node_free(node);
    lose(t, ERROR_INTERNAL, err != 0 ? fault.text : "the router sent what no client may get");
}

static void receive(struct turn *t)
{
    void *bytes;

    for (int i = 0; i < BATCH_MAX; i++) {
        ssize_t n = wire_recv(t->c->session, &bytes);

        if (n < 0)
            return;
        t->heard_ns = t->now_ns;
        on_bytes(t, bytes, (size_t)n);
    }
}

/* Returns whether something is left that the router did not take. */
static bool ping_and_flush(struct turn *t)
{
    static const struct message ping = {.type = MESSAGE_PING};
    struct client *c = t->c;

    pthread_mutex_lock(&c->lock);
    /* Behind a backlog a ping adds nothing: the backlog itself shows that the client lives. */
    if (t->now_ns - t->pinged_ns >= WIRE_PING_MS * NS_PER_MS && c->outbox.n_messages == 0) {
        t->pinged_ns = t->now_ns;
        outbox_push(&c->outbox, &ping, NULL);
    }
    int err = outbox_flush(&c->outbox, c->session, t->now_ns);

    pthread_mutex_unlock(&c->lock);
    return err == -EAGAIN;
}

static void check_alive(struct turn *t)
{
    if (wire_connections(t->c->session) == 0) {
        t->now_ns = clock_now_ns();
        receive(t); /* last words may still lie in the socket */
        lose_connection(t);
    } else if (t->now_ns - t->heard_ns > CLIENT_SILENCE_MS * NS_PER_MS) {
        lose(t, ERROR_ROUTER_LOST, "nothing heard from the router in time");
    }
}

static void wait_for_work(struct client *c, bool backlog)
{
    struct pollfd fds[3] = {
        {.fd = wire_poll_fd(c->session), .events = POLLIN},
        {.fd = c->wake_fd, .events = POLLIN},
        {.fd = backlog ? wire_poll_send_fd(c->session) : -1, .events = POLLIN},
    };
    uint64_t count;

    poll(fds, 3, CLIENT_TICK_MS);
    if ((fds[1].revents & POLLIN) != 0 && read(c->wake_fd, &count, sizeof count) < 0)
        return; /* somebody else drained it: the wake has had its effect */
}

static bool should_end(struct client *c)
{
    pthread_mutex_lock(&c->lock);
    bool end = c->closing || c->lost;

    pthread_mutex_unlock(&c->lock);
    return end;
}

/* Whoever did not run has heard nothing of anybody: a router that was stopped along with us gets a
 * fresh lease. */
static void begin_turn(struct turn *t)
{
    const uint64_t now_ns = clock_now_ns();

    if (now_ns - t->now_ns > STALL_MS * NS_PER_MS)
        t->heard_ns = now_ns;
    t->now_ns = now_ns;
}

void *client_thread_main(void *client)
{
    struct client *c = client;
    struct turn t = {.c = c, .now_ns = clock_now_ns()};
    bool backlog = false;

    t.heard_ns = t.now_ns;
    while (!should_end(c)) {
        wait_for_work(c, backlog);
        begin_turn(&t);
        receive(&t);
        backlog = ping_and_flush(&t);
        check_alive(&t);
    }
    return NULL;
}
