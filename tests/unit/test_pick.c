/* pick_rows: order, ties, the row budget, ranks; and a random comparison with a sort. */
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "gpu-engine/device/pick.h"

enum { N_SLOTS = 24, RANKS_MAX = 3, ROUNDS = 20000 };

static struct pick_slot posted(uint32_t layer, uint64_t age, uint16_t n_q)
{
    return (struct pick_slot){
        .generation = 7, .layer = layer, .age = age, .state = PICK_SLOT_POSTED, .n_q = n_q};
}

static void assert_picks(const struct pick_slot *slots, uint32_t n_slots, const uint32_t *done,
                         uint32_t p_max, const uint32_t *expected, uint32_t n_expected)
{
    uint32_t out[N_SLOTS];

    assert_int_equal(pick_rows(slots, n_slots, 3, done, 1, UINT64_MAX, PICK_ANY_BATCH, p_max, out),
                     n_expected);
    for (uint32_t i = 0; i < n_expected; i++)
        assert_int_equal(out[i], expected[i]);
}

static void test_oldest_first_and_ties_by_slot(void **state)
{
    (void)state;
    const struct pick_slot slots[] = {posted(3, 9, 1), posted(3, 5, 1), posted(3, 9, 1),
                                      posted(3, 2, 1), posted(3, 5, 1)};
    const uint32_t done[] = {7, 7, 7, 7, 7}, expected[] = {3, 1, 4, 0, 2};

    for (uint32_t p_max = 0; p_max <= 5; p_max++)
        assert_picks(slots, 5, done, p_max, expected, p_max);
}

static void test_only_returned_jobs_of_the_layer(void **state)
{
    (void)state;
    struct pick_slot slots[] = {posted(2, 1, 1), posted(3, 4, 1), posted(3, 3, 1), posted(3, 2, 1)};
    /* Slot 2 shows the generation before: its job is out.  Slot 3 holds no job. */
    const uint32_t done[] = {7, 7, 6, 7}, expected[] = {1};

    slots[3].state = PICK_SLOT_FREE;
    assert_picks(slots, 4, done, 16, expected, 1);
}

static void test_p_max_counts_rows_and_slots_are_whole(void **state)
{
    (void)state;
    const struct pick_slot slots[] = {posted(3, 1, 2), posted(3, 2, 3), posted(3, 3, 1)};
    const uint32_t done[] = {7, 7, 7}, expected[] = {0, 1, 2};

    assert_picks(slots, 3, done, 1, expected, 0);
    assert_picks(slots, 3, done, 2, expected, 1);
    /* One row of room is left, but the younger slot that would fit does not overtake. */
    assert_picks(slots, 3, done, 4, expected, 1);
    assert_picks(slots, 3, done, 5, expected, 2);
    assert_picks(slots, 3, done, 6, expected, 3);
}

static void test_done_on_every_rank(void **state)
{
    (void)state;
    const struct pick_slot slots[] = {posted(3, 1, 1), posted(3, 2, 1), posted(3, 3, 1)};
    const uint32_t done[] = {7, 7, 6, /* rank 1: */ 6, 7, 7};
    uint32_t out[N_SLOTS];

    assert_int_equal(pick_rows(slots, 3, 3, done, 2, UINT64_MAX, PICK_ANY_BATCH, 16, out), 1);
    assert_int_equal(out[0], 1);
    assert_int_equal(pick_rows(slots, 3, 3, done, 1, UINT64_MAX, PICK_ANY_BATCH, 16, out), 2);
}

/* ---- Against a sort -------------------------------------------------------------------------- */

static const struct pick_slot *sorted_slots; /* qsort has no argument for its comparison */

static int by_age(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    if (sorted_slots[x].age != sorted_slots[y].age)
        return sorted_slots[x].age < sorted_slots[y].age ? -1 : 1;
    return x < y ? -1 : 1;
}

static uint32_t naive_pick(const struct pick_slot *slots, uint32_t layer, const uint32_t *done,
                           uint32_t n_ranks, uint32_t p_max, uint32_t *out)
{
    uint32_t n = 0, taken = 0, rows = 0;

    for (uint32_t s = 0; s < N_SLOTS; s++) {
        uint32_t on = 0;
        for (uint32_t r = 0; r < n_ranks; r++)
            on += done[r * N_SLOTS + s] == slots[s].generation;
        if (on == n_ranks && slots[s].state == PICK_SLOT_POSTED && slots[s].layer == layer)
            out[n++] = s;
    }
    sorted_slots = slots;
    qsort(out, n, sizeof *out, by_age);
    while (taken < n && rows + slots[out[taken]].n_q <= p_max)
        rows += slots[out[taken++]].n_q;
    return taken;
}

static uint32_t draw(uint32_t n)
{
    return (uint32_t)rand() % n;
}

static void draw_slots(struct pick_slot *slots, uint32_t *done)
{
    for (uint32_t s = 0; s < N_SLOTS; s++) {
        slots[s] = (struct pick_slot){.generation = 1 + draw(3),
                                      .layer = draw(2),
                                      .age = draw(6),
                                      .state = draw(5) > 0 ? PICK_SLOT_POSTED : PICK_SLOT_FREE,
                                      .n_q = (uint16_t)(1 + draw(4))};
        for (uint32_t r = 0; r < RANKS_MAX; r++)
            done[r * N_SLOTS + s] = slots[s].generation - (draw(6) == 0);
    }
}

static void test_equals_a_sort(void **state)
{
    (void)state;
    struct pick_slot slots[N_SLOTS];
    uint32_t done[RANKS_MAX * N_SLOTS], got[N_SLOTS + 1], expected[N_SLOTS];

    srand(1);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t p_max = draw(N_SLOTS + 1), n_ranks = 1 + draw(RANKS_MAX);

        draw_slots(slots, done);
        memset(got, 0xff, sizeof got);
        uint32_t n =
            pick_rows(slots, N_SLOTS, 1, done, n_ranks, UINT64_MAX, PICK_ANY_BATCH, p_max, got);
        assert_int_equal(n, naive_pick(slots, 1, done, n_ranks, p_max, expected));
        assert_memory_equal(got, expected, n * sizeof *got);
        assert_int_equal(got[p_max], UINT32_MAX); /* room for p_max is all that it needs */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oldest_first_and_ties_by_slot),
        cmocka_unit_test(test_only_returned_jobs_of_the_layer),
        cmocka_unit_test(test_p_max_counts_rows_and_slots_are_whole),
        cmocka_unit_test(test_done_on_every_rank),
        cmocka_unit_test(test_equals_a_sort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
