/* The client library against a fake router in a thread.  Bounds in time are tested at five times
 * their value, because the machine may be busy; what is measured is printed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "proto/client.h"
#include "tests/unit/fake_router.h"

enum { LOST_BOUND_MS = 5 * WIRE_LOST_MS, LONG_MS = 10000 };

static struct fake_router router;

static struct client *open_client(uint64_t events_bytes_max)
{
    struct client_options options = {.url = router.url,
                                     .name = "test",
                                     .open_timeout_ms = LONG_MS,
                                     .events_bytes_max = events_bytes_max};
    struct error error;
    struct client *c;

    if (client_open(&c, &options, &error) != 0)
        fail_msg("%s", error.text);
    return c;
}

static struct request_id generate(struct client *c, uint32_t max_tokens)
{
    struct message_generate g = {.class = str_of("ls"),
                                 .prompt = str_of("x"),
                                 .has_prompt = true,
                                 .max_tokens = max_tokens,
                                 .has_max_tokens = true};

    client_id_new(&g.id);
    assert_int_equal(client_generate(c, &g, NULL), 0);
    return g.id;
}

static const struct message *next_message(struct client *c, enum message_type type)
{
    struct client_event event;

    assert_int_equal(client_next_event(c, LONG_MS, &event), 0);
    assert_int_equal(event.kind, CLIENT_MESSAGE);
    assert_int_equal(event.message->type, type);
    return event.message;
}

static void expect_tokens(struct client *c, const struct request_id *id, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        const struct message *m = next_message(c, MESSAGE_TOKENS);

        assert_int_equal(m->tokens.items.n, 1);
        assert_true(request_id_equal(&m->tokens.items.data[0].id, id));
        assert_int_equal(m->tokens.items.data[0].index, i);
        assert_int_equal(m->tokens.items.data[0].ids.data[0], 100 + i);
    }
}

/* Skips messages, waits for the loss, and checks code and time since `since_ns`. */
static void expect_lost(struct client *c, enum error_code code, uint64_t since_ns, const char *what)
{
    struct client_event event;

    do
        assert_int_equal(client_next_event(c, LOST_BOUND_MS, &event), 0);
    while (event.kind == CLIENT_MESSAGE);
    uint64_t took_ms = (clock_now_ns() - since_ns) / NS_PER_MS;

    printf("%s: %s after %u ms (%s)\n", what, error_code_name(event.code), (unsigned)took_ms,
           event.text);
    assert_int_equal(event.code, code);
    assert_true(took_ms < LOST_BOUND_MS);
    assert_int_equal(client_next_event(c, 0, &event), -ENOTCONN);
    assert_int_equal(client_status(c, 1), -ENOTCONN);
}

static void test_generate(void **state)
{
    struct client *c = open_client(0);
    struct request_id id = generate(c, 20);

    (void)state;
    assert_int_equal(client_info(c)->epoch, router.epoch);
    assert_int_equal(client_info(c)->n_ctx, 2048);
    assert_int_equal(client_info(c)->n_classes, 2);
    assert_string_equal(client_info(c)->classes[1], "be");
    assert_string_equal(client_info(c)->model, "fake");
    expect_tokens(c, &id, 0, 20);
    const struct message *m = next_message(c, MESSAGE_DONE);

    assert_int_equal(m->done.output_tokens, 20);
    assert_false(m->done.has_tpot_ms);
    client_close(c);
}

static void test_cancel_and_status(void **state)
{
    struct client *c = open_client(0);
    struct request_id id;

    (void)state;
    client_id_new(&id);
    assert_int_equal(client_cancel(c, &id), 0);
    assert_int_equal(next_message(c, MESSAGE_ERROR)->error.code, ERROR_NOT_FOUND);
    assert_int_equal(client_status(c, 77), 0);
    assert_int_equal(next_message(c, MESSAGE_STATUS_REPLY)->status_reply.seq, 77);
    client_close(c);
}

static void test_bad_request_names_the_field(void **state)
{
    struct client *c = open_client(0);
    struct message_generate g = {
        .class = str_of("ls"), .top_p = 1.5, .has_top_p = true, .has_prompt = true};
    struct error error;

    (void)state;
    assert_int_equal(client_generate(c, &g, &error), -EINVAL);
    assert_non_null(strstr(error.text, "top_p"));
    client_close(c);
}

/* Idle for longer than the lease: the thread's pings keep the session, the application sees none.
 */
static void test_pings_keep_an_idle_session(void **state)
{
    struct client *c = open_client(0);
    struct client_event event;

    (void)state;
    router.n_pings = 0;
    assert_int_equal(client_next_event(c, 3 * WIRE_LOST_MS / 2, &event), -ETIMEDOUT);
    assert_true(router.n_pings >= 2);
    assert_true(router.n_pings <= 8);
    client_close(c);
}

static void test_mute_router_is_lost(void **state)
{
    struct client *c = open_client(0);

    (void)state;
    router.order = FAKE_MUTE;
    expect_lost(c, ERROR_ROUTER_LOST, clock_now_ns(), "mute");
    client_close(c);
}

static void test_ended_router_is_lost(void **state)
{
    struct client *c = open_client(0);
    uint64_t since_ns = clock_now_ns();

    (void)state;
    fake_router_end(&router);
    expect_lost(c, ERROR_ROUTER_LOST, since_ns, "ended");
    client_close(c);
    fake_router_start_at(&router, 2, router.dir);
}

static void test_restarted_router_is_lost(void **state)
{
    struct client *c = open_client(0);

    (void)state;
    router.order = FAKE_RESTART_EPOCH;
    expect_lost(c, ERROR_ROUTER_LOST, clock_now_ns(), "other epoch");
    client_close(c);
}

static void test_last_words(void **state)
{
    struct client *c = open_client(0);

    (void)state;
    router.order = FAKE_SAY_AND_CLOSE;
    expect_lost(c, ERROR_SHUTTING_DOWN, clock_now_ns(), "told");
    client_close(c);
}

static void test_garbage_ends_the_session(void **state)
{
    struct client *c = open_client(0);

    (void)state;
    router.order = FAKE_GARBAGE;
    expect_lost(c, ERROR_INTERNAL, clock_now_ns(), "garbage");
    client_close(c);
}

static void test_lost_session_is_resumed(void **state)
{
    struct client *c = open_client(0);
    struct request_id id = generate(c, 10), unknown;
    struct error error;

    (void)state;
    expect_tokens(c, &id, 0, 4);
    router.order = FAKE_CLOSE_SESSION;
    expect_lost(c, ERROR_SESSION_LOST, clock_now_ns(), "session closed");
    if (client_reopen(c, &error) != 0)
        fail_msg("%s", error.text);
    assert_int_equal(client_resume(c, &id, "ls", 4), 0);
    expect_tokens(c, &id, 4, 10);
    next_message(c, MESSAGE_DONE);
    client_id_new(&unknown);
    assert_int_equal(client_resume(c, &unknown, "ls", 0), 0);
    assert_int_equal(next_message(c, MESSAGE_ERROR)->error.code, ERROR_NOT_FOUND);
    client_close(c);
}

/* An application that sleeps costs bounded memory: its session ends. */
static void test_unread_events_are_bounded(void **state)
{
    struct client *c = open_client(20 << 20);

    (void)state;
    router.bulk = 16;
    generate(c, 1);
    for (int i = 0; i < LONG_MS / 10 && client_status(c, 1) != -ENOTCONN; i++)
        clock_sleep_ns(10 * NS_PER_MS);
    expect_lost(c, ERROR_SLOW_CLIENT, clock_now_ns(), "unread");
    client_close(c);
}

static void test_nobody_answers(void **state)
{
    struct client_options options = {.url = "ipc:///tmp/omni-test-nobody.sock",
                                     .open_timeout_ms = 200};
    struct error error;
    struct client *c;

    (void)state;
    assert_int_equal(client_open(&c, &options, &error), -ETIMEDOUT);
    assert_null(c);
    assert_non_null(strstr(error.text, "omni-test-nobody.sock"));
    options.url = "http://x";
    assert_int_equal(client_open(&c, &options, &error), -EINVAL);
    char long_url[200] = "ipc:///tmp/";

    memset(long_url + strlen(long_url), 'x', sizeof long_url - strlen("ipc:///tmp/") - 1);
    long_url[sizeof long_url - 1] = '\0';
    options.url = long_url;
    assert_int_equal(client_open(&c, &options, &error), -ENAMETOOLONG);
}

static void test_version_and_refusal(void **state)
{
    struct client_options options = {.url = router.url, .open_timeout_ms = LONG_MS};
    struct error error;
    struct client *c, *held[FAKE_SESSIONS_MAX];

    (void)state;
    router.version = PROTO_VERSION + 1;
    assert_int_equal(client_open(&c, &options, &error), -EPROTO);
    router.version = PROTO_VERSION;
    /* The refused welcome's session is still bound: one less is free. */
    for (int i = 0; i < FAKE_SESSIONS_MAX - 1; i++)
        held[i] = open_client(0);
    assert_int_equal(client_open(&c, &options, &error), -ECONNREFUSED);
    assert_non_null(strstr(error.text, "no_capacity"));
    for (int i = 0; i < FAKE_SESSIONS_MAX - 1; i++)
        client_close(held[i]);
}

static int set_up(void **state)
{
    (void)state;
    fake_router_start(&router, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_router_end(&router);
    fake_router_remove_dir(&router);
    return 0;
}

#define CLIENT_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLIENT_TEST(test_generate),
        CLIENT_TEST(test_cancel_and_status),
        CLIENT_TEST(test_bad_request_names_the_field),
        CLIENT_TEST(test_pings_keep_an_idle_session),
        CLIENT_TEST(test_mute_router_is_lost),
        CLIENT_TEST(test_ended_router_is_lost),
        CLIENT_TEST(test_restarted_router_is_lost),
        CLIENT_TEST(test_last_words),
        CLIENT_TEST(test_garbage_ends_the_session),
        CLIENT_TEST(test_lost_session_is_resumed),
        CLIENT_TEST(test_unread_events_are_bounded),
        CLIENT_TEST(test_version_and_refusal),
        cmocka_unit_test(test_nobody_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
