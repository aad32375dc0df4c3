/* Engine page: one engine per index, also where the page that is there is of another version. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "common/shm/engine_page.h"
#include "tests/unit/shm_test.h"

enum { N_RIVALS = 4, ROUNDS = 100, OTHER_VERSION = 77 };

static void open_page(struct engine_page *p)
{
    struct error err;

    assert_int_equal(engine_page_open(p, shm_test_dir, 0, &err), 0);
}

static void second_engine_is_refused_and_a_successor_is_not(void **state)
{
    struct engine_page first, second;
    struct error err;

    (void)state;
    open_page(&first);
    assert_string_equal(first.replaced.text, "");
    engine_page_enter(&first, 1, 1000);
    assert_int_equal(engine_page_open(&second, shm_test_dir, 0, &err), -EBUSY);
    assert_non_null(strstr(err.text, "engine 0 runs already"));
    engine_page_detach(&first);
    open_page(&second);
    assert_int_equal(engine_page_epoch(&second), 1);
    engine_page_detach(&second);
}

/* Found by review: a page of another layout was replaced although its engine still ran. */
static void page_of_another_version_is_replaced_when_its_engine_is_gone(void **state)
{
    struct engine_page old, next;
    struct error err;

    (void)state;
    open_page(&old);
    segment_header(&old.segment)->layout_version = OTHER_VERSION;
    assert_int_equal(engine_page_open(&next, shm_test_dir, 0, &err), -EBUSY);
    assert_non_null(strstr(err.text, "layout version: expected 0x1, found 0x4d"));
    assert_true(segment_is_current(&old.segment));
    engine_page_detach(&old);
    open_page(&next);
    assert_non_null(strstr(next.replaced.text, "layout version: expected 0x1, found 0x4d"));
    assert_int_equal(engine_page_epoch(&next), 0);
    engine_page_detach(&next);
}

struct rival {
    pthread_barrier_t *barrier;
    int rc;
};

static void *start_engine(void *arg)
{
    struct rival *r = arg;
    struct engine_page page;
    struct error err;

    pthread_barrier_wait(r->barrier);
    r->rc = engine_page_open(&page, shm_test_dir, 0, &err);
    pthread_barrier_wait(r->barrier);
    if (r->rc == 0)
        engine_page_detach(&page);
    return NULL;
}

static uint32_t n_winners(void)
{
    struct rival rivals[N_RIVALS];
    pthread_t threads[N_RIVALS];
    pthread_barrier_t barrier;
    uint32_t n = 0;

    pthread_barrier_init(&barrier, NULL, N_RIVALS);
    for (int i = 0; i < N_RIVALS; i++) {
        rivals[i].barrier = &barrier;
        assert_int_equal(pthread_create(&threads[i], NULL, start_engine, &rivals[i]), 0);
    }
    for (int i = 0; i < N_RIVALS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(rivals[i].rc == 0 || rivals[i].rc == -EBUSY);
        n += rivals[i].rc == 0;
    }
    pthread_barrier_destroy(&barrier);
    return n;
}

/* Locks are those of open files, so threads are as good as processes.  By turns there is no page, a
 * fitting one, one of another version. */
static void one_of_many_that_start_at_once(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct engine_page page;

        if (round % 3 != 0) {
            open_page(&page);
            if (round % 3 == 2)
                segment_header(&page.segment)->layout_version = OTHER_VERSION;
            engine_page_detach(&page);
        }
        assert_int_equal(n_winners(), 1);
        assert_int_equal(segment_retire(shm_test_dir, "engine-e0", SEGMENT_ROLE_ENGINE), 0);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(second_engine_is_refused_and_a_successor_is_not),
        TEST(page_of_another_version_is_replaced_when_its_engine_is_gone),
        TEST(one_of_many_that_start_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
