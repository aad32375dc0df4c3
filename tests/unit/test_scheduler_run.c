/* Scheduler, sweep after sweep: a toy group carries decisions out in virtual time, each sweep
 * taking what was predicted.  Not a simulator (the device `sim` is): it shows that nothing
 * deadlocks, that copies do not thrash, and that objectives hold while predictions do. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "tests/unit/sched_fixture.h"

enum { N_LAYERS = 32, COPY_MS = 5, ELSEWHERE_MS = 20000, SWEEPS_MAX = 60000, IDS_MAX = 512 };
static const uint64_t ms = 1000000;

/* What the toy knows of a sequence beyond its sched_seq; by id. */
struct side {
    uint64_t ready_ns; /* end of its copy, or of its stay elsewhere */
    uint32_t layer;
    uint32_t n_moves;
    bool done;
};

struct toy {
    struct sched_fixture f;
    struct side side[IDS_MAX];
    struct sched_decision decision;
    const struct sched_policy *policy;
    uint32_t n_ids, n_done, n_sweeps;
    uint32_t n_ls_gaps, n_ls_late; /* gaps, and those above the objective */
    uint32_t n_late_first;         /* first tokens after their due time */
    uint64_t be_tokens, worker_tokens;
    uint64_t longest_passed_ns; /* best effort on the device without rows */
};

static struct toy toy;

/* ---- What happens to a sequence -------------------------------------------------------------- */

static void drop_blocks(struct sched_seq *s)
{
    toy.f.state.n_free_blocks += s->n_blocks * toy.f.limits.n_groups;
    s->n_blocks = s->n_freed = 0;
}

static void drop_arena(struct sched_seq *s)
{
    struct sched_worker *w = &toy.f.workers[s->worker];

    w->n_free_blocks += sched_promise(&toy.f.limits, s);
    w->n_free_slots++;
    s->worker = SCHED_NONE;
}

static void grow(struct sched_seq *s, uint32_t n_tokens)
{
    uint32_t n = sched_growth(&toy.f.limits, s, n_tokens);

    assert_true(n <= toy.f.state.n_free_blocks);
    toy.f.state.n_free_blocks -= n;
    s->n_blocks += n / toy.f.limits.n_groups;
    s->n_freed = s->n_blocks * toy.f.limits.n_groups;
}

static void finish(struct sched_seq *s)
{
    toy.side[s->id].done = true;
    toy.n_done++;
}

/* The promise of an arena does not change with a token: one more is known, one less may come. */
static void token(struct sched_seq *s, bool on_worker)
{
    uint64_t now = toy.f.state.now_ns;

    toy.be_tokens += !s->latency_sensitive;
    toy.worker_tokens += on_worker;
    if (s->latency_sensitive && s->last_token_ns != 0) {
        toy.n_ls_gaps++;
        toy.n_ls_late += now - s->last_token_ns > s->tpot_slo_ns;
    } else if (s->latency_sensitive) {
        toy.n_late_first += now > s->first_due_ns;
    }
    s->last_token_ns = now;
    s->n_todo = 1;
    s->has_output = 1;
    s->n_rest--;
    if (s->n_rest == 0)
        finish(s);
}

/* ---- Carrying a decision out ----------------------------------------------------------------- */

static void carry_out_moves(const struct sched_decision *d)
{
    struct sched_seq *seqs = toy.f.seqs;

    for (uint32_t i = 0; i < d->n_yield; i++) {
        struct sched_seq *s = &seqs[d->yield[i]];
        drop_blocks(s);
        s->n_todo += s->n_kv;
        s->n_kv = 0;
        s->place = SCHED_WAITING;
    }
    for (uint32_t i = 0; i < d->n_in; i++) {
        struct sched_seq *s = &seqs[d->in[i]];
        grow(s, s->n_kv + s->n_todo);
        toy.f.workers[s->worker].n_resident--;
        s->place = SCHED_RETURNING;
        toy.side[s->id].ready_ns = toy.f.state.now_ns + COPY_MS * ms;
        toy.f.state.n_copies++;
    }
    for (uint32_t i = 0; i < d->n_out; i++) {
        struct sched_seq *s = &seqs[d->out[i].seq];
        s->worker = d->out[i].worker;
        toy.f.workers[s->worker].n_free_blocks -= sched_promise(&toy.f.limits, s);
        toy.f.workers[s->worker].n_free_slots--;
        s->place = SCHED_LEAVING;
        toy.side[s->id].ready_ns = toy.f.state.now_ns + COPY_MS * ms;
        toy.f.state.n_copies++;
    }
}

static void carry_out_entries(const struct sched_decision *d)
{
    for (uint32_t i = 0; i < d->n_enter; i++) {
        struct sched_seq *s = &toy.f.seqs[d->enter[i]];
        s->in_slot = 1;
        s->last_run_ns = toy.f.state.now_ns;
        toy.side[s->id].layer = 0;
    }
    for (uint32_t i = 0; i < d->n_elsewhere; i++) {
        struct sched_seq *s = &toy.f.seqs[d->elsewhere[i]];
        s->place = SCHED_ELSEWHERE;
        toy.side[s->id].ready_ns = toy.f.state.now_ns + ELSEWHERE_MS * ms;
    }
}

static void take_rows(const struct sched_decision *d)
{
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct sched_seq *s = &toy.f.seqs[d->rows[i].seq];

        if (s->place == SCHED_ARENA)
            continue;
        if (s->place == SCHED_WAITING)
            grow(s, s->latency_sensitive ? d->rows[i].n_rows : s->n_todo + 1);
        s->place = SCHED_DEVICE;
        grow(s, s->n_kv + d->rows[i].n_rows);
    }
}

static void end_rows(const struct sched_decision *d)
{
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct sched_seq *s = &toy.f.seqs[d->rows[i].seq];

        s->n_kv += d->rows[i].n_rows;
        s->n_todo -= d->rows[i].n_rows;
        s->last_run_ns = toy.f.state.now_ns;
        if (s->n_todo == 0)
            token(s, s->place == SCHED_ARENA);
    }
}

/* Offloaded rows: one layer per sweep, two where they may ride. */
static void advance_workers(const struct sched_decision *d)
{
    uint32_t layers = d->want == UINT32_MAX ? N_LAYERS : d->ride ? 2 : 1;

    for (uint32_t i = 0; i < toy.f.state.n_seqs; i++) {
        struct sched_seq *s = &toy.f.seqs[i];

        if (s->place != SCHED_ARENA || !s->in_slot)
            continue;
        toy.side[s->id].layer += layers;
        if (toy.side[s->id].layer < N_LAYERS)
            continue;
        s->in_slot = 0;
        s->n_kv++;
        token(s, true);
    }
}

static void end_copies(void)
{
    for (uint32_t i = 0; i < toy.f.state.n_seqs; i++) {
        struct sched_seq *s = &toy.f.seqs[i];
        struct side *side = &toy.side[s->id];

        if (toy.f.state.now_ns < side->ready_ns)
            continue;
        if (s->place == SCHED_LEAVING) {
            drop_blocks(s);
            s->place = SCHED_ARENA;
            toy.f.workers[s->worker].n_resident++;
        } else if (s->place == SCHED_RETURNING) {
            drop_arena(s);
            s->place = SCHED_DEVICE;
        } else {
            if (s->place == SCHED_ELSEWHERE)
                finish(s);
            continue;
        }
        side->n_moves++;
        s->last_move_ns = s->last_run_ns = toy.f.state.now_ns;
        toy.f.state.n_copies--;
    }
}

/* Takes finished ones out of the array; their memory goes back. */
static void forget_finished(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < toy.f.state.n_seqs; i++) {
        struct sched_seq *s = &toy.f.seqs[i];

        if (!toy.side[s->id].done) {
            toy.f.seqs[n++] = *s;
            continue;
        }
        if (s->place == SCHED_ARENA)
            toy.f.workers[s->worker].n_resident--;
        if (s->place == SCHED_ARENA)
            drop_arena(s);
        drop_blocks(s);
    }
    toy.f.state.n_seqs = n;
}

static void note_passed(void)
{
    for (uint32_t i = 0; i < toy.f.state.n_seqs; i++) {
        const struct sched_seq *s = &toy.f.seqs[i];
        uint64_t passed = toy.f.state.now_ns - s->last_run_ns;

        if (!s->latency_sensitive && s->place == SCHED_DEVICE && passed > toy.longest_passed_ns)
            toy.longest_passed_ns = passed;
    }
}

static void sweep(void)
{
    struct sched_decision *d = &toy.decision;

    toy.policy->decide(&toy.f.state, d);
    const char *broken = sched_check(&toy.f.state, d);
    if (broken != NULL)
        fail_msg("%s, sweep %u: %s", toy.policy->name, toy.n_sweeps, broken);
    carry_out_moves(d);
    take_rows(d);
    carry_out_entries(d);
    toy.f.state.now_ns += d->predicted_ns > ms / 10 ? d->predicted_ns : ms / 10;
    end_rows(d);
    advance_workers(d);
    end_copies();
    forget_finished();
    note_passed();
    toy.f.state.be_starved = d->be_starved;
    toy.f.state.be_stuck = d->be_stuck;
    toy.n_sweeps++;
}

/* ---- Loads ----------------------------------------------------------------------------------- */

static void begin(const struct sched_policy *policy, uint32_t n_blocks)
{
    struct sched_decision kept = toy.decision;

    memset(&toy, 0, sizeof toy);
    fixture_roomy(&toy.f);
    toy.decision = kept;
    toy.policy = policy;
    toy.f.limits.n_blocks = toy.f.state.n_free_blocks = n_blocks;
    toy.f.limits.be_starved_ns = 2000 * ms;
    toy.f.limits.be_settle_ns = 100 * ms;
    toy.f.limits.two_batch = true;
    toy.f.limits.host_bytes_per_ns = 25;
}

static void arrive(uint32_t class_idx, uint32_t n_prompt, uint32_t n_rest)
{
    struct sched_seq *s = fixture_add(&toy.f, class_idx, SCHED_WAITING, n_prompt);

    s->id = toy.n_ids++;
    s->n_rest = n_rest;
    s->arrival_ns = s->last_run_ns = toy.f.state.now_ns;
    s->first_due_ns = class_idx == 0 ? toy.f.state.now_ns + 500 * ms : 0;
}

/* Chats of 160 + 40 tokens beside n_be prompts of 1,500 + 60; ends when all have ended. */
static void run(uint32_t n_ls, uint64_t every_ns, uint32_t n_be)
{
    uint64_t next_ns = toy.f.state.now_ns;
    uint32_t n_arrived = 0, n_all = n_ls + n_be;

    for (uint32_t i = 0; i < n_be; i++)
        arrive(1 + i % 2, 1500, 60);
    while (toy.n_done < n_all) {
        for (; n_arrived < n_ls && toy.f.state.now_ns >= next_ns; next_ns += every_ns) {
            arrive(0, 160, 40);
            n_arrived++;
        }
        sweep();
        if (toy.n_sweeps == SWEEPS_MAX)
            fail_msg("%s: %u of %u ended, %u blocks free", toy.policy->name, toy.n_done, n_all,
                     toy.f.state.n_free_blocks);
    }
    assert_int_equal(toy.f.state.n_free_blocks, toy.f.limits.n_blocks);
}

static bool keeps_objectives(const struct sched_policy *p)
{
    static const char *const names[] = {"omni", "paper", "harvest", "stream"};

    for (uint32_t i = 0; i < 4; i++) {
        if (strcmp(p->name, names[i]) == 0)
            return true;
    }
    return false;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void report(const char *load)
{
    print_message("%-8s %-9s %6.1f s, %5u sweeps, best effort %6.1f tokens/s, %4.1f %% on workers, "
                  "late gaps %u of %u, late first %u, passed over %llu ms\n",
                  load, toy.policy->name,
                  (double)(toy.f.state.now_ns - UINT64_C(1000000) * ms) / 1e9, toy.n_sweeps,
                  (double)toy.be_tokens * 1e9 /
                      (double)(toy.f.state.now_ns - UINT64_C(1000000) * ms),
                  toy.be_tokens > 0 ? 100.0 * (double)toy.worker_tokens / (double)toy.be_tokens : 0,
                  toy.n_ls_late, toy.n_ls_gaps, toy.n_late_first,
                  (unsigned long long)(toy.longest_passed_ns / ms));
}

static void check_objectives(void)
{
    if (!keeps_objectives(toy.policy))
        return;
    if (toy.n_ls_late > 0 || toy.n_late_first > 0)
        fail_msg("%s: %u of %u gaps late, %u first tokens", toy.policy->name, toy.n_ls_late,
                 toy.n_ls_gaps, toy.n_late_first);
}

static void test_all_ends_with_little_device_memory(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        begin(policies[i], 500); /* five best-effort requests, or forty chats */
        run(60, 60 * ms, 30);
        report("short");
        check_objectives();
    }
}

static void test_all_ends_with_much_device_memory(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        begin(policies[i], 8000);
        run(60, 60 * ms, 40);
        report("roomy");
        check_objectives();
    }
}

static void test_all_ends_without_workers(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        begin(policies[i], 350);
        toy.f.limits.n_workers = 0;
        run(30, 100 * ms, 12);
        report("alone");
        check_objectives();
    }
}

static void test_best_effort_alone(void **state)
{
    (void)state;
    const struct sched_policy *const *policies = sched_policies();

    for (uint32_t i = 0; policies[i] != NULL; i++) {
        begin(policies[i], 500);
        run(0, ms, 30);
        report("be only");
    }
}

/* A sequence that came back stays: settled, and with room. */
static void test_copies_do_not_thrash(void **state)
{
    (void)state;
    const struct sched_policy *omni = sched_policy_find("omni", NULL);

    begin(omni, 500);
    run(60, 60 * ms, 30);
    for (uint32_t id = 0; id < toy.n_ids; id++)
        assert_true(toy.side[id].n_moves <= 4);
}

static int set_up(void **state)
{
    (void)state;
    struct sched_limits largest = {.copies_max = 8, .returned_max = 64, .elsewhere_max = 4};

    return sched_decision_init(&toy.decision, FIXTURE_SEQS_MAX, &largest);
}

static int tear_down(void **state)
{
    (void)state;
    sched_decision_fini(&toy.decision);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ends_with_little_device_memory),
        cmocka_unit_test(test_all_ends_with_much_device_memory),
        cmocka_unit_test(test_all_ends_without_workers),
        cmocka_unit_test(test_best_effort_alone),
        cmocka_unit_test(test_copies_do_not_thrash),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
