/* The engine with its workers in one process: the same tokens wherever attention ran, whoever was
 * held back, dropped or cancelled; and nothing is held when all have ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "engine_fixture.h"

enum { N_BE = 8, N_LS = 2, N = N_BE + N_LS, N_OUTPUT = 24, PROMPT_MAX = 960 };
enum { MANY_BE = 32, MANY = MANY_BE + 4, MANY_OUTPUT = 64 };

static struct engine_group group;
/* Of each request, served alone on the device; more of it than most tests ask for. */
static uint32_t expected[MANY][MANY_OUTPUT];

/* ---- The load -------------------------------------------------------------------------------- */

/* Every second request is drawn, the others are greedy. */
static uint32_t make_prompt(uint32_t i, uint32_t n, uint32_t *tokens)
{
    for (uint32_t k = 0; k < n; k++)
        tokens[k] = (i * 31 + k * k * 7 + k) % 256;
    return n;
}

static void submit_as(uint32_t i, uint32_t class_idx, uint32_t n_output)
{
    uint32_t tokens[PROMPT_MAX], n = make_prompt(i, 40 + i % 10 * 9, tokens);

    group_submit(&group, i, class_idx, tokens, n, n_output, i % 2 * (i + 100));
    assert_true(group.requests[i].accepted);
}

/* Requests 0..7 are best effort, 8 and 9 latency-sensitive. */
static void submit(uint32_t i)
{
    submit_as(i, i < N_BE ? 1 : 0, N_OUTPUT);
}

static void submit_all(void)
{
    for (uint32_t i = 0; i < N; i++)
        submit(i);
}

static void assert_n_tokens(uint32_t i, uint32_t n)
{
    assert_int_equal(group.requests[i].done.reason, FINISH_LENGTH);
    assert_int_equal(group.requests[i].n_tokens, n);
    assert_memory_equal(group.requests[i].tokens, expected[i], n * sizeof **expected);
}

static void assert_tokens(uint32_t i)
{
    assert_n_tokens(i, N_OUTPUT);
}

static uint64_t stat(enum engine_stat which)
{
    return group.stats[which];
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void init(const char *const *settings)
{
    struct model_random_options model = model_random_defaults();

    group_init(&group, &model);
    for (; *settings != NULL; settings++)
        group_set(&group, *settings);
}

/* All requests at once under these settings; their tokens are those of each alone. */
static void run(const char *const *settings)
{
    init(settings);
    group_start(&group);
    submit_all();
    group_wait(&group, group_all_ended, N);
    group_stop(&group);
    for (uint32_t i = 0; i < N; i++)
        assert_tokens(i);
    for (uint32_t i = N_BE; i < N; i++)
        assert_int_equal(group.requests[i].done.worker_tokens, 0);
}

static int each_alone(void **state)
{
    static const char *const settings[] = {"engine.offload=never", NULL};

    (void)state;
    init(settings);
    group_start(&group);
    for (uint32_t i = 0; i < MANY; i++) {
        submit_as(i, 0, MANY_OUTPUT);
        group_wait(&group, group_has_ended, i);
        assert_int_equal(group.requests[i].n_tokens, MANY_OUTPUT);
        memcpy(expected[i], group.requests[i].tokens, sizeof expected[i]);
    }
    group_stop(&group);
    return 0;
}

static void test_never(void **state)
{
    static const char *const settings[] = {"engine.offload=never", NULL};

    (void)state;
    run(settings);
    assert_int_equal(stat(ENGINE_STAT_TOKENS_WORKER), 0);
    assert_int_equal(stat(ENGINE_STAT_TOKENS_DEVICE), N * N_OUTPUT);
    assert_int_equal(stat(ENGINE_STAT_FINISHED), N);
}

/* The first token comes from the prefill; all others of best effort from workers. */
static void assert_all_went_out(void)
{
    for (uint32_t i = 0; i < N_BE; i++)
        assert_int_equal(group.requests[i].done.worker_tokens, N_OUTPUT - 1);
    assert_int_equal(stat(ENGINE_STAT_COPIES_OUT), N_BE);
    assert_int_equal(stat(ENGINE_STAT_JOBS_POSTED), N_BE * (N_OUTPUT - 1) * 6);
    assert_int_equal(stat(ENGINE_STAT_JOBS_RIDDEN) + stat(ENGINE_STAT_JOBS_PARKED),
                     stat(ENGINE_STAT_JOBS_POSTED));
    assert_int_equal(stat(ENGINE_STAT_JOBS_FAILED), 0);
    assert_int_equal(stat(ENGINE_STAT_RECOMPUTED), 0);
}

static void test_always_with_one_two_and_three_workers(void **state)
{
    static const char *const workers[] = {"group.n_workers=1", "group.n_workers=2",
                                          "group.n_workers=3"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *const settings[] = {"engine.offload=always", workers[i], NULL};
        run(settings);
        assert_all_went_out();
        /* Where a prompt will decode is known: what an earlier sweep computed of it is there. */
        assert_true(stat(ENGINE_STAT_MIRRORED_BLOCKS) > 0);
    }
}

static void test_always_with_few_returned_rows_and_slots(void **state)
{
    static const char *const settings[] = {"engine.offload=always", "engine.p_max=1",
                                           "worker.n_q_max=1", "worker.slots=3", NULL};

    (void)state;
    run(settings);
    assert_all_went_out();
}

static void test_always_with_layer_groups(void **state)
{
    static const char *const settings[] = {"engine.offload=always", "engine.layer_groups=2",
                                           "group.n_workers=2", NULL};

    (void)state;
    run(settings);
    assert_all_went_out();
}

static void test_always_with_held_results(void **state)
{
    static const char *const settings[] = {"engine.offload=always", NULL};

    (void)state;
    assert_int_equal(setenv("OMNI_EXCHANGE_DELAY", "9", 1), 0);
    run(settings);
    assert_int_equal(unsetenv("OMNI_EXCHANGE_DELAY"), 0);
    assert_all_went_out();
    /* That some ride is a matter of the worker's speed: test_device_cpu shows it without one. */
    assert_true(stat(ENGINE_STAT_JOBS_PARKED) > 0);
}

/* The full size: 32 best-effort requests of 64 tokens beside 4 chats, on two workers, some results
 * held back. */
static void test_thirty_two_beside_four(void **state)
{
    static const char *const settings[] = {"engine.offload=always", "group.n_workers=2",
                                           "engine.kv_blocks=96", NULL};

    (void)state;
    init(settings);
    assert_int_equal(setenv("OMNI_EXCHANGE_DELAY", "3", 1), 0);
    group_start(&group);
    assert_int_equal(unsetenv("OMNI_EXCHANGE_DELAY"), 0);
    for (uint32_t i = 0; i < MANY; i++)
        submit_as(i, i < MANY_BE ? 1 : 0, MANY_OUTPUT);
    group_wait(&group, group_all_ended, MANY);
    group_stop(&group);
    for (uint32_t i = 0; i < MANY; i++)
        assert_n_tokens(i, MANY_OUTPUT);
    assert_true(stat(ENGINE_STAT_TOKENS_WORKER) > MANY_BE * MANY_OUTPUT / 2);
    assert_int_equal(stat(ENGINE_STAT_JOBS_FAILED), 0);
}

/* The pool holds about half of the load: some go out, and come back when there is room. */
static void test_auto(void **state)
{
    static const char *const settings[] = {"engine.offload=auto", "engine.kv_blocks=24", NULL};

    (void)state;
    run(settings);
    assert_true(stat(ENGINE_STAT_COPIES_OUT) > 0);
    assert_true(stat(ENGINE_STAT_TOKENS_WORKER) > 0);
}

/* Oldest resident back in: it starts when the others are gone. */
static void test_auto_brings_back(void **state)
{
    static const char *const settings[] = {"engine.offload=auto", "engine.kv_blocks=20",
                                           "engine.auto_free_pct=20", "slo.be_settle_ms=0", NULL};

    (void)state;
    run(settings);
    assert_true(stat(ENGINE_STAT_COPIES_IN) > 0);
}

/* ---- Two batches, waits ---------------------------------------------------------------------- */

/* What `group` decides, carried out in two batches that change from sweep to sweep, half of the
 * entering rows with the second; and every layer waits for its jobs, however long. */
static void split_and_wait(const struct sched_state *state, struct sched_decision *d, bool two,
                           bool waits)
{
    static uint32_t n; /* one engine thread at a time */

    sched_policy_find("group", NULL)->decide(state, d);
    n++;
    if (two) {
        d->n_seqs_a = d->n_seqs * (n % 3) / 2;
        d->n_enter_b = (d->n_enter + n % 2) / 2;
    }
    if (waits) {
        d->want = UINT32_MAX;
        d->wait_ns = UINT64_MAX;
    }
}

static void decide_two(const struct sched_state *state, struct sched_decision *d)
{
    split_and_wait(state, d, true, false);
}

static void decide_waits(const struct sched_state *state, struct sched_decision *d)
{
    split_and_wait(state, d, false, true);
}

static void decide_both(const struct sched_state *state, struct sched_decision *d)
{
    split_and_wait(state, d, true, true);
}

/* The simulated device in a group does not wait. */
static bool device_waits(void)
{
    return getenv("OMNI_TEST_DEVICE") == NULL;
}

static void skip_without_waits(void)
{
    if (!device_waits())
        skip();
}

static void run_as(const struct sched_policy *policy)
{
    group.policy = policy;
    group_start(&group);
    submit_all();
    group_wait(&group, group_all_ended, N);
    group_stop(&group);
    for (uint32_t i = 0; i < N; i++)
        assert_tokens(i);
}

static void run_policy(const struct sched_policy *policy, const char *const *settings)
{
    skip_without_waits();
    init(settings);
    group.pace = (struct latency_worker){.bytes_per_ns = 1, .fixed_ns = 50 * NS_PER_MS};
    run_as(policy);
}

static void test_two_batches_with_one_two_and_three_workers(void **state)
{
    static const struct sched_policy policy = {.name = "two", .decide = decide_two};
    static const char *const workers[] = {"group.n_workers=1", "group.n_workers=2",
                                          "group.n_workers=3"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *const settings[] = {"engine.offload=always", workers[i], NULL};
        run_policy(&policy, settings);
        assert_all_went_out();
        assert_true(stat(ENGINE_STAT_SWEEPS_TWO) > 0);
        assert_int_equal(stat(ENGINE_STAT_WAITED_US), 0);
    }
}

/* With results held back a row rides only if somebody waits for it; how many do, where a machine is
 * busy, is another question. */
static void test_waits_with_held_results(void **state)
{
    static const struct sched_policy waits = {.name = "waits", .decide = decide_waits},
                                     both = {.name = "both", .decide = decide_both};
    static const char *const settings[] = {"engine.offload=always", "group.n_workers=2", NULL};

    (void)state;
    assert_int_equal(setenv("OMNI_EXCHANGE_DELAY", "3", 1), 0);
    for (int i = 0; i < 2; i++) {
        run_policy(i == 0 ? &waits : &both, settings);
        assert_all_went_out();
        assert_true(stat(ENGINE_STAT_WAITED_US) > 0);
        assert_true(stat(ENGINE_STAT_JOBS_RIDDEN) > 0);
    }
    assert_int_equal(unsetenv("OMNI_EXCHANGE_DELAY"), 0);
}

/* The same without held results: the bell of real workers ends the waits. */
static void test_waits_end_with_the_answer(void **state)
{
    static const struct sched_policy both = {.name = "both", .decide = decide_both};
    static const char *const settings[] = {"engine.offload=always", NULL};

    (void)state;
    run_policy(&both, settings);
    assert_all_went_out();
    assert_true(2 * stat(ENGINE_STAT_JOBS_RIDDEN) > stat(ENGINE_STAT_JOBS_POSTED));
}

/* Workers stand still with jobs in hand: each is waited for once, twice its predicted time, and
 * then latency-sensitive requests go on as if nobody had been asked. */
static void test_workers_that_stand_still_are_not_waited_for(void **state)
{
    static const struct sched_policy waits = {.name = "waits", .decide = decide_waits};
    static const char *const settings[] = {"engine.offload=always", "group.n_workers=2", NULL};

    (void)state;
    skip_without_waits();
    init(settings);
    group.policy = &waits;
    group.pace = (struct latency_worker){.bytes_per_ns = 1, .fixed_ns = 5 * NS_PER_MS};
    group_start(&group);
    atomic_store(&group.hold_workers, true);
    submit_all();
    for (uint32_t i = N_BE; i < N; i++)
        group_wait(&group, group_has_ended, i);
    uint64_t waited_us = stats_get(&group.host.engine.stats, ENGINE_STAT_WAITED_US);
    atomic_store(&group.hold_workers, false);
    group_wait(&group, group_all_ended, N);
    group_stop(&group);
    for (uint32_t i = 0; i < N; i++)
        assert_tokens(i);
    /* Each request's job could be posted in a flush of its own while its worker was on time. */
    assert_in_range(waited_us, 0, 5 * 2 * N_BE * 5000);
}

static void assert_policy_refused(const char *policy, const char *reason)
{
    const char *const settings[] = {policy, NULL};
    struct error err;

    init(settings);
    group_expect_refusal(&group, &err);
    assert_memory_equal(err.text, policy, strcspn(policy, "=")); /* the key */
    assert_non_null(strstr(err.text, reason));
}

static void test_policies_that_cannot_be_carried_out_are_refused(void **state)
{
    (void)state;
    assert_policy_refused("engine.policy=stream", "host memory");
    assert_policy_refused("engine.policy=headroom", "CPU-only engine");
    assert_policy_refused("engine.policy=sync",
                          device_waits() ? "engine.profile" : "cannot alternate");
    assert_policy_refused("engine.without=two-batch,wait", "waiting");
}

/* Every policy that the cpu device carries out, priced, with little device memory. */
static void test_all_policies(void **state)
{
    static const char *const names[] = {"omni", "paper", "sync", "ls-first", "harvest"};
    static const char *const settings[] = {"engine.kv_blocks=24", "slo.be_settle_ms=0",
                                           "group.n_workers=2", NULL};

    (void)state;
    skip_without_waits();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        init(settings);
        group.priced = true;
        run_as(sched_policy_find(names[i], NULL));
        printf("%s: %llu tokens on workers, %llu sweeps of two batches, waited %llu us\n", names[i],
               (unsigned long long)stat(ENGINE_STAT_TOKENS_WORKER),
               (unsigned long long)stat(ENGINE_STAT_SWEEPS_TWO),
               (unsigned long long)stat(ENGINE_STAT_WAITED_US));
        if (strcmp(names[i], "ls-first") == 0)
            assert_int_equal(stat(ENGINE_STAT_COPIES_OUT), 0);
    }
}

/* Nobody decodes at a worker, and full blocks are in its arena before anybody has to go. */
static void test_harvest_copies_blocks_as_they_fill(void **state)
{
    static const char *const settings[] = {"engine.kv_blocks=24", "slo.be_settle_ms=0",
                                           "group.n_workers=2", NULL};

    (void)state;
    init(settings);
    group.priced = device_waits(); /* the simulated device is not */
    run_as(sched_policy_find("harvest", NULL));
    assert_int_equal(stat(ENGINE_STAT_TOKENS_WORKER), 0);
    assert_true(stat(ENGINE_STAT_MIRRORED_BLOCKS) > 0);
    assert_true(stat(ENGINE_STAT_COPIES_OUT) + stat(ENGINE_STAT_RETREATS) > 0);
    assert_true(stat(ENGINE_STAT_COPIES_IN) > 0);
}

/* ---- Little memory --------------------------------------------------------------------------- */

/* Best effort has begun when the others come; all get their tokens. */
static void run_be_first(void)
{
    group_start(&group);
    for (uint32_t i = 0; i < N_BE; i++)
        submit(i);
    group_wait(&group, group_has_begun, 1);
    for (uint32_t i = N_BE; i < N; i++)
        submit(i);
    group_wait(&group, group_all_ended, N);
    group_stop(&group);
    for (uint32_t i = 0; i < N; i++)
        assert_tokens(i);
}

/* Best effort holds all blocks when the latency-sensitive ones come. */
static void test_best_effort_yields(void **state)
{
    static const char *const settings[] = {"engine.offload=never", "engine.kv_blocks=12", NULL};

    (void)state;
    init(settings);
    run_be_first();
    assert_true(stat(ENGINE_STAT_YIELDS) > 0);
    assert_true(stat(ENGINE_STAT_RECOMPUTED) > 0);
}

/* The same where blocks are kept in host memory: what is there is not computed again. */
static void test_best_effort_retreats(void **state)
{
    static const char *const settings[] = {"engine.kv_blocks=12", "engine.auto_free_pct=0",
                                           "slo.be_settle_ms=0", NULL};

    (void)state;
    init(settings);
    group.policy = sched_policy_find("harvest", NULL);
    run_be_first();
    assert_true(stat(ENGINE_STAT_RETREATS) > 0);
    assert_true(stat(ENGINE_STAT_COPIES_IN) >= stat(ENGINE_STAT_RETREATS));
}

enum { FULL_BLOCKS = 3, FULL_PROMPT = 40 };

/* All positions are taken, and the token behind them is known. */
static bool has_filled_the_device(const struct engine_group *g, uint32_t i)
{
    return g->requests[i].n_tokens == FULL_BLOCKS * 32 + 1 - FULL_PROMPT;
}

/* A best-effort request that needs more than the device has, and no worker is there. */
static void fill_device(void)
{
    static const char *const settings[] = {"engine.offload=auto", "engine.kv_blocks=3", NULL};
    uint32_t tokens[PROMPT_MAX], n = make_prompt(1, FULL_PROMPT, tokens);

    init(settings);
    group_start_engine(&group);
    group_submit(&group, 1, 1, tokens, n, MANY_OUTPUT + 20, 0);
    assert_true(group.requests[1].accepted);
    group_wait(&group, has_filled_the_device, 1);
}

/* Dropping its own KV would not help: it could not even begin again. */
static void test_one_that_outgrows_the_device_waits_for_a_worker(void **state)
{
    (void)state;
    fill_device();
    group_start_workers(&group);
    group_wait(&group, group_has_ended, 1);
    group_stop(&group);
    assert_int_equal(group.requests[1].n_tokens, MANY_OUTPUT + 20);
    assert_true(stat(ENGINE_STAT_TOKENS_WORKER) > 0);
    assert_int_equal(stat(ENGINE_STAT_YIELDS), 0);
}

/* A chat takes its blocks; it can never be computed again here, and says so. */
static void test_one_that_outgrew_the_device_and_yields_fails(void **state)
{
    uint32_t tokens[PROMPT_MAX], n = make_prompt(2, 20, tokens);

    (void)state;
    fill_device();
    group_submit(&group, 0, 0, tokens, n, 10, 0);
    group_wait(&group, group_all_ended, 2);
    group_start_workers(&group);
    group_stop(&group);
    assert_int_equal(group.requests[0].n_tokens, 10);
    assert_true(group.requests[1].failed);
    assert_int_equal(group.requests[1].code, ERROR_NO_CAPACITY);
    assert_int_equal(stat(ENGINE_STAT_YIELDS), 1);
}

/* ---- Cancelled ------------------------------------------------------------------------------- */

static bool is_resident(const struct engine_group *g, uint32_t n)
{
    return g->state.offloaded == n;
}

/* Ended, and not free: their slots and blocks are still named by jobs. */
static bool is_draining(const struct engine_group *g, uint32_t n)
{
    return stats_get(&g->host.engine.stats, ENGINE_STAT_DRAINING) == n;
}

/* The workers stand still with jobs in hand: the answer comes at once, the memory when they move
 * again, and the others do not notice. */
static void test_cancel_while_jobs_are_out(void **state)
{
    static const char *const settings[] = {"engine.offload=always", "group.n_workers=2", NULL};

    (void)state;
    init(settings);
    group_start(&group);
    atomic_store(&group.hold_workers, true);
    submit_all();
    group_wait(&group, is_resident, N_BE);
    for (uint32_t i = 0; i < N_BE; i += 2)
        group_cancel(&group, i);
    for (uint32_t i = 0; i < N; i++) {
        if (i >= N_BE || i % 2 == 0)
            group_wait(&group, group_has_ended, i);
    }
    group_wait(&group, is_draining, N_BE / 2);
    atomic_store(&group.hold_workers, false);
    group_wait(&group, group_all_ended, N);
    group_stop(&group);
    for (uint32_t i = 0; i < N; i++) {
        if (i >= N_BE || i % 2 != 0)
            assert_tokens(i);
        else
            assert_int_equal(group.requests[i].done.reason, FINISH_CANCELLED);
    }
    assert_int_equal(stat(ENGINE_STAT_CANCELLED), N_BE / 2);
}

/* ---- Copies beside sweeps, shared blocks, refusals ------------------------------------------- */

/* Wide heads make a KV of 28 MB, whose copy takes much longer than a sweep of one row.  One chunk: of
 * several the first would be there already when the last is computed. */
static void test_sweeps_end_during_copies(void **state)
{
    struct model_random_options model = model_random_defaults();
    uint32_t tokens[PROMPT_MAX];

    (void)state;
    model.k_width = model.v_width = 256;
    group_init(&group, &model);
    group_set(&group, "engine.offload=always");
    group_set(&group, "engine.kv_type=f32");
    group_set(&group, "engine.kv_blocks=40");
    group_set(&group, "engine.batch_tokens_max=1024");
    group_set(&group, "engine.chunk_tokens=1000");
    group_set(&group, "worker.arena_mb=32");
    group_start(&group);
    uint32_t n = make_prompt(9, 40, tokens);
    group_submit(&group, 1, 0, tokens, n, GROUP_OUTPUT_MAX, 0);
    n = make_prompt(0, PROMPT_MAX, tokens);
    group_submit(&group, 0, 1, tokens, n, 4, 0);
    group_wait(&group, group_all_ended, 2);
    group_stop(&group);
    printf("sweeps_in_copy=%llu copied_blocks=%llu\n",
           (unsigned long long)stat(ENGINE_STAT_SWEEPS_IN_COPY),
           (unsigned long long)stat(ENGINE_STAT_COPIED_BLOCKS));
    assert_int_equal(stat(ENGINE_STAT_COPIES_OUT), 1);
    assert_true(stat(ENGINE_STAT_SWEEPS_IN_COPY) >= 1);
}

/* Four requests share their first 70 tokens: two full blocks, on the device and in the arena. */
static void submit_sharing(uint32_t i)
{
    uint32_t tokens[PROMPT_MAX], n = make_prompt(3, 70 + 5 * i, tokens);

    for (uint32_t k = 70; k < n; k++)
        tokens[k] = (tokens[k] + i) % 256;
    group_submit(&group, i, 1, tokens, n, N_OUTPUT, i);
}

static void run_sharing(const char *offload, bool together, uint32_t out[4][N_OUTPUT])
{
    const char *const settings[] = {offload, NULL};

    init(settings);
    group_start(&group);
    submit_sharing(0);
    /* The others find the blocks of the first one while it is there. */
    group_wait(&group, together ? group_has_begun : group_has_ended, 0);
    for (uint32_t i = 1; i < 4; i++) {
        submit_sharing(i);
        if (!together)
            group_wait(&group, group_has_ended, i);
    }
    group_wait(&group, group_all_ended, 4);
    group_stop(&group);
    for (uint32_t i = 0; i < 4; i++)
        memcpy(out[i], group.requests[i].tokens, sizeof out[i]);
}

static void test_shared_prefixes(void **state)
{
    uint32_t alone[4][N_OUTPUT], together[4][N_OUTPUT];

    (void)state;
    run_sharing("engine.offload=never", false, alone);
    assert_int_equal(stat(ENGINE_STAT_SHARED_BLOCKS), 0);
    run_sharing("engine.offload=never", true, together);
    assert_memory_equal(together, alone, sizeof alone);
    assert_true(stat(ENGINE_STAT_SHARED_BLOCKS) >= 2);
    run_sharing("engine.offload=always", true, together);
    assert_memory_equal(together, alone, sizeof alone);
    assert_true(stat(ENGINE_STAT_SHARED_BLOCKS) >= 2);
}

static uint32_t
    n_forced; /* decisions of decide_forced that are not the policy's; one engine thread */

/* As `group`; but once, where a prompt waits that shares the blocks of a decode, the decode yields and
 * the prompt begins, which a policy may well decide. */
static void decide_forced(const struct sched_state *state, struct sched_decision *d)
{
    uint32_t waits = SCHED_NONE, decode = SCHED_NONE;

    sched_policy_find("group", NULL)->decide(state, d);
    for (uint32_t i = 0; i < state->n_seqs; i++) {
        const struct sched_seq *s = &state->seqs[i];

        if (s->place == SCHED_WAITING && s->n_shared > 0)
            waits = i;
        else if (sched_is_decode(s) && !s->latency_sensitive)
            decode = i;
    }
    if (waits == SCHED_NONE || decode == SCHED_NONE || n_forced > 0)
        return;
    n_forced++;
    d->n_yield = d->n_seqs = d->n_seqs_a = 1;
    d->n_out = d->n_in = d->n_enter = d->n_place = 0;
    d->yield[0] = decode;
    d->rows[0] = (struct sched_rows){.seq = waits, .n_rows = 1};
    d->n_rows = 1;
}

/* Eight blocks: three of the decode, two or three of a chat, and the prompt needs seven, two of which it
 * would share with the decode: they stay taken when that yields, and it must wait. */
static void test_a_prompt_that_shares_with_who_yields_waits(void **state)
{
    static const struct sched_policy forced = {.name = "forced", .decide = decide_forced};
    static const char *const settings[] = {"engine.offload=never", "engine.kv_blocks=8", NULL};
    uint32_t tokens[PROMPT_MAX], alone[4][N_OUTPUT];

    (void)state;
    run_sharing("engine.offload=never", false, alone);
    init(settings);
    group.policy = &forced;
    n_forced = 0;
    group_start(&group);
    submit_as(9, 0, N_OUTPUT);
    submit_sharing(0);
    group_wait(&group, group_has_begun, 0);
    uint32_t n = make_prompt(3, 70, tokens);
    for (; n < 220; n++)
        tokens[n] = n % 256;
    group_submit(&group, 1, 1, tokens, n, 2, 0);
    for (uint32_t i = 0; i < 2; i++)
        group_wait(&group, group_has_ended, i);
    group_wait(&group, group_has_ended, 9);
    group_stop(&group);
    assert_int_equal(n_forced, 1);
    assert_int_equal(stat(ENGINE_STAT_YIELDS), 1);
    assert_memory_equal(group.requests[0].tokens, alone[0], sizeof alone[0]);
    assert_tokens(9);
}

static void assert_refused(uint32_t class_idx, uint32_t n, uint32_t max_tokens,
                           enum error_code code)
{
    uint32_t tokens[PROMPT_MAX];

    make_prompt(1, n, tokens);
    tokens[n > 0 ? n - 1 : 0] = n == 3 ? UINT32_MAX : 1;
    group_submit(&group, 0, class_idx, tokens, n, max_tokens, 0);
    assert_false(group.requests[0].accepted);
    assert_int_equal(group.requests[0].code, code);
}

static void test_refusals(void **state)
{
    static const char *const settings[] = {"engine.offload=never", "engine.kv_blocks=8", NULL};

    (void)state;
    init(settings);
    group_start(&group);
    assert_refused(1, 0, 4, ERROR_BAD_REQUEST);
    assert_refused(1, 3, 4, ERROR_BAD_REQUEST); /* an id beyond the vocabulary */
    assert_refused(2, 4, 4, ERROR_BAD_REQUEST); /* a class that is not configured */
    assert_refused(1, 900, 125, ERROR_TOO_LONG);
    assert_refused(0, 250, 100, ERROR_NO_CAPACITY);
    group_stop(&group);
    assert_int_equal(stat(ENGINE_STAT_REFUSED), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never),
        cmocka_unit_test(test_always_with_one_two_and_three_workers),
        cmocka_unit_test(test_always_with_few_returned_rows_and_slots),
        cmocka_unit_test(test_always_with_layer_groups),
        cmocka_unit_test(test_always_with_held_results),
        cmocka_unit_test(test_thirty_two_beside_four),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_auto_brings_back),
        cmocka_unit_test(test_two_batches_with_one_two_and_three_workers),
        cmocka_unit_test(test_waits_with_held_results),
        cmocka_unit_test(test_waits_end_with_the_answer),
        cmocka_unit_test(test_workers_that_stand_still_are_not_waited_for),
        cmocka_unit_test(test_policies_that_cannot_be_carried_out_are_refused),
        cmocka_unit_test(test_all_policies),
        cmocka_unit_test(test_harvest_copies_blocks_as_they_fill),
        cmocka_unit_test(test_best_effort_yields),
        cmocka_unit_test(test_best_effort_retreats),
        cmocka_unit_test(test_one_that_outgrows_the_device_waits_for_a_worker),
        cmocka_unit_test(test_one_that_outgrew_the_device_and_yields_fails),
        cmocka_unit_test(test_cancel_while_jobs_are_out),
        cmocka_unit_test(test_sweeps_end_during_copies),
        cmocka_unit_test(test_shared_prefixes),
        cmocka_unit_test(test_a_prompt_that_shares_with_who_yields_waits),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, each_alone, NULL);
}
