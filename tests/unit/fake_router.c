#include "tests/unit/fake_router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "proto/codec.h"

enum { BUF_BYTES = 2 << 20, ARENA_BYTES = 8 << 20 };

static void say(int sock, const struct message *m)
{
    static unsigned char buf[BUF_BYTES];
    ssize_t n = message_encode(m, buf, sizeof buf, NULL);

    invariant(n > 0);
    /* The tests' clients read, or go away. */
    while (wire_send(sock, buf, (size_t)n) == -EAGAIN && wire_connections(sock) > 0)
        clock_sleep_ns(NS_PER_MS);
}

static void say_error(int sock, const struct request_id *id, enum error_code code, const char *text)
{
    struct message m = {.type = MESSAGE_ERROR, .error = {.code = code, .message = str_of(text)}};

    if (id != NULL) {
        m.error.has_id = true;
        m.error.id = *id;
    }
    say(sock, &m);
}

static void on_hello(struct fake_router *r)
{
    static const struct str classes[] = {{"ls", 2}, {"be", 2}};
    struct message m = {.type = MESSAGE_WELCOME,
                        .welcome = {.version = r->version,
                                    .epoch = r->epoch,
                                    .lease_ms = WIRE_LOST_MS,
                                    .model = str_of("fake"),
                                    .n_ctx = 2048,
                                    .classes = {.data = classes, .n = 2}}};
    char url[WIRE_URL_BYTES];

    atomic_fetch_add(&r->n_hellos, 1);
    for (int i = 0; i < FAKE_SESSIONS_MAX; i++) {
        if (r->sessions[i].sock >= 0)
            continue;
        snprintf(url, sizeof url, "ipc://%s/s%u.sock", r->dir, r->n_sessions_made++);
        r->sessions[i].sock = wire_pair_bind(url);
        invariant(r->sessions[i].sock >= 0);
        m.welcome.url = str_of(url);
        say(r->hello, &m);
        return;
    }
    say_error(r->hello, NULL, ERROR_NO_CAPACITY, "no free session");
}

static struct fake_request *find_request(struct fake_router *r, const struct request_id *id)
{
    for (uint32_t i = 0; i < r->n_requests; i++)
        if (request_id_equal(&r->requests[i].id, id))
            return &r->requests[i];
    return NULL;
}

/* Unless another order has come. */
static void close_after_this(struct fake_router *r)
{
    int serving = FAKE_SERVE;

    atomic_compare_exchange_strong(&r->order, &serving, FAKE_CLOSE_SESSION);
}

/* Returns false where the stream was cut. */
static bool say_tokens(struct fake_router *r, int sock, const struct fake_request *request,
                       uint32_t from)
{
    uint32_t cut_after = atomic_exchange(&r->cut_after, 0);

    struct token_item item = {.id = request->id, .text = {.data = "a", .n = 1}};
    struct message m = {.type = MESSAGE_TOKENS, .tokens.items = {.data = &item, .n = 1}};

    for (uint32_t i = from; i < request->n_tokens; i++) {
        uint32_t token = 100 + i;

        if (cut_after != 0 && i == cut_after) {
            clock_sleep_ns(50 * NS_PER_MS); /* nn_close drops what has not left yet */
            close_after_this(r);
            return false;
        }
        item.index = i;
        item.ids = (struct u32_array){.data = &token, .n = 1};
        say(sock, &m);
    }
    return true;
}

static void say_bulk(int sock, const struct request_id *id, uint32_t n)
{
    static char text[1 << 20];
    struct token_item item = {.id = *id, .text = {.data = text, .n = sizeof text}};
    struct message m = {.type = MESSAGE_TOKENS, .tokens.items = {.data = &item, .n = 1}};

    for (uint32_t i = 0; i < n; i++)
        say(sock, &m);
}

static void keep_question(struct fake_router *r, const struct message_generate *g)
{
    struct str text = {.data = "", .n = 0};

    if (g->has_prompt)
        text = g->prompt;
    else if (g->has_messages && g->messages.n != 0)
        text = g->messages.data[g->messages.n - 1].content;
    snprintf(r->asked, sizeof r->asked, "%.*s", (int)text.n, text.n != 0 ? text.data : "");
}

static void on_generate(struct fake_router *r, int sock, const struct message_generate *g)
{
    struct fake_request *request = find_request(r, &g->id);
    struct message done = {
        .type = MESSAGE_DONE,
        .done = {.id = g->id, .reason = FINISH_LENGTH, .prompt_tokens = 3, .seed = 42}};

    if (atomic_exchange(&r->lose_generate, false)) {
        r->lost = g->id;
        atomic_fetch_add(&r->n_lost, 1);
        close_after_this(r);
        return;
    }
    if (r->bulk != 0) {
        say_bulk(sock, &g->id, r->bulk);
        return;
    }
    if (request == NULL && !g->has_prompt && !g->has_messages && !g->has_tokens) {
        say_error(sock, &g->id, ERROR_NOT_FOUND, "no such request");
        return;
    }
    if (request == NULL) {
        invariant(r->n_requests < FAKE_REQUESTS_MAX);
        request = &r->requests[r->n_requests++];
        *request = (struct fake_request){.id = g->id, .n_tokens = g->max_tokens};
        keep_question(r, g);
        atomic_fetch_add(&r->n_generates, 1);
    }
    if (!say_tokens(r, sock, request, g->resume_from))
        return;
    done.done.output_tokens = done.done.device_tokens = request->n_tokens;
    say(sock, &done);
}

static void on_session_message(struct fake_router *r, int sock, const struct message *m)
{
    struct message pong = {.type = MESSAGE_PONG, .pong.epoch = r->epoch};
    struct message reply = {.type = MESSAGE_STATUS_REPLY, .status_reply.json = str_of("{}")};

    switch (m->type) {
    case MESSAGE_PING:
        atomic_fetch_add(&r->n_pings, 1);
        pong.pong.epoch += r->order == FAKE_RESTART_EPOCH;
        say(sock, &pong);
        break;
    case MESSAGE_GENERATE:
        on_generate(r, sock, &m->generate);
        break;
    case MESSAGE_CANCEL:
        say_error(sock, &m->cancel.id, ERROR_NOT_FOUND, "no such request");
        break;
    case MESSAGE_STATUS:
        reply.status_reply.seq = m->status.seq;
        say(sock, &reply);
        break;
    default:
        invariant(!"a client sent what only others may");
    }
}

/* Takes one message from sock, if there is one. */
static bool serve(struct fake_router *r, int sock, bool is_hello)
{
    static _Alignas(16) unsigned char memory[ARENA_BYTES];
    struct codec_arena arena;
    struct codec_error fault;
    struct message m;
    void *bytes;
    ssize_t n = wire_recv(sock, &bytes);

    if (n < 0)
        return false;
    if (r->order != FAKE_MUTE) {
        codec_arena_init(&arena, memory, sizeof memory);
        invariant(message_decode(bytes, (size_t)n, &m, &arena, &fault) == 0);
        if (is_hello)
            on_hello(r);
        else
            on_session_message(r, sock, &m);
    }
    wire_release(bytes);
    return true;
}

static void close_sessions(struct fake_router *r, bool say_why)
{
    for (int i = 0; i < FAKE_SESSIONS_MAX; i++) {
        if (r->sessions[i].sock < 0)
            continue;
        if (say_why)
            say_error(r->sessions[i].sock, NULL, ERROR_SHUTTING_DOWN, "going down");
        if (say_why)
            clock_sleep_ns(50 * NS_PER_MS); /* nn_close drops what has not left yet */
        wire_close(r->sessions[i].sock);
        r->sessions[i].sock = -1;
    }
}

/* Unless another order, such as to end, has come meanwhile. */
static void obeyed(struct fake_router *r, int order)
{
    atomic_compare_exchange_strong(&r->order, &order, FAKE_SERVE);
}

static void obey(struct fake_router *r)
{
    int order = r->order;

    if (order == FAKE_CLOSE_SESSION || order == FAKE_SAY_AND_CLOSE) {
        close_sessions(r, order == FAKE_SAY_AND_CLOSE);
        obeyed(r, order);
    }
    if (order == FAKE_GARBAGE) {
        for (int i = 0; i < FAKE_SESSIONS_MAX; i++)
            if (r->sessions[i].sock >= 0)
                wire_send(r->sessions[i].sock, "\x81\xa1t\x01", 4);
        obeyed(r, order);
    }
}

static void *fake_router_main(void *router)
{
    struct fake_router *r = router;

    while (r->order != FAKE_END) {
        bool busy = serve(r, r->hello, true);

        for (int i = 0; i < FAKE_SESSIONS_MAX; i++)
            if (r->sessions[i].sock >= 0)
                busy |= serve(r, r->sessions[i].sock, false);
        obey(r);
        if (!busy)
            clock_sleep_ns(NS_PER_MS);
    }
    close_sessions(r, false);
    wire_close(r->hello);
    return NULL;
}

void fake_router_start_at(struct fake_router *r, uint64_t epoch, const char *dir)
{
    char same_dir[sizeof r->dir];

    snprintf(same_dir, sizeof same_dir, "%s", dir); /* dir may be r->dir */
    memset(r, 0, sizeof *r);
    r->epoch = epoch;
    r->version = PROTO_VERSION;
    memcpy(r->dir, same_dir, sizeof r->dir);
    snprintf(r->url, sizeof r->url, "ipc://%s/router.sock", r->dir);
    for (int i = 0; i < FAKE_SESSIONS_MAX; i++)
        r->sessions[i].sock = -1;
    r->hello = wire_rep_bind(r->url);
    invariant(r->hello >= 0);
    invariant(pthread_create(&r->thread, NULL, fake_router_main, r) == 0);
}

void fake_router_start(struct fake_router *r, uint64_t epoch)
{
    char dir[] = "/tmp/omni-test-XXXXXX";

    invariant(mkdtemp(dir) != NULL);
    fake_router_start_at(r, epoch, dir);
}

void fake_router_end(struct fake_router *r)
{
    r->order = FAKE_END;
    pthread_join(r->thread, NULL);
}

void fake_router_remove_dir(struct fake_router *r)
{
    char path[WIRE_URL_BYTES];

    for (uint32_t i = 0; i < r->n_sessions_made; i++) {
        snprintf(path, sizeof path, "%s/s%u.sock", r->dir, i);
        unlink(path);
    }
    unlink(r->url + strlen("ipc://"));
    rmdir(r->dir);
}
