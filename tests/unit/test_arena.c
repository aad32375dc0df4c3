/* Arena and statistics page: layout, refusal, and attach on damaged bytes (fuzzed, all kinds). */
#include "shm_test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/shm/arena.h"
#include "common/shm/directory.h"
#include "common/shm/job_table.h"
#include "common/shm/stats.h"

enum { FUZZ_ROUNDS = 3000 };

static void blocks_are_aligned_and_shared(void **state)
{
    struct kv_geometry g;
    struct arena engine, worker;
    struct kv_view view;
    struct error err;
    uint32_t table[] = {9, 2};

    (void)state;
    shm_test_geometry(&g, 1);
    assert_int_equal(arena_open(&engine, shm_test_dir, 0, 1, &g, 10, true, -1, &err), 0);
    assert_int_equal(arena_attach(&worker, shm_test_dir, 0, 1, true, &err), 0);
    assert_int_equal(worker.geometry.hash, g.hash);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal((uintptr_t)arena_block(&engine, i) % KV_BLOCK_ALIGN, 0);
        memset(arena_block(&engine, i), (int)i, g.block_bytes);
        arena_set_owner(&engine, i, i, i + 1);
    }
    assert_int_equal(arena_block(&worker, 9)[g.block_bytes - 1], 9);
    assert_int_equal(arena_owner(&worker, 9), UINT64_C(10) << 32 | 9);
    view = arena_view(&worker, 1, table, 2);
    assert_int_equal(kv_view_block(&view, 0)[0], 9);
    assert_int_equal(kv_view_block(&view, 32)[0], 2);
    assert_int_equal(view.layer->dk, 16);
    arena_detach(&engine);
    assert_int_equal(arena_open(&engine, shm_test_dir, 0, 1, &g, 10, true, -1, &err), 0);
    assert_false(engine.created);
    assert_int_equal(arena_block(&engine, 3)[0], 3); /* what was there is there */
    arena_detach(&engine);
    assert_int_equal(arena_open(&engine, shm_test_dir, 0, 1, &g, 10, false, -1, &err), 0);
    assert_true(engine.created);
    assert_false(segment_is_current(&worker.segment));
    arena_detach(&engine);
    assert_string_equal(engine.replaced.text, ""); /* asked for */
    assert_int_equal(arena_open(&engine, shm_test_dir, 0, 1, &g, 11, true, -1, &err), 0);
    assert_true(engine.created);
    assert_non_null(strstr(engine.replaced.text, "expected 11 blocks, found 10"));
    arena_detach(&engine);
    arena_detach(&worker);
}

static void blocks_for_a_size_fit_and_fill_it(void **state)
{
    struct kv_geometry g;
    struct arena a;
    struct error err;
    const uint64_t sizes[] = {200 << 10, 1 << 20, 17 << 20, 64 << 20};

    (void)state;
    shm_test_geometry(&g, 1);
    assert_int_equal(arena_blocks_for(&g, 4096), 0);
    assert_int_equal(arena_open(&a, shm_test_dir, 0, 0, &g, 0, true, -1, &err), -EINVAL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t n = arena_blocks_for(&g, sizes[i]);
        assert_int_equal(arena_open(&a, shm_test_dir, 0, 0, &g, n, true, -1, &err), 0);
        assert_true(a.segment.bytes <= sizes[i]);
        assert_true(a.segment.bytes + g.block_bytes + (2 << 20) > sizes[i]);
        if (sizes[i] >= 64 << 20)
            assert_int_equal((uintptr_t)a.blocks % SHM_HUGE_PAGE, 0);
        arena_detach(&a);
    }
}

/* ---- statistics ------------------------------------------------------------------------------ */

static const struct stats_row rows[] = {{"sweeps", STATS_COUNTER, "sweeps begun"},
                                        {"kv_blocks_free", STATS_GAUGE, "free KV blocks"}};

static void add_up(void *arg, const struct stats_name *name, uint64_t value)
{
    if (strcmp(name->name, "sweeps") == 0 && name->kind == STATS_COUNTER)
        *(uint64_t *)arg += value;
    if (strcmp(name->name, "kv_blocks_free") == 0 && strcmp(name->doc, "free KV blocks") == 0)
        *(uint64_t *)arg += value;
}

static void statistics_are_read_by_name(void **state)
{
    struct stats_page mine, tool;
    struct error err;
    uint64_t sum = 0;

    (void)state;
    assert_int_equal(stats_attach(&tool, shm_test_dir, "gpu-engine", 0, &err), -ENOENT);
    assert_int_equal(stats_create(&mine, shm_test_dir, "gpu-engine", 0, rows, 2, &err), 0);
    assert_int_equal(stats_attach(&tool, shm_test_dir, "gpu-engine", 0, &err), 0);
    stats_add(&mine, 0, 5);
    stats_add(&mine, 0, 1);
    stats_set(&mine, 1, 100);
    stats_foreach(&tool, add_up, &sum);
    assert_int_equal(sum, 106);
    assert_string_equal(tool.shared->program, "gpu-engine");
    stats_detach(&tool);
    stats_detach(&mine);
}

/* ---- damaged bytes: refused, or attached with everything in bounds; never a crash ------------ */

static uint64_t rng_state = 12345;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static void touch(uint8_t *first, uint64_t bytes)
{
    volatile uint8_t *p = first;

    (void)p[0];
    (void)p[bytes - 1];
}

static void visit_nothing(void *arg, const struct stats_name *name, uint64_t value)
{
    *(uint64_t *)arg += value + strlen(name->name);
}

static void attach_all(void)
{
    struct arena a;
    struct job_table t;
    struct directory d;
    struct stats_page s;
    struct error err;
    uint64_t sum = 0;

    if (arena_attach(&a, shm_test_dir, 0, 0, true, &err) == 0) {
        touch(a.blocks, (uint64_t)a.n_blocks * a.geometry.block_bytes);
        arena_detach(&a);
    }
    if (job_table_inspect(&t, shm_test_dir, 0, 0, &err) == 0) {
        touch(job_table_q(&t, t.layout.n_slots - 1), t.layout.in_stride);
        touch(job_table_out(&t, t.layout.n_slots - 1), t.layout.out_stride);
        job_table_detach(&t);
    }
    if (directory_attach(&d, shm_test_dir, 0, &err) == 0) {
        struct directory_table table;
        struct sequence_ref ref = {d.n_entries - 1, 0};
        (void)directory_table(&d, ref, d.n_groups - 1, 1, &table);
        touch((uint8_t *)(uintptr_t)directory_log(&d, ref), 4 * ((uint64_t)d.ctx_max + 1));
        directory_detach(&d);
    }
    if (stats_attach(&s, shm_test_dir, "p", 0, &err) == 0) {
        stats_foreach(&s, visit_nothing, &sum);
        stats_detach(&s);
    }
}

/* Flips one to three bytes of the header's fields, attaches, restores. */
static void fuzz_segment(struct segment *s, uint64_t span)
{
    uint8_t *backup = malloc(span);

    memcpy(backup, s->base, span);
    for (int round = 0; round < FUZZ_ROUNDS; round++) {
        uint64_t n = 1 + rng() % 3;
        for (uint64_t i = 0; i < n; i++) {
            /* mostly the first few hundred bytes, where the sizes are */
            uint64_t off = rng() % (rng() % 4 == 0 ? span : span < 256 ? span : 256);
            s->base[off] = (uint8_t)(rng() % 2 ? rng() : s->base[off] ^ (UINT64_C(1) << rng() % 8));
        }
        attach_all();
        memcpy(s->base, backup, span);
    }
    free(backup);
}

static void damaged_segments_are_refused(void **state)
{
    const struct job_table_config jc = {.n_slots = 3, .n_q_max = 1, .element = JOB_ELEMENT_F32};
    const struct directory_config dc = {.n_entries = 3, .ctx_max = 100};
    struct kv_geometry g;
    struct arena a;
    struct job_table t;
    struct directory d;
    struct stats_page s;
    struct error err;

    (void)state;
    shm_test_geometry(&g, 1);
    assert_int_equal(arena_open(&a, shm_test_dir, 0, 0, &g, 4, true, -1, &err), 0);
    assert_int_equal(job_table_open(&t, shm_test_dir, 0, 0, &jc, &g, -1, &err), 0);
    assert_int_equal(directory_open(&d, shm_test_dir, 0, &dc, &g, &err), 0);
    assert_int_equal(stats_create(&s, shm_test_dir, "p", 0, rows, 2, &err), 0);
    fuzz_segment(&a.segment, sizeof(struct arena_shared));
    fuzz_segment(&t.segment, t.layout.done_off);
    fuzz_segment(&d.segment, sizeof(struct directory_shared));
    fuzz_segment(&s.segment, sizeof(struct stats_shared));
    arena_detach(&a);
    job_table_detach(&t);
    directory_detach(&d);
    stats_detach(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shm_test_setup, shm_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_are_aligned_and_shared),
        TEST(blocks_for_a_size_fit_and_fill_it),
        TEST(statistics_are_read_by_name),
        TEST(damaged_segments_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
