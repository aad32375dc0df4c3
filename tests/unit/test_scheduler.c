/* Scheduler: what every policy must keep, on thousands of random states, and what each rule does on
 * states made for it. */
#include <stdio.h>
#include <string.h>

#include "common/sched/price.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sched_fixture.h"

enum { N_RANDOM = 4000 };
static const uint64_t ms = 1000000;

static struct sched_fixture fixture, other;
static struct sched_limits largest = {.copies_max = 16, .returned_max = 64, .elsewhere_max = 16};
static struct sched_decision decision, decision_b;

static int set_up(void **state)
{
    (void)state;
    return sched_decision_init(&decision, FIXTURE_SEQS_MAX, &largest) +
           sched_decision_init(&decision_b, FIXTURE_SEQS_MAX, &largest);
}

static int tear_down(void **state)
{
    (void)state;
    sched_decision_fini(&decision);
    sched_decision_fini(&decision_b);
    return 0;
}

static const struct sched_policy *find(const char *name)
{
    const struct sched_policy *p = sched_policy_find(name, NULL);

    assert_non_null(p);
    return p;
}

static void test_policies_are_found_by_name(void **state)
{
    (void)state;
    const char *known, *at;

    assert_null(sched_policy_find("none such", &known));
    at = known;
    for (uint32_t i = 0; sched_policies()[i] != NULL; i++) {
        const struct sched_policy *p = sched_policies()[i];
        assert_ptr_equal(find(p->name), p);
        assert_memory_equal(at, p->name, strlen(p->name)); /* each one is listed, in order */
        at += strlen(p->name);
        at += *at == ',' ? 2 : 0;
    }
    assert_int_equal(*at, '\0');
}

/* Rows that the sequence got. */
static uint32_t rows_of(const struct sched_decision *d, uint32_t seq)
{
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        if (d->rows[i].seq == seq)
            return d->rows[i].n_rows;
    }
    return 0;
}

static void decide_checked(const struct sched_policy *policy, const struct sched_state *state,
                           struct sched_decision *d)
{
    policy->decide(state, d);
    const char *broken = sched_check(state, d);

    if (broken != NULL)
        fail_msg("%s: %s", policy->name, broken);
}

/* ---- Every policy ---------------------------------------------------------------------------- */

static void test_random_states_break_no_rule(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&fixture, seed, 2 + seed % 2);
        for (uint32_t i = 0; policies[i] != NULL; i++) {
            policies[i]->decide(&fixture.state, &decision);
            const char *broken = sched_check(&fixture.state, &decision);
            if (broken != NULL)
                fail_msg("%s, seed %llu: %s", policies[i]->name, (unsigned long long)seed, broken);
        }
    }
}

static bool same(const struct sched_decision *a, const struct sched_decision *b)
{
    return a->n_seqs == b->n_seqs && memcmp(a->rows, b->rows, a->n_seqs * sizeof *a->rows) == 0 &&
           a->n_out == b->n_out && memcmp(a->out, b->out, a->n_out * sizeof *a->out) == 0 &&
           a->n_in == b->n_in && a->n_yield == b->n_yield && a->n_enter == b->n_enter &&
           a->p_max == b->p_max && a->predicted_ns == b->predicted_ns;
}

static void test_a_decision_depends_on_the_state_alone(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint64_t seed = 1; seed <= 200; seed++) {
        for (uint32_t i = 0; policies[i] != NULL; i++) {
            fixture_random(&fixture, seed, 3);
            policies[i]->decide(&fixture.state, &decision);
            fixture_random(&other, seed + 1000, 3);
            policies[i]->decide(&other.state, &decision_b); /* leaves traces in its memory */
            policies[i]->decide(&fixture.state, &decision_b);
            assert_true(same(&decision, &decision_b));
        }
    }
}

/* The prices a decision was made with are those of the latency model. */
static void test_prices_are_the_models(void **state)
{
    (void)state;
    struct price price;

    for (uint64_t seed = 1; seed <= 500; seed++) {
        fixture_random(&fixture, seed, 3);
        for (uint32_t i = 0; i < LATENCY_MODULES; i++)
            fixture.latency.correction[i].factor = 0.5 + fixture_below(&fixture, 100) / 50.0;
        fixture.latency.return_ns = fixture_below(&fixture, 20000);
        price_init(&price, &fixture.latency);
        fixture.state.latency = &fixture.latency;
        find("group")->decide(&fixture.state, &decision);
        if (decision.n_seqs == 0)
            continue;
        double expected = latency_predict(&fixture.latency, &decision.load).total_ns;
        assert_true(price_ns(&price, &decision.load) >= expected * (1 - 1e-9));
        assert_true(price_ns(&price, &decision.load) <= expected * (1 + 1e-9));
    }
}

/* ---- The checker itself ---------------------------------------------------------------------- */

static void expect_broken(const struct sched_state *state, const struct sched_decision *d,
                          const char *part)
{
    const char *broken = sched_check(state, d);

    assert_non_null(broken);
    if (strstr(broken, part) == NULL)
        fail_msg("expected \"%s\", got \"%s\"", part, broken);
}

static void test_the_checker_sees_what_is_broken(void **state)
{
    (void)state;
    const struct sched_policy *group = find("group");

    fixture_roomy(&fixture);
    fixture_add(&fixture, 0, SCHED_DEVICE, 100);
    fixture_add(&fixture, 1, SCHED_DEVICE, 100);
    fixture_add(&fixture, 1, SCHED_ARENA, 100);
    decide_checked(group, &fixture.state, &decision);
    decision.n_free_blocks++;
    expect_broken(&fixture.state, &decision, "count of free blocks");
    decide_checked(group, &fixture.state, &decision);
    decision.yield[decision.n_yield++] = 1;
    expect_broken(&fixture.state, &decision, "in two lists");
    decide_checked(group, &fixture.state, &decision);
    decision.rows[0].n_rows = 2;
    expect_broken(&fixture.state, &decision, "does not have");
    decide_checked(group, &fixture.state, &decision);
    decision.rows[0] = decision.rows[--decision.n_seqs];
    decision.n_rows--;
    decision.n_seqs_a--;
    expect_broken(&fixture.state, &decision, "waits for best effort");
    fixture_add(&fixture, 1, SCHED_DEVICE, 16);
    fixture.limits.be_starved_ns = 1;
    fixture.seqs[1].last_run_ns = 0;
    decide_checked(group, &fixture.state, &decision);
    assert_int_equal(decision.rows[1].seq, 1);
    decision.rows[1] = decision.rows[--decision.n_seqs];
    decision.n_rows--;
    decision.n_seqs_a--;
    expect_broken(&fixture.state, &decision, "starved");
}

/* ---- group ----------------------------------------------------------------------------------- */

static void test_group_sends_the_newest_out_when_blocks_are_short(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.n_blocks = fixture.state.n_free_blocks = 100;
    fixture.limits.params.auto_free_pct = 10;
    for (uint32_t i = 0; i < 5; i++)
        fixture_add(&fixture, 1, SCHED_DEVICE, 304); /* 19 blocks each, 5 free */
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_out, 1);
    assert_int_equal(decision.out[0].seq, 4);
    assert_int_equal(decision.n_seqs, 4);
    assert_int_equal(decision.n_yield, 0);
}

static void test_group_never_drops_the_newest_for_one_that_is_stuck(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.n_workers = 0;
    fixture.limits.n_blocks = fixture.state.n_free_blocks = 38;
    fixture_add(&fixture, 1, SCHED_DEVICE, 304);
    fixture_add(&fixture, 1, SCHED_DEVICE, 304);
    decide_checked(find("group"), &fixture.state, &decision);
    assert_true(decision.be_stuck);
    assert_int_equal(decision.n_seqs, 0);
    fixture.state.be_stuck = true;
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_yield, 1);
    assert_int_equal(decision.yield[0], 1);
    assert_int_equal(decision.n_seqs, 1);
    assert_int_equal(rows_of(&decision, 0), 1);
}

static void test_group_always_decodes_in_arenas_alone(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.params.offload = SCHED_OFFLOAD_ALWAYS;
    for (uint32_t i = 0; i < 10; i++)
        fixture_add(&fixture, 1, SCHED_DEVICE, 100);
    fixture_add(&fixture, 1, SCHED_ARENA, 100);
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_seqs, 0);
    assert_int_equal(decision.n_out, fixture.limits.copies_max);
    assert_int_equal(decision.n_enter, 1);
}

static void test_group_brings_the_oldest_back_when_there_is_room(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture_add(&fixture, 1, SCHED_ARENA, 100);
    fixture_add(&fixture, 1, SCHED_ARENA, 100);
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_in, 1);
    assert_int_equal(decision.in[0], 0);
    assert_int_equal(decision.n_enter, 1);
    fixture_add(&fixture, 1, SCHED_WAITING, 100); /* somebody waits for blocks */
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_in, 0);
}

/* Half of 100 blocks are to be free, 5 are: three sequences of 19 do it, or as many as copies go. */
static void test_several_leave_at_a_time(void **state)
{
    static const char *const names[] = {"paper", "stream"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        fixture_roomy(&fixture);
        fixture.limits.host_bytes_per_ns = 10;
        fixture.limits.n_blocks = fixture.state.n_free_blocks = 100;
        fixture.limits.params.auto_free_pct = 50;
        for (uint32_t n = 0; n < 5; n++)
            fixture_add(&fixture, 1, SCHED_DEVICE, 304);
        decide_checked(find(names[i]), &fixture.state, &decision);
        assert_int_equal(decision.n_out, 3);
        fixture.limits.copies_max = 2;
        decide_checked(find(names[i]), &fixture.state, &decision);
        assert_int_equal(decision.n_out, 2);
    }
}

/* Eight decodes at the end of their blocks want eight more, two are free: of two blocks each. */
static void test_sync_sends_out_until_the_others_can_grow(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.n_blocks = fixture.state.n_free_blocks = 18;
    for (uint32_t n = 0; n < 8; n++)
        fixture_add(&fixture, 1, SCHED_DEVICE, 32);
    decide_checked(find("sync"), &fixture.state, &decision);
    assert_int_equal(decision.n_out, 3);
    assert_int_equal(decision.out[0].seq, 7);
    assert_int_equal(decision.n_yield, 0);
}

/* All that have room for what they may ever need: 15 blocks each. */
static void test_several_return_at_a_time(void **state)
{
    static const char *const names[] = {"paper", "stream", "sync"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fixture_roomy(&fixture);
        fixture.limits.n_blocks = fixture.state.n_free_blocks = 36;
        fixture.limits.params.auto_free_pct = 5;
        for (uint32_t n = 0; n < 4; n++)
            fixture_add(&fixture, 1, SCHED_ARENA, 100);
        decide_checked(find(names[i]), &fixture.state, &decision);
        assert_int_equal(decision.n_in, 2);
        assert_int_equal(decision.in[0], 0);
        assert_int_equal(decision.in[1], 1);
    }
}

/* A copy out goes to the preferred worker if that can take it, else to the emptiest. */
static void test_copies_choose_their_worker(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.params.offload = SCHED_OFFLOAD_ALWAYS;
    fixture.limits.n_workers = 3;
    fixture.workers[2] = fixture.workers[0];
    fixture.workers[1].n_free_blocks += 1000;
    fixture_add(&fixture, 1, SCHED_DEVICE, 100)->worker = 2;
    fixture_add(&fixture, 1, SCHED_DEVICE, 100);
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.out[0].worker, 2);
    assert_int_equal(decision.out[1].worker, 1);
    fixture.workers[2].usable = false;
    fixture.workers[1].n_free_slots = 0;
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.out[0].worker, 0);
}

/* ---- Latency-sensitive first ----------------------------------------------------------------- */

static void test_prompts_go_by_due_time(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture_add(&fixture, 0, SCHED_WAITING, 100)->first_due_ns += 500 * ms;
    fixture_add(&fixture, 0, SCHED_WAITING, 100)->first_due_ns += 100 * ms;
    fixture_add(&fixture, 0, SCHED_WAITING, 100)->first_due_ns = 0;
    fixture_add(&fixture, 0, SCHED_WAITING, 100)->first_due_ns += 300 * ms;
    find("group")->decide(&fixture.state, &decision);
    const uint32_t expected[] = {1, 3, 0, 2};

    assert_int_equal(decision.n_seqs, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(decision.rows[i].seq, expected[i]);
}

static void test_best_effort_yields_newest_and_last_class_first(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture_add(&fixture, 2, SCHED_DEVICE, 160);
    fixture_add(&fixture, 2, SCHED_DEVICE, 160);
    fixture_add(&fixture, 1, SCHED_DEVICE, 160);
    fixture_add(&fixture, 0, SCHED_WAITING, 240); /* 15 blocks */
    fixture.state.n_free_blocks = 0;
    fixture.limits.copies_max = 0;
    decide_checked(find("group"), &fixture.state, &decision);
    assert_int_equal(decision.n_yield, 2);
    assert_int_equal(decision.yield[0], 1);
    assert_int_equal(decision.yield[1], 0);
    assert_int_equal(rows_of(&decision, 3), 240);
}

/* Best effort takes nothing from the rows that latency-sensitive sequences would get without it:
 * decodes always, and as many prompt rows, since its blocks can be had and its rows come after.  What
 * `omni` takes from prompts that have time is a switch. */
static void drop_best_effort(struct sched_fixture *f)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->state.n_seqs; i++) {
        struct sched_seq *s = &f->seqs[i];
        if (s->latency_sensitive)
            f->seqs[n++] = *s;
        else if (s->place == SCHED_DEVICE && !s->in_copy)
            f->state.n_free_blocks += s->n_freed;
    }
    f->state.n_seqs = n;
}

static void test_best_effort_takes_no_latency_sensitive_row(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&fixture, seed, 3);
        fixture.state.returned_rows = 0; /* the one reserve that prompts do leave */
        fixture.limits.params.without |= SCHED_WITHOUT_SHARE;
        other = fixture;
        other.state.limits = &other.limits;
        other.state.seqs = other.seqs;
        other.state.workers = other.workers;
        drop_best_effort(&other);
        for (uint32_t i = 0; policies[i] != NULL; i++) {
            policies[i]->decide(&fixture.state, &decision);
            policies[i]->decide(&other.state, &decision_b);
            for (uint32_t k = 0; k < other.state.n_seqs; k++)
                if (rows_of(&decision, other.seqs[k].id) < rows_of(&decision_b, k))
                    fail_msg("%s, seed %llu: sequence %u", policies[i]->name,
                             (unsigned long long)seed, other.seqs[k].id);
        }
    }
}

/* ---- Classes and starvation ------------------------------------------------------------------ */

static void test_three_classes_in_order(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        fixture_roomy(&fixture);
        fixture.limits.seqs_max = 3;
        fixture_add(&fixture, 2, SCHED_DEVICE, 100);
        fixture_add(&fixture, 1, SCHED_DEVICE, 100);
        fixture_add(&fixture, 2, SCHED_DEVICE, 100);
        fixture_add(&fixture, 1, SCHED_DEVICE, 100);
        fixture_add(&fixture, 0, SCHED_DEVICE, 100);
        decide_checked(policies[i], &fixture.state, &decision);
        assert_int_equal(decision.n_seqs, 3);
        assert_int_equal(decision.rows[0].seq, 4);
        assert_int_equal(decision.rows[1].seq, 1);
        assert_int_equal(decision.rows[2].seq, 3);
    }
}

/* Nobody is forgotten, whoever starves. */
static void test_all_run_where_there_is_room(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        for (uint32_t starved = 0; starved < 12; starved++) {
            fixture_roomy(&fixture);
            fixture.limits.be_starved_ns = 1000 * ms;
            for (uint32_t k = 0; k < 12; k++)
                fixture_add(&fixture, k % 3, k % 4 == 3 ? SCHED_WAITING : SCHED_DEVICE, 50);
            fixture.seqs[starved].last_run_ns = 0;
            decide_checked(policies[i], &fixture.state, &decision);
            for (uint32_t k = 0; k < 12; k++)
                assert_true(rows_of(&decision, k) > 0);
        }
    }
}

/* A share that policies keep free keeps nobody out for ever. */
static void test_a_prompt_as_large_as_the_device_begins(void **state)
{
    (void)state;
    for (uint32_t i = 0; sched_policies()[i] != NULL; i++) {
        fixture_roomy(&fixture);
        fixture.limits.n_blocks = fixture.state.n_free_blocks = 100;
        fixture.limits.params.headroom_pct = 20;
        fixture_add(&fixture, 1, SCHED_WAITING, 1590);
        fixture_add(&fixture, 1, SCHED_WAITING, 10);
        decide_checked(sched_policies()[i], &fixture.state, &decision);
        assert_true(rows_of(&decision, 0) > 0);
    }
}

static void test_harvest_resumes_what_is_as_large_as_the_device(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture_add(&fixture, 1, SCHED_ARENA, 1590);
    fixture.limits.n_blocks = fixture.state.n_free_blocks = 100;
    decide_checked(find("harvest"), &fixture.state, &decision);
    assert_int_equal(decision.n_in, 1);
}

/* A prompt that has begun holds blocks: it must go on though one before it waits for some, or both
 * would wait for ever. */
static void test_prompts_that_have_begun_go_on(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        fixture_roomy(&fixture);
        fixture.limits.n_blocks = fixture.state.n_free_blocks = 70;
        struct sched_seq *begun = fixture_add(&fixture, 2, SCHED_DEVICE, 1000);
        begun->n_kv = 100;
        begun->n_todo = 900;
        begun->has_output = 0;
        fixture_add(&fixture, 1, SCHED_WAITING, 1000);
        decide_checked(policies[i], &fixture.state, &decision);
        assert_true(rows_of(&decision, 0) > 0);
        assert_int_equal(rows_of(&decision, 1), 0);
    }
}

/* However long others have waited: else each of a long queue would begin, and none would end. */
static void test_half_prompts_do_not_rotate(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        fixture_roomy(&fixture);
        fixture.limits.be_starved_ns = 1000 * ms;
        fixture.limits.chunk_max = 256;
        fixture.limits.params.token_budget = 256;
        for (uint32_t k = 0; k < 6; k++)
            fixture_add(&fixture, 1, SCHED_WAITING, 1000)->last_run_ns = 0;
        struct sched_seq *begun = fixture_add(&fixture, 1, SCHED_DEVICE, 1000);
        begun->n_kv = 100;
        begun->n_todo = 900;
        begun->has_output = 0;
        decide_checked(policies[i], &fixture.state, &decision);
        assert_int_equal(decision.n_seqs, 1);
        assert_int_equal(decision.rows[0].seq, 6);
    }
}

/* Long best-effort prompts make its own budget smaller, not that of short latency-sensitive ones. */
static void test_token_budgets_are_of_a_class(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.tpot_slo_ns = 60 * ms;
    fixture_add(&fixture, 0, SCHED_WAITING, 1500);
    decide_checked(find("ls-first"), &fixture.state, &decision);
    uint32_t alone = rows_of(&decision, 0);
    assert_in_range(alone, 100, 1499);
    fixture_add(&fixture, 1, SCHED_WAITING, 60000);
    decide_checked(find("ls-first"), &fixture.state, &decision);
    assert_int_equal(rows_of(&decision, 0), alone);
    assert_int_equal(rows_of(&decision, 1), 0);
    fixture.seqs[0] = fixture.seqs[--fixture.state.n_seqs];
    decide_checked(find("ls-first"), &fixture.state, &decision);
    assert_in_range(rows_of(&decision, 0), 1, alone - 1);
}

/* However many tokens a sweep may have: what decodes read takes time too. */
static void test_a_token_budget_does_not_outgrow_the_objective(void **state)
{
    enum { N = 600 };
    double ns = 0;

    (void)state;
    fixture_roomy(&fixture);
    fixture.limits.params.token_budget = 2 * N;
    for (uint32_t k = 0; k < N; k++)
        fixture_add(&fixture, 1, SCHED_DEVICE, 4000);
    decide_checked(find("headroom"), &fixture.state, &decision); /* which does not look at time */
    assert_true(decision.predicted_ns > fixture.limits.sweep_max_ns);
    decide_checked(find("ls-first"), &fixture.state, &decision);
    ns = (double)decision.predicted_ns;
    assert_true(ns > 0.9 * (double)fixture.limits.sweep_max_ns);
    assert_true(ns <= (double)fixture.limits.sweep_max_ns);
    fixture_add(&fixture, 0, SCHED_DEVICE, 100);
    fixture_add(&fixture, 1, SCHED_WAITING, 4000);
    decide_checked(find("ls-first"), &fixture.state, &decision);
    ns = (double)decision.predicted_ns;
    assert_int_equal(rows_of(&decision, N), 1);
    assert_true(decision.n_seqs > N / 10);
    assert_true(ns <= 0.9 * (double)fixture.limits.tpot_slo_ns);
}

/* Residents of that context beside a latency-sensitive decode, their KV read over the host link:
 * how many get rows. */
static uint32_t rows_streamed(uint32_t n, uint32_t ctx, uint32_t begun_prompt)
{
    fixture_roomy(&fixture);
    fixture.limits.host_bytes_per_ns = 25;
    fixture_add(&fixture, 0, SCHED_DEVICE, 100);
    if (begun_prompt > 0) {
        struct sched_seq *s = fixture_add(&fixture, 1, SCHED_DEVICE, begun_prompt);
        s->n_kv = 1;
        s->n_todo = begun_prompt - 1;
        s->has_output = 0;
    }
    for (uint32_t k = 0; k < n; k++)
        fixture_add(&fixture, 1, SCHED_ARENA, ctx);
    fixture_add(&fixture, 1, SCHED_WAITING, 3300000); /* more than what is free */
    decide_checked(find("stream"), &fixture.state, &decision);
    return decision.n_seqs - 1 - (begun_prompt > 0);
}

/* A sweep that waits for the link gives no token more in its time: it lasts as long as it computes,
 * and nobody more leaves for a prompt to begin. */
static void test_what_is_streamed_hides_behind_the_compute(void **state)
{
    const double token_ns = 32 * 4096 / 25.0;
    uint32_t n = rows_streamed(20, 1000, 0);

    (void)state;
    assert_in_range(n, 2, 19);
    assert_true(decision.stream && !decision.be_starved);
    assert_true(n * 1000 * token_ns <= (double)decision.predicted_ns);
    assert_true((double)decision.predicted_ns < 0.5 * 0.9 * (double)fixture.limits.tpot_slo_ns);
    assert_true(rows_streamed(20, 1000, 3000) > n); /* a chunk: more time beside it */
    assert_true(rows_streamed(1, 1000, 0) == 1 && decision.be_starved);
    /* The first one goes even if all wait for it. */
    assert_int_equal(rows_streamed(3, 6000, 0), 1);
    assert_int_equal(decision.predicted_ns, (uint64_t)(6000 * token_ns));
}

/* Results that are expected are paid for before best effort is dealt the rest; decodes on the device
 * come before chunks. */
static void test_paper_reserves_for_results(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    fixture_add(&fixture, 0, SCHED_DEVICE, 100);
    for (uint32_t k = 0; k < 20; k++)
        fixture_add(&fixture, 1, SCHED_DEVICE, 1000);
    fixture_add(&fixture, 1, SCHED_WAITING, 2000);
    decide_checked(find("paper"), &fixture.state, &decision);
    uint32_t rows = rows_of(&decision, 21);
    assert_in_range(rows, 1, 1999);
    assert_int_equal(decision.n_seqs, 22);
    for (uint32_t k = 0; k < 200; k++)
        fixture_add(&fixture, 1, SCHED_ARENA, 1000);
    decide_checked(find("paper"), &fixture.state, &decision);
    assert_int_equal(decision.n_seqs, 22);
    assert_in_range(rows_of(&decision, 21), 1, rows - 1);
}

/* With n best-effort decodes on the device and room for one, each has a row within be_starved_ns
 * and n sweeps. */
static void expect_bounded(const struct sched_policy *policy, uint64_t tpot_slo_ns)
{
    enum { N = 12 };
    const uint64_t sweep_ns = 20 * ms;
    uint64_t longest = 0;

    fixture_roomy(&fixture);
    fixture.limits.n_workers = 0; /* nobody leaves */
    fixture.limits.seqs_max = 2;
    fixture.limits.be_starved_ns = 100 * ms;
    fixture_add(&fixture, 0, SCHED_DEVICE, 100)->tpot_slo_ns = tpot_slo_ns;
    for (uint32_t k = 0; k < N; k++)
        fixture_add(&fixture, 1 + k % 2, SCHED_DEVICE, 100);
    for (uint32_t sweep = 0; sweep < 200; sweep++) {
        decide_checked(policy, &fixture.state, &decision);
        for (uint32_t k = 1; k <= N; k++) {
            uint64_t passed = fixture.state.now_ns - fixture.seqs[k].last_run_ns;
            longest = passed > longest ? passed : longest;
            if (rows_of(&decision, k) > 0)
                fixture.seqs[k].last_run_ns = fixture.state.now_ns;
        }
        fixture.state.now_ns += sweep_ns;
        fixture.seqs[0].last_token_ns = fixture.state.now_ns;
    }
    if (longest > fixture.limits.be_starved_ns + N * sweep_ns)
        fail_msg("%s: %llu ms", policy->name, (unsigned long long)(longest / ms));
}

static void test_starvation_is_bounded(void **state)
{
    (void)state;
    for (uint32_t i = 0; sched_policies()[i] != NULL; i++)
        expect_bounded(sched_policies()[i], 50 * ms);
}

static void test_starvation_is_bounded_when_time_is_used_up(void **state)
{
    (void)state;
    for (uint32_t i = 0; sched_policies()[i] != NULL; i++)
        expect_bounded(sched_policies()[i], 1 * ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies_are_found_by_name),
        cmocka_unit_test(test_random_states_break_no_rule),
        cmocka_unit_test(test_a_decision_depends_on_the_state_alone),
        cmocka_unit_test(test_prices_are_the_models),
        cmocka_unit_test(test_the_checker_sees_what_is_broken),
        cmocka_unit_test(test_group_sends_the_newest_out_when_blocks_are_short),
        cmocka_unit_test(test_group_never_drops_the_newest_for_one_that_is_stuck),
        cmocka_unit_test(test_group_always_decodes_in_arenas_alone),
        cmocka_unit_test(test_group_brings_the_oldest_back_when_there_is_room),
        cmocka_unit_test(test_several_leave_at_a_time),
        cmocka_unit_test(test_sync_sends_out_until_the_others_can_grow),
        cmocka_unit_test(test_several_return_at_a_time),
        cmocka_unit_test(test_copies_choose_their_worker),
        cmocka_unit_test(test_prompts_go_by_due_time),
        cmocka_unit_test(test_best_effort_yields_newest_and_last_class_first),
        cmocka_unit_test(test_best_effort_takes_no_latency_sensitive_row),
        cmocka_unit_test(test_three_classes_in_order),
        cmocka_unit_test(test_all_run_where_there_is_room),
        cmocka_unit_test(test_a_prompt_as_large_as_the_device_begins),
        cmocka_unit_test(test_harvest_resumes_what_is_as_large_as_the_device),
        cmocka_unit_test(test_prompts_that_have_begun_go_on),
        cmocka_unit_test(test_half_prompts_do_not_rotate),
        cmocka_unit_test(test_token_budgets_are_of_a_class),
        cmocka_unit_test(test_a_token_budget_does_not_outgrow_the_objective),
        cmocka_unit_test(test_what_is_streamed_hides_behind_the_compute),
        cmocka_unit_test(test_paper_reserves_for_results),
        cmocka_unit_test(test_starvation_is_bounded),
        cmocka_unit_test(test_starvation_is_bounded_when_time_is_used_up),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
