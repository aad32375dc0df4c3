/* Sequence directory: order of commits, refusals, recovery. */
#include "shm_test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/shm/arena.h"
#include "common/shm/directory.h"

enum { N_ENTRIES = 6, CTX_MAX = 200, N_BLOCKS = 32 };

static const struct directory_config config = {.n_entries = N_ENTRIES, .ctx_max = CTX_MAX};

static void open_directory(struct directory *d, uint32_t n_groups)
{
    struct kv_geometry g;
    struct error err;

    shm_test_geometry(&g, n_groups);
    assert_int_equal(directory_open(d, shm_test_dir, 0, &config, &g, &err), 0);
}

static struct sequence_ref admit(struct directory *d, uint32_t first_id, uint32_t n)
{
    struct sequence_info info = {.prompt_len = n, .params = {.seed = first_id, .top_p = 1}};
    struct sequence_ref ref;
    uint32_t prompt[CTX_MAX];

    for (uint32_t i = 0; i < n; i++)
        prompt[i] = first_id + i;
    memset(info.request_id, (int)first_id, sizeof info.request_id);
    info.prompt = prompt;
    assert_int_equal(directory_acquire(d, &info, &ref), 0);
    return ref;
}

/* Prompt of n tokens, first token sampled, all groups resident in `worker`'s arena. */
static struct sequence_ref resident(struct directory *d, uint32_t first_id, uint32_t n,
                                    uint32_t worker, const uint32_t *blocks, uint32_t n_blocks)
{
    struct sequence_ref ref = admit(d, first_id, n);

    directory_log_token(d, ref, n, 1000);
    directory_commit(d, ref, n);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        directory_set_state(d, ref, g, DIRECTORY_FILLING);
        directory_set_blocks(d, ref, g, worker, blocks + (size_t)g * n_blocks, n_blocks);
        directory_set_state(d, ref, g, DIRECTORY_RESIDENT);
    }
    return ref;
}

struct usage {
    struct directory_usage u;
    uint32_t refs0[N_BLOCKS], refs1[N_BLOCKS], verdict[N_ENTRIES], n_blocks[2];
    uint32_t *refs[2];
};

static uint32_t scan(const struct directory *d, struct usage *s)
{
    s->refs[0] = s->refs0;
    s->refs[1] = s->refs1;
    s->n_blocks[0] = s->n_blocks[1] = N_BLOCKS;
    s->u = (struct directory_usage){
        .n_workers = 2, .n_blocks = s->n_blocks, .refs = s->refs, .verdict = s->verdict};
    return directory_scan(d, &s->u, NULL, NULL);
}

static void a_sequence_from_admission_to_release(void **state)
{
    struct directory d, reader;
    struct directory_table table;
    struct sequence_ref ref;
    struct error err;

    (void)state;
    open_directory(&d, 1);
    assert_true(d.created);
    assert_int_equal(directory_attach(&reader, shm_test_dir, 0, &err), 0);
    ref = admit(&d, 7, 70);
    assert_int_equal(ref.gen, 1);
    assert_int_equal(directory_state(&reader, ref, 0), DIRECTORY_DEVICE);
    assert_int_equal(directory_table(&reader, ref, 0, 1, &table), -ESTALE); /* not resident */
    directory_log_token(&d, ref, 70, 99);
    directory_commit(&d, ref, 70);
    directory_set_state(&d, ref, 0, DIRECTORY_FILLING);
    directory_set_blocks(&d, ref, 0, 1, (uint32_t[]){4, 9, 2}, 3);
    assert_int_equal(directory_table(&reader, ref, 0, 1, &table), -ESTALE); /* still filling */
    directory_set_state(&d, ref, 0, DIRECTORY_RESIDENT);
    assert_int_equal(directory_table(&reader, ref, 0, 96, &table), 0);
    assert_int_equal(table.worker, 1);
    assert_int_equal(table.n_blocks, 3);
    assert_int_equal(table.blocks[1], 9);
    assert_int_equal(directory_table(&reader, ref, 0, 97, &table), -EPROTO); /* needs a fourth */
    directory_append_block(&d, ref, 0, 11);
    assert_int_equal(directory_table(&reader, ref, 0, 97, &table), 0);
    assert_int_equal(table.blocks[3], 11);
    assert_int_equal(directory_committed(&reader, ref), 70);
    assert_int_equal(directory_log(&reader, ref)[69], 7 + 69);
    assert_int_equal(directory_log(&reader, ref)[70], 99);
    assert_int_equal(directory_entry(&reader, ref.idx)->params.seed, 7);
    directory_release(&d, ref);
    assert_int_equal(directory_table(&reader, ref, 0, 1, &table), -ESTALE);
    assert_int_equal(admit(&d, 8, 3).idx, ref.idx);
    assert_int_equal(directory_table(&reader, ref, 0, 1, &table), -ESTALE);
    assert_int_equal(directory_table(&reader, (struct sequence_ref){999, 1}, 0, 1, &table),
                     -EPROTO);
    directory_detach(&reader);
    directory_detach(&d);
}

static void admission_is_bounded(void **state)
{
    struct directory d;
    struct sequence_info info = {.prompt_len = 0};
    struct sequence_ref ref;

    (void)state;
    open_directory(&d, 1);
    assert_int_equal(directory_acquire(&d, &info, &ref), -EINVAL);
    info.prompt_len = CTX_MAX + 1;
    assert_int_equal(directory_acquire(&d, &info, &ref), -EINVAL);
    for (uint32_t i = 0; i < N_ENTRIES; i++)
        admit(&d, i, 1);
    info.prompt_len = 1;
    info.prompt = (uint32_t[]){1};
    assert_int_equal(directory_acquire(&d, &info, &ref), -ENOSPC);
    directory_clear(&d);
    assert_int_equal(directory_acquire(&d, &info, &ref), 0);
    assert_int_equal(ref.gen, 2);
    directory_detach(&d);
}

static void half_of_the_layers_may_be_elsewhere(void **state)
{
    struct directory d;
    struct directory_table table;
    struct sequence_ref ref;
    struct usage s;

    (void)state;
    open_directory(&d, 2);
    ref = admit(&d, 1, 10);
    directory_log_token(&d, ref, 10, 5);
    directory_commit(&d, ref, 10);
    directory_set_state(&d, ref, 1, DIRECTORY_FILLING);
    directory_set_blocks(&d, ref, 1, 0, (uint32_t[]){3}, 1);
    directory_set_state(&d, ref, 1, DIRECTORY_RESIDENT);
    assert_int_equal(directory_table(&d, ref, 0, 10, &table), -ESTALE);
    assert_int_equal(directory_table(&d, ref, 1, 10, &table), 0);
    assert_int_equal(scan(&d, &s), 0); /* what is on the device dies with its engine */
    assert_int_equal(s.verdict[ref.idx], DIRECTORY_UNFINISHED);
    assert_int_equal(s.refs0[3], 0);
    directory_detach(&d);
}

static void scan_rebuilds_who_uses_what(void **state)
{
    struct directory d;
    struct sequence_ref a, b, filling;
    struct usage s;

    (void)state;
    open_directory(&d, 1);
    a = resident(&d, 100, 40, 0, (uint32_t[]){3, 4}, 2);
    b = resident(&d, 300, 20, 1, (uint32_t[]){3}, 1); /* another arena: no clash */
    filling = admit(&d, 500, 30);
    directory_set_state(&d, filling, 0, DIRECTORY_FILLING);
    directory_set_blocks(&d, filling, 0, 0, (uint32_t[]){7}, 1);
    directory_detach(&d);

    open_directory(&d, 1); /* the next engine */
    assert_false(d.created);
    assert_int_equal(scan(&d, &s), 2);
    assert_int_equal(s.verdict[a.idx], DIRECTORY_OK);
    assert_int_equal(s.verdict[b.idx], DIRECTORY_OK);
    assert_int_equal(s.verdict[filling.idx], DIRECTORY_UNFINISHED);
    assert_int_equal(s.refs0[3] + s.refs0[4] + s.refs1[3], 3);
    assert_int_equal(s.refs0[7], 0);
    directory_keep(&d, &s.u);
    assert_int_equal(d.n_free, N_ENTRIES - 2);
    assert_int_equal(directory_committed(&d, a), 40);
    assert_int_equal(directory_state(&d, filling, 0), DIRECTORY_FREE);
    directory_release(&d, a);
    directory_detach(&d);
}

static void double_owner_condemns_both(void **state)
{
    struct directory d;
    struct sequence_ref a, b, c;
    struct usage s;

    (void)state;
    open_directory(&d, 1);
    a = resident(&d, 100, 40, 0, (uint32_t[]){3, 4}, 2);
    b = resident(&d, 300, 40, 0, (uint32_t[]){5, 4}, 2);
    c = resident(&d, 500, 40, 0, (uint32_t[]){8, 8}, 2); /* its own block twice */
    assert_int_equal(scan(&d, &s), 0);
    assert_int_equal(s.verdict[a.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[b.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[c.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.refs0[3] + s.refs0[4] + s.refs0[5] + s.refs0[8], 0);
    directory_detach(&d);
}

static void identical_full_prefix_may_be_shared(void **state)
{
    struct directory d;
    struct sequence_ref a, b, c, other;
    struct usage s;

    (void)state;
    open_directory(&d, 1);
    a = resident(&d, 100, 70, 0, (uint32_t[]){1, 2, 3}, 3);
    b = resident(&d, 100, 80, 0, (uint32_t[]){1, 2, 4}, 3); /* the same first 64 ids */
    assert_int_equal(scan(&d, &s), 2);
    assert_int_equal(s.refs0[1], 2);
    assert_int_equal(s.refs0[2], 2);
    assert_int_equal(s.refs0[3], 1);
    c = resident(&d, 100, 70, 0, (uint32_t[]){1, 2, 3}, 3); /* block 3 is not full: no sharing */
    assert_int_equal(scan(&d, &s), 1);
    assert_int_equal(s.verdict[b.idx], DIRECTORY_OK);
    assert_int_equal(s.verdict[a.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[c.idx], DIRECTORY_DOUBLE_OWNER);
    directory_release(&d, c);
    other = resident(&d, 101, 64, 0, (uint32_t[]){1, 9}, 2); /* other ids */
    scan(&d, &s);
    assert_int_equal(s.verdict[other.idx], DIRECTORY_DOUBLE_OWNER);
    directory_detach(&d);
}

/* a and b share block 1; c, of other ids, names it too and so may have overwritten it. */
static void thief_condemns_all_that_share_the_block(void **state)
{
    struct directory d;
    struct sequence_ref a, b, c, other;
    struct usage s;

    (void)state;
    open_directory(&d, 1);
    a = resident(&d, 100, 70, 0, (uint32_t[]){1, 2, 3}, 3);
    b = resident(&d, 100, 80, 0, (uint32_t[]){1, 2, 4}, 3);
    c = resident(&d, 300, 32, 0, (uint32_t[]){1}, 1);
    other = resident(&d, 500, 32, 0, (uint32_t[]){9}, 1);
    assert_int_equal(scan(&d, &s), 1);
    assert_int_equal(s.verdict[a.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[b.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[c.idx], DIRECTORY_DOUBLE_OWNER);
    assert_int_equal(s.verdict[other.idx], DIRECTORY_OK);
    assert_int_equal(s.refs0[1] + s.refs0[2] + s.refs0[3] + s.refs0[4], 0);
    assert_int_equal(s.refs0[9], 1);
    directory_detach(&d);
}

static void damage_is_found(void **state)
{
    struct directory d;
    struct directory_entry *e;
    struct sequence_ref ref;
    struct usage s;

    (void)state;
    open_directory(&d, 1);
    ref = resident(&d, 100, 40, 0, (uint32_t[]){3, 4}, 2);
    e = (struct directory_entry *)(uintptr_t)directory_entry(&d, ref.idx);
    assert_int_equal(scan(&d, &s), 1);
    atomic_store(&e->committed, 65); /* more than two blocks hold */
    assert_int_equal(scan(&d, &s), 0);
    assert_int_equal(s.verdict[ref.idx], DIRECTORY_DAMAGED);
    atomic_store(&e->committed, 40);
    atomic_store(&e->worker[0], 2);
    assert_int_equal(scan(&d, &s), 0);
    atomic_store(&e->worker[0], 0);
    atomic_store(&e->n_blocks[0], 4000000);
    assert_int_equal(scan(&d, &s), 0);
    atomic_store(&e->n_blocks[0], 2);
    atomic_store(&e->state[0], 77);
    assert_int_equal(scan(&d, &s), 0);
    assert_int_equal(s.verdict[ref.idx], DIRECTORY_DAMAGED);
    atomic_store(&e->state[0], DIRECTORY_RESIDENT);
    e->model_hash++;
    assert_int_equal(scan(&d, &s), 0);
    e->model_hash--;
    assert_int_equal(scan(&d, &s), 1);
    directory_keep(&d, &s.u);
    directory_detach(&d);
}

/* The life of one sequence in a child; its KV is a counter per position, so that the parent can
 * tell whether `committed` ever ran ahead. */
static void live_and_die(void *arg)
{
    struct directory d;
    struct arena a;
    struct kv_geometry g;
    struct sequence_ref ref;
    struct error err;

    (void)arg;
    shm_test_geometry(&g, 1);
    if (arena_open(&a, shm_test_dir, 0, 0, &g, N_BLOCKS, true, SEGMENT_ANY_NODE, &err) != 0)
        _Exit(4);
    open_directory(&d, 1);
    directory_clear(&d);
    ref = admit(&d, 100, 30);
    for (uint32_t pos = 0; pos < 30; pos++)
        arena_block(&a, 5)[pos] = 1;
    directory_log_token(&d, ref, 30, 130);
    directory_commit(&d, ref, 30);
    directory_set_state(&d, ref, 0, DIRECTORY_FILLING);
    directory_set_blocks(&d, ref, 0, 0, (uint32_t[]){5}, 1);
    directory_set_state(&d, ref, 0, DIRECTORY_RESIDENT);
    for (uint32_t pos = 30; pos < 40; pos++) {
        if (pos == 32)
            directory_append_block(&d, ref, 0, 6);
        arena_block(&a, pos < 32 ? 5 : 6)[pos % 32] = 1;
        directory_log_token(&d, ref, pos + 1, 101 + pos);
        directory_commit(&d, ref, pos + 1);
    }
    directory_release(&d, ref);
    directory_detach(&d);
    arena_detach(&a);
}

static void check_survivor(void)
{
    struct directory d;
    struct arena a;
    struct usage s;
    struct error err;

    assert_int_equal(arena_attach(&a, shm_test_dir, 0, 0, true, &err), 0);
    open_directory(&d, 1);
    if (scan(&d, &s) == 1) {
        struct sequence_ref ref = {0, atomic_load(&directory_entry(&d, 0)->generation)};
        uint32_t c = directory_committed(&d, ref);
        for (uint32_t pos = 0; pos < c; pos++)
            assert_int_equal(arena_block(&a, pos < 32 ? 5 : 6)[pos % 32], 1);
        for (uint32_t pos = 0; pos <= c; pos++)
            assert_int_equal(directory_log(&d, ref)[pos], 100 + pos);
        assert_int_equal(s.refs0[5], 1);
    }
    directory_keep(&d, &s.u); /* and it can be used again, whatever was left */
    directory_clear(&d);
    directory_release(&d, admit(&d, 1, 1));
    directory_detach(&d);
    memset(a.blocks, 0, (size_t)N_BLOCKS * a.geometry.block_bytes);
    arena_detach(&a);
}

static void killed_at_every_step(void **state)
{
    static const char *const labels[] = {
        "directory.fields", "directory.generation", "directory.acquired",
        "directory.state",  "directory.blocks",     "directory.append",
        "directory.logged", "directory.committed",  "directory.freed_group"};

    (void)state;
    live_and_die(NULL);
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        unsigned n = 1;
        while (shm_test_child(labels[i], n, live_and_die, NULL) == 1) {
            check_survivor();
            n++;
        }
        assert_true(n > 1); /* the label exists and was hit */
    }
}

static void other_geometry_makes_a_new_one(void **state)
{
    struct directory d, reader;
    struct error err;

    (void)state;
    open_directory(&d, 1);
    assert_string_equal(d.replaced.text, ""); /* none was there */
    admit(&d, 1, 5);
    assert_int_equal(directory_attach(&reader, shm_test_dir, 0, &err), 0);
    directory_detach(&d);
    open_directory(&d, 2);
    assert_true(d.created);
    assert_non_null(strstr(d.replaced.text, "geometry hash: expected"));
    assert_int_equal(d.n_free, N_ENTRIES);
    assert_false(segment_is_current(&reader.segment));
    directory_detach(&reader);
    directory_detach(&d);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sequence_from_admission_to_release),
        TEST(admission_is_bounded),
        TEST(half_of_the_layers_may_be_elsewhere),
        TEST(scan_rebuilds_who_uses_what),
        TEST(double_owner_condemns_both),
        TEST(identical_full_prefix_may_be_shared),
        TEST(thief_condemns_all_that_share_the_block),
        TEST(damage_is_found),
        TEST(killed_at_every_step),
        TEST(other_geometry_makes_a_new_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
