#include "fake_engine.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "proto/codec.h"
#include "router_fixture.h"

enum { TURN_MS = 2 };

/* The thread's own state. */
struct turn {
    struct fake_engine *e;
    unsigned char *arena, *bytes;
    uint64_t next_sweep_ns, state_ns;
    bool greeted;
};

void fake_engine_init(struct fake_engine *e, const char *script_text)
{
    memset(e, 0, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    e->requests_max = FAKE_REQUESTS_MAX;
    e->kv_blocks = 4096;
    e->sweep_ms = 2;
    e->tokens_a_sweep = 1;
    e->epoch = 1;
    e->n_script = fixture_tokens(script_text, e->script, FAKE_SCRIPT_MAX);
    atomic_store(&e->refuse_code, -1);
}

static void say(struct turn *t, const struct message *m)
{
    ssize_t n = message_encode(m, t->bytes, MESSAGE_BYTES_MAX, NULL);

    if (n > 0)
        wire_send(t->e->socket, t->bytes, (size_t)n);
}

static void say_hello(struct turn *t)
{
    struct fake_engine *e = t->e;
    const struct held_request held = {.id = e->held, .n_tokens = 3};
    const struct message m = {.type = MESSAGE_ENGINE_HELLO,
                              .engine_hello = {.version = PROTO_VERSION,
                                               .engine = e->index,
                                               .epoch = e->epoch,
                                               .pid = 4711,
                                               .model_hash = e->model_hash,
                                               .n_ctx = 4096,
                                               .n_vocab = 1000,
                                               .kv_blocks_total = e->kv_blocks,
                                               .block_tokens = 32,
                                               .n_workers = FAKE_WORKERS,
                                               .requests_max = e->requests_max,
                                               .held = {.data = &held, .n = e->has_held ? 1 : 0}}};

    say(t, &m);
}

static void say_state(struct turn *t)
{
    struct worker_state workers[FAKE_WORKERS];

    for (uint32_t w = 0; w < FAKE_WORKERS; w++)
        workers[w] = (struct worker_state){.worker = w,
                                           .health = WORKER_READY,
                                           .blocks_free = 100 * (w + 1),
                                           .blocks_total = 1000,
                                           .has_pid = true,
                                           .pid = 5000 + w};
    const struct message m = {.type = MESSAGE_ENGINE_STATE,
                              .engine_state = {.kv_blocks_free = t->e->kv_blocks,
                                               .kv_blocks_total = t->e->kv_blocks,
                                               .workers = {.data = workers, .n = FAKE_WORKERS}}};

    say(t, &m);
}

static struct fake_request *find(struct fake_engine *e, const struct request_id *id)
{
    for (uint32_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        if (e->requests[i].active && request_id_equal(&e->requests[i].id, id))
            return &e->requests[i];
    }
    return NULL;
}

static struct fake_request *find_place(struct fake_engine *e)
{
    for (uint32_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        if (!e->requests[i].active)
            return &e->requests[i];
    }
    return NULL;
}

static void note_submit(struct fake_engine *e, const struct message_submit *s)
{
    pthread_mutex_lock(&e->lock);
    e->tenants[atomic_load(&e->n_submits) % FAKE_REQUESTS_MAX] =
        s->has_tenant ? s->tenant.data[0] : '-';
    e->order[atomic_load(&e->n_submits) % FAKE_REQUESTS_MAX] = s->class_index;
    e->last_seed = s->seed;
    e->last_n_prompt = s->tokens.n;
    e->last_has_worker = s->has_worker;
    e->last_worker = s->worker;
    pthread_mutex_unlock(&e->lock);
    atomic_fetch_add(&e->n_submits, 1);
}

/* What a run that was given up had still to say. */
static void echo(struct turn *t, const struct request_id *id)
{
    const uint32_t tokens[] = {1, 2, 3};
    const struct engine_token_item item = {.id = *id, .index = 5, .ids = {.data = tokens, .n = 3}};
    const struct message news = {.type = MESSAGE_ENGINE_TOKENS,
                                 .engine_tokens = {.sweep = 1, .items = {.data = &item, .n = 1}}};
    const struct message done = {.type = MESSAGE_ENGINE_DONE,
                                 .engine_done = {.id = *id,
                                                 .reason = FINISH_CANCELLED,
                                                 .prompt_tokens = 1,
                                                 .output_tokens = 8,
                                                 .device_tokens = 8}};

    say(t, &news);
    say(t, &done);
}

static void on_submit(struct turn *t, const struct message_submit *s)
{
    struct fake_engine *e = t->e;
    struct fake_request *r = find_place(e);
    const int refuse_code = atomic_load(&e->refuse_code);
    struct message m = {.type = MESSAGE_SUBMIT_REPLY,
                        .submit_reply = {.id = s->id, .accepted = refuse_code < 0 && r}};

    if (atomic_load(&e->echoes))
        echo(t, &s->id);
    if (!m.submit_reply.accepted) {
        m.submit_reply.has_code = true;
        m.submit_reply.code = refuse_code < 0 ? ERROR_QUEUE_FULL : (enum error_code)refuse_code;
        m.submit_reply.has_retry_after_ms = true;
        m.submit_reply.retry_after_ms = 30;
        atomic_fetch_add(&e->n_refused, 1);
    } else {
        *r = (struct fake_request){.active = true,
                                   .id = s->id,
                                   .class_index = s->class_index,
                                   .max_tokens = s->max_tokens};
        note_submit(e, s);
    }
    say(t, &m);
}

static void end(struct turn *t, struct fake_request *r, enum finish_reason reason)
{
    const struct message m = {.type = MESSAGE_ENGINE_DONE,
                              .engine_done = {.id = r->id,
                                              .reason = reason,
                                              .prompt_tokens = 1,
                                              .output_tokens = r->n_out,
                                              .device_tokens = r->n_out > 0,
                                              .worker_tokens = r->n_out > 0 ? r->n_out - 1 : 0,
                                              .ridealong_jobs = 7,
                                              .parked_jobs = 5}};

    r->active = false;
    say(t, &m);
}

static void on_end(struct turn *t, const struct request_id *id, enum finish_reason reason,
                   _Atomic uint32_t *count)
{
    struct fake_request *r = find(t->e, id);
    const struct message unknown = {
        .type = MESSAGE_ENGINE_ERROR,
        .engine_error = {
            .has_id = true, .id = *id, .code = ERROR_NOT_FOUND, .message = str_of("unknown")}};

    pthread_mutex_lock(&t->e->lock);
    t->e->last_cancelled = *id;
    pthread_mutex_unlock(&t->e->lock);
    atomic_fetch_add(count, 1);
    if (r)
        end(t, r, reason);
    else
        say(t, &unknown);
}

static void on_message(struct turn *t, const struct message *m)
{
    const struct message pong = {.type = MESSAGE_PONG, .pong = {.epoch = t->e->epoch}};

    switch (m->type) {
    case MESSAGE_PING:
        say(t, &pong);
        break;
    case MESSAGE_ROUTER_HELLO:
        atomic_fetch_add(&t->e->n_router_hellos, 1);
        say_hello(t);
        break;
    case MESSAGE_SUBMIT:
        on_submit(t, &m->submit);
        break;
    case MESSAGE_CANCEL:
        on_end(t, &m->cancel.id, FINISH_CANCELLED, &t->e->n_cancels);
        break;
    case MESSAGE_STOP:
        on_end(t, &m->stop.id, FINISH_STOP, &t->e->n_stops);
        break;
    default:
        break;
    }
}

static void receive(struct turn *t)
{
    void *bytes;

    for (ssize_t n = wire_recv(t->e->socket, &bytes); n >= 0; n = wire_recv(t->e->socket, &bytes)) {
        struct codec_arena arena;
        struct codec_error error;
        struct message m;

        codec_arena_init(&arena, t->arena, CODEC_ARENA_FACTOR * MESSAGE_BYTES_MAX);
        if (message_decode(bytes, (size_t)n, &m, &arena, &error) == 0)
            on_message(t, &m);
        wire_release(bytes);
    }
}

/* Tokens of all requests in one message, as an engine does. */
static void sweep(struct turn *t)
{
    struct fake_engine *e = t->e;
    struct engine_token_item items[FAKE_REQUESTS_MAX];
    uint32_t n = 0;

    for (uint32_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        struct fake_request *r = &e->requests[i];
        const uint32_t at = r->n_out % e->n_script;
        uint32_t n_new = e->tokens_a_sweep;

        if (!r->active)
            continue;
        if (n_new > r->max_tokens - r->n_out)
            n_new = r->max_tokens - r->n_out;
        if (n_new > e->n_script - at)
            n_new = e->n_script - at;
        items[n++] = (struct engine_token_item){
            .id = r->id, .index = r->n_out, .ids = {.data = e->script + at, .n = n_new}};
        r->n_out += n_new;
    }
    if (n == 0)
        return;
    const struct message m = {.type = MESSAGE_ENGINE_TOKENS,
                              .engine_tokens = {.sweep = atomic_fetch_add(&e->n_sweeps, 1),
                                                .items = {.data = items, .n = n}}};

    say(t, &m);
    for (uint32_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        if (e->requests[i].active && e->requests[i].n_out == e->requests[i].max_tokens)
            end(t, &e->requests[i], FINISH_LENGTH);
    }
}

static void turn(struct turn *t)
{
    struct fake_engine *e = t->e;
    struct pollfd fd = {.fd = wire_poll_fd(e->socket), .events = POLLIN};

    poll(&fd, 1, TURN_MS);
    if (atomic_load(&e->mute))
        return;
    const uint64_t now_ns = clock_now_ns();

    if (!t->greeted && wire_connections(e->socket) > 0) {
        t->greeted = true;
        say_hello(t);
    }
    receive(t);
    if (now_ns >= t->state_ns) {
        t->state_ns = now_ns + 250 * NS_PER_MS;
        say_state(t);
    }
    if (now_ns < t->next_sweep_ns || atomic_load(&e->paused))
        return;
    t->next_sweep_ns = now_ns + e->sweep_ms * NS_PER_MS;
    sweep(t);
}

static void *engine_main(void *arg)
{
    struct fake_engine *e = arg;
    struct turn t = {.e = e,
                     .arena = malloc(CODEC_ARENA_FACTOR * MESSAGE_BYTES_MAX),
                     .bytes = malloc(MESSAGE_BYTES_MAX)};

    while (!atomic_load(&e->stop))
        turn(&t);
    free(t.arena);
    free(t.bytes);
    return NULL;
}

void fake_engine_start(struct fake_engine *e, const char *dir, uint64_t model_hash)
{
    snprintf(e->url, sizeof e->url, "ipc://%s/engine-%u.sock", dir, e->index);
    e->model_hash = model_hash;
    memset(e->requests, 0, sizeof e->requests);
    atomic_store(&e->stop, false);
    e->socket = wire_pair_dial(e->url);
    assert_true(e->socket >= 0);
    assert_int_equal(pthread_create(&e->thread, NULL, engine_main, e), 0);
}

void fake_engine_kill(struct fake_engine *e)
{
    atomic_store(&e->stop, true);
    pthread_join(e->thread, NULL);
    wire_close(e->socket);
}
