/* Queues and assignment in a whole router: which request goes where, and when. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_all.h"
#include "common/base/clock.h"
#include "router_scene.h"

/* ---- Queues and assignment ------------------------------------------------------------------- */

static void test_requests_wait_for_an_engine(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    router.config.router_lease_ms = 60000; /* nobody's patience ends while the test looks */
    router_thread_start(&router);
    bare_open(&b, &router);
    assert_int_equal(status_number(&b, "ready"), 0);
    struct message m = generate(1, "ls", 5);

    bare_send(&b, &m);
    assert_true(wait_status(&b, "queues/0/length", 1, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&b, "engines/0/pid"), 0);
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
    collect(&b, 1, &o, 0);
    scene_expect_script(&o, 0, 5);
    assert_int_equal(status_number(&b, "engines/0/pid"), 4711);
    assert_true(wait_status(&b, "ready", 1, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&b, "processes/0/pid"), getpid()); /* the router, in a thread */
    assert_int_equal(status_number(&b, "processes/1/pid"), 4711);
    assert_int_equal(status_number(&b, "processes/3/pid"), 5001);
    assert_int_equal(status_number(&b, "engines/0/workers/1/pid"), 5001);
    assert_int_equal(status_number(&b, "classes/ls/length"), 1);
    assert_int_equal(status_number(&b, "counters/tokens_out"), 5);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* One place in the engine; what waits is served by class, and in order of arrival inside one. */
static void test_three_classes_are_served_in_order(void **state)
{
    (void)state;
    static const char *const classes[] = {"ls", "be", "mid", "be", "mid", "ls", "be"};
    static const uint32_t expected[] = {0, 0, 1, 1, 2, 2, 2};
    struct bare b;
    struct output o;

    strcpy(router.config.group_classes, "ls,mid,be");
    engine.requests_max = 1;
    atomic_store(&engine.paused, true);
    scene_start();
    bare_open(&b, &router);
    for (uint8_t i = 0; i < 7; i++) {
        struct message m = generate((uint8_t)(i + 1), classes[i], 2);

        bare_send(&b, &m);
        if (i == 0)
            assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    }
    assert_true(wait_status(&b, "queues/2/length", 3, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&b, "engines/0/outstanding"), 1);
    atomic_store(&engine.paused, false);
    collect(&b, 7, &o, 0);
    assert_true(o.done);
    pthread_mutex_lock(&engine.lock);
    assert_memory_equal(engine.order, expected, sizeof expected);
    pthread_mutex_unlock(&engine.lock);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* One tenant floods, the other's requests take their turns; a name is checked. */
static void test_tenants_take_turns(void **state)
{
    (void)state;
    static const char asked[] = "aaaaaabbb", expected[] = "abababaaa";
    struct bare b;
    struct output o;

    strcpy(router.config.tenants_weights, "acme:1,bravo:1");
    engine.requests_max = 1;
    atomic_store(&engine.paused, true);
    scene_start();
    bare_open(&b, &router);
    for (uint8_t i = 0; i < 9; i++) {
        struct message m = generate((uint8_t)(i + 1), "ls", 2);

        m.generate.has_tenant = true;
        m.generate.tenant = str_of(asked[i] == 'a' ? "acme" : "bravo");
        bare_send(&b, &m);
        if (i == 0)
            assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    }
    assert_true(wait_status(&b, "queues/0/length", 8, FIXTURE_SOON_MS));
    atomic_store(&engine.paused, false);
    assert_true(wait_status(&b, "classes/ls/length", 9, FIXTURE_SOON_MS));
    pthread_mutex_lock(&engine.lock);
    assert_memory_equal(engine.tenants, expected, 9);
    pthread_mutex_unlock(&engine.lock);
    assert_int_equal(
        status_number(&b, "classes/ls/slo_met") + status_number(&b, "classes/ls/slo_missed"), 9);
    struct message m = generate(20, "ls", 2);
    m.generate.has_tenant = true;
    m.generate.tenant = str_of("no/name");
    bare_send(&b, &m);
    collect(&b, 20, &o, 0);
    assert_int_equal(o.code, ERROR_BAD_REQUEST);
    assert_string_equal(o.field, "tenant");
    bare_close(&b);
    fake_engine_kill(&engine);
}

static void test_full_queue_refuses(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    strcpy(router.config.router_queue_max, "2,1");
    router.config.router_lease_ms = 60000; /* what waits stays in the queue */
    router_thread_start(&router);
    bare_open(&b, &router);
    for (uint8_t i = 1; i <= 3; i++) {
        struct message m = generate(i, "ls", 1);

        bare_send(&b, &m);
    }
    collect(&b, 3, &o, 0);
    assert_int_equal(o.code, ERROR_QUEUE_FULL);
    assert_true(o.retryable);
    assert_true(o.retry_after_ms > 0);
    struct message m = generate(4, "be", 1);

    bare_send(&b, &m); /* the other class has its own queue */
    assert_true(wait_status(&b, "queues/1/length", 1, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&b, "queues/0/length"), 2);
    bare_close(&b);
}

static void test_workers_are_chosen_by_free_kv(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    scene_start();
    bare_open(&b, &router);
    assert_true(wait_status(&b, "engines/0/workers/1/free_blocks", 200, FIXTURE_SOON_MS));
    struct message m = generate(1, "be", 1);

    bare_send(&b, &m);
    collect(&b, 1, &o, 0);
    pthread_mutex_lock(&engine.lock);
    assert_true(engine.last_has_worker);
    assert_int_equal(engine.last_worker, 1);
    pthread_mutex_unlock(&engine.lock);
    m = generate(2, "ls", 1);
    bare_send(&b, &m);
    collect(&b, 2, &o, 0);
    pthread_mutex_lock(&engine.lock);
    assert_false(engine.last_has_worker);
    pthread_mutex_unlock(&engine.lock);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* Two engines with one place each: two requests run at once, one on each. */
static void test_engines_share_the_load(void **state)
{
    (void)state;
    static struct fake_engine other;
    struct bare b;
    struct output o;

    router.config.group_n_engines = 2;
    fake_engine_init(&other, scene_script);
    other.index = 1;
    engine.requests_max = other.requests_max = 1;
    engine.sweep_ms = other.sweep_ms = 5;
    scene_start();
    fake_engine_start(&other, router.dir, router.router.text.model_hash);
    bare_open(&b, &router);
    assert_true(wait_status(&b, "ready", 1, FIXTURE_SOON_MS));
    for (uint8_t i = 1; i <= 4; i++) {
        struct message m = generate(i, "ls", 40);

        bare_send(&b, &m);
    }
    assert_true(wait_count(&engine.n_submits, 2, FIXTURE_SOON_MS));
    assert_true(wait_count(&other.n_submits, 2, FIXTURE_SOON_MS));
    collect(&b, 4, &o, 0);
    scene_expect_script(&o, 0, 40);
    bare_close(&b);
    fake_engine_kill(&engine);
    fake_engine_kill(&other);
}

static void test_engine_refuses(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    scene_start();
    bare_open(&b, &router);
    atomic_store(&engine.refuse_code, ERROR_OVERLOADED);
    struct message ls = generate(1, "ls", 3), be = generate(2, "be", 3);

    bare_send(&b, &ls);
    collect(&b, 1, &o, 0);
    assert_int_equal(o.code, ERROR_OVERLOADED);
    assert_true(o.retryable);
    assert_int_equal(o.retry_after_ms, 30);
    bare_send(&b, &be);
    assert_true(
        wait_count(&engine.n_refused, 4, FIXTURE_SOON_MS)); /* it waits, and is tried again */
    atomic_store(&engine.refuse_code, -1);
    collect(&b, 2, &o, 0);
    scene_expect_script(&o, 0, 3);
    /* The same id may be used again after a retryable refusal. */
    bare_send(&b, &ls);
    collect(&b, 1, &o, 0);
    scene_expect_script(&o, 0, 3);
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* Best effort does not fill the last places: the first class finds one at once. */
static void test_places_are_kept_for_the_first_class(void **state)
{
    (void)state;
    struct bare b;

    engine.requests_max = 8;
    atomic_store(&engine.paused, true);
    scene_start();
    bare_open(&b, &router);
    for (uint8_t i = 1; i <= 10; i++) {
        struct message m = generate(i, "be", 2);

        bare_send(&b, &m);
    }
    assert_true(wait_status(&b, "queues/1/length", 3, FIXTURE_SOON_MS));
    assert_int_equal(status_number(&b, "engines/0/outstanding"), 7);
    struct message ls = generate(11, "ls", 2);

    bare_send(&b, &ls);
    assert_true(wait_count(&engine.n_submits, 8, FIXTURE_SOON_MS));
    pthread_mutex_lock(&engine.lock);
    assert_int_equal(engine.order[7], 0);
    pthread_mutex_unlock(&engine.lock);
    assert_int_equal(status_number(&b, "queues/0/length"), 0);
    atomic_store(&engine.paused, false);
    assert_true(wait_status(&b, "classes/be/length", 10, FIXTURE_SOON_MS));
    bare_close(&b);
    fake_engine_kill(&engine);
}

/* No place at all: the first class is refused once its first token would be late; others wait. */
static void test_no_place_refuses_the_first_class(void **state)
{
    (void)state;
    struct bare b;
    struct output o;

    engine.requests_max = 1;
    atomic_store(&engine.paused, true);
    scene_start();
    bare_open(&b, &router);
    struct message first = generate(1, "be", 2), second = generate(2, "be", 2);
    struct message ls = generate(3, "ls", 2);

    bare_send(&b, &first);
    assert_true(wait_count(&engine.n_submits, 1, FIXTURE_SOON_MS));
    bare_send(&b, &second);
    ls.generate.has_ttft_slo_ms = true;
    ls.generate.ttft_slo_ms = 100;
    const uint64_t sent_ns = clock_now_ns();

    bare_send(&b, &ls);
    collect(&b, 3, &o, 0);
    assert_int_equal(o.code, ERROR_OVERLOADED);
    assert_true(o.retryable && o.retry_after_ms > 0);
    assert_true(clock_now_ns() - sent_ns >= 100 * NS_PER_MS);
    assert_int_equal(status_number(&b, "classes/ls/refused"), 1);
    assert_int_equal(status_number(&b, "queues/1/length"), 1);
    atomic_store(&engine.paused, false);
    assert_true(wait_status(&b, "classes/be/length", 2, FIXTURE_SOON_MS));
    bare_close(&b);
    fake_engine_kill(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_requests_wait_for_an_engine),
        SCENE_TEST(test_three_classes_are_served_in_order),
        SCENE_TEST(test_tenants_take_turns),
        SCENE_TEST(test_full_queue_refuses),
        SCENE_TEST(test_workers_are_chosen_by_free_kv),
        SCENE_TEST(test_engines_share_the_load),
        SCENE_TEST(test_engine_refuses),
        SCENE_TEST(test_places_are_kept_for_the_first_class),
        SCENE_TEST(test_no_place_refuses_the_first_class),
    };

    return cmocka_run_group_tests(tests, NULL, scene_clean);
}
