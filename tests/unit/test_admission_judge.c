/* The admission judgement, held against the schedule itself: after an answer the test plays the
 * policy's sweeps by its own loop and looks whether what was promised is kept. */
#include <string.h>

#include "common/sched/admission.h"
#include "common/sched/price.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sched_fixture.h"

enum { N_MAX = 64, N_RANDOM = 400 };
static const uint64_t ms = 1000000;

static struct sched_fixture fixture;
static struct admission_scratch scratch;
static struct objective_past past[N_MAX + 1];
static struct fair_share fair;
static struct sched_decision decision;

/* ---- States ---------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    fixture_roomy(&fixture);
    return admission_scratch_init(&scratch, N_MAX, &fixture.limits) +
           sched_decision_init(&decision, N_MAX + 1, &fixture.limits);
}

static int tear_down(void **state)
{
    (void)state;
    admission_scratch_fini(&scratch);
    sched_decision_fini(&decision);
    return 0;
}

static void begin(void)
{
    static const uint32_t one = 1;

    fixture_roomy(&fixture);
    memset(past, 0, sizeof past);
    fair_share_init(&fair, 1, &one);
}

static struct admission_view view_of(const char *policy)
{
    return (struct admission_view){.policy = sched_policy_find(policy, NULL),
                                   .limits = &fixture.limits,
                                   .latency = &fixture.latency,
                                   .now_ns = fixture.state.now_ns,
                                   .seqs = fixture.seqs,
                                   .past = past,
                                   .n_seqs = fixture.state.n_seqs,
                                   .fair = &fair};
}

/* A prompt that arrives now. */
static struct sched_seq ask(uint32_t n_prompt, uint32_t n_output, uint64_t ttft_ms,
                            uint64_t tpot_ms)
{
    return (struct sched_seq){.place = SCHED_WAITING,
                              .latency_sensitive = 1,
                              .n_todo = n_prompt,
                              .n_rest = n_output,
                              .worker = SCHED_NONE,
                              .arrival_ns = fixture.state.now_ns,
                              .first_due_ns = fixture.state.now_ns + ttft_ms * ms,
                              .tpot_slo_ns = tpot_ms * ms};
}

static struct admission_verdict judge(const struct admission_view *v, const struct sched_seq *c)
{
    struct admission_verdict verdict;

    admission_judge(v, c, &scratch, &verdict);
    return verdict;
}

static void add_running(uint32_t n, uint32_t ctx)
{
    for (uint32_t i = 0; i < n; i++) {
        struct sched_seq *s = fixture_add(&fixture, 0, SCHED_DEVICE, ctx);
        past[s->id] = (struct objective_past){.first_ns = fixture.state.now_ns - 50 * ms,
                                              .last_ns = fixture.state.now_ns,
                                              .n_output = 2};
    }
}

static void add_waiting(uint32_t n, uint32_t n_prompt)
{
    for (uint32_t i = 0; i < n; i++)
        fixture_add(&fixture, 0, SCHED_WAITING, n_prompt);
}

/* ---- The schedule, played -------------------------------------------------------------------- */

struct play {
    struct sched_seq seqs[N_MAX + 1];
    struct objective_past past[N_MAX + 1];
    uint32_t n, n_live, n_free;
    uint64_t now_ns;
};

static void start(struct play *p, const struct admission_view *v, const struct sched_seq *candidate)
{
    p->n = p->n_live = v->n_seqs + (candidate != NULL);
    memcpy(p->seqs, v->seqs, v->n_seqs * sizeof *p->seqs);
    memcpy(p->past, v->past, v->n_seqs * sizeof *p->past);
    if (candidate != NULL) {
        p->seqs[v->n_seqs] = *candidate;
        p->past[v->n_seqs] = (struct objective_past){0};
    }
    p->now_ns = v->now_ns;
    p->n_free = v->limits->n_blocks;
    for (uint32_t i = 0; i < v->n_seqs; i++)
        p->n_free -= v->seqs[i].n_blocks * v->limits->n_groups;
}

static struct objective objective_of(const struct sched_seq *s)
{
    return (struct objective){.arrival_ns = s->arrival_ns,
                              .ttft_ns = s->first_due_ns - s->arrival_ns,
                              .tpot_ns = s->tpot_slo_ns};
}

static void token(struct play *p, uint32_t i)
{
    struct sched_seq *s = &p->seqs[i];
    const struct objective o = objective_of(s);

    objective_take(&o, &p->past[i], p->now_ns);
    s->last_token_ns = p->now_ns;
    s->n_todo = s->has_output = 1;
    if (--s->n_rest > 0)
        return;
    p->n_free += s->n_blocks * fixture.limits.n_groups;
    s->place = SCHED_ELSEWHERE;
    p->n_live--;
}

static void sweep(struct play *p, const struct admission_view *v)
{
    struct sched_state state = fixture.state;

    state.now_ns = p->now_ns;
    state.seqs = p->seqs;
    state.n_seqs = p->n;
    state.n_free_blocks = p->n_free;
    v->policy->decide(&state, &decision);
    assert_true(decision.n_seqs > 0);
    p->now_ns += decision.predicted_ns;
    p->n_free = decision.n_free_blocks;
    for (uint32_t r = 0; r < decision.n_seqs; r++) {
        struct sched_seq *s = &p->seqs[decision.rows[r].seq];

        s->n_kv += decision.rows[r].n_rows;
        s->n_todo -= decision.rows[r].n_rows;
        s->n_blocks = sched_blocks(v->limits, s->n_kv) / v->limits->n_groups;
        s->place = SCHED_DEVICE;
        if (s->n_todo == 0)
            token(p, decision.rows[r].seq);
    }
}

static bool in_time(const struct play *p, uint32_t i)
{
    const struct objective o = objective_of(&p->seqs[i]);
    struct objective_verdict v = objective_judge(&o, &p->past[i]);

    return v.ttft_ok && v.tpot_ok;
}

static void play(struct play *p, const struct admission_view *v, const struct sched_seq *candidate)
{
    start(p, v, candidate);
    while (p->n_live > 0)
        sweep(p, v);
}

/* ---- Answers --------------------------------------------------------------------------------- */

static void an_empty_engine_takes_what_it_can_compute_in_time(void **state)
{
    (void)state;
    begin();
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(1000, 100, 2000, 50);
    struct admission_verdict fits = judge(&v, &c);
    static struct play p;

    assert_int_equal(fits.reason, ADMISSION_FITS);
    play(&p, &v, &c);
    assert_int_equal(fits.ttft_ns, p.past[0].first_ns - c.arrival_ns);
    c = ask(1000, 100, fits.ttft_ns / ms, 50); /* just what it takes, and nothing left over */
    struct admission_verdict late = judge(&v, &c);
    assert_int_equal(late.reason, ADMISSION_TTFT);
    assert_true(late.retry_after_ns == UINT64_MAX && late.n_late == 1);
    c = ask(1000, 100, 2000, 10); /* weights alone take longer to read */
    assert_int_equal(judge(&v, &c).reason, ADMISSION_TPOT);
}

static void blocks_are_counted_to_the_predicted_end(void **state)
{
    (void)state;
    begin();
    add_running(4, 160);
    for (uint32_t i = 0; i < 4; i++)
        fixture.seqs[i].n_rest = 31; /* 160 + 1 + 31: 12 blocks each */
    fixture.limits.n_blocks = 100;
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(512, 320, 2000, 50); /* 52 blocks */

    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS);
    c.n_rest = 321;
    struct admission_verdict short_of = judge(&v, &c);
    assert_int_equal(short_of.reason, ADMISSION_BLOCKS);
    assert_int_equal(short_of.needed, 101);
    assert_true(short_of.retry_after_ns > 0 && short_of.retry_after_ns < 10000 * ms);
    v.latency = NULL; /* without prices blocks decide alone, and nobody knows when */
    assert_int_equal(judge(&v, &c).reason, ADMISSION_BLOCKS);
    c.n_rest = 320;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS);
}

static void a_sweep_has_seats(void **state)
{
    (void)state;
    begin();
    fixture.limits.seqs_max = 3;
    add_running(2, 100);
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(100, 10, 2000, 50);

    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS);
    add_running(1, 100);
    v = view_of("omni");
    assert_int_equal(judge(&v, &c).reason, ADMISSION_SEATS);
}

/* The new one is urgent, so that it would go first, and those that wait would be late. */
static void the_admitted_are_not_made_late(void **state)
{
    (void)state;
    begin();
    add_waiting(20, 1000);
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(100, 10, 5000, 50);
    uint64_t last = judge(&v, &c).ttft_ns;

    for (uint32_t i = 0; i < 20; i++) /* the last one will just be in time */
        fixture.seqs[i].first_due_ns = fixture.seqs[i].arrival_ns + last + 100 * ms + last / 16;
    c = ask(3000, 10, last / ms / 2, 50);
    struct admission_verdict others = judge(&v, &c);
    assert_int_equal(others.reason, ADMISSION_OTHERS);
    assert_true(others.n_late > 0 && others.overrun > 0);
    for (uint32_t i = 0; i < 20; i++) /* late anyway: not its fault */
        fixture.seqs[i].first_due_ns = fixture.seqs[i].arrival_ns + 1;
    c = ask(3000, 10, 60000, 50);
    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS);
}

static void slightly_late_ones_come_in_while_misses_are_left(void **state)
{
    (void)state;
    begin();
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(4000, 10, 5000, 50);
    uint64_t takes = judge(&v, &c).ttft_ns;

    c = ask(4000, 10, takes / ms * 95 / 100, 50);
    assert_int_equal(judge(&v, &c).reason, ADMISSION_TTFT);
    v.misses_left = 1;
    struct admission_verdict on_budget = judge(&v, &c);
    assert_int_equal(on_budget.reason, ADMISSION_FITS);
    assert_int_equal(on_budget.n_late, 1);
    c = ask(4000, 10, takes / ms / 2, 50); /* twice as late as allowed is not slightly */
    assert_int_equal(judge(&v, &c).reason, ADMISSION_TTFT);
}

/* ---- Properties ------------------------------------------------------------------------------ */

static void random_load(uint64_t seed)
{
    begin();
    fixture.random = seed;
    add_running(fixture_below(&fixture, 20), 100 + fixture_below(&fixture, 8000));
    for (uint32_t i = 0; i < fixture.state.n_seqs; i++)
        fixture.seqs[i].n_rest = 1 + fixture_below(&fixture, 100);
    uint32_t n = fixture_below(&fixture, 24);
    for (uint32_t i = 0; i < n; i++) {
        struct sched_seq *s =
            fixture_add(&fixture, 0, SCHED_WAITING, 1 + fixture_below(&fixture, 3000));
        s->n_rest = 1 + fixture_below(&fixture, 100);
        s->first_due_ns = fixture.state.now_ns + (50 + fixture_below(&fixture, 2000)) * ms;
        s->tpot_slo_ns = (18 + fixture_below(&fixture, 40)) * ms;
    }
}

static struct sched_seq random_ask(void)
{
    uint32_t n_prompt = 1 + fixture_below(&fixture, 6000), n_out = 1 + fixture_below(&fixture, 100);

    return ask(n_prompt, n_out, 50 + fixture_below(&fixture, 1000),
               16 + fixture_below(&fixture, 40));
}

/* With exact predictions: who would be in time without the admitted one is in time with it, and it is
 * itself. */
static void admitted_work_is_in_time(void **state)
{
    static const char *const policies[] = {"group", "omni", "paper", "ls-first", "harvest"};
    static struct play with, without;
    uint32_t n_admitted = 0, n_refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        random_load(seed);
        struct admission_view v = view_of(policies[seed % 5]);
        struct sched_seq c = random_ask();
        struct admission_verdict verdict = judge(&v, &c);

        n_refused += verdict.reason != ADMISSION_FITS;
        if (verdict.reason != ADMISSION_FITS)
            continue;
        n_admitted++;
        play(&without, &v, NULL);
        play(&with, &v, &c);
        if (!in_time(&with, v.n_seqs))
            fail_msg("seed %llu: the admitted one is late", (unsigned long long)seed);
        for (uint32_t i = 0; i < v.n_seqs; i++) {
            if (in_time(&without, i) && !in_time(&with, i))
                fail_msg("seed %llu: sequence %u is late because of it", (unsigned long long)seed,
                         i);
        }
    }
    if (n_admitted < N_RANDOM / 10 || n_refused < N_RANDOM / 10)
        fail_msg("%u admitted, %u refused", n_admitted, n_refused);
}

/* Who comes back when it was told to, and meets nobody new, gets in. */
static void the_hint_when_to_come_back_holds(void **state)
{
    static struct play p;
    uint32_t n_hints = 0, n_kept = 0, n_given_up = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        random_load(seed);
        for (uint32_t i = 0; i < fixture.state.n_seqs; i++)
            fixture.seqs[i].tpot_slo_ns += 15 * ms;
        struct admission_view v = view_of("omni");
        struct sched_seq c = random_ask();
        c.tpot_slo_ns += 15 * ms;
        c.first_due_ns -= (c.first_due_ns - c.arrival_ns) / 2;
        struct admission_verdict verdict = judge(&v, &c);

        n_given_up += verdict.reason != ADMISSION_FITS && !verdict.retry_found;
        if (verdict.reason == ADMISSION_FITS || verdict.retry_after_ns == UINT64_MAX ||
            !verdict.retry_found)
            continue;
        start(&p, &v, NULL);
        while (p.n_live > 0 && p.now_ns < v.now_ns + verdict.retry_after_ns)
            sweep(&p, &v);
        struct admission_view later = v;
        uint64_t ttft = c.first_due_ns - c.arrival_ns;
        struct sched_seq live[N_MAX];
        struct objective_past live_past[N_MAX];
        later.n_seqs = 0;
        for (uint32_t i = 0; i < p.n; i++) {
            if (p.seqs[i].place == SCHED_ELSEWHERE)
                continue;
            live_past[later.n_seqs] = p.past[i];
            live[later.n_seqs++] = p.seqs[i];
        }
        later.seqs = live;
        later.past = live_past;
        later.now_ns = c.arrival_ns = p.now_ns;
        c.first_due_ns = c.arrival_ns + ttft;
        n_hints++;
        n_kept += judge(&later, &c).reason == ADMISSION_FITS;
    }
    if (n_hints < N_RANDOM / 20)
        fail_msg("%u hints, %u given up", n_hints, n_given_up);
    /* Jumps price the decodes' growth by its mean: rarely one is a hair too soon. */
    if (n_kept * 100 < n_hints * 95)
        fail_msg("%u of %u came back in vain", n_hints - n_kept, n_hints);
    if (n_given_up > n_hints)
        fail_msg("%u found, %u given up", n_hints, n_given_up);
}

/* Sweeps follow the tokens' own deadlines: they end before the nearest, unless decodes and the few rows
 * that the most urgent prompt gets take longer; and a later deadline never costs a prompt rows. */
static void sweeps_follow_deadlines_of_tokens(void **state)
{
    const struct sched_policy *omni = sched_policy_find("omni", NULL);
    uint32_t n_bound = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= N_RANDOM; seed++) {
        uint32_t rows[2], least;
        random_load(seed);
        uint64_t span = (10 + fixture_below(&fixture, 100)) * ms;
        for (uint32_t i = 0; i < 2; i++, span += 20 * ms) {
            for (uint32_t k = 0; k < fixture.state.n_seqs; k++) {
                struct sched_seq *s = &fixture.seqs[k];
                s->next_due_ns = sched_is_decode(s) ? fixture.state.now_ns + span + k * ms : 0;
            }
            omni->decide(&fixture.state, &decision);
            rows[i] = decision.n_rows;
            least =
                decision.n_rows == 0 ? 0 : decision.load.n_decodes + fixture.limits.block_tokens;
            if (decision.load.n_decodes == 0 || decision.n_rows <= least)
                continue;
            n_bound++;
            assert_true(decision.predicted_ns <= span * fixture.limits.params.slo_use_pct / 100);
        }
        assert_true(rows[1] >= rows[0]);
    }
    assert_true(n_bound > N_RANDOM / 4);
}

/* ---- Tenants --------------------------------------------------------------------------------- */

static void a_share_is_kept_for_whoever_is_active(void **state)
{
    static const uint32_t weights[] = {1, 1, 1};

    (void)state;
    begin();
    fair_share_init(&fair, 3, weights);
    fixture.limits.n_blocks = 120;
    add_running(3, 300); /* of tenant 1: 300 + 1 + 128, 27 blocks each */
    for (uint32_t i = 0; i < 3; i++)
        fixture.seqs[i].tenant = 1;
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(300, 100, 2000, 50);

    c.tenant = 1;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS); /* alone it may have all */
    v.tenants_active = 1u << 2;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_SHARE);
    c.tenant = 2;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS); /* it is kept for this one */
}

static void time_to_the_first_token_is_shared_too(void **state)
{
    static const uint32_t weights[] = {1, 1, 1};

    (void)state;
    begin();
    fair_share_init(&fair, 3, weights);
    add_waiting(12, 1000);
    for (uint32_t i = 0; i < 12; i++)
        fixture.seqs[i].tenant = 1;
    struct admission_view v = view_of("omni");
    struct sched_seq c = ask(1000, 10, 5000, 50);
    c.tenant = 1;
    uint64_t takes = judge(&v, &c).ttft_ns;

    c = ask(1000, 10, takes / ms * 3 / 2, 50); /* two thirds of its time are used up */
    c.tenant = 1;
    for (uint32_t i = 0; i < 12; i++)
        fixture.seqs[i].first_due_ns = c.first_due_ns;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_FITS);
    v.tenants_active = 1u << 2;
    assert_int_equal(judge(&v, &c).reason, ADMISSION_SHARE);
    c.tenant = 2; /* goes before most of the other's */
    struct admission_verdict other = judge(&v, &c);
    assert_int_equal(other.reason, ADMISSION_FITS);
    assert_true(other.ttft_ns < takes / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_engine_takes_what_it_can_compute_in_time),
        cmocka_unit_test(blocks_are_counted_to_the_predicted_end),
        cmocka_unit_test(a_sweep_has_seats),
        cmocka_unit_test(the_admitted_are_not_made_late),
        cmocka_unit_test(slightly_late_ones_come_in_while_misses_are_left),
        cmocka_unit_test(admitted_work_is_in_time),
        cmocka_unit_test(the_hint_when_to_come_back_holds),
        cmocka_unit_test(sweeps_follow_deadlines_of_tokens),
        cmocka_unit_test(a_share_is_kept_for_whoever_is_active),
        cmocka_unit_test(time_to_the_first_token_is_shared_too),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
