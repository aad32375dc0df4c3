/* Ring and bell: order, bounds, wrap-around, and no lost wake-up; both ends are threads here, so
 * that the thread sanitizer sees them. */
#include "shm_test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/shm/bell.h"
#include "common/shm/ring.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { ROUNDS = 20000 };
#else
enum { ROUNDS = 100000 };
#endif

static void *new_ring(uint32_t capacity, struct ring *producer, struct ring *consumer)
{
    void *memory = aligned_alloc(SHM_LINE, ring_bytes(capacity));

    assert_non_null(memory);
    memset(memory, 0, ring_bytes(capacity));
    ring_init(memory, capacity);
    assert_int_equal(ring_attach(producer, memory, capacity), 0);
    assert_int_equal(ring_attach(consumer, memory, capacity), 0);
    return memory;
}

static void first_in_first_out_until_full(void **state)
{
    struct ring in, out;
    void *memory = new_ring(8, &in, &out);
    uint64_t entry, many[16];

    (void)state;
    for (uint64_t round = 0; round < 100; round++) {
        assert_false(ring_ready(&out));
        for (uint64_t i = 0; i < 8; i++)
            assert_true(ring_push(&in, round * 100 + i));
        assert_false(ring_push(&in, 1));
        assert_true(ring_pop(&out, &entry));
        assert_int_equal(entry, round * 100);
        assert_int_equal(ring_push_many(&in, (uint64_t[]){7, 8, 9}, 3), 1);
        assert_int_equal(ring_pop_many(&out, many, 16), 8);
        assert_int_equal(many[6], round * 100 + 7);
        assert_int_equal(many[7], 7);
        assert_false(ring_pop(&out, &entry));
    }
    free(memory);
}

static void indices_wrap_through_32_bits(void **state)
{
    struct ring in, out;
    void *memory = new_ring(4, &in, &out);
    struct ring_shared *shared = memory;
    uint64_t entry;

    (void)state;
    atomic_store(&shared->head, UINT32_MAX - 1);
    atomic_store(&shared->tail, UINT32_MAX - 1);
    assert_int_equal(ring_attach(&in, memory, 4), 0);
    assert_int_equal(ring_attach(&out, memory, 4), 0);
    for (uint64_t i = 0; i < 10; i++) {
        assert_true(ring_push(&in, i));
        assert_true(ring_push(&in, i + 50));
        assert_true(ring_pop(&out, &entry) && entry == i);
        assert_true(ring_pop(&out, &entry) && entry == i + 50);
    }
    free(memory);
}

static void damaged_ring_is_refused(void **state)
{
    struct ring in, out, other;
    void *memory = new_ring(4, &in, &out);
    struct ring_shared *shared = memory;
    uint64_t entry;

    (void)state;
    assert_int_equal(ring_attach(&other, memory, 8), -EINVAL);
    assert_int_equal(ring_attach(&other, memory, 3), -EINVAL);
    atomic_store(&shared->head, 1000); /* the producer has gone mad */
    assert_int_equal(ring_attach(&other, memory, 4), -EINVAL);
    assert_false(ring_pop(&out, &entry)); /* and the attached one reads nothing that is not there */
    free(memory);
}

static void skip_forgets_what_was_pushed(void **state)
{
    struct ring in, out;
    void *memory = new_ring(4, &in, &out);
    uint64_t entry;

    (void)state;
    ring_push(&in, 1);
    ring_push(&in, 2);
    ring_skip_to_head(&out);
    assert_false(ring_pop(&out, &entry));
    for (uint64_t i = 0; i < 4; i++)
        assert_true(ring_push(&in, i)); /* the producer sees the room */
    free(memory);
}

/* ---- two threads: ping-pong through two rings, sleeping whenever there is nothing
 * ---------------- */

struct side {
    struct ring in, out;
    struct bell_shared *own, *other;
    uint64_t spin_ns;
    uint64_t sum;
};

static bool has_entry(void *arg)
{
    return ring_ready(&((struct side *)arg)->in);
}

static uint64_t receive(struct side *s)
{
    struct bell_wait wait = {
        .ready = has_entry, .arg = s, .until_ns = clock_now_ns() + 30 * NS_PER_S};
    uint64_t entry;

    wait.spin_until_ns = s->spin_ns != 0 ? clock_now_ns() + s->spin_ns : 0;
    if (!bell_sleep(&s->own, 1, &wait))
        abort(); /* a lost wake-up: nothing came for 30 s */
    if (!ring_pop(&s->in, &entry))
        abort();
    return entry;
}

static void *echo(void *arg)
{
    struct side *s = arg;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t entry = receive(s);
        while (!ring_push(&s->out, entry + 1))
            ;
        bell_ring(s->other);
    }
    return NULL;
}

static void ping_pong(uint64_t spin_ns)
{
    static struct bell_shared bells[2];
    struct side a = {.own = &bells[0], .other = &bells[1], .spin_ns = spin_ns};
    struct side b = {.own = &bells[1], .other = &bells[0], .spin_ns = spin_ns};
    void *m1 = new_ring(4, &a.out, &b.in), *m2 = new_ring(4, &b.out, &a.in);
    pthread_t thread;

    memset(bells, 0, sizeof bells);
    assert_int_equal(pthread_create(&thread, NULL, echo, &b), 0);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        assert_true(ring_push(&a.out, i * 3));
        bell_ring(a.other);
        assert_int_equal(receive(&a), i * 3 + 1);
    }
    pthread_join(thread, NULL);
    free(m1);
    free(m2);
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    ping_pong(0);
}

static void no_wake_up_is_lost_when_spinning_first(void **state)
{
    (void)state;
    ping_pong(2000);
}

/* A stream without answers: the consumer falls asleep at every moment there is. */
static void *produce(void *arg)
{
    struct side *s = arg;

    for (uint64_t i = 1; i <= ROUNDS; i++) {
        while (!ring_push(&s->out, i))
            sched_yield();
        bell_ring(s->other);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void stream_arrives_whole(void **state)
{
    static struct bell_shared bell;
    struct side producer = {.other = &bell}, consumer = {.own = &bell};
    void *memory = new_ring(16, &producer.out, &consumer.in);
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, produce, &producer), 0);
    for (uint64_t i = 1; i <= ROUNDS; i++)
        assert_int_equal(receive(&consumer), i);
    pthread_join(thread, NULL);
    free(memory);
}

/* Several bells: any of them wakes. */
static _Atomic int flag;

static bool flag_is_set(void *arg)
{
    (void)arg;
    return atomic_load_explicit(&flag, memory_order_acquire) != 0;
}

static void *ring_second(void *arg)
{
    clock_sleep_ns(20 * NS_PER_MS);
    atomic_store_explicit(&flag, 1, memory_order_release);
    bell_ring(arg);
    return NULL;
}

static void any_of_several_bells_wakes(void **state)
{
    static struct bell_shared bells[3];
    struct bell_shared *all[] = {&bells[0], &bells[1], &bells[2]};
    struct bell_wait wait = {.ready = flag_is_set, .until_ns = clock_now_ns() + 10 * NS_PER_S};
    uint64_t start = clock_now_ns();
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, ring_second, &bells[1]), 0);
    assert_true(bell_sleep(all, 3, &wait));
    assert_true(clock_now_ns() - start < 5 * NS_PER_S);
    pthread_join(thread, NULL);
    assert_false(bell_ring(&bells[0])); /* awake: nobody needs a system call */
}

static void sleep_without_bells_ends_in_time(void **state)
{
    struct bell_wait wait = {.ready = flag_is_set};
    uint64_t start = clock_now_ns();

    (void)state;
    atomic_store(&flag, 0);
    wait.until_ns = start + 10 * NS_PER_MS;
    assert_false(bell_sleep(NULL, 0, &wait));
    assert_true(clock_now_ns() - start >= 10 * NS_PER_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_in_first_out_until_full),
        cmocka_unit_test(indices_wrap_through_32_bits),
        cmocka_unit_test(damaged_ring_is_refused),
        cmocka_unit_test(skip_forgets_what_was_pushed),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(no_wake_up_is_lost_when_spinning_first),
        cmocka_unit_test(stream_arrives_whole),
        cmocka_unit_test(any_of_several_bells_wakes),
        cmocka_unit_test(sleep_without_bells_ends_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
