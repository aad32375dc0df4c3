/* Objectives, the budget of misses, lengths of outputs, and shares of tenants. */
#include <string.h>

#include "common/sched/fair_share.h"
#include "common/sched/lengths.h"
#include "common/sched/objective.h"
#include "tests/unit/cmocka_all.h"

static const uint64_t ms = 1000000;

/* ---- Objectives ------------------------------------------------------------------------------ */

static struct objective_past tokens_at(const struct objective *o, const uint64_t *at_ms, uint32_t n)
{
    struct objective_past past = {0};

    for (uint32_t i = 0; i < n; i++)
        objective_take(o, &past, o->arrival_ns + at_ms[i] * ms);
    return past;
}

static void gaps_are_judged_by_their_mean(void **state)
{
    const struct objective o = {.arrival_ns = 5000 * ms, .ttft_ns = 100 * ms, .tpot_ns = 10 * ms};
    static const uint64_t fine[] = {100, 105, 120}, slow[] = {90, 95, 111}, late[] = {101, 102};

    (void)state;
    struct objective_past past = tokens_at(&o, fine, 3);
    assert_true(objective_judge(&o, &past).ttft_ok && objective_judge(&o, &past).tpot_ok);
    assert_int_equal(objective_next_due(&o, &past), 5130 * ms);
    past = tokens_at(&o, slow, 3);
    assert_true(objective_judge(&o, &past).ttft_ok && !objective_judge(&o, &past).tpot_ok);
    past = tokens_at(&o, late, 2);
    assert_true(!objective_judge(&o, &past).ttft_ok && objective_judge(&o, &past).tpot_ok);
    past = tokens_at(&o, late, 0);
    assert_false(objective_judge(&o, &past).ttft_ok);
    assert_int_equal(objective_next_due(&o, &past), 5100 * ms);
}

/* Token k is due at TTFT + k x TPOT, however the ones before it came. */
static void tokens_have_deadlines_of_their_own(void **state)
{
    const struct objective o = {
        .deadlines = OBJECTIVE_TOKEN, .ttft_ns = 100 * ms, .tpot_ns = 10 * ms};
    static const uint64_t saved_up[] = {10, 15, 118, 119}, one_late[] = {90, 111, 112};

    (void)state;
    for (uint32_t k = 1; k < 1000; k++) {
        struct objective_past past = {.first_ns = 1, .last_ns = k * ms, .n_output = k};
        assert_int_equal(objective_next_due(&o, &past), (100 + 10 * k) * ms);
    }
    struct objective_past past = tokens_at(&o, saved_up, 4);
    assert_true(objective_judge(&o, &past).tpot_ok);
    past = tokens_at(&o, one_late, 3);
    assert_false(objective_judge(&o, &past).tpot_ok);
    past = (struct objective_past){.first_ns = 90 * ms, .last_ns = 500 * ms, .n_output = 4};
    assert_int_equal(objective_next_due(&o, &past), 505 * ms); /* far behind: twice the pace */
}

static void the_window_leaves_its_share_of_misses(void **state)
{
    static struct objective_window w;

    (void)state;
    assert_int_equal(objective_window_left(&w, 0, 99), 0);
    assert_int_equal(objective_window_left(&w, 250, 99), 2);
    for (uint32_t i = 0; i < 1000; i++)
        objective_window_add(&w, i % 200 == 0); /* 5 of 1,000 */
    assert_int_equal(w.n_missed, 5);
    assert_int_equal(objective_window_left(&w, 0, 99), 5);
    assert_int_equal(objective_window_left(&w, 0, 100), 0);
    for (uint32_t i = 0; i < OBJECTIVE_WINDOW; i++)
        objective_window_add(&w, false); /* those that missed have left */
    assert_int_equal(w.n_missed, 0);
    assert_int_equal(w.n, OBJECTIVE_WINDOW);
    assert_int_equal(objective_window_left(&w, 500, 99), 10);
}

/* ---- Lengths --------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % n);
}

static void few_outputs_predict_nothing(void **state)
{
    struct lengths l = {0};

    (void)state;
    for (uint32_t i = 0; i + 1 < LENGTHS_ENOUGH; i++)
        lengths_add(&l, 10);
    assert_int_equal(lengths_predict(&l, 0, 500, 90), 500);
    lengths_add(&l, 10);
    assert_int_equal(lengths_predict(&l, 0, 500, 90), 10);
    assert_int_equal(lengths_predict(&l, 0, 7, 90), 7);
    assert_int_equal(lengths_predict(&l, 10, 500, 90), 500); /* nobody got further */
    assert_int_equal(lengths_predict(&l, 0, 500, 0), 500);
}

/* Against counting them all. */
static void quantiles_are_those_of_the_window(void **state)
{
    static uint32_t all[3 * LENGTHS_MAX];
    struct lengths l = {0};

    (void)state;
    for (uint32_t i = 0; i < 3 * LENGTHS_MAX; i++) {
        all[i] = 1 + below(i % 2 == 0 ? 50 : 400);
        lengths_add(&l, all[i]);
    }
    const uint32_t *window = all + 2 * LENGTHS_MAX;
    for (uint32_t made = 0; made < 200; made += 7) {
        uint32_t n_longer = 0, n_below = 0, got = lengths_predict(&l, made, 1000, 75);
        for (uint32_t i = 0; i < LENGTHS_MAX; i++) {
            n_longer += window[i] > made;
            n_below += window[i] > made && window[i] <= got;
        }
        assert_true(got > made && n_below * 100 >= n_longer * 75);
    }
}

/* ---- Shares ---------------------------------------------------------------------------------- */

/* Whoever wants something all the time gets what its weight says, within one request of each. */
static void shares_follow_weights(void **state)
{
    static const uint32_t weights[] = {1, 3, 6};
    struct fair_share f;
    double served[3] = {0}, largest = 0;

    (void)state;
    fair_share_init(&f, 3, weights);
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t wanting = i < 1000 ? 5 : 7, best = 0; /* tenant 1 comes later */
        double cost = 1 + below(500);

        fair_share_advance(&f, wanting);
        for (uint32_t t = 1; t < 3; t++) {
            if ((wanting >> t & 1) != 0 && fair_share_start(&f, t) < fair_share_start(&f, best))
                best = t;
        }
        fair_share_charge(&f, best, cost);
        largest = cost > largest ? cost : largest;
        if (i == 999) {
            assert_true(served[2] / 6 - served[0] < 2 * largest);
            memset(served, 0, sizeof served);
        }
        served[best] += cost;
        for (uint32_t t = 0; i > 1000 && t < 2; t++) {
            double ahead = served[t] / weights[t] - served[t + 1] / weights[t + 1];
            assert_true(ahead < 2 * largest && -ahead < 2 * largest);
        }
    }
}

static struct sched_seq prompt(uint32_t tenant, uint32_t n, uint64_t due_ms)
{
    return (struct sched_seq){.tenant = (uint16_t)tenant,
                              .latency_sensitive = 1,
                              .place = SCHED_WAITING,
                              .n_todo = n,
                              .first_due_ns = due_ms * ms};
}

static void ranks_take_turns(void **state)
{
    static const uint32_t weights[] = {1, 1};
    struct sched_seq seqs[] = {prompt(0, 100, 1), prompt(0, 100, 2), prompt(0, 100, 3),
                               prompt(1, 150, 9), prompt(1, 10, 8)};
    struct fair_share f;

    (void)state;
    fair_share_init(&f, 2, weights);
    fair_share_rank(&f, seqs, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(seqs[i].rank, 0); /* one tenant alone: by due time */
    fair_share_rank(&f, seqs, 5);
    static const uint32_t expected[] = {1, 4, 5, 3, 2};
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(seqs[i].rank, expected[i]);
    fair_share_charge(&f, 0, 1000); /* has had more than its share: last */
    fair_share_rank(&f, seqs, 5);
    assert_true(seqs[0].rank == 3 && seqs[4].rank == 1 && seqs[3].rank == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_are_judged_by_their_mean),
        cmocka_unit_test(tokens_have_deadlines_of_their_own),
        cmocka_unit_test(the_window_leaves_its_share_of_misses),
        cmocka_unit_test(few_outputs_predict_nothing),
        cmocka_unit_test(quantiles_are_those_of_the_window),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(ranks_take_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
