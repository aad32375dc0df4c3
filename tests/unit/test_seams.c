/* The seams of the house: what later work will need, each exercised here by something tiny, so that
 * it is there from the start.
 *
 *   layers differ (windows with sinks, KV heads)  test_alternating_windows_and_kv_heads
 *   dense is a list, the MLP may be experts       test_four_experts_top_two
 *   weights are typed views                       test_a_tensor_as_f32_and_as_q8_0; test_weight.c
 *   blocks are shareable                          test_two_offloaded_requests_share_blocks;
 *                                                 test_engine.c (found by prefix, and counted)
 *   a job has n_q queries                         test_a_job_with_two_queries
 *   placement per layer group                     test_half_of_the_layers_in_the_arena
 *   rank and n_ranks                              test_two_ranks_*
 *   classes are a list                            test_class_queue.c, test_router.c
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "ref_model.h"

enum { N_PROMPT = 100, N_OUTPUT = 8, N_MAX = N_PROMPT + N_OUTPUT + 2 };

static struct device_fixture fixture; /* too large for the stack */
static struct fixture_request reference, request, other;

static void open_fixture(const struct model_random_options *model, uint32_t n_groups)
{
    const struct fixture_options o = {
        .model = model, .kv = KV_TYPE_F32, .n_groups = n_groups, .n_threads = 1};

    fixture_open(&fixture, &o);
}

static void init_request(struct fixture_request *r, uint32_t seed, uint32_t n_shared)
{
    uint32_t prompt[N_PROMPT];

    fixture_prompt(&fixture, seed, prompt, N_PROMPT);
    fixture_prompt(&fixture, 1, prompt, n_shared);
    fixture_request_init(&fixture, r, prompt, N_PROMPT, N_MAX);
}

/* Prompt and output on the device alone. */
static void make_reference(struct fixture_request *r, uint32_t seed, uint32_t n_shared)
{
    init_request(r, seed, n_shared);
    fixture_prefill(&fixture, r, N_PROMPT);
    fixture_decode(&fixture, r, N_OUTPUT);
}

/* ---- Layers that differ, and experts --------------------------------------------------------- */

/* Greedy output of ours and of the plain forward pass, where that one is sure: on the device and
 * in the arena. */
static void check_against_plain(const struct model_random_options *model)
{
    open_fixture(model, 1);
    make_reference(&reference, 1, 0);
    struct ref_model *plain = ref_model_create(fixture.model, N_MAX);
    for (uint32_t pos = 0; pos < N_PROMPT + N_OUTPUT; pos++) {
        const float *logits = ref_model_step(plain, reference.tokens[pos]);
        uint32_t ours = reference.sampled[pos + 1];

        if (reference.is_sampled[pos + 1])
            assert_true(logits[ref_model_argmax(logits, fixture.model->n_vocab)] - logits[ours] <
                        1e-3f);
    }
    ref_model_destroy(plain);
    init_request(&request, 1, 0);
    fixture_prefill(&fixture, &request, N_PROMPT);
    fixture_offload(&fixture, &request, 0, 1);
    fixture_decode(&fixture, &request, N_OUTPUT);
    fixture_assert_equal(&reference, &request, 0);
    fixture_close(&fixture);
}

static void test_alternating_windows_and_kv_heads(void **state)
{
    (void)state;
    struct model_random_options model = model_random_defaults();

    memset(model.experts, 0, sizeof model.experts);
    check_against_plain(&model);
    open_fixture(&model, 1);
    const struct kv_geometry *g = &fixture.geometry;
    assert_true(g->layer[0].window == 0 && g->layer[1].window == 64 && g->layer[1].n_sinks == 4);
    assert_true(g->layer[0].n_kv_heads == 2 && g->layer[1].n_kv_heads == 1 &&
                g->layer[2].n_kv_heads == 4);
    assert_true(geometry_layer_token_bytes(g, 0) == 2 * geometry_layer_token_bytes(g, 1));
    fixture_close(&fixture);
}

static void test_four_experts_top_two(void **state)
{
    (void)state;
    struct model_random_options model = model_random_defaults();

    for (uint32_t l = 0; l < model.n_layers; l++) {
        model.windows[l] = 0;
        model.experts[l] = true;
    }
    check_against_plain(&model);
}

/* ---- Typed views ----------------------------------------------------------------------------- */

/* The same random numbers, rounded to Q8_0 or not: the device consumes either, and the two differ
 * by that rounding. */
static void test_a_tensor_as_f32_and_as_q8_0(void **state)
{
    (void)state;
    static const enum weight_type types[2] = {WEIGHT_F32, WEIGHT_Q8_0};
    struct model_random_options model = model_random_defaults();
    float logits[2][512];
    double difference = 0, size = 0;

    model.mixed = false;
    model.n_layers = 1; /* a random model of many layers makes much of small differences */
    for (int i = 0; i < 2; i++) {
        model.type = types[i];
        open_fixture(&model, 1);
        assert_int_equal(fixture.model->layers[0].attn_q.type, types[i]);
        assert_in_range(fixture.model->n_vocab, 1, 512);
        init_request(&request, 1, 0);
        fixture_prefill(&fixture, &request, N_PROMPT);
        memcpy(logits[i], fixture_logits(&fixture, 0), fixture.model->n_vocab * sizeof(float));
        fixture_close(&fixture);
    }
    for (uint32_t i = 0; i < model.n_vocab; i++) {
        double a = (double)logits[0][i], b = (double)logits[1][i];

        difference += (a - b) * (a - b);
        size += a * a;
    }
    double relative = sqrt(difference / size);
    printf("relative difference %.4f\n", relative);
    assert_true(relative > 0 && relative < 0.05);
}

/* ---- Shared blocks --------------------------------------------------------------------------- */

/* Both tables name the same arena blocks for the first 64 tokens. */
static void test_two_offloaded_requests_share_blocks(void **state)
{
    (void)state;
    static struct fixture_request other_reference;
    struct model_random_options model = model_random_defaults();
    uint32_t n_shared = 2;

    open_fixture(&model, 1);
    make_reference(&reference, 1, 0);
    make_reference(&other_reference, 2, n_shared * FIXTURE_BLOCK_TOKENS);
    init_request(&request, 1, 0);
    init_request(&other, 2, n_shared * FIXTURE_BLOCK_TOKENS);
    fixture_prefill(&fixture, &request, N_PROMPT);
    fixture_prefill(&fixture, &other, N_PROMPT);
    fixture_offload(&fixture, &request, 0, 1);
    fixture_offload(&fixture, &other, 1, 1);
    memcpy(local_exchange_table(fixture.local, other.idx, 0),
           local_exchange_table(fixture.local, request.idx, 0), n_shared * sizeof(uint32_t));
    for (uint32_t i = 0; i < N_OUTPUT; i++) {
        fixture_decode(&fixture, &request, 1);
        fixture_decode(&fixture, &other, 1);
    }
    fixture_assert_equal(&reference, &request, 0);
    fixture_assert_equal(&other_reference, &other, 0);
    assert_int_not_equal(reference.hidden[N_PROMPT], other_reference.hidden[N_PROMPT]);
    fixture_close(&fixture);
}

/* ---- Two queries ----------------------------------------------------------------------------- */

/* The next token is known (as if guessed right): two rows enter as one job per layer. */
static void test_a_job_with_two_queries(void **state)
{
    (void)state;
    struct model_random_options model = model_random_defaults();

    open_fixture(&model, 1);
    make_reference(&reference, 1, 0);
    init_request(&request, 1, 0);
    fixture_prefill(&fixture, &request, N_PROMPT);
    fixture_offload(&fixture, &request, 0, 1);
    for (uint32_t i = 0; i < N_OUTPUT / 2; i++) {
        request.tokens[request.n_tokens] = reference.tokens[request.n_tokens];
        request.n_tokens++;
        fixture_decode(&fixture, &request, 1);
    }
    assert_int_equal(request.n_kv, N_PROMPT + N_OUTPUT);
    assert_int_equal(local_exchange_n_jobs(fixture.local, 2), N_OUTPUT / 2 * model.n_layers);
    fixture_assert_equal(&reference, &request, 0);
    fixture_close(&fixture);
}

/* ---- Layer groups ---------------------------------------------------------------------------- */

static void test_half_of_the_layers_in_the_arena(void **state)
{
    (void)state;
    struct model_random_options model = model_random_defaults();

    for (uint32_t groups = 1; groups <= 2; groups++) {
        open_fixture(&model, 2);
        make_reference(&reference, 1, 0);
        init_request(&request, 1, 0);
        fixture_prefill(&fixture, &request, N_PROMPT);
        fixture_offload(&fixture, &request, 0, groups);
        fixture_decode(&fixture, &request, N_OUTPUT);
        fixture_assert_equal(&reference, &request, 0);
        assert_int_equal(local_exchange_n_jobs(fixture.local, 1), N_OUTPUT * model.n_layers / 2);
        fixture_close(&fixture);
    }
}

/* ---- Two ranks in one process ---------------------------------------------------------------- */

enum { HEADS = 4, KV_HEADS = 2, WIDTH = 16, N_TOKENS = 90, N_RANKS = 2, BLOCKS = 3 };

static const struct kv_layer_spec rank_layer = {.attention = KV_ATTENTION_WINDOW,
                                                .n_heads = HEADS,
                                                .n_kv_heads = KV_HEADS,
                                                .dk = WIDTH,
                                                .dv = WIDTH,
                                                .window = 50,
                                                .n_sinks = 3,
                                                .scale = 0.25f};

static void rank_geometry(struct kv_geometry *g, uint32_t rank, uint32_t n_ranks)
{
    const struct kv_geometry_config config = {.type = KV_TYPE_F16,
                                              .block_tokens = FIXTURE_BLOCK_TOKENS,
                                              .n_groups = 1,
                                              .rank = rank,
                                              .n_ranks = n_ranks};
    const char *field;

    assert_int_equal(geometry_init(g, &config, &rank_layer, 1, &field), 0);
}

/* Attention of the last token over the geometry's heads; q, k, v begin at its first head, in rows
 * of all heads. */
static void attend(const struct kv_geometry *g, const float *q, const float *k, const float *v,
                   float *out)
{
    static const uint32_t table[BLOCKS] = {2, 0, 1};
    struct attn_scratch *scratch;
    struct team *team;
    enum isa isa;
    struct attn_job job = {.q = q,
                           .out = out,
                           .n_q = 1,
                           .pos = N_TOKENS - 1,
                           .kv = {.base = calloc(BLOCKS, g->block_bytes),
                                  .table = table,
                                  .block_bytes = g->block_bytes,
                                  .block_tokens = g->block_tokens,
                                  .n_blocks = BLOCKS,
                                  .type = g->type,
                                  .layer = &g->layer[0]},
                           .ldq = HEADS * WIDTH,
                           .ldo = HEADS * WIDTH};

    assert_non_null(job.kv.base);
    assert_int_equal(isa_detect(&isa), 0);
    assert_int_equal(team_create(&team, 1, NULL, 0), 0);
    assert_int_equal(attn_scratch_create(&scratch, isa, 1, WIDTH, WIDTH), 0);
    attn_append(&job.kv, 0, N_TOKENS, k, KV_HEADS * WIDTH, v, KV_HEADS * WIDTH);
    attn_run(team, scratch, &job, 1);
    attn_scratch_destroy(scratch);
    team_destroy(team);
    free(job.kv.base);
}

static void fill_random(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(rand() % 2001 - 1000) / 500;
}

static void test_two_ranks_attend_to_their_heads(void **state)
{
    (void)state;
    static float q[HEADS * WIDTH], k[N_TOKENS * KV_HEADS * WIDTH], v[N_TOKENS * KV_HEADS * WIDTH];
    float whole[HEADS * WIDTH], sharded[HEADS * WIDTH];
    struct kv_geometry all, shard;

    srand(5);
    fill_random(q, sizeof q / sizeof *q);
    fill_random(k, sizeof k / sizeof *k);
    fill_random(v, sizeof v / sizeof *v);
    rank_geometry(&all, 0, 1);
    attend(&all, q, k, v, whole);
    for (uint32_t rank = 0; rank < N_RANKS; rank++) {
        uint32_t first = rank * HEADS / N_RANKS, first_kv = rank * KV_HEADS / N_RANKS;

        rank_geometry(&shard, rank, N_RANKS);
        assert_int_equal(shard.layer[0].n_heads, HEADS / N_RANKS);
        assert_int_equal(shard.layer[0].n_kv_heads, KV_HEADS / N_RANKS);
        assert_true(shard.hash != all.hash);
        attend(&shard, q + first * WIDTH, k + first_kv * WIDTH, v + first_kv * WIDTH,
               sharded + first * WIDTH);
    }
    assert_memory_equal(sharded, whole, sizeof whole);
}

static void test_two_ranks_have_geometries_of_their_own(void **state)
{
    (void)state;
    struct kv_geometry a, b;

    rank_geometry(&a, 0, N_RANKS);
    rank_geometry(&b, 1, N_RANKS);
    assert_int_equal(a.block_bytes, b.block_bytes);
    assert_true(a.hash != b.hash); /* nobody attaches to the other rank's arena */
}

/* Ranks finish in different order: rank 0 picks what both have. */
static void test_two_ranks_pick_what_both_have_done(void **state)
{
    (void)state;
    struct pick_slot slots[4];
    uint32_t done[N_RANKS * 4], out[4];

    for (uint32_t s = 0; s < 4; s++) {
        slots[s] = (struct pick_slot){
            .generation = 10 + s, .age = 4 - s, .state = PICK_SLOT_POSTED, .n_q = 1};
        done[s] = s == 0 ? 9 : 10 + s;
        done[4 + s] = s == 3 ? 12 : 10 + s;
    }
    assert_int_equal(pick_rows(slots, 4, 0, done, N_RANKS, UINT64_MAX, PICK_ANY_BATCH, 4, out), 2);
    assert_int_equal(out[0], 2); /* the older of slots 1 and 2 */
    assert_int_equal(out[1], 1);
    done[0] = 10;
    done[4 + 3] = 13;
    assert_int_equal(pick_rows(slots, 4, 0, done, N_RANKS, UINT64_MAX, PICK_ANY_BATCH, 4, out), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alternating_windows_and_kv_heads),
        cmocka_unit_test(test_four_experts_top_two),
        cmocka_unit_test(test_a_tensor_as_f32_and_as_q8_0),
        cmocka_unit_test(test_two_offloaded_requests_share_blocks),
        cmocka_unit_test(test_a_job_with_two_queries),
        cmocka_unit_test(test_half_of_the_layers_in_the_arena),
        cmocka_unit_test(test_two_ranks_attend_to_their_heads),
        cmocka_unit_test(test_two_ranks_have_geometries_of_their_own),
        cmocka_unit_test(test_two_ranks_pick_what_both_have_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
