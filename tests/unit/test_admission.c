/* The admission answer of the engine: what is refused, with which code, what a promise holds, and what
 * passes from the engine thread to the control thread. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_all.h"
#include "common/base/triple.h"
#include "gpu-engine/engine.h"

enum { N_SEQS = 32, CONTEXT_MAX = 1000 };

static const struct admission_limits limits = {.context_max = CONTEXT_MAX,
                                               .block_tokens = 32,
                                               .n_groups = 1,
                                               .device_blocks = 10,
                                               .arena_blocks = 20};

/* ---- An engine of books alone ---------------------------------------------------------------- */

static struct engine engine;
static struct omni_config config;
static _Atomic uint64_t values[ENGINE_N_STATS];
static uint32_t order[N_SEQS];
static uint64_t now_ns;

static uint64_t fake_now(const struct device *d)
{
    (void)d;
    return now_ns;
}

static struct device_ops ops;

static void start_with(const struct admission_limits *l, const char *setting)
{
    struct engine *e = &engine;
    struct error err;

    memset(e, 0, sizeof *e);
    memset(values, 0, sizeof values);
    now_ns = UINT64_C(1000000000);
    config_defaults(&config);
    if (setting != NULL)
        assert_int_equal(config_set(&config, setting, &err), 0);
    ops.now = fake_now;
    e->ops = &ops;
    e->config = &config;
    e->stats.values = values;
    e->stats.n = ENGINE_N_STATS;
    e->decide.order = order;
    e->decide.policy = sched_policy_find("group", NULL);
    e->decide.limits = (struct sched_limits){.block_tokens = l->block_tokens,
                                             .n_groups = l->n_groups,
                                             .n_blocks = l->device_blocks,
                                             .rows_max = 512,
                                             .seqs_max = N_SEQS};
    assert_int_equal(sequence_table_init(&e->sequences, N_SEQS, l->n_groups, 40, CONTEXT_MAX), 0);
    assert_int_equal(admission_init(&e->admission, e, l), 0);
}

static void start(void)
{
    start_with(&limits, NULL);
}

static void stop(void)
{
    sequence_table_fini(&engine.sequences);
    admission_fini(&engine.admission);
}

static struct admission_answer ask_for(const char *tenant, bool ls, uint32_t n_prompt,
                                       uint32_t max_output)
{
    const struct message_submit m = {.class_index = ls ? 0 : 1,
                                     .tokens = {.n = n_prompt},
                                     .max_tokens = max_output,
                                     .has_tenant = tenant != NULL,
                                     .tenant = str_of(tenant != NULL ? tenant : ""),
                                     .arrival_ns = now_ns};
    struct admission_answer answer;

    admission_decide(&engine, &m, &answer);
    if (!answer.accepted || !ls)
        return answer;
    struct sequence *s = sequence_take(&engine.sequences);
    s->latency_sensitive = true;
    s->n_prompt = s->n_tokens = n_prompt;
    s->max_tokens = max_output;
    s->n_predicted = answer.n_predicted;
    s->tenant = answer.tenant;
    s->on_budget = answer.on_budget;
    s->arrival_ns = now_ns;
    sequence_arrive(&engine.sequences, s);
    admission_promise(&engine, s);
    return answer;
}

static struct admission_answer ask(bool ls, uint32_t n_prompt, uint32_t max_output)
{
    return ask_for(NULL, ls, n_prompt, max_output);
}

/* What the engine thread does between sweeps, as far as admission is concerned. */
static void turn(void)
{
    struct engine *e = &engine;
    struct sequence *s;

    while ((s = sequence_next_arrival(&e->sequences)) != NULL)
        e->admission.n_arrived = s->order;
    e->decide.n_live = 0;
    for (uint32_t i = 0; i < N_SEQS; i++) {
        enum sequence_state state = e->sequences.all[i].state;
        if (state >= SEQUENCE_WAITING && state != SEQUENCE_ENDED)
            order[e->decide.n_live++] = i;
    }
    admission_publish(e);
}

/* The sequence with that prompt has ended, with so many tokens. */
static void finish(uint32_t n_prompt, uint32_t n_output, uint64_t tpot_ns)
{
    for (uint32_t i = 0; i < N_SEQS; i++) {
        struct sequence *s = &engine.sequences.all[i];
        if (s->state != SEQUENCE_WAITING || s->n_prompt != n_prompt)
            continue;
        s->n_tokens += n_output;
        s->first_token_ns = s->arrival_ns + 1;
        s->last_token_ns = s->first_token_ns + tpot_ns * (n_output - 1);
        admission_take_outcome(&engine, s, FINISH_LENGTH);
        sequence_set_state(&engine.sequences, s, SEQUENCE_ENDED);
        sequence_give_back(&engine.sequences, s);
        return;
    }
    fail_msg("nobody has that prompt");
}

static void assert_refused(struct admission_answer answer, enum error_code code, bool later)
{
    assert_false(answer.accepted);
    assert_int_equal(answer.code, code);
    assert_int_equal(answer.retry_after_ms > 0, later);
    assert_true(answer.message[0] != 0);
}

/* ---- Answers --------------------------------------------------------------------------------- */

static void test_what_can_never_succeed(void **state)
{
    (void)state;
    start();
    assert_refused(ask(true, 0, 10), ERROR_BAD_REQUEST, false);
    assert_refused(ask(true, 500, 501), ERROR_TOO_LONG, false);
    assert_refused(ask(false, UINT32_MAX, UINT32_MAX), ERROR_TOO_LONG, false);
    /* 320 positions on the device, 640 in an arena; a prompt's first token needs one more. */
    assert_refused(ask(true, 300, 21), ERROR_NO_CAPACITY, false);
    assert_refused(ask(false, 320, 1), ERROR_NO_CAPACITY, false);
    assert_refused(ask(false, 319, 322), ERROR_NO_CAPACITY, false);
    assert_true(ask(false, 319, 321).accepted);
    assert_int_equal(admission_promised(&engine), 0);
    stop();
}

static void test_promises_to_latency_sensitive_requests(void **state)
{
    (void)state;
    start();
    assert_true(ask(true, 100, 60).accepted); /* 5 blocks */
    assert_true(ask(true, 33, 95).accepted);  /* 4 blocks */
    assert_refused(ask(true, 34, 1), ERROR_OVERLOADED, true);
    assert_true(ask(false, 300, 10).accepted); /* best effort yields: no promise */
    turn();                                    /* promises are the engine's now: they hold */
    assert_true(ask(true, 31, 1).accepted);
    assert_refused(ask(true, 1, 1), ERROR_OVERLOADED, true);
    turn();
    finish(33, 95, 1);
    turn();
    assert_int_equal(admission_promised(&engine), 6);
    assert_true(ask(true, 64, 64).accepted);
    turn();
    finish(64, 64, 1);
    finish(31, 1, 1);
    finish(100, 60, 1);
    turn();
    assert_int_equal(admission_promised(&engine), 0);
    assert_int_equal(values[ENGINE_STAT_LS_OFFERED], 6);
    assert_int_equal(values[ENGINE_STAT_LS_REFUSED], 2);
    assert_int_equal(values[ENGINE_STAT_LS_MET], 4);
    stop();
}

static void test_admission_can_be_switched_off(void **state)
{
    (void)state;
    start_with(&limits, "slo.admission=no");
    for (uint32_t i = 0; i < N_SEQS; i++)
        assert_true(ask(true, 100, 200).accepted);
    assert_refused(ask(true, 300, 21), ERROR_NO_CAPACITY, false); /* but what cannot be, is not */
    stop();
}

/* KV is kept for what outputs really are, once that is known. */
static void test_outputs_are_predicted(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < LENGTHS_ENOUGH; i++) {
        assert_true(ask(true, 32, 288).accepted); /* all blocks */
        assert_false(ask(true, 1, 1).accepted);
        turn();
        finish(32, i == 0 ? 200 : 30, 1);
        turn();
    }
    for (uint32_t i = 0; i < 5; i++) /* 2 blocks each */
        assert_true(ask(true, 32, 288).accepted);
    assert_false(ask(true, 1, 1).accepted);
    assert_int_equal(admission_promised(&engine), 10);
    stop();
    start_with(&limits, "slo.output_pct=0");
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(ask(true, 32, 288).accepted);
        turn();
        finish(32, 30, 1);
        turn();
    }
    assert_true(ask(true, 32, 288).accepted);
    assert_false(ask(true, 1, 1).accepted);
    stop();
}

static void test_outcomes_are_counted(void **state)
{
    (void)state;
    start_with(&limits, "slo.ls_target_pct=50");
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(ask(true, 32, 10).accepted);
        turn();
        finish(32, 10, i < 3 ? 300000000 : 1000000);
        turn();
    }
    assert_int_equal(values[ENGINE_STAT_LS_MET], 7);
    assert_int_equal(values[ENGINE_STAT_LS_MISSED], 3);
    assert_int_equal(values[ENGINE_STAT_LS_MISSED_TPOT], 3);
    assert_int_equal(values[ENGINE_STAT_LS_MISSED_TTFT], 0);
    assert_int_equal(values[ENGINE_STAT_LS_MISSES_LEFT], 2);
    stop();
}

static void test_a_tenants_share_is_kept(void **state)
{
    (void)state;
    start_with(&limits, "tenants.weights=a:1,b:1");
    assert_true(ask_for("a", true, 100, 60).accepted); /* 5 of 10 blocks */
    assert_true(ask_for("b", true, 32, 10).accepted);  /* 2, so that b is active */
    assert_refused(ask_for("a", true, 32, 10), ERROR_OVERLOADED, true);
    assert_true(ask_for("b", true, 32, 10).accepted); /* a has had its half */
    now_ns += UINT64_C(61000000000);                  /* b has not come for a while */
    assert_int_equal(ask_for("a", true, 20, 10).accepted, true);
    assert_refused(ask_for("somebody", true, 32, 10), ERROR_OVERLOADED, true);
    stop();
}

static void test_best_effort_by_where_it_may_decode(void **state)
{
    (void)state;
    struct admission_limits l = limits;

    l.arena_blocks = 4;
    start_with(&l, NULL);
    assert_true(ask(false, 200, 100).accepted); /* on the device, which is larger */
    stop();
    l.must_offload = true;
    start_with(&l, NULL);
    assert_refused(ask(false, 200, 100), ERROR_NO_CAPACITY, false);
    assert_true(ask(false, 100, 28).accepted);
    stop();
}

static void test_layer_groups_multiply_blocks(void **state)
{
    (void)state;
    struct admission_limits l = limits;

    l.n_groups = 2;
    start_with(&l, NULL);
    assert_refused(ask(true, 160, 1), ERROR_NO_CAPACITY, false);
    assert_true(ask(true, 159, 1).accepted);
    assert_int_equal(admission_promised(&engine), 10);
    stop();
}

/* ---- From thread to thread ------------------------------------------------------------------- */

enum { N_PUBLISHED = 200000, N_WORDS = 64 };
static struct triple turns;
static uint64_t buffers[TRIPLE_BUFFERS][N_WORDS];

static void *write_all(void *arg)
{
    (void)arg;
    for (uint64_t i = 1; i <= N_PUBLISHED; i++) {
        for (int w = 0; w < N_WORDS; w++)
            buffers[turns.back][w] = i;
        triple_publish(&turns);
    }
    return NULL;
}

/* The reader sees whole buffers only, never an older one again, and the last one in the end. */
static void test_the_newest_is_whole(void **state)
{
    pthread_t writer;
    uint64_t seen = 0;

    (void)state;
    triple_init(&turns);
    memset(buffers, 0, sizeof buffers);
    assert_int_equal(pthread_create(&writer, NULL, write_all, NULL), 0);
    while (seen < N_PUBLISHED) {
        const uint64_t *b = buffers[triple_take(&turns)];
        assert_true(b[0] >= seen);
        seen = b[0];
        for (int w = 1; w < N_WORDS; w++)
            assert_int_equal(b[w], seen);
    }
    pthread_join(writer, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_can_never_succeed),
        cmocka_unit_test(test_promises_to_latency_sensitive_requests),
        cmocka_unit_test(test_admission_can_be_switched_off),
        cmocka_unit_test(test_outputs_are_predicted),
        cmocka_unit_test(test_outcomes_are_counted),
        cmocka_unit_test(test_a_tenants_share_is_kept),
        cmocka_unit_test(test_best_effort_by_where_it_may_decode),
        cmocka_unit_test(test_layer_groups_multiply_blocks),
        cmocka_unit_test(test_the_newest_is_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
