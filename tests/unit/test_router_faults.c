/* What goes wrong around a router: clients that vanish, say nothing, do not read or send rubbish;
 * engines that die, hang or come back; and the router's own end.  Each time the others must not
 * notice. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "router_scene.h"

static pid_t program; /* the process of a test that starts one; -1: none */

static int tear_down(void **state)
{
    if (program > 0) { /* the test has failed: leave nothing */
        kill(program, SIGKILL);
        waitpid(program, NULL, 0);
        program = -1;
    }
    return scene_tear_down(state);
}

static void send_generate(struct bare *b, uint8_t n, const char *class, uint32_t max_tokens)
{
    const struct message m = generate(n, class, max_tokens);

    bare_send(b, &m);
}

/* The end of a request: b->message is its done or error; tokens on the way are counted. */
static uint32_t read_to_end(struct bare *b, uint8_t n, uint32_t timeout_ms)
{
    const uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    const struct request_id id = id_of(n);
    uint32_t n_tokens = 0;

    for (;;) {
        assert_true(clock_now_ns() < until_ns);
        bare_ping(b);
        if (!bare_receive(b, 100))
            continue;
        const struct message *m = &b->message;

        for (uint32_t i = 0; m->type == MESSAGE_TOKENS && i < m->tokens.items.n; i++)
            n_tokens += request_id_equal(&m->tokens.items.data[i].id, &id)
                            ? m->tokens.items.data[i].ids.n
                            : 0;
        if (m->type == MESSAGE_DONE && request_id_equal(&m->done.id, &id))
            return n_tokens;
        if (m->type == MESSAGE_ERROR && m->error.has_id && request_id_equal(&m->error.id, &id))
            return n_tokens;
    }
}

/* ---- Clients --------------------------------------------------------------------------------- */

static void test_gone_client_is_cancelled(void **state)
{
    (void)state;
    struct bare gone, other;

    scene_start();
    bare_open(&other, &router);
    bare_open(&gone, &router);
    send_generate(&other, 1, "ls", 300);
    send_generate(&gone, 2, "ls", 4000);
    send_generate(&gone, 3, "be", 4000);
    assert_true(wait_count(&engine.n_submits, 3, FIXTURE_SOON_MS));
    const uint64_t closed_ns = clock_now_ns();

    bare_close(&gone);
    assert_true(wait_count(&engine.n_cancels, 2, FIXTURE_LOST_MS));
    print_message("cancelled after %.1f ms\n",
                  (double)(clock_now_ns() - closed_ns) / (double)NS_PER_MS);
    assert_int_equal(read_to_end(&other, 1, FIXTURE_LOST_MS), 300);
    assert_int_equal(other.message.type, MESSAGE_DONE);
    assert_true(wait_status(&other, "engines/0/outstanding", 0, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&other, "counters/clients_gone"), 1);
    bare_close(&other);
    fake_engine_kill(&engine);
}

static void test_silent_client_is_cancelled(void **state)
{
    (void)state;
    struct bare silent, other;

    scene_start();
    bare_open(&other, &router);
    bare_open(&silent, &router);
    send_generate(&silent, 1, "ls", 4000);
    assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    /* It reads, but never pings. */
    const uint64_t until_ns = clock_now_ns() + FIXTURE_LOST_MS * NS_PER_MS;

    while (atomic_load(&engine.n_cancels) == 0 && clock_now_ns() < until_ns) {
        bare_receive(&silent, 20);
        bare_ping(&other);
    }
    assert_int_equal(atomic_load(&engine.n_cancels), 1);
    assert_true(wait_status(&other, "counters/clients_silent", 1, FIXTURE_SOON_MS));
    bare_close(&silent);
    bare_close(&other);
    fake_engine_kill(&engine);
}

/* One client never reads a long stream; another one streams beside it.  The first is disconnected,
 * its request ends when nobody comes back for it, and the second never waits. */
static void test_slow_reader_blocks_nobody(void **state)
{
    (void)state;
    struct bare slow, other;
    double gap_max_ms = 0;
    uint64_t last_ns;
    bool done = false;

    router.config.router_outbox_kb = 16;
    router.config.router_slow_client_ms = 300;
    router.config.router_lease_ms = 2000;
    engine.sweep_ms = 1;
    scene_start();
    bare_open(&slow, &router);
    bare_open(&other, &router);
    for (uint8_t i = 10; i < 20; i++)
        send_generate(&slow, i, "be", 4000);
    assert_true(wait_count(&engine.n_submits, 10, FIXTURE_SOON_MS));
    send_generate(&other, 1, "ls", 1500);
    last_ns = clock_now_ns();
    while (!done) {
        bare_ping(&other);
        assert_true(bare_receive(&other, FIXTURE_SOON_MS));
        const double gap_ms = (double)(clock_now_ns() - last_ns) / (double)NS_PER_MS;

        gap_max_ms = gap_ms > gap_max_ms ? gap_ms : gap_max_ms;
        last_ns = clock_now_ns();
        done = other.message.type == MESSAGE_DONE;
    }
    print_message("largest gap beside the slow reader: %.1f ms\n", gap_max_ms);
    assert_int_equal(other.message.done.output_tokens, 1500);
    assert_true(wait_status(&other, "counters/clients_slow", 1, FIXTURE_LOST_MS));
    assert_true(wait_status(&other, "sessions/n", 1, FIXTURE_SOON_MS));
    assert_true(wait_status(&other, "engines/0/outstanding", 0, FIXTURE_LOST_MS));
    bare_close(&slow);
    bare_close(&other);
    fake_engine_kill(&engine);
}

/* A reader that was disconnected for being slow may come back in time for what it has missed. */
static void test_slow_reader_resumes(void **state)
{
    (void)state;
    struct bare slow, again;
    struct message m = {
        .type = MESSAGE_GENERATE,
        .generate = {.id = id_of(1), .class = str_of("be"), .has_resume_from = true}};

    router.config.router_outbox_kb = 16;
    router.config.router_slow_client_ms = 100;
    router.config.router_lease_ms = 20000;
    engine.sweep_ms = 1;
    scene_start();
    bare_open(&slow, &router);
    bare_open(&again, &router);
    send_generate(&slow, 1, "be", 3000);
    for (uint8_t i = 10; i < 20; i++)
        send_generate(&slow, i, "be", 3000);
    assert_true(wait_status(&again, "counters/clients_slow", 1, FIXTURE_LOST_MS));
    m.generate.resume_from = 7;
    bare_send(&again, &m);
    assert_int_equal(read_to_end(&again, 1, 6 * FIXTURE_LOST_MS), 3000 - 7);
    assert_int_equal(again.message.type, MESSAGE_DONE);
    assert_int_equal(again.message.done.reason, FINISH_LENGTH);
    assert_int_equal(atomic_load(&engine.n_submits), 11);
    bare_close(&slow);
    bare_close(&again);
    fake_engine_kill(&engine);
}

/* Rubbish is answered to who sent it; a stream beside it does not notice; too much of it ends the
 * session. */
static void test_bad_messages(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } rubbish[] = {
        {"\xc1", 1},                   /* not msgpack */
        {"hello", 5},                  /* no map */
        {"\x81\xa1t\xa4what", 8},      /* unknown message */
        {"\x81\xa1t\xa8generate", 12}, /* fields missing */
        {"\x82\xa1t\xa4ping\xa5"
         "epoch\xa1x",
         16}, /* wrong type */
        {"\x82\xa1t\xa4ping\xa5"
         "epoch\x00\x00",
         16}, /* trailing byte */
        {"\x82\xa1t\xa4pong\xa5"
         "epoch\x01",
         15},                                      /* not for the router from here */
        {"\x82\xa1t\xa5hello\xa7version\x01", 18}, /* belongs to the door */
    };
    struct bare bad, other;

    scene_start();
    bare_open(&bad, &router);
    bare_open(&other, &router);
    send_generate(&other, 1, "ls", 200);
    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++) {
        bare_send_bytes(&bad, rubbish[i].bytes, rubbish[i].n);
        assert_true(bare_expect(&bad, MESSAGE_ERROR, FIXTURE_SOON_MS));
        assert_int_equal(bad.message.error.code, ERROR_BAD_REQUEST);
        assert_false(bad.message.error.has_id);
    }
    assert_int_equal(read_to_end(&other, 1, FIXTURE_LOST_MS), 200);
    assert_int_equal(other.message.type, MESSAGE_DONE);
    assert_int_equal(status_number(&other, "counters/bad_messages"), 8);
    for (uint32_t i = 0; i <= SESSION_BAD_MESSAGES; i++)
        bare_send_bytes(&bad, "\xc1", 1);
    while (bare_receive(&bad, FIXTURE_SOON_MS) && bad.message.error.code != ERROR_SESSION_LOST)
        continue;
    assert_int_equal(bad.message.error.code, ERROR_SESSION_LOST);
    assert_true(wait_status(&other, "sessions/n", 1, FIXTURE_SOON_MS));
    bare_close(&bad);
    bare_close(&other);
    fake_engine_kill(&engine);
}

/* A malformed generate whose id could be read is refused by that id. */
static void test_bad_generate_names_the_id(void **state)
{
    (void)state;
    static const char bytes[] = "\x83\xa1t\xa8generate\xa2id\xc4\x10"
                                "0123456789abcdef\xa5"
                                "wrong\x01";
    struct bare b;

    scene_start();
    bare_open(&b, &router);
    bare_send_bytes(&b, bytes, sizeof bytes - 1);
    assert_true(bare_expect(&b, MESSAGE_ERROR, FIXTURE_SOON_MS));
    assert_true(b.message.error.has_id);
    assert_memory_equal(b.message.error.id.bytes, "0123456789abcdef", 16);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void start_next_session(struct bare *b)
{
    bare_close(b);
    bare_open(b, &router);
}

/* Valid messages with some bytes changed, thousands of them, over and over new sessions: whatever
 * they are taken for, the router goes on and the stream beside it is whole. */
static void test_mutated_messages(void **state)
{
    (void)state;
    const struct str stops[] = {str_of("boy"), str_of("dull")};
    struct message seeds[] = {generate(1, "ls", 5),
                              resume(1, 2),
                              {.type = MESSAGE_CANCEL, .cancel = {.id = id_of(1)}},
                              {.type = MESSAGE_STATUS, .status = {.seq = 9}},
                              {.type = MESSAGE_PING, .ping = {.epoch = 0}}};
    unsigned char bytes[1024];
    struct bare bad, other;
    uint32_t random = 12345;

    seeds[0].generate.has_stop = true;
    seeds[0].generate.stop = (struct str_array){.data = stops, .n = 2};
    router.config.router_lease_ms = 5000;
    router.config.router_slow_client_ms = 60000; /* the other one reads only afterwards */
    scene_start();
    bare_open(&bad, &router);
    bare_open(&other, &router);
    send_generate(&other, 100, "ls", 2000);
    for (uint32_t i = 0; i < 4000; i++) {
        ssize_t n = message_encode(&seeds[i % 5], bytes, sizeof bytes, NULL);

        assert_true(n > 0);
        for (uint32_t k = 0; k <= i % 3; k++) {
            random = random * 1664525u + 1013904223u;
            bytes[(random >> 8) % (uint32_t)n] = (unsigned char)(random >> 24);
        }
        if (wire_send(bad.socket, bytes, (size_t)n) == -EAGAIN)
            clock_sleep_ns(NS_PER_MS);
        if (i % 20 == 19)
            start_next_session(&bad);
        bare_ping(&other);
    }
    assert_int_equal(read_to_end(&other, 100, 6 * FIXTURE_LOST_MS), 2000);
    assert_int_equal(other.message.type, MESSAGE_DONE);
    /* How many are read before their session ends depends on the machine. */
    assert_true(status_number(&other, "counters/bad_messages") > 20);
    bare_close(&bad);
    bare_close(&other);
    fake_engine_kill(&engine);
}

/* nanomsg drops a connection over which more than NN_RCVMAXSIZE comes: that client is gone. */
static void test_huge_message(void **state)
{
    (void)state;
    const size_t n = MESSAGE_BYTES_MAX + 1;
    void *bytes = calloc(1, n);
    struct bare huge, other;

    scene_start();
    bare_open(&other, &router);
    bare_open(&huge, &router);
    assert_true(wait_status(&other, "sessions/n", 2, FIXTURE_SOON_MS));
    bare_send_bytes(&huge, bytes, n);
    assert_true(wait_status(&other, "sessions/n", 1, FIXTURE_LOST_MS));
    send_generate(&other, 1, "ls", 10);
    assert_int_equal(read_to_end(&other, 1, FIXTURE_LOST_MS), 10);
    bare_close(&huge);
    bare_close(&other);
    fake_engine_kill(&engine);
    free(bytes);
}

/* ---- The door -------------------------------------------------------------------------------- */

static void test_hello(void **state)
{
    (void)state;
    const struct message hello = {.type = MESSAGE_HELLO, .hello = {.version = PROTO_VERSION}};
    const struct message ping = {.type = MESSAGE_PING};
    char url[WIRE_URL_BYTES], first[WIRE_URL_BYTES];
    struct bare b, session;

    router.config.router_sessions_max = 3;
    router_thread_start(&router);
    snprintf(url, sizeof url, "ipc://%s/router.sock", router.dir);
    bare_hello(&b, url, PROTO_VERSION + 1);
    assert_int_equal(b.message.type, MESSAGE_ERROR);
    assert_int_equal(b.message.error.code, ERROR_UNSUPPORTED_VERSION);
    assert_false(b.message.error.retryable);
    /* Anything else than hello, and no message at all. */
    bare_send(&b, &ping);
    assert_true(bare_receive(&b, FIXTURE_SOON_MS));
    assert_int_equal(b.message.error.code, ERROR_BAD_REQUEST);
    bare_send_bytes(&b, "\xc1", 1);
    assert_true(bare_receive(&b, FIXTURE_SOON_MS));
    assert_int_equal(b.message.error.code, ERROR_BAD_REQUEST);
    /* Twice: two sessions, of which one is never dialled. */
    bare_send(&b, &hello);
    assert_true(bare_receive(&b, FIXTURE_SOON_MS));
    assert_int_equal(b.message.type, MESSAGE_WELCOME);
    snprintf(first, sizeof first, "%.*s", (int)b.message.welcome.url.n, b.message.welcome.url.data);
    bare_open(&session, &router);
    assert_string_not_equal(first, session.url);
    assert_int_equal(status_number(&session, "sessions/n"), 2);
    /* Full. */
    bare_send(&b, &hello);
    assert_true(bare_receive(&b, FIXTURE_SOON_MS));
    assert_int_equal(b.message.type, MESSAGE_WELCOME);
    bare_send(&b, &hello);
    assert_true(bare_receive(&b, FIXTURE_SOON_MS));
    assert_int_equal(b.message.error.code, ERROR_NO_CAPACITY);
    assert_true(b.message.error.retryable);
    assert_true(b.message.error.has_retry_after_ms);
    /* The two that nobody dialled close by themselves. */
    assert_true(wait_status(&session, "sessions/n", 1, FIXTURE_LOST_MS));
    assert_int_equal(status_number(&session, "counters/sessions_not_dialled"), 2);
    assert_int_equal(status_number(&session, "counters/sessions_refused"), 4);
    bare_close(&session);
    bare_close(&b);
}

/* ---- Engines --------------------------------------------------------------------------------- */

static void expect_engine_lost(struct bare *b, uint8_t n, uint64_t since_ns)
{
    read_to_end(b, n, FIXTURE_LOST_MS);
    assert_int_equal(b->message.type, MESSAGE_ERROR);
    assert_int_equal(b->message.error.code, ERROR_ENGINE_LOST);
    assert_true(b->message.error.retryable);
    print_message("told after %.0f ms\n", (double)(clock_now_ns() - since_ns) / (double)NS_PER_MS);
}

/* Reads the end of a request that nobody can serve; it must not come before its lease is over. */
static void expect_no_engine(struct bare *b, uint8_t n, uint64_t since_ns)
{
    /* Its last look at the engine may have been a tick or two before. */
    const uint64_t lease_ns = (router.config.router_lease_ms - 100) * NS_PER_MS;

    assert_int_equal(read_to_end(b, n, FIXTURE_LOST_MS), 0);
    assert_int_equal(b->message.type, MESSAGE_ERROR);
    assert_int_equal(b->message.error.code, ERROR_ENGINE_LOST);
    assert_true(b->message.error.retryable);
    assert_true(clock_now_ns() >= since_ns + lease_ns);
    print_message("told after %.1f ms\n", (double)(clock_now_ns() - since_ns) / (double)NS_PER_MS);
}

/* Without an engine, at the start or after its death: the first class hears of it after a lease,
 * queued or new; the other waits, and gets its tokens from the next one. */
static void test_no_engine_is_ready(void **state)
{
    (void)state;
    struct bare b;

    router_thread_start(&router);
    bare_open(&b, &router);
    const uint64_t sent_ns = clock_now_ns();

    send_generate(&b, 1, "be", 5);
    send_generate(&b, 2, "ls", 5);
    expect_no_engine(&b, 2, sent_ns);
    assert_int_equal(status_number(&b, "queues/1/length"), 1);
    assert_true(status_number(&b, "queues/1/oldest_ms") >= router.config.router_lease_ms);
    assert_true(status_number(&b, "no_engine_ms") >= router.config.router_lease_ms);
    engine.requests_max = 1;
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
    assert_int_equal(read_to_end(&b, 1, FIXTURE_LOST_MS), 5);
    assert_int_equal(status_number(&b, "no_engine_ms"), 0);

    atomic_store(&engine.paused, true);
    send_generate(&b, 3, "ls", 5);
    assert_true(wait_count(&engine.n_submits, 2, FIXTURE_SOON_MS));
    send_generate(&b, 4, "ls", 5);
    send_generate(&b, 5, "be", 5);
    assert_true(wait_status(&b, "queues/1/length", 1, FIXTURE_SOON_MS));
    const uint64_t killed_ns = clock_now_ns();

    fake_engine_kill(&engine);
    read_to_end(&b, 3, FIXTURE_LOST_MS);
    expect_no_engine(&b, 4, killed_ns);
    atomic_store(&engine.paused, false);
    engine.epoch++;
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
    assert_int_equal(read_to_end(&b, 5, FIXTURE_LOST_MS), 5);
    assert_int_equal(b.message.type, MESSAGE_DONE);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_engine_killed(void **state)
{
    (void)state;
    struct bare b;

    scene_start();
    bare_open(&b, &router);
    send_generate(&b, 1, "ls", 4000);
    send_generate(&b, 2, "be", 4000);
    assert_true(wait_count(&engine.n_submits, 2, FIXTURE_SOON_MS));
    const uint64_t killed_ns = clock_now_ns();

    fake_engine_kill(&engine);
    expect_engine_lost(&b, 1, killed_ns);
    assert_true(wait_status(&b, "engines/0/outstanding", 0, FIXTURE_SOON_MS));
    /* The next one serves the same ids again. */
    engine.epoch++;
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
    send_generate(&b, 1, "ls", 20);
    assert_int_equal(read_to_end(&b, 1, FIXTURE_LOST_MS), 20);
    assert_int_equal(b.message.type, MESSAGE_DONE);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* Connected, but says nothing; when it comes back it is greeted, and what it still holds is
 * cancelled. */
static void test_engine_hangs(void **state)
{
    (void)state;
    struct bare b;

    scene_start();
    bare_open(&b, &router);
    send_generate(&b, 1, "ls", 4000);
    assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    const uint64_t hung_ns = clock_now_ns();

    engine.held = id_of(1);
    engine.has_held = true;
    atomic_store(&engine.mute, true);
    expect_engine_lost(&b, 1, hung_ns);
    assert_true(wait_status(&b, "counters/engines_lost", 1, FIXTURE_SOON_MS));
    atomic_store(&engine.mute, false);
    const uint64_t until_ns = clock_now_ns() + FIXTURE_LOST_MS * NS_PER_MS;

    while (atomic_load(&engine.n_cancels) == 0 && clock_now_ns() < until_ns) {
        bare_ping(&b);
        clock_sleep_ns(10 * NS_PER_MS);
    }
    assert_true(atomic_load(&engine.n_router_hellos) >= 1);
    assert_true(atomic_load(&engine.n_cancels) >= 1);
    pthread_mutex_lock(&engine.lock);
    assert_memory_equal(engine.last_cancelled.bytes, id_of(1).bytes, 16);
    pthread_mutex_unlock(&engine.lock);
    send_generate(&b, 2, "ls", 20);
    assert_int_equal(read_to_end(&b, 2, FIXTURE_LOST_MS), 20);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* Found by the end-to-end test of a stalled engine: a client that asked again under the same id was
 * told that its new run had been cancelled, when the old one was. */
static void test_end_of_an_earlier_run_ends_nothing(void **state)
{
    (void)state;
    struct bare b;

    scene_start();
    atomic_store(&engine.echoes, true);
    bare_open(&b, &router);
    send_generate(&b, 1, "ls", 20);
    assert_int_equal(read_to_end(&b, 1, FIXTURE_LOST_MS), 20);
    assert_int_equal(b.message.type, MESSAGE_DONE);
    assert_int_equal(b.message.done.reason, FINISH_LENGTH);
    send_generate(&b, 2, "be", 20);
    assert_int_equal(read_to_end(&b, 2, FIXTURE_LOST_MS), 20);
    assert_int_equal(b.message.done.reason, FINISH_LENGTH);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_wrong_model_is_refused(void **state)
{
    (void)state;
    struct bare b;

    router_thread_start(&router);
    fake_engine_start(&engine, router.dir, 1);
    bare_open(&b, &router);
    clock_sleep_ns(300 * NS_PER_MS);
    assert_int_equal(status_number(&b, "ready"), 0);
    send_generate(&b, 1, "ls", 1);
    assert_true(wait_status(&b, "queues/0/length", 1, FIXTURE_SOON_MS));
    assert_int_equal(atomic_load(&engine.n_submits), 0);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* ---- The router ------------------------------------------------------------------------------ */

static void test_shutdown_is_announced(void **state)
{
    (void)state;
    struct client_event event;

    scene_start();
    struct client *c = router_thread_client(&router);
    struct message m = generate(1, "ls", 4000);

    assert_int_equal(client_generate(c, &m.generate, NULL), 0);
    assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    router_thread_stop(&router);
    do {
        assert_int_equal(client_next_event(c, FIXTURE_LOST_MS, &event), 0);
    } while (event.kind != CLIENT_LOST);
    assert_int_equal(event.code, ERROR_SHUTTING_DOWN);
    client_close(c);
    fake_engine_kill(&engine);
}

#ifdef OMNI_ROUTER_PROGRAM

static pid_t start_program(const struct router_thread *t)
{
    char run[128], shm[128], model[320];
    pid_t pid;

    snprintf(run, sizeof run, "run.dir=%s", t->dir);
    snprintf(shm, sizeof shm, "shm.dir=%s/shm", t->dir);
    snprintf(model, sizeof model, "model.path=%s", t->config.model_path);
    /* nanomsg forbids fork after its first socket; in the child nothing of it is used. */
    pid = fork();
    if (pid == 0) {
        execl(OMNI_ROUTER_PROGRAM, "omni-router", "--set", run, "--set", shm, "--set", model,
              "--set", "group.name=g", (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    program = pid;
    return pid;
}

static struct client *open_program(const struct router_thread *t)
{
    char url[WIRE_URL_BYTES];
    const struct client_options options = {.url = url, .open_timeout_ms = FIXTURE_LOST_MS};
    struct client *c;
    struct error error;

    snprintf(url, sizeof url, "ipc://%s/g/router.sock", t->dir);
    if (client_open(&c, &options, &error) != 0)
        fail_msg("%s", error.text);
    return c;
}

static void remove_program_dir(const struct router_thread *t)
{
    program = -1;
    char path[256];

    snprintf(path, sizeof path, "rm -rf %s/g %s/shm", t->dir, t->dir);
    assert_int_equal(system(path), 0);
}

static void expect_router_lost(struct client *c, uint64_t since_ns)
{
    struct client_event event;

    do {
        assert_int_equal(client_next_event(c, FIXTURE_LOST_MS, &event), 0);
    } while (event.kind != CLIENT_LOST);
    assert_int_equal(event.code, ERROR_ROUTER_LOST);
    print_message("router lost: told after %.0f ms\n",
                  (double)(clock_now_ns() - since_ns) / (double)NS_PER_MS);
}

static void test_program_ends_cleanly(void **state)
{
    (void)state;
    char path[128];
    int status;
    pid_t pid = start_program(&router);
    struct client *c = open_program(&router);

    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    snprintf(path, sizeof path, "%s/g/router.sock", router.dir);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof path, "%s/g/engine-0.sock", router.dir);
    assert_int_equal(access(path, F_OK), -1);
    client_close(c);
    remove_program_dir(&router);
}

/* Killed with everything open: clients know, and the next one starts over what was left. */
static void test_program_killed(void **state)
{
    (void)state;
    int status;
    pid_t pid = start_program(&router);
    struct client *c = open_program(&router);
    const uint64_t killed_ns = clock_now_ns();

    kill(pid, SIGKILL);
    expect_router_lost(c, killed_ns);
    waitpid(pid, &status, 0);
    pid = start_program(&router);
    client_close(c);
    c = open_program(&router);
    client_close(c);
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    remove_program_dir(&router);
}

/* A router that was stopped for longer than a lease does not blame its clients for the silence. */
static void test_program_stopped_and_continued(void **state)
{
    (void)state;
    char url[WIRE_URL_BYTES];
    struct bare b;
    int status;
    pid_t pid = start_program(&router);
    struct client *c = open_program(&router); /* returns when the program serves */

    client_close(c);
    snprintf(url, sizeof url, "ipc://%s/g/router.sock", router.dir);
    bare_hello(&b, url, PROTO_VERSION);
    snprintf(b.url, sizeof b.url, "%.*s", (int)b.message.welcome.url.n, b.message.welcome.url.data);
    wire_close(b.socket);
    b.socket = wire_pair_dial(b.url);
    assert_true(wait_status(&b, "sessions/n", 1, FIXTURE_SOON_MS));
    kill(pid, SIGSTOP);
    clock_sleep_ns(2500 * NS_PER_MS); /* the lease is 2,000 */
    kill(pid, SIGCONT);
    clock_sleep_ns(200 * NS_PER_MS);
    assert_int_equal(status_number(&b, "counters/clients_silent"), 0);
    assert_int_equal(status_number(&b, "sessions/n"), 1);
    bare_close(&b);
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    remove_program_dir(&router);
}

/* nanomsg aborts the process on a malformed ipc frame (only this uid can send one): it costs one
 * restart, and clients are told as for any death. */
static void test_malformed_ipc_frame_costs_a_restart(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    static const char frame[] = "\0SP\0\0\x30\0\0\x07\0\0\0\0\0\0\0\x01x"; /* type 7: none such */
    int status;
    pid_t pid = start_program(&router);
    struct client *c = open_program(&router);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s/g/router.sock", router.dir);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    const uint64_t sent_ns = clock_now_ns();

    assert_int_equal(send(fd, frame, sizeof frame - 1, MSG_NOSIGNAL), sizeof frame - 1);
    clock_sleep_ns(500 * NS_PER_MS);
    close(fd);
    if (waitpid(pid, &status, WNOHANG) == pid) {
        print_message("the frame ended the router\n");
        expect_router_lost(c, sent_ns);
        pid = start_program(&router);
        client_close(c);
        c = open_program(&router);
    } else {
        print_message("the router survived the frame\n");
        assert_int_equal(client_status(c, 1), 0);
    }
    client_close(c);
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    remove_program_dir(&router);
}

#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef OMNI_ROUTER_PROGRAM
        TEST(test_program_ends_cleanly),
        TEST(test_program_killed),
        TEST(test_program_stopped_and_continued),
        TEST(test_malformed_ipc_frame_costs_a_restart),
#endif
        TEST(test_gone_client_is_cancelled),
        TEST(test_silent_client_is_cancelled),
        TEST(test_slow_reader_blocks_nobody),
        TEST(test_slow_reader_resumes),
        TEST(test_bad_messages),
        TEST(test_bad_generate_names_the_id),
        TEST(test_mutated_messages),
        TEST(test_huge_message),
        TEST(test_hello),
        TEST(test_no_engine_is_ready),
        TEST(test_engine_killed),
        TEST(test_engine_hangs),
        TEST(test_end_of_an_earlier_run_ends_nothing),
        TEST(test_wrong_model_is_refused),
        TEST(test_shutdown_is_announced),
    };

    return cmocka_run_group_tests(tests, NULL, scene_clean);
}
