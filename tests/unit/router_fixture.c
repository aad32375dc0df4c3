#include "router_fixture.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "common/model/model_random.h"

/* ---- Model ----------------------------------------------------------------------------------- */

static char model_path[64];

const char *fixture_model(void)
{
    struct model_random_options o = model_random_defaults();

    if (model_path[0] != '\0')
        return model_path;
    snprintf(model_path, sizeof model_path, "/tmp/omni-router-test-%d.gguf", (int)getpid());
    o.n_layers = 1;
    o.n_ctx = 4096;
    assert_int_equal(model_random_write(model_path, &o), 0);
    return model_path;
}

void fixture_remove_model(void)
{
    unlink(model_path);
    model_path[0] = '\0';
}

uint32_t fixture_tokens(const char *text, uint32_t *ids, uint32_t cap)
{
    struct gguf *g;
    struct tokenizer *t;

    assert_int_equal(gguf_open(fixture_model(), &g, NULL), 0);
    assert_int_equal(tokenizer_open(g, &t, NULL), 0);
    int64_t n = tokenizer_encode(t, text, strlen(text), 0, ids, cap);

    assert_true(n > 0);
    tokenizer_close(t);
    gguf_close(g);
    return (uint32_t)n;
}

/* ---- Router ---------------------------------------------------------------------------------- */

void router_thread_init(struct router_thread *t)
{
    memset(t, 0, sizeof *t);
    strcpy(t->dir, "/tmp/omni-router-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    config_defaults(&t->config);
    snprintf(t->config.model_path, sizeof t->config.model_path, "%s", fixture_model());
    t->config.router_lease_ms = 1000;
    t->config.slo_ttft_ms = 600000; /* what waits for a place does so while a test looks */
    t->stop_fd = -1;
}

static void *router_main(void *arg)
{
    struct router_thread *t = arg;

    while (!atomic_load(&t->stop)) {
        if (router_poll(&t->router) < 0)
            abort();
    }
    router_shutdown(&t->router);
    return NULL;
}

void router_thread_start(struct router_thread *t)
{
    struct error err;

    if (router_init(&t->router, &t->config, t->dir, NULL, &err) < 0)
        fail_msg("%s", err.text);
    t->stop_fd = eventfd(0, EFD_CLOEXEC);
    assert_true(t->stop_fd >= 0);
    assert_int_equal(router_watch(&t->router, t->stop_fd), 0);
    atomic_store(&t->stop, false);
    assert_int_equal(pthread_create(&t->thread, NULL, router_main, t), 0);
}

void router_thread_stop(struct router_thread *t)
{
    if (t->stop_fd < 0)
        return;
    atomic_store(&t->stop, true);
    assert_int_equal(eventfd_write(t->stop_fd, 1), 0);
    pthread_join(t->thread, NULL);
    close(t->stop_fd);
    t->stop_fd = -1;
}

void router_thread_fini(struct router_thread *t)
{
    router_thread_stop(t);
    /* rmdir fails if a socket was left behind. */
    assert_int_equal(rmdir(t->dir), 0);
}

static void door_of(const struct router_thread *t, char url[WIRE_URL_BYTES])
{
    snprintf(url, WIRE_URL_BYTES, "ipc://%s/router.sock", t->dir);
}

struct client *router_thread_client(const struct router_thread *t)
{
    char url[WIRE_URL_BYTES];
    struct client_options options = {.url = url, .name = "test"};
    struct client *c;
    struct error error;

    door_of(t, url);
    if (client_open(&c, &options, &error) != 0)
        fail_msg("%s", error.text);
    return c;
}

/* ---- Bare client ----------------------------------------------------------------------------- */

static void init_memory(struct bare *b)
{
    memset(b, 0, sizeof *b);
    b->socket = -1;
    b->arena = malloc((size_t)CODEC_ARENA_FACTOR * MESSAGE_BYTES_MAX);
    assert_non_null(b->arena);
}

void bare_hello(struct bare *b, const char *door_url, uint32_t version)
{
    const struct message m = {
        .type = MESSAGE_HELLO,
        .hello = {.version = version, .has_client = true, .client = str_of("bare")}};

    init_memory(b);
    b->socket = wire_req_dial(door_url);
    assert_true(b->socket >= 0);
    bare_send(b, &m);
    assert_true(bare_receive(b, FIXTURE_SOON_MS));
}

void bare_open(struct bare *b, const struct router_thread *t)
{
    char url[WIRE_URL_BYTES];

    door_of(t, url);
    bare_hello(b, url, PROTO_VERSION);
    assert_int_equal(b->message.type, MESSAGE_WELCOME);
    snprintf(b->url, sizeof b->url, "%.*s", (int)b->message.welcome.url.n,
             b->message.welcome.url.data);
    wire_close(b->socket);
    b->socket = wire_pair_dial(b->url);
    assert_true(b->socket >= 0);
}

void bare_close(struct bare *b)
{
    wire_close(b->socket);
    if (b->bytes)
        wire_release(b->bytes);
    free(b->arena);
    memset(b, 0, sizeof *b);
    b->socket = -1;
}

void bare_send_bytes(struct bare *b, const void *bytes, size_t n)
{
    const uint64_t until_ns = clock_now_ns() + FIXTURE_SOON_MS * NS_PER_MS;
    int rc = wire_send(b->socket, bytes, n);

    while (rc == -EAGAIN && clock_now_ns() < until_ns) {
        clock_sleep_ns(NS_PER_MS);
        rc = wire_send(b->socket, bytes, n);
    }
    assert_int_equal(rc, 0);
}

void bare_send(struct bare *b, const struct message *m)
{
    unsigned char *bytes = malloc(MESSAGE_BYTES_MAX);
    ssize_t n = message_encode(m, bytes, MESSAGE_BYTES_MAX, NULL);

    assert_true(n > 0);
    bare_send_bytes(b, bytes, (size_t)n);
    free(bytes);
}

void bare_ping(struct bare *b)
{
    const struct message ping = {.type = MESSAGE_PING};
    const uint64_t now_ns = clock_now_ns();

    if (now_ns < b->pinged_ns + 200 * NS_PER_MS)
        return;
    b->pinged_ns = now_ns;
    bare_send(b, &ping);
}

bool bare_receive(struct bare *b, uint32_t timeout_ms)
{
    struct pollfd fd = {.fd = wire_poll_fd(b->socket), .events = POLLIN};
    struct codec_arena arena;
    struct codec_error error;

    if (b->bytes)
        wire_release(b->bytes);
    b->bytes = NULL;
    if (poll(&fd, 1, (int)timeout_ms) <= 0)
        return false;
    ssize_t n = wire_recv(b->socket, &b->bytes);

    if (n < 0) {
        b->bytes = NULL;
        return false;
    }
    codec_arena_init(&arena, b->arena, (size_t)CODEC_ARENA_FACTOR * MESSAGE_BYTES_MAX);
    assert_int_equal(message_decode(b->bytes, (size_t)n, &b->message, &arena, &error), 0);
    return true;
}

bool bare_expect(struct bare *b, enum message_type type, uint32_t timeout_ms)
{
    const uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;

    while (clock_now_ns() < until_ns) {
        bare_ping(b);
        if (bare_receive(b, 100) && b->message.type == type)
            return true;
    }
    return false;
}

/* ---- Waiting --------------------------------------------------------------------------------- */

bool wait_count(_Atomic uint32_t *count, uint32_t n, uint32_t timeout_ms)
{
    const uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;

    while (atomic_load(count) < n) {
        if (clock_now_ns() > until_ns)
            return false;
        clock_sleep_ns(2 * NS_PER_MS);
    }
    return true;
}

static const json_t *step(const json_t *at, const char *key, size_t n)
{
    char name[64];

    snprintf(name, sizeof name, "%.*s", (int)n, key);
    return json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10))
                             : json_object_get(at, name);
}

static double number_at(const json_t *at, const char *path)
{
    while (at && *path != '\0') {
        const size_t n = strcspn(path, "/");

        at = step(at, path, n);
        path += n + (path[n] == '/');
    }
    if (json_is_boolean(at))
        return json_is_true(at);
    return json_is_number(at) ? json_number_value(at) : -1;
}

double status_number(struct bare *b, const char *path)
{
    const struct message ask = {.type = MESSAGE_STATUS, .status = {.seq = 1}};

    bare_send(b, &ask);
    assert_true(bare_expect(b, MESSAGE_STATUS_REPLY, FIXTURE_SOON_MS));
    json_t *all =
        json_loadb(b->message.status_reply.json.data, b->message.status_reply.json.n, 0, NULL);

    assert_non_null(all);
    double value = number_at(all, path);

    json_decref(all);
    return value;
}

bool wait_status(struct bare *b, const char *path, double value, uint32_t timeout_ms)
{
    const uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;

    while (status_number(b, path) != value) {
        if (clock_now_ns() > until_ns)
            return false;
        clock_sleep_ns(5 * NS_PER_MS);
    }
    return true;
}
