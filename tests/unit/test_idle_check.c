/* The engine's check of its books: each kind of leak, one at a time, is one that it finds, and what
 * a request leaves behind is none. */
#include <string.h>

#include "engine_fixture.h"
#include "gpu-engine/idle_check.h"

static struct engine_group group;

static uint64_t faults_found(struct engine *e)
{
    uint64_t n = stats_get(&e->stats, ENGINE_STAT_IDLE_FAULTS);

    e->idle.checked_at = 0;
    idle_check(e);
    return stats_get(&e->stats, ENGINE_STAT_IDLE_FAULTS) - n;
}

static void forget_blocks(struct engine *e)
{
    struct kv_pool *arena = &e->workers[0].pool;

    uint32_t block = kv_pool_acquire(&e->pool);
    assert_int_equal(faults_found(e), 1);
    struct kv_pool_block *held = &e->pool.blocks[block],
                         *listed = &e->pool.blocks[e->pool.free_head];
    held->refs = 0; /* forgotten, while one that is in use waits in the list */
    listed->refs = 1;
    assert_int_equal(faults_found(e), 2);
    held->refs = 1;
    listed->refs = 0;
    kv_pool_release(&e->pool, block);
    block = kv_pool_acquire(arena);
    assert_true(faults_found(e) > 0);
    kv_pool_release(arena, block);
}

/* One slot twice and another never; the sums of the numbers may agree. */
static void confuse_slots(struct engine *e)
{
    uint32_t *slots = e->workers[0].free_slots, kept[4];

    e->slot_owner[1] = 0;
    assert_int_equal(faults_found(e), 1);
    e->slot_owner[1] = SEQUENCE_NONE;
    assert_true(e->workers[0].n_free_slots >= 4);
    memcpy(kept, slots, sizeof kept);
    slots[0] = slots[1];
    assert_int_equal(faults_found(e), 1);
    memcpy(slots, kept, sizeof kept);
    uint32_t sum = kept[0] + kept[1] + kept[2] + kept[3];
    assert_int_equal(sum % 4, 2); /* a, a + 1, a + 2, a + 3 in some order */
    for (uint32_t i = 0; i < 4; i++)
        slots[i] = (sum - 6) / 4 + i / 2 * 3; /* a, a, a + 3, a + 3 */
    assert_int_equal(faults_found(e), 1);
    memcpy(slots, kept, sizeof kept);
    slots[0] += e->exchange->slots_per_worker; /* of the next worker */
    assert_int_equal(faults_found(e), 2);
    memcpy(slots, kept, sizeof kept);
}

static const struct device_ops *real_ops;

static uint32_t one_row_more(struct device *d, struct device_offloaded *rows)
{
    uint32_t n = real_ops->n_returned(d, rows);

    rows->out[1]++;
    return n;
}

/* A row of nobody, at a layer of the device. */
static void forget_a_residual(struct engine *e)
{
    struct device_ops ops = *e->ops;

    real_ops = e->ops;
    ops.n_returned = one_row_more;
    e->ops = &ops;
    assert_int_equal(faults_found(e), 1);
    e->n_leaves++; /* one that is told to leave with the next sweep is right */
    assert_int_equal(faults_found(e), 0);
    e->n_leaves--;
    e->ops = real_ops;
}

static void forget_a_copy(struct engine *e)
{
    e->n_copies++;
    assert_int_equal(faults_found(e), 1);
    e->n_copies--;
}

static void forget_an_entry(struct engine *e)
{
    const struct sequence_info info = {.prompt = (const uint32_t[]){1, 2}, .prompt_len = 2};
    struct sequence_ref ref;

    assert_int_equal(directory_acquire(e->directory, &info, &ref), 0);
    directory_set_blocks(e->directory, ref, 0, 0, (const uint32_t[]){3}, 1);
    directory_set_state(e->directory, ref, 0, DIRECTORY_FILLING);
    assert_true(faults_found(e) >= 2); /* an entry, and a block that the pool believes free */
    directory_release(e->directory, ref);
}

static void break_the_books(struct engine *e)
{
    assert_int_equal(faults_found(e), 0);
    forget_blocks(e);
    confuse_slots(e);
    forget_a_residual(e);
    forget_a_copy(e);
    forget_an_entry(e);
    assert_int_equal(faults_found(e), 0);
}

static void test_each_kind_of_leak_is_found(void **state)
{
    struct model_random_options model = model_random_defaults();
    const uint32_t prompt[] = {1, 20, 57, 90, 3, 64, 111, 8, 200};

    (void)state;
    group_init(&group, &model);
    group_set(&group, "engine.offload=always");
    group.look = break_the_books;
    group_start(&group);
    group_submit(&group, 0, 1, prompt, 9, 8, 0);
    group_wait(&group, group_has_ended, 0);
    group_stop(&group);
    assert_true(group.stats[ENGINE_STAT_IDLE_FAULTS] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_kind_of_leak_is_found)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
