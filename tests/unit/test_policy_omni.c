/* omni, rule by rule: chunk sizes against all sizes there are, objectives, placement, two batches,
 * waiting; and the properties that only policies which look at time have. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/sched/price.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sched_fixture.h"

enum { N_RANDOM = 3000 };
static const uint64_t ms = 1000000;

static struct sched_fixture f, more;
static struct sched_decision d, d_more;
static const struct sched_policy *omni;

static int set_up(void **state)
{
    (void)state;
    struct sched_limits largest = {.copies_max = 16, .returned_max = 64, .elsewhere_max = 16};

    omni = sched_policy_find("omni", NULL);
    return sched_decision_init(&d, FIXTURE_SEQS_MAX, &largest) +
           sched_decision_init(&d_more, FIXTURE_SEQS_MAX, &largest);
}

static int tear_down(void **state)
{
    (void)state;
    sched_decision_fini(&d);
    sched_decision_fini(&d_more);
    return 0;
}

static void decide(void)
{
    omni->decide(&f.state, &d);
    const char *broken = sched_check(&f.state, &d);

    if (broken != NULL)
        fail_msg("%s", broken);
}

static uint32_t rows_of(const struct sched_decision *of, uint32_t seq)
{
    for (uint32_t i = 0; i < of->n_seqs; i++) {
        if (of->rows[i].seq == seq)
            return of->rows[i].n_rows;
    }
    return 0;
}

/* Of the latency-sensitive or the best-effort sequences. */
static uint32_t rows_in(const struct sched_fixture *of, const struct sched_decision *in, bool ls)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < in->n_seqs; i++)
        n += of->seqs[in->rows[i].seq].latency_sensitive == ls ? in->rows[i].n_rows : 0;
    return n;
}

/* Ten chats that decode: 50 ms objective, 90 % of it used. */
static void with_chats(void)
{
    fixture_roomy(&f);
    for (uint32_t i = 0; i < 10; i++)
        fixture_add(&f, 0, SCHED_DEVICE, 300);
}

static const double budget_ns = 45e6;

/* The chats and n rows of prompts that begin at 0. */
static double time_with(uint32_t n, uint32_t todo)
{
    struct latency_load load = {0};

    for (uint32_t i = 0; i < 10; i++)
        latency_load_add_decode(&f.latency, &load, 301, true);
    if (n > 0)
        latency_load_add_chunk(&f.latency, &load, 0, n, n == todo);
    return latency_predict(&f.latency, &load).total_ns;
}

/* ---- Chunks ---------------------------------------------------------------------------------- */

static double attention_of_chats(void)
{
    struct latency_load load = {0};

    for (uint32_t i = 0; i < 10; i++)
        latency_load_add_decode(&f.latency, &load, 301, true);
    return latency_attention_all_ns(&f.latency, &load);
}

enum { STAIRS_END = 2048, PROMPT = 3000 }; /* the fixture's; a prompt that goes beyond */

/* Rows per time that decodes come with, or of the prompt alone where it is late. */
static double rate_of(uint32_t n, bool hurry)
{
    double ns = time_with(n, PROMPT);

    return hurry ? n / ns : (n + 10) / (ns - attention_of_chats());
}

/* Sizes between steps are not looked at, and may be better by what a row's attention is. */
static void check_prompt_rows(uint32_t n, double budget, bool hurry)
{
    double best = 0;

    for (uint32_t k = 2; k <= STAIRS_END - 10 && time_with(k, PROMPT) <= budget; k++)
        best = fmax(best, rate_of(k, hurry));
    if (best > 0 && n > 16) /* the most urgent prompt gets a block's worth in any case */
        assert_true(time_with(n, PROMPT) <= budget && rate_of(n, hurry) >= best * 0.995);
}

static void test_a_prompt_fills_the_best_step(void **state)
{
    (void)state;
    for (uint32_t tpot_ms = 18; tpot_ms < 80; tpot_ms += 3) {
        for (int hurry = 0; hurry < 2; hurry++) {
            with_chats();
            for (uint32_t i = 0; i < 10; i++)
                f.seqs[i].tpot_slo_ns = tpot_ms * ms;
            f.limits.params.slo_use_pct = 100;
            fixture_add(&f, 0, SCHED_WAITING, PROMPT)->first_due_ns =
                f.state.now_ns + (hurry ? 1 : 3600000 * ms);
            decide();
            check_prompt_rows(rows_of(&d, 10), (double)tpot_ms * 1e6, hurry != 0);
        }
    }
}

/* Whoever waits for the next sweep is not made to wait longer by a chunk that fills up this one. */
static void test_no_best_effort_chunk_while_prompts_wait(void **state)
{
    (void)state;
    for (uint32_t todo = 16; todo <= 4096; todo *= 2) {
        with_chats();
        fixture_add(&f, 0, SCHED_WAITING, todo)->first_due_ns = f.state.now_ns + 3600000 * ms;
        fixture_add(&f, 1, SCHED_WAITING, 2000);
        decide();
        assert_true(rows_of(&d, 10) == todo || rows_of(&d, 11) == 0);
        if (todo == 16)
            assert_true(rows_of(&d, 10) == todo && rows_of(&d, 11) > 0);
        if (todo == 4096)
            assert_true(rows_of(&d, 10) < todo);
    }
}

/* No sweep is predicted to take more than predictions can be relied on for. */
static void test_budget_is_what_predictions_keep(void **state)
{
    (void)state;
    for (uint32_t pct = 50; pct <= 100; pct += 10) {
        with_chats();
        f.state.sure_share = pct / 100.0;
        fixture_add(&f, 1, SCHED_WAITING, 2000);
        decide();
        assert_true(d.predicted_ns <= fmin(45, 50 * pct / 100.0) * 1e6);
    }
}

/* Whatever the objective, the most urgent prompt goes on: by a block, unless that takes longer than
 * sixteen budgets; never by less than sixteen rows. */
static void test_a_prompt_goes_on_under_any_objective(void **state)
{
    (void)state;
    uint32_t before = 0;

    for (uint32_t tpot_us = 1; tpot_us < 40000; tpot_us = tpot_us * 3 / 2 + 1) {
        with_chats();
        f.limits.block_tokens = 64;
        f.limits.params.slo_use_pct = 100;
        for (uint32_t i = 0; i < 10; i++)
            f.seqs[i].tpot_slo_ns = tpot_us * 1000;
        fixture_add(&f, 0, SCHED_WAITING, 2000);
        decide();
        uint32_t n = rows_of(&d, 10);
        assert_true(n >= 16 && n >= before);
        assert_true(n <= 64 || time_with(n, 2000) <= tpot_us * 1e3);
        assert_true(n <= 16 || time_with(n, 2000) <= 16 * tpot_us * 1e3);
        before = n;
    }
    assert_true(before >= 64);
}

static void test_best_effort_chunk_has_most_rows_per_time(void **state)
{
    (void)state;
    for (uint32_t tpot_ms = 20; tpot_ms < 80; tpot_ms += 3) {
        with_chats();
        for (uint32_t i = 0; i < 10; i++)
            f.seqs[i].tpot_slo_ns = tpot_ms * ms;
        f.limits.params.slo_use_pct = 100;
        fixture_add(&f, 1, SCHED_WAITING, 2000);
        decide();
        uint32_t n = rows_of(&d, 10);
        double rate = n / time_with(n, 2000), limit = (double)tpot_ms * 1e6;
        assert_true(n > 0 && time_with(n, 2000) <= limit);
        for (uint32_t k = 2; k <= 2000; k++) {
            if (time_with(k, 2000) <= limit)
                assert_true(rate >= k / time_with(k, 2000) * (1 - 1e-12));
        }
    }
}

/* What decodes cost comes at a rate, with their tokens: a chunk's size is held against the rest of the
 * sweep's time, whatever output they and it will make. */
static double own_time(const struct latency_load *decodes, const struct latency_load *all)
{
    const struct latency_stairs *s = &f.latency.kind[0].dense;
    uint32_t rows = s->rows[s->n - 1];
    struct latency_load largest = {0};

    latency_load_add_chunk(&f.latency, &largest, 0, rows, false);
    double row_ns = (latency_predict(&f.latency, &largest).total_ns -
                     latency_attention_all_ns(&f.latency, &largest)) /
                    rows;
    return latency_predict(&f.latency, all).total_ns - decodes->n_rows * row_ns -
           latency_attention_all_ns(&f.latency, decodes);
}

static void test_best_effort_chunk_uses_its_time_best_beside_decodes(void **state)
{
    (void)state;
    for (uint32_t n_rest = 1; n_rest < 4000; n_rest *= 2) {
        with_chats();
        for (uint32_t i = 0; i < 10; i++)
            f.seqs[i].tpot_slo_ns = 200 * ms;
        for (uint32_t i = 0; i < 30; i++)
            fixture_add(&f, 1, SCHED_DEVICE, 300)->n_rest = 1 + 4000 / n_rest;
        fixture_add(&f, 1, SCHED_WAITING, 2000)->n_rest = n_rest;
        decide();
        uint32_t n = rows_of(&d, 40);
        double best = 0, chosen = 0;
        struct latency_load decodes = {0};
        for (uint32_t i = 0; i < 40; i++)
            latency_load_add_decode(&f.latency, &decodes, 301, true);
        for (uint32_t k = 2; k <= 2000; k++) {
            struct latency_load load = decodes;
            latency_load_add_chunk(&f.latency, &load, 0, k, k == 2000);
            if (latency_predict(&f.latency, &load).total_ns > 0.9 * 200e6)
                break;
            best = fmax(best, k / own_time(&decodes, &load));
            chosen = k == n ? k / own_time(&decodes, &load) : chosen;
        }
        /* Sizes between steps are not looked at, and may be better by what a row's attention is. */
        assert_true(n > 0 && chosen >= best * 0.995);
    }
}

/* A prompt that has time leaves a sweep's decodes theirs; one that has not takes all. */
static void test_prompts_that_have_time_let_decodes_run(void **state)
{
    (void)state;
    with_chats();
    fixture_add(&f, 0, SCHED_WAITING, 2000)->first_due_ns = f.state.now_ns + 20000 * ms;
    for (uint32_t i = 0; i < 20; i++)
        fixture_add(&f, 1, SCHED_DEVICE, 300);
    decide();
    uint32_t n = rows_of(&d, 10);
    assert_int_equal(rows_in(&f, &d, false), 20);
    assert_true((double)d.predicted_ns <= budget_ns + 1);
    f.seqs[10].first_due_ns = f.state.now_ns + 100 * ms;
    decide();
    assert_true(rows_of(&d, 10) > n);
    n = rows_of(&d, 10);
    f.seqs[10].first_due_ns = f.state.now_ns + 20000 * ms;
    f.limits.params.without = SCHED_WITHOUT_SHARE;
    decide();
    assert_int_equal(rows_of(&d, 10), n);
}

static void test_a_waiting_prompt_that_is_due_keeps_best_effort_out(void **state)
{
    (void)state;
    with_chats();
    fixture_add(&f, 0, SCHED_WAITING, 2000);
    fixture_add(&f, 1, SCHED_DEVICE, 300);
    fixture_add(&f, 1, SCHED_WAITING, 1000);
    f.limits.chunk_max = 400; /* five sweeps for the prompt */
    f.limits.rows_max = 800;
    decide();
    assert_true(rows_of(&d, 11) > 0);
    f.seqs[10].first_due_ns = f.state.now_ns + 30 * ms; /* too late even so */
    decide();
    assert_true(rows_of(&d, 10) > 0);
    assert_int_equal(rows_of(&d, 11) + rows_of(&d, 12), 0);
}

/* A row of best effort never makes a sweep longer than the tightest objective allows, but for the
 * starved. */
static void test_best_effort_stays_within_the_objective(void **state)
{
    (void)state;
    static const char *const names[] = {"omni", "paper", "harvest", "stream"};

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&f, seed, 3);
        f.limits.be_starved_ns = 0;
        f.state.latency = &f.latency;
        f.state.returned_rows = 0;
        double left = INFINITY;
        uint32_t use = f.limits.params.slo_use_pct;
        for (uint32_t i = 0; i < f.state.n_seqs; i++) {
            const struct sched_seq *s = &f.seqs[i];
            if (s->latency_sensitive && s->tpot_slo_ns != 0 && sched_is_decode(s))
                left = fmin(left,
                            (double)s->tpot_slo_ns - (double)(f.state.now_ns - s->last_token_ns));
        }
        for (uint32_t i = 0; i < 4 && isfinite(left); i++) {
            sched_policy_find(names[i], NULL)->decide(&f.state, &d);
            double limit = fmax(0, left) * use / 100;
            if (rows_in(&f, &d, false) > 0 && (double)d.predicted_ns > limit + 1)
                fail_msg("%s, seed %llu: %.2f ms of %.2f", names[i], (unsigned long long)seed,
                         (double)d.predicted_ns / 1e6, limit / 1e6);
        }
    }
}

/* In a long queue everybody has been passed over too long: those that wait stay within the
 * objective while others of best effort have begun; who has begun does go on. */
static void test_starved_prompts_that_wait_have_patience(void **state)
{
    (void)state;
    with_chats();
    for (uint32_t i = 0; i < 10; i++)
        f.seqs[i].tpot_slo_ns = 1 * ms; /* all of it is used up */
    f.limits.be_starved_ns = 100 * ms;
    for (uint32_t i = 0; i < 5; i++)
        fixture_add(&f, 1, SCHED_WAITING, 1000)->last_run_ns = 0;
    struct sched_seq *begun = fixture_add(&f, 1, SCHED_DEVICE, 1000);
    begun->n_todo = 500;
    begun->has_output = 0;
    decide();
    assert_int_equal(d.n_seqs, 10);
    begun->last_run_ns = 1;
    decide();
    assert_int_equal(rows_of(&d, 15), f.limits.block_tokens);
    assert_int_equal(d.n_seqs, 11);
    f.state.n_seqs--; /* nobody has begun */
    decide();
    assert_int_equal(rows_of(&d, 10), f.limits.block_tokens);
    assert_int_equal(d.n_seqs, 11);
}

/* ---- Monotonicity ---------------------------------------------------------------------------- */

static void copy_fixture(struct sched_fixture *to, const struct sched_fixture *from)
{
    *to = *from;
    to->state.limits = &to->limits;
    to->state.seqs = to->seqs;
    to->state.workers = to->workers;
    to->state.latency = from->state.latency != NULL ? &to->latency : NULL;
}

/* What the latency-sensitive get is compared in their order: first how many decode, then the rows
 * of each prompt by due time.  -1, 0, 1. */
static int compare_ls(const struct sched_decision *a, const struct sched_decision *b)
{
    uint32_t decodes_a = 0, decodes_b = 0, at_a = 0, at_b = 0;

    for (; at_a < a->n_seqs && sched_is_decode(&f.seqs[a->rows[at_a].seq]) &&
           f.seqs[a->rows[at_a].seq].latency_sensitive;
         at_a++)
        decodes_a++;
    for (; at_b < b->n_seqs && sched_is_decode(&f.seqs[b->rows[at_b].seq]) &&
           f.seqs[b->rows[at_b].seq].latency_sensitive;
         at_b++)
        decodes_b++;
    if (decodes_a != decodes_b)
        return decodes_a < decodes_b ? -1 : 1;
    for (;; at_a++, at_b++) {
        bool end_a = at_a >= a->n_seqs || !f.seqs[a->rows[at_a].seq].latency_sensitive;
        bool end_b = at_b >= b->n_seqs || !f.seqs[b->rows[at_b].seq].latency_sensitive;
        if (end_a || end_b)
            return (int)end_b - (int)end_a;
        if (a->rows[at_a].n_rows != b->rows[at_b].n_rows)
            return a->rows[at_a].n_rows < b->rows[at_b].n_rows ? -1 : 1;
    }
}

/* With more free blocks, all else equal, the latency-sensitive get no less. */
static void test_more_blocks_give_no_less(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&f, seed, 3);
        f.limits.two_batch = false;
        copy_fixture(&more, &f);
        more.state.n_free_blocks += f.limits.n_groups * (1 + fixture_below(&f, 200));
        for (uint32_t i = 0; policies[i] != NULL; i++) {
            policies[i]->decide(&f.state, &d);
            policies[i]->decide(&more.state, &d_more);
            if (compare_ls(&d, &d_more) > 0)
                fail_msg("%s, seed %llu", policies[i]->name, (unsigned long long)seed);
        }
    }
}

/* With more of the objective to use, all else equal, prompts get no fewer rows. */
static void test_more_time_gives_no_less(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&f, seed, 3);
        f.limits.two_batch = false;
        copy_fixture(&more, &f);
        more.limits.params.slo_use_pct += 1 + fixture_below(&f, 50);
        for (uint32_t i = 0; policies[i] != NULL; i++) {
            policies[i]->decide(&f.state, &d);
            policies[i]->decide(&more.state, &d_more);
            if (compare_ls(&d, &d_more) > 0)
                fail_msg("%s, seed %llu", policies[i]->name, (unsigned long long)seed);
        }
    }
}

/* The nearer to all of the device the promises to latency-sensitive requests come, the less time
 * does best effort take; and none when it is full. */
static void test_a_full_device_keeps_best_effort_short(void **state)
{
    (void)state;
    uint32_t before = UINT32_MAX, first = 0, n = 0;

    for (uint32_t rest = 0; rest <= 2000; rest += 100) {
        with_chats();
        f.limits.n_blocks = 1600;
        f.state.n_free_blocks = 1600 - 10 * f.seqs[0].n_blocks;
        for (uint32_t i = 0; i < 10; i++)
            f.seqs[i].n_rest = rest;
        fixture_add(&f, 1, SCHED_WAITING, 2000);
        decide();
        n = rows_of(&d, 10);
        assert_true(n <= before);
        first = rest == 0 ? n : first;
        before = n;
    }
    assert_true(first > 400);
    assert_true(n < 10);
}

/* Regression: without any latency-sensitive request nothing is promised and nobody counted, and
 * best effort got a quarter of the time: a row or two of its prompts in a sweep. */
static void test_best_effort_alone_has_all_the_time(void **state)
{
    (void)state;
    fixture_roomy(&f);
    fixture_add(&f, 1, SCHED_WAITING, 2000);
    f.limits.sweep_max_ns = f.limits.tpot_slo_ns;
    decide();
    assert_true(d.predicted_ns > f.limits.tpot_slo_ns / 2);
}

/* ---- Placement ------------------------------------------------------------------------------- */

static uint32_t best_effort_decodes(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < d.n_seqs; i++) {
        const struct sched_seq *s = &f.seqs[d.rows[i].seq];
        n += !s->latency_sensitive && sched_is_decode(s);
    }
    return n;
}

static void test_offload_always_and_never_are_exact(void **state)
{
    (void)state;
    uint32_t n_out = 0, n_rows = 0;

    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        fixture_random(&f, seed, 3);
        f.limits.params.offload = SCHED_OFFLOAD_ALWAYS;
        decide();
        assert_true(f.limits.n_workers == 0 || best_effort_decodes() + d.n_in == 0);
        n_out += d.n_out;
        f.limits.params.offload = SCHED_OFFLOAD_NEVER;
        decide();
        assert_int_equal(d.n_out, 0);
        n_rows += best_effort_decodes();
    }
    assert_true(n_out > 0 && n_rows > 0);
}

static void test_the_newest_leave_room_for_the_next_prompt(void **state)
{
    (void)state;
    fixture_roomy(&f);
    f.limits.n_blocks = f.state.n_free_blocks = 1000;
    f.limits.params.auto_free_pct = 5;
    for (uint32_t i = 0; i < 9; i++)
        fixture_add(&f, 1, SCHED_DEVICE, 1616); /* 101 blocks each: 91 free */
    decide();
    assert_int_equal(d.n_out, 0); /* 50 for chats are free, and nobody waits */
    fixture_add(&f, 1, SCHED_WAITING, 1600);
    decide();
    assert_int_equal(d.n_out, 1); /* 151 must be, and soon will */
    assert_int_equal(d.out[0].seq, 8);
    f.limits.params.without = SCHED_WITHOUT_STAGING;
    decide();
    assert_int_equal(d.n_out, 0);
}

static void test_a_resident_comes_back_settled_and_when_nobody_waits(void **state)
{
    (void)state;
    fixture_roomy(&f);
    fixture_add(&f, 1, SCHED_ARENA, 1000)->last_move_ns = f.state.now_ns - 10 * ms;
    f.limits.be_settle_ns = 100 * ms;
    decide();
    assert_int_equal(d.n_in, 0);
    assert_int_equal(d.n_enter, 1);
    f.limits.be_settle_ns = 5 * ms;
    decide();
    assert_int_equal(d.n_in, 1);
    f.limits.params.without = SCHED_WITHOUT_COPY_BACK;
    decide();
    assert_int_equal(d.n_in, 0);
    f.limits.params.without = 0;
    fixture_add(&f, 1, SCHED_WAITING, 100);
    decide();
    assert_int_equal(d.n_in, 0);
}

/* Residents that workers cannot use come back before a prompt begins; those that they can stay. */
static void test_surplus_residents_come_back_before_prompts_begin(void **state)
{
    (void)state;
    for (uint32_t slow = 0; slow < 2; slow++) {
        with_chats();
        for (uint32_t i = 0; i < 4; i++)
            fixture_add(&f, 1, SCHED_DEVICE, 3000);
        for (uint32_t i = 0; i < 8; i++)
            fixture_add(&f, 1, SCHED_ARENA, 3000);
        fixture_add(&f, 1, SCHED_WAITING, 8000)->n_rest = 100;
        f.workers[0].n_resident = 8;
        f.latency.worker[0].bytes_per_ns = f.latency.worker[1].bytes_per_ns = slow ? 0.01 : 500;
        f.latency.worker[0].fixed_ns = f.latency.worker[1].fixed_ns = 100;
        f.latency.kind[0].da_a = 1;
        decide();
        assert_int_equal(d.n_in, slow ? f.limits.copies_max : 0);
        assert_true(slow ? rows_of(&d, 22) == 0 : rows_of(&d, 22) > 0);
    }
}

/* Without riding a resident makes a token in as many sweeps as there are layers.  That repays a
 * prompt beside a hundred decodes only in many minutes, and only if its output is long enough. */
static void test_a_resident_has_an_hour_to_repay_its_prompt(void **state)
{
    (void)state;
    for (uint32_t is_long = 0; is_long < 2; is_long++) {
        with_chats();
        f.limits.params.without = SCHED_WITHOUT_RIDING;
        for (uint32_t i = 0; i < 100; i++)
            fixture_add(&f, 1, SCHED_DEVICE, 300);
        for (uint32_t i = 0; i < 8; i++)
            fixture_add(&f, 1, SCHED_ARENA, 3000);
        fixture_add(&f, 1, SCHED_WAITING, 8000)->n_rest = is_long ? 2000 : 200;
        f.workers[0].n_resident = 8;
        f.latency.worker[0].bytes_per_ns = f.latency.worker[1].bytes_per_ns = 500;
        decide();
        assert_int_equal(d.n_in, is_long ? 0 : f.limits.copies_max);
    }
}

/* Attention that takes most of a sweep, and workers that have time: workers first, one a sweep. */
static void test_dear_attention_sends_best_effort_to_workers(void **state)
{
    (void)state;
    fixture_roomy(&f);
    for (uint32_t i = 0; i < 20; i++)
        fixture_add(&f, 1, SCHED_DEVICE, 2000);
    decide();
    assert_int_equal(d.n_out, 0);
    f.latency.kind[0].da_a = 20; /* 20 decodes: 25 ms; the weights: 13 ms */
    decide();
    assert_int_equal(d.n_out, 1);
    f.limits.params.without = SCHED_WITHOUT_PLACEMENT;
    decide();
    assert_int_equal(d.n_out, 0);
}

/* ---- Returned rows, two batches, waiting ----------------------------------------------------- */

static void add_residents(uint32_t n, bool in_slot)
{
    for (uint32_t i = 0; i < n; i++)
        fixture_add(&f, 1, SCHED_ARENA, 2000)->in_slot = in_slot;
}

static void test_returned_rows_stay_within_the_dense_budget(void **state)
{
    (void)state;
    with_chats();
    add_residents(100, true);
    f.state.returned_rows = 3;
    fixture_add(&f, 1, SCHED_WAITING, 4000);
    decide();
    assert_in_range(d.p_max, 3, f.limits.returned_max);
    struct latency_load load = d.load;
    load.returned_rows = d.p_max * 32.0;
    assert_true(latency_predict(&f.latency, &load).total_ns <= budget_ns);
    if (d.p_max < f.limits.returned_max) {
        load.returned_rows = (d.p_max + 1) * 32.0;
        assert_true(latency_predict(&f.latency, &load).total_ns > budget_ns);
    }
    for (uint32_t i = 0; i < 10; i++)
        f.seqs[i].tpot_slo_ns = 1 * ms; /* nothing is left: workers go on all the same */
    decide();
    assert_int_equal(d.p_max, 1);
}

/* Value per time of a way, as policy_omni.c states it, for residents of worker 0 alone. */
static void test_two_batches_where_the_window_is_worth_it(void **state)
{
    (void)state;
    with_chats();
    f.limits.two_batch = true;
    add_residents(120, true);
    for (uint32_t i = 0; i < 10; i++)
        f.seqs[i].tpot_slo_ns = 200 * ms;
    f.workers[0].n_free_blocks = 0; /* arenas full, device short: more prompts are worth nothing */
    f.workers[1].usable = false;
    f.state.n_free_blocks = 200;
    f.limits.params.auto_free_pct = 0;
    fixture_add(&f, 1, SCHED_WAITING, 2000);
    decide();
    assert_true(d.n_seqs_a < d.n_seqs);
    assert_int_equal(d.n_seqs_a, 10);
    assert_int_equal(d.rows[10].seq, 130);
    assert_true(d.predicted_ns <= 180 * ms);
    f.limits.params.without = SCHED_WITHOUT_TWO_BATCH;
    decide();
    assert_int_equal(d.n_seqs_a, d.n_seqs);
    f.limits.params.without = 0;
    for (uint32_t i = 0; i < 130; i++) /* long jobs: one alone fills the window */
        f.seqs[i].in_slot = 0;
    f.latency.worker[0].fixed_ns = 1e9;
    decide();
    assert_int_equal(d.n_seqs_a, d.n_seqs);
}

static void test_waiting_only_where_workers_are_worth_more(void **state)
{
    (void)state;
    with_chats();
    f.limits.params.without = SCHED_WITHOUT_COPY_BACK;
    add_residents(64, true);
    f.workers[0].n_free_blocks = 0;
    decide();
    /* Short sweeps of ten chats, workers that could do far more: wait, within the slack. */
    assert_true(d.want > 0 && d.want <= d.p_max);
    assert_true(d.wait_ns > 0 && d.predicted_ns + d.wait_ns <= (uint64_t)budget_ns + 1);
    f.limits.params.without |= SCHED_WITHOUT_WAITING;
    decide();
    assert_int_equal(d.wait_ns, 0);
    f.limits.params.without = SCHED_WITHOUT_COPY_BACK;
    for (uint32_t i = 0; i < 100; i++) /* the device decodes more than the workers ever could */
        fixture_add(&f, 1, SCHED_DEVICE, 100);
    f.latency.worker[0].bytes_per_ns = f.latency.worker[1].bytes_per_ns = 5;
    decide();
    assert_int_equal(d.wait_ns, 0);
}

static void test_entries_are_spread(void **state)
{
    (void)state;
    fixture_roomy(&f);
    f.limits.params.without = SCHED_WITHOUT_COPY_BACK;
    add_residents(40, false);
    decide();
    assert_int_equal(d.n_enter, 21);
    f.limits.params.without |= SCHED_WITHOUT_SPREAD;
    decide();
    assert_int_equal(d.n_enter, 40);
}

/* A deadline of the next token stands for the objective of the gap. */
static void test_tokens_may_have_deadlines(void **state)
{
    (void)state;
    with_chats();
    for (uint32_t i = 0; i < 10; i++)
        f.seqs[i].tpot_slo_ns = 40 * ms;
    fixture_add(&f, 1, SCHED_WAITING, 2000);
    decide();
    uint32_t n = rows_of(&d, 10);
    f.seqs[3].next_due_ns = f.state.now_ns + 30 * ms;
    decide();
    assert_in_range(rows_of(&d, 10), 1, n - 1);
    for (uint32_t i = 0; i < 10; i++)
        f.seqs[i].next_due_ns = f.state.now_ns + 80 * ms; /* ahead of time */
    decide();
    assert_true(rows_of(&d, 10) > n);
}

/* Where nobody can be moved out, prompts leave room for what decodes will make. */
static void test_prompts_leave_room_to_grow(void **state)
{
    (void)state;
    fixture_roomy(&f);
    f.limits.n_workers = 0;
    f.limits.n_blocks = f.state.n_free_blocks = 400;
    f.limits.params.auto_free_pct = 0;
    for (uint32_t i = 0; i < 3; i++)
        fixture_add(&f, 1, SCHED_DEVICE, 1600)->n_rest = 640;
    fixture_add(&f, 1, SCHED_WAITING, 700); /* 44 blocks of 100; decodes: half of 120 */
    decide();
    assert_true(d.be_starved);
    for (uint32_t i = 0; i < 3; i++)
        f.seqs[i].n_likely = 100;
    decide();
    assert_false(d.be_starved);
    assert_int_equal(rows_of(&d, 3), 700);
}

/* Without a profile nothing is priced and every budget holds. */
static void test_works_without_a_profile(void **state)
{
    (void)state;
    with_chats();
    fixture_add(&f, 1, SCHED_WAITING, 2000);
    fixture_add(&f, 1, SCHED_DEVICE, 100);
    f.state.latency = NULL;
    decide();
    assert_int_equal(d.n_seqs, 12);
    assert_int_equal(d.predicted_ns, 0);
    assert_int_equal(rows_of(&d, 10), 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_fills_the_best_step),
        cmocka_unit_test(test_no_best_effort_chunk_while_prompts_wait),
        cmocka_unit_test(test_budget_is_what_predictions_keep),
        cmocka_unit_test(test_a_prompt_goes_on_under_any_objective),
        cmocka_unit_test(test_best_effort_chunk_has_most_rows_per_time),
        cmocka_unit_test(test_best_effort_chunk_uses_its_time_best_beside_decodes),
        cmocka_unit_test(test_prompts_that_have_time_let_decodes_run),
        cmocka_unit_test(test_a_waiting_prompt_that_is_due_keeps_best_effort_out),
        cmocka_unit_test(test_best_effort_stays_within_the_objective),
        cmocka_unit_test(test_starved_prompts_that_wait_have_patience),
        cmocka_unit_test(test_more_blocks_give_no_less),
        cmocka_unit_test(test_more_time_gives_no_less),
        cmocka_unit_test(test_a_full_device_keeps_best_effort_short),
        cmocka_unit_test(test_best_effort_alone_has_all_the_time),
        cmocka_unit_test(test_offload_always_and_never_are_exact),
        cmocka_unit_test(test_the_newest_leave_room_for_the_next_prompt),
        cmocka_unit_test(test_a_resident_comes_back_settled_and_when_nobody_waits),
        cmocka_unit_test(test_surplus_residents_come_back_before_prompts_begin),
        cmocka_unit_test(test_a_resident_has_an_hour_to_repay_its_prompt),
        cmocka_unit_test(test_dear_attention_sends_best_effort_to_workers),
        cmocka_unit_test(test_returned_rows_stay_within_the_dense_budget),
        cmocka_unit_test(test_two_batches_where_the_window_is_worth_it),
        cmocka_unit_test(test_waiting_only_where_workers_are_worth_more),
        cmocka_unit_test(test_entries_are_spread),
        cmocka_unit_test(test_tokens_may_have_deadlines),
        cmocka_unit_test(test_prompts_leave_room_to_grow),
        cmocka_unit_test(test_works_without_a_profile),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
