/* Jobs whose sequences begin with the same blocks: those are read once for all of them, and every
 * job's result is, bit for bit, the one that it has alone. */
#include <stdlib.h>
#include <string.h>

#include "common/compute/attention.h"
#include "tests/unit/compute_common.h"

enum {
    BLOCK_TOKENS = 64,
    N_BLOCKS = 160,
    BLOCKS_MAX = 80, /* of a sequence */
    JOBS_MAX = 12,
    OUT_MAX = 2 * 8 * 64, /* n_q, heads, width */
};

/* A pool that is full of valid KV: any table over it is a sequence. */
struct pool {
    struct kv_geometry geometry;
    struct kv_view view;
    float *q;
    uint32_t tables[JOBS_MAX][BLOCKS_MAX];
    float out[JOBS_MAX][OUT_MAX], alone[JOBS_MAX][OUT_MAX];
    struct attn_job jobs[JOBS_MAX];
    uint32_t n_jobs, n_q;
};

static const struct kv_layer_spec spec_full = {.attention = KV_ATTENTION_FULL,
                                               .n_heads = 6,
                                               .n_kv_heads = 3,
                                               .dk = 64,
                                               .dv = 64,
                                               .scale = 0.1f};
static const struct kv_layer_spec spec_window = {.attention = KV_ATTENTION_WINDOW,
                                                 .n_heads = 8,
                                                 .n_kv_heads = 2,
                                                 .dk = 32,
                                                 .dv = 32,
                                                 .window = 900,
                                                 .n_sinks = 5,
                                                 .scale = 0.2f,
                                                 .softcap = 3.0f};

static struct pool *pool_make(enum kv_type type, const struct kv_layer_spec *spec, uint32_t n_q)
{
    struct kv_geometry_config config = {
        .type = type, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    struct pool *p = calloc(1, sizeof *p);
    uint32_t all[N_BLOCKS];
    uint64_t seed = 41;
    const char *field;

    assert_non_null(p);
    assert_int_equal(geometry_init(&p->geometry, &config, spec, 1, &field), 0);
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        all[i] = i;
    p->view = (struct kv_view){.base = malloc((size_t)N_BLOCKS * p->geometry.block_bytes),
                               .table = all,
                               .block_bytes = p->geometry.block_bytes,
                               .block_tokens = BLOCK_TOKENS,
                               .n_blocks = N_BLOCKS,
                               .type = type,
                               .layer = &p->geometry.layer[0]};
    const struct kv_layer *l = p->view.layer;
    uint32_t n = N_BLOCKS * BLOCK_TOKENS, k_width = kv_layer_k_width(l),
             v_width = kv_layer_v_width(l);
    float *k = random_floats(&seed, (size_t)n * k_width);
    float *v = random_floats(&seed, (size_t)n * v_width);

    attn_append(&p->view, 0, n, k, k_width, v, v_width);
    free(k);
    free(v);
    p->q = random_floats(&seed, (size_t)JOBS_MAX * n_q * kv_layer_q_width(l));
    p->n_q = n_q;
    return p;
}

static void pool_free(struct pool *p)
{
    free(p->view.base);
    free(p->q);
    free(p);
}

/* A job at position pos whose first n_common blocks are 0, 1, 2, ... and the rest its own. */
static void add_job(struct pool *p, uint32_t pos, uint32_t n_common)
{
    const struct kv_layer *l = p->view.layer;
    uint32_t i = p->n_jobs++, q_width = kv_layer_q_width(l);

    assert_true(i < JOBS_MAX && (pos + p->n_q) / BLOCK_TOKENS < BLOCKS_MAX);
    for (uint32_t b = 0; b < BLOCKS_MAX; b++)
        p->tables[i][b] = b < n_common ? b : (b * 7 + i * 29) % N_BLOCKS;
    p->jobs[i] = (struct attn_job){.q = p->q + (size_t)i * p->n_q * q_width,
                                   .out = p->out[i],
                                   .n_q = p->n_q,
                                   .pos = pos,
                                   .kv = p->view,
                                   .ldq = q_width,
                                   .ldo = kv_layer_out_width(l)};
    p->jobs[i].kv.table = p->tables[i];
    p->jobs[i].kv.n_blocks = BLOCKS_MAX;
}

/* Five share two spans and more, of which one sees less than a span behind; one shares one span;
 * one nothing; two share one span in the midst of others. */
static void add_jobs(struct pool *p)
{
    add_job(p, 3000, 40);
    add_job(p, 2800, 33);
    add_job(p, 2047, 32);
    add_job(p, 4500, 70);
    add_job(p, 2700, 40);
    add_job(p, 1500, 20);
    add_job(p, 300, 0);
    add_job(p, 1900, 17);
    add_job(p, 1200, 16);
}

static void run_alone(struct pool *p, enum isa isa)
{
    struct attn_scratch *scratch;
    struct team *team;

    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&scratch, isa, 1, 64, 64), 0);
    for (uint32_t i = 0; i < p->n_jobs; i++) {
        struct attn_job job = p->jobs[i];

        job.out = p->alone[i];
        attn_run(team, scratch, &job, 1);
    }
    attn_scratch_destroy(scratch);
    team_destroy(team);
}

static void check_together(struct pool *p, enum isa isa, uint32_t n_threads)
{
    struct attn_scratch *scratch;
    struct team *team;
    size_t n = (size_t)p->n_q * kv_layer_out_width(p->view.layer);

    assert_int_equal(team_create(&team, n_threads, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&scratch, isa, n_threads, 64, 64), 0);
    memset(p->out, 0xff, sizeof p->out);
    attn_run(team, scratch, p->jobs, p->n_jobs);
    for (uint32_t i = 0; i < p->n_jobs; i++)
        assert_same_bits(p->out[i], p->alone[i], n, "together");
    attn_scratch_destroy(scratch);
    team_destroy(team);
}

/* Every type, one and two queries, with and without window, sinks and softcap; run whole and by
 * spans. */
static void test_same_bits(void **state)
{
    static const enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_I8, KV_TYPE_BF16, KV_TYPE_F32};

    (void)state;
    for (enum isa isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        for (uint32_t i = 0; isa_supported(isa) && i < 8; i++) {
            struct pool *p =
                pool_make(types[i % 4], i % 3 == 0 ? &spec_full : &spec_window, 1 + i % 2);

            add_jobs(p);
            run_alone(p, isa);
            for (uint32_t n_threads = 1; n_threads <= 4; n_threads++)
                check_together(p, isa, n_threads);
            pool_free(p);
        }
    }
}

/* What is read once: whole spans that lie in blocks that neighbours have in common. */
static void test_what_is_shared(void **state)
{
    struct pool *p = pool_make(KV_TYPE_F16, &spec_full, 1);

    (void)state;
    add_jobs(p);
    assert_int_equal(attn_shared_tokens(p->jobs, 1), 0);
    assert_int_equal(attn_shared_tokens(p->jobs, 2), 2048);
    assert_int_equal(attn_shared_tokens(p->jobs, 5), 4 * 2048);
    assert_int_equal(attn_shared_tokens(p->jobs, 6), 4 * 2048); /* one span of six would be less */
    assert_int_equal(attn_shared_tokens(p->jobs + 5, 2), 0);
    assert_int_equal(attn_shared_tokens(p->jobs, 9), 4 * 2048 + 1024);
    p->jobs[1].n_q = 2; /* other numbers of queries do not go together */
    assert_int_equal(attn_shared_tokens(p->jobs, 2), 0);
    p->jobs[1].n_q = 0;
    assert_int_equal(attn_shared_tokens(p->jobs, 2), 0);
    pool_free(p);
}

/* Behind a window there is nothing to save, whatever the tables have in common; a few sinks are not
 * worth a bundle, whole tiles are. */
static void test_what_windows_share(void **state)
{
    struct pool *p = pool_make(KV_TYPE_F16, &spec_window, 1);
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    add_job(p, 3000, 40); /* sees 2,101 on */
    add_job(p, 2800, 40); /* sees 1,901 on */
    add_job(p, 2500, 40); /* sees 1,601 on */
    add_job(p, 2600, 40);
    assert_int_equal(attn_shared_tokens(p->jobs, 2), 0); /* two spans: 2,048 */
    assert_int_equal(attn_shared_tokens(p->jobs + 1, 2), 5 + 2048 - 1901);
    assert_int_equal(attn_shared_tokens(p->jobs + 2, 2), 5 + 2048 - 1701);
    assert_int_equal(attn_shared_tokens(p->jobs, 4), 2 * (5 + 2048 - 1901));
    run_alone(p, isa);
    check_together(p, isa, 1);
    check_together(p, isa, 3);
    pool_free(p);
}

/* As many rows as there is room for go together; the rest makes further bundles. */
static void test_many(void **state)
{
    struct pool *p = pool_make(KV_TYPE_F16, &spec_window, 2);
    enum isa isa;

    (void)state;
    assert_int_equal(isa_detect(&isa), 0);
    for (uint32_t i = 0; i < JOBS_MAX; i++) /* 8 rows a KV head each: 8 jobs, then 4 */
        add_job(p, 1100 + 50 * i, 17);
    /* Of the first 1,024 tokens a job at pos sees 5, and those from pos - 899 on; a bundle's first
     * sees all that the others see: 823 - 50 i of job i. */
    assert_int_equal(attn_shared_tokens(p->jobs, JOBS_MAX),
                     10 * (5 + 823) - 50 * (1 + 2 + 3 + 4 + 5 + 6 + 7 + 9 + 10 + 11));
    run_alone(p, isa);
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++)
        check_together(p, isa, n_threads);
    pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_what_is_shared),
        cmocka_unit_test(test_what_windows_share),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests_name("attention_shared", tests, NULL, NULL);
}
