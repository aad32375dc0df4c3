#include "tests/unit/attnd_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/shm/directory.h"

enum { PATIENCE_S = 30, POLL_US = 200 };

/* ---- Waiting --------------------------------------------------------------------------------- */

void fixture_wait(bool (*condition)(void *arg), void *arg, struct attnd *a)
{
    uint64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;

    while (!condition(arg)) {
        assert_true(clock_now_ns() < until);
        if (a != NULL)
            attnd_tick(a);
        else
            clock_sleep_ns(POLL_US * NS_PER_US);
    }
}

/* ---- An engine's segments -------------------------------------------------------------------- */

static void make_geometry(struct kv_geometry *g, uint32_t n_groups, uint32_t variant)
{
    uint32_t d = variant == 0 ? 16 : 24;
    const struct kv_layer_spec layers[] = {
        {.attention = KV_ATTENTION_FULL, .n_heads = 6, .n_kv_heads = 2, .dk = d, .dv = d},
        {.attention = KV_ATTENTION_WINDOW,
         .n_heads = 4,
         .n_kv_heads = 4,
         .dk = d,
         .dv = d,
         .window = 40,
         .n_sinks = 4},
        {.attention = KV_ATTENTION_FULL, .n_heads = 3, .n_kv_heads = 1, .dk = 32, .dv = 16},
        {.attention = KV_ATTENTION_WINDOW,
         .n_heads = 8,
         .n_kv_heads = 2,
         .dk = 8,
         .dv = 8,
         .window = 100},
    };
    struct kv_layer_spec specs[4];
    const struct kv_geometry_config config = {.type = KV_TYPE_F16,
                                              .block_tokens = FIXTURE_BLOCK_TOKENS,
                                              .n_groups = n_groups,
                                              .n_ranks = 1,
                                              .model_hash = 77 + variant};
    const char *field;

    memcpy(specs, layers, sizeof specs);
    for (uint32_t i = 0; i < 4; i++)
        specs[i].scale = 0.25f;
    assert_int_equal(geometry_init(g, &config, specs, 4, &field), 0);
}

void fixture_engine_open(struct fixture_engine *e, uint32_t idx, uint32_t epoch, uint32_t n_groups,
                         uint32_t variant)
{
    const struct job_table_config table = {
        .n_slots = FIXTURE_SLOTS, .n_q_max = FIXTURE_QUERIES, .element = JOB_ELEMENT_F32};
    const struct directory_config directory = {.n_entries = 32, .ctx_max = FIXTURE_CTX_MAX};
    struct error err = {.text = ""};

    memset(e, 0, sizeof *e);
    e->idx = idx;
    e->epoch = epoch;
    e->seed = 1000 * idx + epoch;
    make_geometry(&e->geometry, n_groups, variant);
    assert_int_equal(engine_page_open(&e->page, shm_test_dir, idx, &err), 0);
    assert_int_equal(
        directory_open(&e->directory, shm_test_dir, idx, &directory, &e->geometry, &err), 0);
    directory_clear(&e->directory);
    assert_int_equal(job_table_open(&e->table, shm_test_dir, idx, 0, &table, &e->geometry,
                                    SEGMENT_ANY_NODE, &err),
                     0);
    assert_int_equal(arena_open(&e->arena, shm_test_dir, idx, 0, &e->geometry, FIXTURE_BLOCKS,
                                !e->table.created, SEGMENT_ANY_NODE, &err),
                     0);
    job_engine_raise_epoch(&e->table, epoch);
    e->shadow = malloc((size_t)FIXTURE_BLOCKS * e->geometry.block_bytes);
    e->expected =
        calloc((size_t)FIXTURE_SLOTS * FIXTURE_QUERIES * e->table.layout.out_width, sizeof(float));
    assert_non_null(e->shadow);
    assert_non_null(e->expected);
    memcpy(e->shadow, e->arena.blocks, (size_t)FIXTURE_BLOCKS * e->geometry.block_bytes);
}

static bool is_settled(void *arg)
{
    return job_engine_epoch_settled(&((struct fixture_engine *)arg)->table);
}

void fixture_engine_settle(struct fixture_engine *e)
{
    fixture_wait(is_settled, e, NULL);
    job_engine_free_all(&e->table);
    engine_page_enter(&e->page, e->epoch, clock_now_ns());
}

void fixture_engine_close(struct fixture_engine *e)
{
    job_table_detach(&e->table);
    arena_detach(&e->arena);
    directory_detach(&e->directory);
    engine_page_detach(&e->page);
    free(e->shadow);
    free(e->expected);
    e->shadow = NULL;
    e->expected = NULL;
}

/* ---- Sequences ------------------------------------------------------------------------------- */

static void fill_random(struct fixture_engine *e, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        e->seed = e->seed * 1664525U + 1013904223U;
        out[i] = (float)(e->seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* The KV of a layer in the arena and in its copy. */
static struct kv_view view_in(const struct fixture_engine *e, struct sequence_ref seq,
                              uint32_t layer, uint8_t *base, uint32_t ctx_len)
{
    struct directory_table table;
    uint32_t group = e->geometry.layer[layer].group;

    assert_int_equal(directory_table(&e->directory, seq, group, ctx_len, &table), 0);
    struct kv_view v = arena_view(&e->arena, layer, table.blocks, table.n_blocks);
    v.base = base;
    return v;
}

static void write_kv(struct fixture_engine *e, struct sequence_ref seq, uint32_t layer,
                     uint32_t from, uint32_t to)
{
    const struct kv_layer *l = &e->geometry.layer[layer];
    float k[512], v[512];

    assert_true(kv_layer_k_width(l) <= 512 && kv_layer_v_width(l) <= 512);
    for (uint32_t pos = from; pos < to; pos++) {
        fill_random(e, k, kv_layer_k_width(l));
        fill_random(e, v, kv_layer_v_width(l));
        for (int copy = 0; copy < 2; copy++) {
            struct kv_view view =
                view_in(e, seq, layer, copy ? e->shadow : e->arena.blocks, pos + 1);
            attn_append(&view, pos, 1, k, 0, v, 0);
        }
    }
}

/* The blocks of a group: n_shared_blocks of the donor's, then fresh ones. */
static void give_blocks(struct fixture_engine *e, struct sequence_ref seq, uint32_t group,
                        uint32_t n_blocks, struct sequence_ref donor, uint32_t n_shared_blocks)
{
    uint32_t blocks[FIXTURE_CTX_MAX / FIXTURE_BLOCK_TOKENS + 1];
    struct directory_table shared = {.n_blocks = 0};

    assert_true(n_blocks <= sizeof blocks / sizeof blocks[0]);
    if (n_shared_blocks > 0)
        assert_int_equal(directory_table(&e->directory, donor, group,
                                         n_shared_blocks * FIXTURE_BLOCK_TOKENS, &shared),
                         0);
    for (uint32_t i = 0; i < n_blocks; i++) {
        /* Every other one from the far end: tables are not in order. */
        uint32_t n = e->next_block;
        uint32_t fresh = n % 2 == 0 ? n / 2 : FIXTURE_BLOCKS - 1 - n / 2;
        if (i >= n_shared_blocks) {
            assert_true(n < FIXTURE_BLOCKS);
            e->next_block++;
            arena_set_owner(&e->arena, fresh, seq.idx, seq.gen);
        }
        blocks[i] = i < n_shared_blocks ? shared.blocks[i] : fresh;
    }
    directory_set_state(&e->directory, seq, group, DIRECTORY_FILLING);
    directory_set_blocks(&e->directory, seq, group, 0, blocks, n_blocks);
    directory_set_state(&e->directory, seq, group, DIRECTORY_RESIDENT);
}

struct sequence_ref fixture_sequence_sharing(struct fixture_engine *e, uint32_t n_tokens,
                                             struct sequence_ref donor, uint32_t n_shared)
{
    const uint32_t prompt[1] = {1};
    const struct sequence_info info = {
        .request_id = {9}, .prompt = prompt, .prompt_len = 1, .admitted_ns = 1};
    struct sequence_ref seq;
    uint32_t n_blocks = geometry_blocks_for(&e->geometry, n_tokens + 2 * FIXTURE_QUERIES);

    assert_int_equal(directory_acquire(&e->directory, &info, &seq), 0);
    for (uint32_t group = 0; group < e->geometry.n_groups; group++)
        give_blocks(e, seq, group, n_blocks, donor, n_shared / FIXTURE_BLOCK_TOKENS);
    for (uint32_t layer = 0; layer < e->geometry.n_layers; layer++)
        write_kv(e, seq, layer, n_shared, n_tokens);
    return seq;
}

struct sequence_ref fixture_sequence(struct fixture_engine *e, uint32_t n_tokens)
{
    return fixture_sequence_sharing(e, n_tokens, (struct sequence_ref){0, 0}, 0);
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

static float *expected_of(const struct fixture_engine *e, uint32_t slot)
{
    return e->expected + (size_t)slot * FIXTURE_QUERIES * e->table.layout.out_width;
}

/* Directly, on this thread, in the copy of the arena. */
static void compute_expected(struct fixture_engine *e, uint32_t slot, struct sequence_ref seq,
                             uint32_t layer, uint32_t pos, uint32_t n_q)
{
    const struct job_table_layout *l = &e->table.layout;
    struct attn_job job = {.q = job_table_q(&e->table, slot),
                           .out = expected_of(e, slot),
                           .n_q = n_q,
                           .pos = pos,
                           .kv = view_in(e, seq, layer, e->shadow, pos + n_q),
                           .ldq = l->q_width,
                           .ldo = l->out_width};
    struct attn_scratch *scratch;
    struct team *team;
    enum isa isa;

    assert_int_equal(isa_detect(&isa), 0);
    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&scratch, isa, 1, 64, 64), 0);
    attn_append(&job.kv, pos, n_q, job_table_k(&e->table, slot), l->k_width,
                job_table_v(&e->table, slot), l->v_width);
    attn_run(team, scratch, &job, 1);
    attn_scratch_destroy(scratch);
    team_destroy(team);
}

void fixture_post_desc(struct fixture_engine *e, uint32_t slot, const struct job_desc *desc)
{
    assert_int_equal(job_engine_post(&e->table, slot, desc, &e->generation[slot]), 0);
}

void fixture_post(struct fixture_engine *e, uint32_t slot, struct sequence_ref seq, uint32_t layer,
                  uint32_t pos, uint32_t n_q)
{
    const struct job_table_layout *l = &e->table.layout;
    const struct job_desc desc = {.seq_idx = seq.idx,
                                  .seq_gen = seq.gen,
                                  .layer = layer,
                                  .n_q = n_q,
                                  .pos = pos,
                                  .ctx_len = pos + n_q,
                                  .posted_ns = clock_now_ns(),
                                  .deadline_ns = e->deadline_ns,
                                  .sweep = e->sweep};

    fill_random(e, job_table_q(&e->table, slot), (size_t)n_q * l->q_width);
    fill_random(e, job_table_k(&e->table, slot), (size_t)n_q * l->k_width);
    fill_random(e, job_table_v(&e->table, slot), (size_t)n_q * l->v_width);
    compute_expected(e, slot, seq, layer, pos, n_q);
    fixture_post_desc(e, slot, &desc);
}

struct slot_arg {
    const struct fixture_engine *e;
    uint32_t slot;
};

bool fixture_is_done(const struct fixture_engine *e, uint32_t slot)
{
    return job_engine_done_generation(&e->table, slot) == e->generation[slot];
}

static bool slot_is_done(void *arg)
{
    const struct slot_arg *s = arg;

    return fixture_is_done(s->e, s->slot);
}

static enum job_outcome wait_and_take(struct fixture_engine *e, uint32_t slot, struct attnd *a)
{
    struct slot_arg arg = {.e = e, .slot = slot};

    fixture_wait(slot_is_done, &arg, a);
    return job_engine_take(&e->table, slot, e->generation[slot], NULL);
}

/* Only while no job is out: the worker writes the arena. */
static void compare_arena(const struct fixture_engine *e)
{
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++) {
        if (!job_engine_slot_reusable(&e->table, i))
            return;
    }
    assert_memory_equal(e->arena.blocks, e->shadow,
                        (size_t)FIXTURE_BLOCKS * e->geometry.block_bytes);
}

void fixture_take(struct fixture_engine *e, uint32_t slot, struct attnd *a)
{
    const struct job_table_layout *l = &e->table.layout;
    const struct job_slot *s = &e->table.slots[slot];
    uint32_t width = kv_layer_out_width(&e->geometry.layer[s->layer]);

    assert_int_equal(wait_and_take(e, slot, a), JOB_OK);
    assert_true(s->end_ns >= s->start_ns && s->start_ns >= s->posted_ns);
    for (uint32_t i = 0; i < s->n_q; i++)
        assert_memory_equal((float *)job_table_out(&e->table, slot) + (size_t)i * l->out_width,
                            expected_of(e, slot) + (size_t)i * l->out_width, width * sizeof(float));
    compare_arena(e);
}

void fixture_take_refused(struct fixture_engine *e, uint32_t slot, struct attnd *a)
{
    assert_int_equal(wait_and_take(e, slot, a), JOB_FAILED);
    assert_true(e->table.slots[slot].status < 0);
    compare_arena(e);
}

/* ---- The worker ------------------------------------------------------------------------------ */

void fixture_config(struct omni_config *c, uint32_t n_engines)
{
    config_defaults(c);
    snprintf(c->shm_dir, sizeof c->shm_dir, "/dev/shm");
    snprintf(c->group_name, sizeof c->group_name, "%s", strrchr(shm_test_dir, '/') + 1);
    c->group_n_engines = n_engines;
    c->worker_slots = FIXTURE_SLOTS;
    c->worker_threads = 2;
    c->worker_nice = 0;
}

static void *worker_thread(void *arg)
{
    struct fixture_worker *w = arg;
    struct timespec t;
    struct error err;

    invariant(attnd_init(&w->attnd, &w->config, 0, &err) ==
              0); /* cmocka fails in one thread only */
    while (!atomic_load(&w->stop)) {
        uint32_t n = 0;

        attnd_tick(&w->attnd);
        for (uint32_t i = 0; i < w->attnd.n_links; i++)
            n += w->attnd.links[i].attached;
        atomic_store(&w->n_attached, n);
    }
    attnd_shutdown(&w->attnd);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    w->cpu_seconds = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    return NULL;
}

void fixture_worker_start(struct fixture_worker *w, uint32_t n_engines)
{
    memset(w, 0, sizeof *w);
    fixture_config(&w->config, n_engines);
    assert_int_equal(pthread_create(&w->thread, NULL, worker_thread, w), 0);
}

void fixture_worker_join(struct fixture_worker *w)
{
    atomic_store(&w->stop, true);
    assert_int_equal(pthread_join(w->thread, NULL), 0);
}
