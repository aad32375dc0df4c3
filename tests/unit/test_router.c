/* A whole router in a thread, between a scripted engine and real clients: requests from hello to
 * done.  What goes wrong is in test_router_faults.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "router_scene.h"

/* ---- Streams --------------------------------------------------------------------------------- */

static void test_library_client_streams(void **state)
{
    (void)state;
    scene_start();
    struct client *c = router_thread_client(&router);
    struct message m = generate(1, "ls", 40);
    struct output o = {0};
    struct client_event event;

    assert_string_equal(client_info(c)->classes[0], "ls");
    assert_int_equal(client_info(c)->n_ctx, 4096);
    client_id_new(&m.generate.id);
    assert_int_equal(client_generate(c, &m.generate, NULL), 0);
    while (!o.done) {
        assert_int_equal(client_next_event(c, FIXTURE_SOON_MS, &event), 0);
        assert_int_equal(event.kind, CLIENT_MESSAGE);
        add_message(&o, event.message, &m.generate.id);
    }
    scene_expect_script(&o, 0, 40);
    assert_int_equal(o.end.reason, FINISH_LENGTH);
    assert_int_equal(o.end.output_tokens, 40);
    assert_int_equal(o.end.device_tokens, 1);
    assert_int_equal(o.end.worker_tokens, 39);
    assert_int_equal(o.end.ridealong_jobs, 7);
    assert_int_equal(o.end.parked_jobs, 5);
    assert_true(o.end.has_ttft_ms && o.end.has_tpot_ms);
    assert_true(o.end.ttft_ms > 0 && o.end.tpot_ms > 0);
    assert_int_equal(o.end.prompt_tokens, engine.last_n_prompt);
    client_close(c);
    fake_engine_kill(&engine);
}

/* Tokens of several bytes and bytes of several tokens: the text is the script's, to the byte. */
static void test_text_is_whole(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    scene_start();
    bare_open(&b, &router);
    struct message m = generate(1, "ls", engine.n_script);

    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    scene_expect_script(&o, 0, engine.n_script);
    assert_string_equal(o.text, scene_script);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_seed_is_drawn_and_told(void **state)
{
    (void)state;
    struct bare b;
    struct output o;
    uint64_t seeds[2];

    scene_start();
    bare_open(&b, &router);
    for (uint8_t i = 0; i < 2; i++) {
        struct message m = generate((uint8_t)(i + 1), "ls", 1);

        bare_send(&b, &m);
        collect(&b, (uint8_t)(i + 1), &o, 0);
        pthread_mutex_lock(&engine.lock);
        assert_true(o.end.seed == engine.last_seed);
        pthread_mutex_unlock(&engine.lock);
        seeds[i] = o.end.seed;
        assert_false(o.end.has_tpot_ms); /* one token has no gap */
    }
    assert_true(seeds[0] != seeds[1]);
    struct message m = generate(3, "ls", 1);

    m.generate.has_seed = true;
    m.generate.seed = 99;
    bare_send(&b, &m);
    collect(&b, 3, &o, 0);
    assert_true(o.end.seed == 99);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* Three requests of one session: every message of a sweep in which all three have tokens carries
 * all three. */
static void test_one_message_per_sweep(void **state)
{
    (void)state;
    uint32_t n_messages = 0, n_full = 0, n_done = 0;
    struct bare b;

    engine.sweep_ms = 20;
    atomic_store(&engine.paused, true);
    scene_start();
    bare_open(&b, &router);
    for (uint8_t i = 1; i <= 3; i++) {
        struct message m = generate(i, "ls", 30);

        bare_send(&b, &m);
    }
    assert_true(wait_count(&engine.n_submits, 3, FIXTURE_SOON_MS));
    atomic_store(&engine.paused, false);
    while (n_done < 3) {
        bare_ping(&b);
        if (!bare_receive(&b, 100))
            continue;
        if (b.message.type == MESSAGE_TOKENS) {
            n_messages++;
            n_full += b.message.tokens.items.n == 3;
        }
        n_done += b.message.type == MESSAGE_DONE;
    }
    assert_int_equal(n_full, n_messages);
    /* Two sweeps may meet in one message where the router ran late. */
    assert_true(n_messages <= atomic_load(&engine.n_sweeps));
    assert_true(n_messages >= atomic_load(&engine.n_sweeps) / 2);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void stop_at(const char *stop, const char *expected_text, uint8_t n)
{
    const struct str stops[] = {str_of(stop), str_of("never said")};
    struct message m = generate(n, "be", 2000);
    struct bare b;
    struct output o;
    const uint32_t n_stops = atomic_load(&engine.n_stops);

    m.generate.has_stop = true;
    m.generate.stop = (struct str_array){.data = stops, .n = 2};
    bare_open(&b, &router);
    bare_send(&b, &m);
    collect(&b, n, &o, 0);
    assert_int_equal(o.end.reason, FINISH_STOP);
    assert_string_equal(o.text, expected_text);
    assert_true(o.n < engine.n_script);
    assert_int_equal(o.end.output_tokens, o.n);
    assert_true(o.end.device_tokens + o.end.worker_tokens <= o.n);
    assert_int_equal(atomic_load(&engine.n_stops), n_stops + 1);
    bare_close(&b);
}

static void test_stop_strings(void **state)
{
    (void)state;
    scene_start();
    stop_at("x jumps o", "The quick brown fo", 1);
    stop_at("caf\xc3\xa9 by", "The quick brown fox jumps over the lazy dog, ", 2);
    stop_at("T", "", 3);
    fake_engine_kill(&engine);
}

/* A stop string that only begins when the output ends was text after all. */
static void test_held_text_comes_at_the_end(void **state)
{
    (void)state;
    const struct str stops[] = {str_of("The quick brown fox jumps over the lazy cat")};
    struct bare b;
    struct output o;

    scene_start();
    bare_open(&b, &router);
    struct message m = generate(1, "ls", engine.n_script);

    m.generate.has_stop = true;
    m.generate.stop = (struct str_array){.data = stops, .n = 1};
    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_LENGTH);
    assert_string_equal(o.text, scene_script);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* ---- Prompts --------------------------------------------------------------------------------- */

static void expect_refusal(struct bare *b, struct message *m, enum error_code code,
                           const char *field)
{
    static uint8_t n = 100;
    struct output o;

    m->generate.id = id_of(++n);
    bare_send(b, m);
    collect(b, n, &o, 0);
    assert_true(o.failed);
    assert_int_equal(o.code, code);
    assert_string_equal(o.field, field);
    assert_false(o.retryable);
    assert_true(o.message[0] != '\0');
}

static void test_refusals_name_the_field(void **state)
{
    (void)state;
    const uint32_t beyond = 1u << 20;
    struct bare b;
    struct message m;
    char *long_text = malloc(4000000);

    memset(long_text, 'a', 4000000);
    scene_start();
    bare_open(&b, &router);
    assert_true(wait_status(&b, "engines/0/workers/1/total_blocks", 1000, FIXTURE_SOON_MS));
    m = generate(1, "nobody", 1);
    expect_refusal(&b, &m, ERROR_BAD_REQUEST, "class");
    m = generate(1, "ls", 0);
    expect_refusal(&b, &m, ERROR_BAD_REQUEST, "max_tokens");
    m = generate(1, "ls", 4096);
    expect_refusal(&b, &m, ERROR_TOO_LONG, "max_tokens");
    m = generate(1, "ls", 1);
    m.generate.prompt = str_of("");
    expect_refusal(&b, &m, ERROR_BAD_REQUEST, "prompt");
    m.generate.prompt = (struct str){.data = long_text, .n = 4000000};
    expect_refusal(&b, &m, ERROR_TOO_LONG, "prompt");
    m.generate.prompt = (struct str){.data = long_text, .n = 20000};
    expect_refusal(&b, &m, ERROR_TOO_LONG, "prompt");
    m = generate(1, "ls", 1);
    m.generate.has_tokens = true;
    m.generate.tokens = (struct u32_array){.data = &beyond, .n = 1};
    expect_refusal(&b, &m, ERROR_BAD_REQUEST, "prompt"); /* two forms at once */
    m.generate.has_prompt = false;
    expect_refusal(&b, &m, ERROR_BAD_REQUEST, "tokens");
    assert_int_equal(atomic_load(&engine.n_submits), 0);
    bare_close(&b);
    fake_engine_kill(&engine);
    free(long_text);
}

static void test_chats_and_tokens(void **state)
{
    (void)state;
    const struct chat_turn turns[] = {
        {.role = str_of("user"), .content = str_of("Hello <|im_end|>")}};
    uint32_t ids[] = {1, 2, 3, 4, 5};
    struct bare b;
    struct output o;

    scene_start();
    bare_open(&b, &router);
    struct message m = generate(1, "ls", 2);

    m.generate.has_prompt = false;
    m.generate.has_messages = true;
    m.generate.messages.data = turns;
    m.generate.messages.n = 1;
    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    assert_true(o.done);
    assert_true(o.end.prompt_tokens > 10);
    m = generate(2, "ls", 2);
    m.generate.has_prompt = false;
    m.generate.has_tokens = true;
    m.generate.tokens = (struct u32_array){.data = ids, .n = 5};
    bare_send(&b, &m);
    collect(&b, 2, &o, 0);
    assert_int_equal(o.end.prompt_tokens, 5);
    /* Without max_tokens there is a default, cut to the context. */
    m = generate(3, "ls", 0);
    m.generate.has_max_tokens = false;
    atomic_store(&engine.paused, true);
    bare_send(&b, &m);
    assert_true(wait_count(&engine.n_submits, 3, FIXTURE_SOON_MS));
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* More KV than any engine has: refused at once where that is known, else when it is. */
static void test_never_fits(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    engine.kv_blocks = 10; /* 320 tokens; the workers' arenas have 32,000 */
    router_thread_start(&router);
    bare_open(&b, &router);
    struct message early = generate(1, "ls", 400);

    bare_send(&b, &early);
    assert_true(wait_status(&b, "queues/0/length", 1, FIXTURE_SOON_MS));
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.code, ERROR_NO_CAPACITY);
    assert_false(o.retryable);
    struct message late = generate(2, "ls", 400);

    expect_refusal(&b, &late, ERROR_NO_CAPACITY, "max_tokens");
    assert_true(wait_status(&b, "engines/0/workers/1/total_blocks", 1000, FIXTURE_SOON_MS));
    struct message be = generate(3, "be", 400);

    bare_send(&b, &be);
    collect(&b, 3, &o, 0);
    assert_true(o.done);
    /* A default is cut to what fits. */
    struct message cut = generate(4, "ls", 0);

    cut.generate.has_max_tokens = false;
    bare_send(&b, &cut);
    collect(&b, 4, &o, 0);
    assert_int_equal(o.end.output_tokens, 320 - o.end.prompt_tokens);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* ---- Cancel, attach -------------------------------------------------------------------------- */

static void test_cancel(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    engine.requests_max = 1;
    scene_start();
    bare_open(&b, &router);
    struct message running = generate(1, "ls", 4000), queued = generate(2, "ls", 4000);
    struct message cancel = {.type = MESSAGE_CANCEL, .cancel = {.id = id_of(2)}};

    bare_send(&b, &running);
    collect(&b, 1, &o, 3);
    bare_send(&b, &queued);
    bare_send(&b, &cancel);
    collect(&b, 2, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    assert_int_equal(o.end.output_tokens, 0);
    assert_int_equal(atomic_load(&engine.n_cancels), 0);
    cancel.cancel.id = id_of(1);
    bare_send(&b, &cancel);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    assert_true(o.end.output_tokens >= 3);
    assert_int_equal(atomic_load(&engine.n_cancels), 1);
    /* What has ended: how.  What never was: not_found. */
    bare_send(&b, &cancel);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    cancel.cancel.id = id_of(77);
    bare_send(&b, &cancel);
    collect(&b, 77, &o, 0);
    assert_int_equal(o.code, ERROR_NOT_FOUND);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* The one who asks and the one who has the request hear of its end, running or queued; of another's
 * end nobody hears. */
static void test_cancel_from_another_session(void **state)
{
    (void)state;
    struct message cancel = {.type = MESSAGE_CANCEL, .cancel = {.id = id_of(1)}};
    const struct message queued = generate(2, "ls", 60);
    struct bare owner, other;
    struct output o;
    uint32_t n_output;

    engine.requests_max = 1;
    scene_start();
    bare_open(&owner, &router);
    bare_open(&other, &router);
    struct message m = generate(1, "ls", 4000);

    bare_send(&owner, &m);
    collect(&owner, 1, &o, 2);
    bare_send(&owner, &queued);
    assert_true(wait_status(&other, "queues/0/length", 1, FIXTURE_SOON_MS));
    cancel.cancel.id = id_of(2);
    bare_send(&other, &cancel);
    collect(&other, 2, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    assert_int_equal(o.n, 0);
    collect(&owner, 2, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    cancel.cancel.id = id_of(1);
    bare_send(&other, &cancel);
    collect(&other, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    assert_int_equal(o.n, 0); /* its tokens are not the canceller's */
    n_output = o.end.output_tokens;
    collect(&owner, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    assert_int_equal(o.end.output_tokens, n_output);
    assert_int_equal(atomic_load(&engine.n_cancels), 1);
    /* Once more: it has ended like that. */
    bare_send(&other, &cancel);
    collect(&other, 1, &o, 0);
    assert_int_equal(o.end.reason, FINISH_CANCELLED);
    bare_close(&owner);
    bare_close(&other);
    fake_engine_kill(&engine);
}

static void test_attach_from_a_new_session(void **state)
{
    (void)state;
    struct bare first, second;
    struct output before, after;

    engine.sweep_ms = 5;
    scene_start();
    bare_open(&first, &router);
    bare_open(&second, &router);
    struct message m = generate(1, "ls", engine.n_script), again = resume(1, 4);

    bare_send(&first, &m);
    collect(&first, 1, &before, 8);
    bare_send(&second, &again);
    collect(&second, 1, &after, 0);
    scene_expect_script(&after, 4, engine.n_script - 4);
    /* The old session is told, and hears no more. */
    collect(&first, 1, &before, 0);
    assert_true(before.failed);
    assert_int_equal(before.code, ERROR_SESSION_LOST);
    assert_int_equal(atomic_load(&engine.n_submits), 1);
    bare_close(&first);
    bare_close(&second);
    fake_engine_kill(&engine);
}

/* Text and tokens agree at every index that a client may come back for, also after the end. */
static void test_finished_results_are_kept(void **state)
{
    (void)state;
    const struct str stops[] = {str_of("zzz")};
    struct output whole, part;
    struct bare b;
    size_t text_before = 0;

    scene_start();
    bare_open(&b, &router);
    struct message m = generate(1, "ls", engine.n_script);

    m.generate.has_stop = true;
    m.generate.stop = (struct str_array){.data = stops, .n = 1};
    bare_send(&b, &m);
    collect(&b, 1, &whole, 0);
    for (uint32_t from = 0; from <= engine.n_script; from++) {
        struct message again = resume(1, from);

        bare_send(&b, &again);
        collect(&b, 1, &part, 0);
        assert_int_equal(part.n, engine.n_script - from);
        assert_true(part.n_text <= whole.n_text - text_before);
        text_before = whole.n_text - part.n_text;
        assert_string_equal(part.text, whole.text + text_before);
        assert_int_equal(part.end.reason, FINISH_LENGTH);
        assert_true(part.end.seed == whole.end.seed);
    }
    assert_int_equal(text_before, whole.n_text);
    /* Also with a prompt: a known id is never run twice. */
    bare_send(&b, &m);
    collect(&b, 1, &part, 0);
    scene_expect_script(&part, 0, engine.n_script);
    assert_int_equal(atomic_load(&engine.n_submits), 1);
    struct message unknown = resume(9, 0);

    bare_send(&b, &unknown);
    collect(&b, 9, &part, 0);
    assert_int_equal(part.code, ERROR_NOT_FOUND);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_results_are_forgotten(void **state)
{
    (void)state;
    struct output o;
    struct bare b;

    router.config.router_result_keep_s = 1;
    scene_start();
    bare_open(&b, &router);
    struct message m = generate(1, "ls", 2), again = resume(1, 0);

    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    assert_true(wait_status(&b, "counters/requests_held", 0, FIXTURE_SOON_MS));
    bare_send(&b, &again);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.code, ERROR_NOT_FOUND);
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_tcp_door(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    strcpy(router.config.router_tcp_listen, "127.0.0.1");
    router.config.router_tcp_port = 17470;
    strcpy(router.config.router_tcp_ports, "17471-17475");
    scene_start();
    bare_hello(&b, "tcp://127.0.0.1:17470", PROTO_VERSION);
    assert_int_equal(b.message.type, MESSAGE_WELCOME);
    snprintf(b.url, sizeof b.url, "%.*s", (int)b.message.welcome.url.n, b.message.welcome.url.data);
    assert_non_null(strstr(b.url, "tcp://127.0.0.1:1747"));
    wire_close(b.socket);
    b.socket = wire_pair_dial(b.url);
    struct message m = generate(1, "ls", 5);

    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    scene_expect_script(&o, 0, 5);
    bare_close(&b);
    fake_engine_kill(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_library_client_streams),
        SCENE_TEST(test_text_is_whole),
        SCENE_TEST(test_seed_is_drawn_and_told),
        SCENE_TEST(test_one_message_per_sweep),
        SCENE_TEST(test_stop_strings),
        SCENE_TEST(test_held_text_comes_at_the_end),
        SCENE_TEST(test_refusals_name_the_field),
        SCENE_TEST(test_chats_and_tokens),
        SCENE_TEST(test_never_fits),
        SCENE_TEST(test_cancel),
        SCENE_TEST(test_cancel_from_another_session),
        SCENE_TEST(test_attach_from_a_new_session),
        SCENE_TEST(test_finished_results_are_kept),
        SCENE_TEST(test_results_are_forgotten),
        SCENE_TEST(test_tcp_door),
    };

    return cmocka_run_group_tests(tests, NULL, scene_clean);
}
