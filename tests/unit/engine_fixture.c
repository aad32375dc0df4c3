#include "engine_fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "gpu-engine/idle_check.h"
#include "proto/codec.h"
#include "proto/wire.h"

enum { ARENA_BYTES = 1 << 20, BYTES = 1 << 20, TURN_MS = 5 };

/* ---- Start ----------------------------------------------------------------------------------- */

void group_set(struct engine_group *g, const char *assignment)
{
    struct error err;

    if (config_set(&g->config, assignment, &err) != 0)
        fail_msg("%s", err.text);
}

static void set_path(struct engine_group *g, const char *key, const char *name)
{
    char text[128];

    snprintf(text, sizeof text, "%s=%s%s", key, g->dir, name);
    group_set(g, text);
}

static void set_device(struct engine_group *g, const char *name)
{
    char text[64];

    snprintf(text, sizeof text, "engine.device=%s", name);
    group_set(g, text);
}

void group_init(struct engine_group *g, const struct model_random_options *model)
{
    static const char *const settings[] = {
        "group.name=g",          "engine.threads=1",     "engine.profile=off",
        "worker.threads=1",      "worker.kill_ms=0", /* the worker is this process */
        "worker.late_ms=2000",   "worker.arena_mb=8",    "engine.max_seqs=40",
        "engine.ctx_max=1024",   "engine.kv_blocks=256", "engine.chunk_tokens=64",
        "engine.block_tokens=32"};

    memset(g, 0, sizeof *g);
    log_set_level(LOG_LEVEL_ERROR);
    snprintf(g->dir, sizeof g->dir, "/dev/shm/omni-test-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    config_defaults(&g->config);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        group_set(g, settings[i]);
    if (getenv("OMNI_TEST_DEVICE") != NULL)
        set_device(g, getenv("OMNI_TEST_DEVICE"));
    set_path(g, "run.dir", "/run");
    set_path(g, "shm.dir", "/shm");
    set_path(g, "model.path", "/model.gguf");
    set_path(g, "engine.profile_dir", "/profiles");
    assert_int_equal(model_random_write(g->config.model_path, model), 0);
    g->arena = malloc(ARENA_BYTES);
    g->bytes = malloc(BYTES);
    assert_true(g->arena != NULL && g->bytes != NULL);
}

static void bind_socket(struct engine_group *g)
{
    char path[96], url[WIRE_URL_BYTES];

    snprintf(path, sizeof path, "%s/run", g->dir);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/run/g", g->dir);
    mkdir(path, 0700);
    assert_int_equal(wire_url(url, g->config.run_dir, g->config.group_name, "engine-0.sock"), 0);
    g->sock = wire_pair_bind(url);
    assert_true(g->sock >= 0);
}

static void make_up_prices(struct latency_model *m)
{
    for (uint32_t k = 0; k < m->n_kinds; k++) {
        struct latency_kind *kind = &m->kind[k];

        kind->dense = (struct latency_stairs){.n = 2, .rows = {1, 256}, .ns = {20e3, 400e3}};
        kind->pre_share = 0.3;
        kind->pa_a = 1;
        kind->pa_h = 100;
        kind->da_a = 2;
        kind->da_h = 500;
    }
    m->head = (struct latency_stairs){.n = 2, .rows = {1, 64}, .ns = {5e3, 100e3}};
}

static void set_policy(struct engine_group *g)
{
    struct engine *e = &g->host.engine;

    if (g->policy == NULL)
        return;
    e->decide.policy = g->policy;
    for (uint32_t w = 0; w < e->exchange->n_workers; w++)
        e->latency.worker[w] = g->pace;
    if (g->priced)
        make_up_prices(&e->latency);
}

static void *engine_main(void *arg)
{
    struct engine_group *g = arg;
    struct error err;

    if (host_init(&g->host, &g->config, 0, &err) != 0) {
        fprintf(stderr, "host_init: %s\n", err.text);
        abort();
    }
    set_policy(g);
    atomic_store(&g->engine_up, true);
    while (!atomic_load(&g->stop_engine))
        host_tick(&g->host);
    return NULL;
}

static void *worker_main(void *arg)
{
    struct group_worker *w = arg;
    struct error err;

    if (attnd_init(&w->attnd, &w->group->config, w->index, &err) != 0) {
        fprintf(stderr, "attnd_init: %s\n", err.text);
        abort();
    }
    while (!atomic_load(&w->group->stop_workers)) {
        if (atomic_load(&w->group->hold_workers))
            clock_sleep_ns(NS_PER_MS);
        else
            attnd_tick(&w->attnd);
    }
    attnd_shutdown(&w->attnd);
    return NULL;
}

static bool is_greeted(const struct engine_group *g, uint32_t arg)
{
    (void)arg;
    return g->greeted;
}

static bool workers_ready(const struct engine_group *g, uint32_t n)
{
    return g->state.workers.n == n; /* ready ones, see on_state */
}

void group_start_engine(struct engine_group *g)
{
    bind_socket(g);
    assert_int_equal(pthread_create(&g->engine_thread, NULL, engine_main, g), 0);
    group_wait(g, is_greeted, 0);
}

void group_start_workers(struct engine_group *g)
{
    for (uint32_t w = 0; w < g->config.group_n_workers; w++) {
        g->workers[w].group = g;
        g->workers[w].index = w;
        assert_int_equal(pthread_create(&g->workers[w].thread, NULL, worker_main, &g->workers[w]),
                         0);
    }
    if (g->config.engine_offload != CONFIG_OFFLOAD_NEVER)
        group_wait(g, workers_ready, g->config.group_n_workers);
}

void group_start(struct engine_group *g)
{
    group_start_engine(g);
    group_start_workers(g);
}

/* ---- The router's side ----------------------------------------------------------------------- */

static void say(struct engine_group *g, const struct message *m)
{
    ssize_t n = message_encode(m, g->bytes, BYTES, NULL);

    assert_true(n > 0);
    wire_send(g->sock, g->bytes, (size_t)n);
}

/* The engine greets whoever pings it. */
static void ping(struct engine_group *g)
{
    const struct message m = {.type = MESSAGE_PING, .ping = {.epoch = 42}};
    uint64_t now = clock_now_ns();

    if (now < g->pinged_ns + WIRE_PING_MS * NS_PER_MS / 5)
        return;
    g->pinged_ns = now;
    say(g, &m);
}

static struct request_id id_of(uint32_t i)
{
    return (struct request_id){.bytes = {(uint8_t)(i + 1), 7, 7}};
}

static struct group_request *request_of(struct engine_group *g, const struct request_id *id)
{
    assert_in_range(id->bytes[0], 1, GROUP_REQUESTS);
    return &g->requests[id->bytes[0] - 1];
}

/* Each token exactly once and in order. */
static void on_tokens(struct engine_group *g, const struct message_engine_tokens *m)
{
    for (uint32_t i = 0; i < m->items.n; i++) {
        const struct engine_token_item *item = &m->items.data[i];
        struct group_request *r = request_of(g, &item->id);

        assert_false(r->ended);
        assert_int_equal(item->index, r->n_tokens);
        assert_true(r->n_tokens + item->ids.n <= GROUP_OUTPUT_MAX);
        memcpy(r->tokens + r->n_tokens, item->ids.data, item->ids.n * sizeof *r->tokens);
        r->n_tokens += item->ids.n;
    }
}

static void on_done(struct engine_group *g, const struct message_engine_done *m)
{
    struct group_request *r = request_of(g, &m->id);

    assert_false(r->ended);
    r->ended = true;
    r->done = *m;
    assert_int_equal(m->output_tokens, r->n_tokens);
    assert_int_equal(m->device_tokens + m->worker_tokens, r->n_tokens);
}

static void on_error(struct engine_group *g, const struct message_engine_error *m)
{
    assert_true(m->has_id);
    struct group_request *r = request_of(g, &m->id);

    assert_false(r->ended);
    r->ended = r->failed = true;
    r->code = m->code;
}

static void on_reply(struct engine_group *g, const struct message_submit_reply *m)
{
    struct group_request *r = request_of(g, &m->id);

    r->answered = true;
    r->accepted = m->accepted;
    r->code = m->has_code ? m->code : ERROR_INTERNAL;
}

/* Keeps the numbers; workers.n becomes the number of ready workers. */
static void on_state(struct engine_group *g, const struct message_engine_state *m)
{
    uint32_t n_ready = 0;

    for (uint32_t w = 0; w < m->workers.n; w++)
        n_ready += m->workers.data[w].health == WORKER_READY;
    g->state = *m;
    g->state.classes.n = 0;
    g->state.workers.n = n_ready;
}

static void on_message(struct engine_group *g, const struct message *m)
{
    switch (m->type) {
    case MESSAGE_ENGINE_HELLO:
        g->greeted = true;
        break;
    case MESSAGE_ENGINE_TOKENS:
        on_tokens(g, &m->engine_tokens);
        break;
    case MESSAGE_ENGINE_DONE:
        on_done(g, &m->engine_done);
        break;
    case MESSAGE_ENGINE_ERROR:
        on_error(g, &m->engine_error);
        break;
    case MESSAGE_SUBMIT_REPLY:
        on_reply(g, &m->submit_reply);
        break;
    case MESSAGE_ENGINE_STATE:
        on_state(g, &m->engine_state);
        break;
    case MESSAGE_PING:
    case MESSAGE_PONG:
        break;
    default:
        fail_msg("message %s", message_name(m->type));
    }
}

static void receive_all(struct engine_group *g)
{
    struct codec_arena arena;
    struct codec_error error;
    struct message m;
    void *bytes;
    ssize_t n;

    while ((n = wire_recv(g->sock, &bytes)) >= 0) {
        codec_arena_init(&arena, g->arena, ARENA_BYTES);
        if (message_decode(bytes, (size_t)n, &m, &arena, &error) != 0)
            fail_msg("%s", error.text);
        on_message(g, &m);
        wire_release(bytes);
    }
}

void group_wait(struct engine_group *g, group_condition *done, uint32_t arg)
{
    uint64_t until = clock_now_ns() + GROUP_SOON_MS * NS_PER_MS;
    struct pollfd fd = {.fd = wire_poll_fd(g->sock), .events = POLLIN};

    while (!done(g, arg)) {
        if (clock_now_ns() > until)
            fail_msg("nothing came of it within %d ms", GROUP_SOON_MS);
        ping(g);
        poll(&fd, 1, TURN_MS);
        receive_all(g);
    }
}

bool group_has_ended(const struct engine_group *g, uint32_t i)
{
    return g->requests[i].ended || (g->requests[i].answered && !g->requests[i].accepted);
}

bool group_has_begun(const struct engine_group *g, uint32_t i)
{
    return g->requests[i].n_tokens > 0;
}

bool group_all_ended(const struct engine_group *g, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!group_has_ended(g, i))
            return false;
    }
    return true;
}

static bool is_answered(const struct engine_group *g, uint32_t i)
{
    return g->requests[i].answered;
}

void group_submit(struct engine_group *g, uint32_t i, uint32_t class_idx, const uint32_t *prompt,
                  uint32_t n_prompt, uint32_t max_tokens, uint64_t seed)
{
    const struct message m = {.type = MESSAGE_SUBMIT,
                              .submit = {.id = id_of(i),
                                         .class_index = class_idx,
                                         .tokens = {.data = prompt, .n = n_prompt},
                                         .max_tokens = max_tokens,
                                         .temperature = seed != 0 ? 0.9 : 0,
                                         .top_p = 1,
                                         .seed = seed,
                                         .arrival_ns = clock_now_ns()}};

    memset(&g->requests[i], 0, sizeof g->requests[i]);
    say(g, &m);
    group_wait(g, is_answered, i);
}

void group_cancel(struct engine_group *g, uint32_t i)
{
    const struct message m = {.type = MESSAGE_CANCEL, .cancel = {.id = id_of(i)}};

    say(g, &m);
}

/* ---- End ------------------------------------------------------------------------------------- */

static bool holds_nothing(const struct engine_group *g, uint32_t arg)
{
    struct sequence_table *t = (struct sequence_table *)&g->host.engine.sequences;

    (void)arg;
    pthread_mutex_lock(&t->lock);
    bool all_free = t->n_free == t->n;
    pthread_mutex_unlock(&t->lock);
    return all_free;
}

static void check_books(struct host *h)
{
    struct engine *e = &h->engine;

    assert_int_equal(kv_pool_check(&e->pool), 0);
    assert_int_equal(e->pool.n_free, e->pool.n_blocks);
    assert_int_equal(e->n_copies, 0);
    for (uint32_t w = 0; w < e->exchange->n_workers; w++) {
        const struct engine_worker *worker = &e->workers[w];

        assert_int_equal(kv_pool_check(&worker->pool), 0);
        assert_int_equal(worker->pool.n_free, worker->pool.n_blocks);
        assert_int_equal(worker->n_free_slots, e->exchange->slots_per_worker);
        assert_int_equal(worker->n_resident, 0);
        for (uint32_t b = 0; b < worker->pool.n_blocks; b++)
            assert_int_equal(arena_owner(&h->shm->arenas[w], b), 0);
    }
    for (uint32_t s = 0; s < exchange_n_slots(e->exchange); s++)
        assert_int_equal(e->slot_owner[s], SEQUENCE_NONE);
    assert_int_equal(e->directory->n_free, e->directory->n_entries);
    assert_int_equal(admission_promised(e), 0);
}

/* The engine's own check, at the end of every test. */
static void expect_idle_check_agrees(struct engine *e)
{
    uint64_t n = stats_get(&e->stats, ENGINE_STAT_IDLE_CHECKS);

    e->idle.checked_at = 0;
    idle_check(e);
    assert_int_equal(stats_get(&e->stats, ENGINE_STAT_IDLE_CHECKS), n + 1);
    assert_int_equal(stats_get(&e->stats, ENGINE_STAT_IDLE_FAULTS), 0);
}

static void remove_files(const struct engine_group *g)
{
    char command[64];

    snprintf(command, sizeof command, "rm -r %s", g->dir);
    assert_int_equal(system(command), 0);
}

void group_stop(struct engine_group *g)
{
    group_wait(g, holds_nothing, 0);
    atomic_store(&g->stop_engine, true);
    host_ring(&g->host);
    pthread_join(g->engine_thread, NULL);
    check_books(&g->host);
    expect_idle_check_agrees(&g->host.engine);
    if (g->look != NULL)
        g->look(&g->host.engine);
    for (uint32_t i = 0; i < ENGINE_N_STATS; i++)
        g->stats[i] = stats_get(&g->host.engine.stats, i);
    host_shutdown(&g->host);
    atomic_store(&g->stop_workers, true);
    for (uint32_t w = 0; w < g->config.group_n_workers; w++)
        pthread_join(g->workers[w].thread, NULL);
    wire_close(g->sock);
    free(g->arena);
    free(g->bytes);
    remove_files(g);
}

void group_expect_refusal(struct engine_group *g, struct error *err)
{
    assert_true(host_init(&g->host, &g->config, 0, err) != 0);
    host_shutdown(&g->host);
    free(g->arena);
    free(g->bytes);
    remove_files(g);
}
