/* The delaying exchange: results stay hidden for 0..max polls, by a fixed pattern; everything else
 * goes through. */
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/exchange_delay.h"

enum { N_WORKERS = 2, SLOTS = 8, N_SLOTS = N_WORKERS * SLOTS, POLLS_MAX = 6 };

/* Finishes a job as soon as it is posted. */
struct instant {
    struct exchange base; /* first */
    uint32_t done[N_SLOTS];
    uint32_t n_flushes, n_takes, n_destroys;
    float payload[N_SLOTS];
};

static struct instant *instant_of(struct exchange *x)
{
    return (struct instant *)x;
}

static void instant_payload(struct exchange *x, uint32_t slot, struct exchange_payload *out)
{
    *out = (struct exchange_payload){.q = &instant_of(x)->payload[slot]};
}

static int instant_post(struct exchange *x, const struct exchange_job *job, uint32_t *generation)
{
    *generation = ++instant_of(x)->done[job->slot];
    return 0;
}

static void instant_flush(struct exchange *x)
{
    instant_of(x)->n_flushes++;
}

static void instant_poll_done(struct exchange *x, uint32_t *done)
{
    memcpy(done, instant_of(x)->done, sizeof instant_of(x)->done);
}

static int instant_take(struct exchange *x, uint32_t slot, uint32_t generation)
{
    instant_of(x)->n_takes++;
    return instant_of(x)->done[slot] == generation ? 0 : -1;
}

static void *instant_staging(struct exchange *x, uint32_t worker, uint32_t block)
{
    return &instant_of(x)->payload[worker * SLOTS + block];
}

static enum exchange_peer instant_peer(struct exchange *x, uint32_t worker)
{
    (void)x;
    return worker == 0 ? EXCHANGE_PEER_ALIVE : EXCHANGE_PEER_LATE;
}

static int instant_slot_release(struct exchange *x, uint32_t slot)
{
    (void)x;
    return slot == 3;
}

static void instant_destroy(struct exchange *x)
{
    instant_of(x)->n_destroys++;
}

static const struct exchange_ops instant_ops = {.name = "instant",
                                                .payload = instant_payload,
                                                .post = instant_post,
                                                .flush = instant_flush,
                                                .poll_done = instant_poll_done,
                                                .take = instant_take,
                                                .staging = instant_staging,
                                                .peer = instant_peer,
                                                .slot_release = instant_slot_release,
                                                .destroy = instant_destroy};

static struct exchange *wrap(struct instant *inner, uint32_t polls_max)
{
    struct exchange *x;

    memset(inner, 0, sizeof *inner);
    inner->base = (struct exchange){
        .ops = &instant_ops, .n_workers = N_WORKERS, .slots_per_worker = SLOTS, .n_q_max = 4};
    assert_int_equal(exchange_delay_create(&x, &inner->base, polls_max), 0);
    return x;
}

static uint32_t post(struct exchange *x, uint32_t slot)
{
    const struct exchange_job job = {.slot = slot, .n_q = 1};

    uint32_t generation;

    assert_int_equal(x->ops->post(x, &job, &generation), 0);
    return generation;
}

/* Posts one job per slot; held[s] = polls in which it stayed hidden. */
static void measure_holds(struct exchange *x, uint32_t held[N_SLOTS])
{
    uint32_t generation[N_SLOTS], done[N_SLOTS], n_hidden = N_SLOTS;

    for (uint32_t s = 0; s < N_SLOTS; s++) {
        generation[s] = post(x, s);
        held[s] = UINT32_MAX;
    }
    for (uint32_t poll = 0; n_hidden > 0 && poll <= POLLS_MAX; poll++) {
        x->ops->poll_done(x, done);
        for (uint32_t s = 0; s < N_SLOTS; s++) {
            assert_true(done[s] == generation[s] || done[s] == generation[s] - 1);
            assert_true(held[s] == UINT32_MAX || done[s] == generation[s]);
            if (done[s] == generation[s] && held[s] == UINT32_MAX) {
                held[s] = poll;
                n_hidden--;
            }
        }
    }
    assert_int_equal(n_hidden, 0);
}

static void test_holds_are_bounded_and_differ(void **state)
{
    (void)state;
    struct instant inner;
    struct exchange *x = wrap(&inner, POLLS_MAX);
    uint32_t held[N_SLOTS], counts[POLLS_MAX + 1] = {0}, n_kinds = 0;

    for (uint32_t round = 0; round < 8; round++) {
        measure_holds(x, held);
        for (uint32_t s = 0; s < N_SLOTS; s++)
            counts[held[s]]++;
    }
    for (uint32_t i = 0; i <= POLLS_MAX; i++)
        n_kinds += counts[i] > 0;
    assert_true(counts[0] > 0); /* some ride along */
    assert_true(n_kinds > POLLS_MAX / 2);
    x->ops->destroy(x);
}

static void test_the_pattern_repeats(void **state)
{
    (void)state;
    struct instant inner_a, inner_b;
    struct exchange *a = wrap(&inner_a, POLLS_MAX), *b = wrap(&inner_b, POLLS_MAX);
    uint32_t held_a[N_SLOTS], held_b[N_SLOTS];

    for (uint32_t round = 0; round < 4; round++) {
        measure_holds(a, held_a);
        measure_holds(b, held_b);
        assert_memory_equal(held_a, held_b, sizeof held_a);
    }
    a->ops->destroy(a);
    b->ops->destroy(b);
}

static void test_no_delay_hides_nothing(void **state)
{
    (void)state;
    struct instant inner;
    struct exchange *x = wrap(&inner, 0);
    uint32_t held[N_SLOTS];

    for (uint32_t round = 0; round < 4; round++) {
        measure_holds(x, held);
        for (uint32_t s = 0; s < N_SLOTS; s++)
            assert_int_equal(held[s], 0);
    }
    x->ops->destroy(x);
}

static void test_the_rest_goes_through(void **state)
{
    (void)state;
    struct instant inner;
    struct exchange *x = wrap(&inner, POLLS_MAX);
    struct exchange_payload payload;

    assert_int_equal(exchange_n_slots(x), N_SLOTS);
    assert_int_equal(x->n_q_max, 4);
    assert_true(x->poll_us > 0); /* nobody wakes the engine: it must look by itself */
    x->ops->payload(x, 5, &payload);
    assert_ptr_equal(payload.q, &inner.payload[5]);
    x->ops->flush(x);
    assert_int_equal(inner.n_flushes, 1);
    assert_int_equal(x->ops->take(x, 5, post(x, 5)), 0);
    assert_int_equal(inner.n_takes, 1);
    assert_ptr_equal(x->ops->staging(x, 1, 2), &inner.payload[SLOTS + 2]);
    assert_int_equal(x->ops->peer(x, 0), EXCHANGE_PEER_ALIVE);
    assert_int_equal(x->ops->peer(x, 1), EXCHANGE_PEER_LATE);
    assert_int_equal(x->ops->slot_release(x, 3), 1);
    assert_int_equal(x->ops->slot_release(x, 4), 0);
    x->ops->destroy(x);
    assert_int_equal(inner.n_destroys, 1);
}

/* A copy between staging and arena takes as many looks as a result is held for polls at most. */
static void test_copies_take_looks(void **state)
{
    struct instant inner;
    struct exchange *x = wrap(&inner, 3);
    const uint32_t blocks[] = {1, 2};
    uint64_t out, in;
    uint32_t n_looks = 0;

    (void)state;
    assert_int_equal(x->ops->copy_out(x, 0, blocks, 2, &out), 0);
    while (!x->ops->copy_done(x, out))
        n_looks++;
    assert_int_equal(n_looks, 3);
    assert_int_equal(x->ops->copy_in(x, 0, blocks, 2, &in), 0);
    assert_int_equal(x->ops->copy_done(x, in), 0);
    x->ops->destroy(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holds_are_bounded_and_differ),
        cmocka_unit_test(test_the_pattern_repeats),
        cmocka_unit_test(test_no_delay_hides_nothing),
        cmocka_unit_test(test_the_rest_goes_through),
        cmocka_unit_test(test_copies_take_looks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
