/* bench_schedule.c - one sweep's decision with 64 latency-sensitive and 1,000 best-effort requests
 *
 *   bench_schedule [--json FILE] [--rounds N] [--limit-us N] [--admit-limit-us N]
 *
 * All policies, each over the same states: an 80-layer model whose dense time has 64 steps, 48
 * latency-sensitive decodes and 16 prompts, best effort waiting, on the device, in arenas and
 * moving in the shares of four loads.  Before each decision other memory is read, so that the state
 * comes from a cache that a sweep's host work has used meanwhile.  The last line is of `omni`:
 * median and 99th percentile over all loads.
 *
 * Admission: one more request beside 64 latency-sensitive ones, of which 0, 16 and 48 wait, and once
 * in such a hurry that the answer is a refusal with its hint.  admit_us is the median over all,
 * admit_p99_us the longest of their 99th percentiles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/sched/admission.h"
#include "tests/bench/median.h"
#include "tests/unit/sched_fixture.h"

enum {
    N_LS = 64,
    N_BE = 1000,
    N_LOADS = 4,
    ROUNDS_MAX = 100000,
    POLICIES_MAX = 16,
    TPOT_SLO_MS = 90
};

/* Of 100 best-effort requests: waiting, decoding on the device, in an arena; the rest moves. */
static const struct load {
    const char *name;
    uint32_t waiting, device, arena;
} loads[N_LOADS] = {
    {"backlog", 80, 10, 8},
    {"device", 5, 90, 3},
    {"workers", 10, 10, 78},
    {"mixed", 34, 33, 30},
};

struct bench {
    uint32_t rounds, limit_us, admit_limit_us;
    const char *json;
    struct sched_fixture fixture[N_LOADS];
    struct sched_decision decision;
    double *samples; /* [N_LOADS * rounds], microseconds */
    double median[POLICIES_MAX], p99[POLICIES_MAX];
    double admit_us, admit_p99_us;
};

/* ---- States ---------------------------------------------------------------------------------- */

static void add_latency_sensitive(struct sched_fixture *f)
{
    for (uint32_t i = 0; i < N_LS; i++) {
        bool prompt = i % 4 == 3;

        fixture_add(f, 0, prompt ? SCHED_WAITING : SCHED_DEVICE,
                    prompt ? 8 + fixture_below(f, 24) : 200 + fixture_below(f, 2000));
    }
}

static enum sched_place place_of(struct sched_fixture *f, const struct load *load)
{
    uint32_t at = fixture_below(f, 100);

    if (at < load->waiting)
        return SCHED_WAITING;
    if (at < load->waiting + load->device)
        return SCHED_DEVICE;
    return at < load->waiting + load->device + load->arena ? SCHED_ARENA : SCHED_LEAVING;
}

static void fill(struct sched_fixture *f, const struct load *load, uint64_t seed)
{
    fixture_roomy(f);
    f->random = seed;
    f->limits.two_batch = true;
    f->limits.n_blocks = f->state.n_free_blocks = 400000;
    f->limits.elsewhere_max = 8;
    f->limits.host_bytes_per_ns = 25;
    f->limits.be_starved_ns = NS_PER_S;
    f->workers[0].n_blocks = f->workers[0].n_free_blocks = 1000000;
    f->workers[0].n_free_slots = 2000;
    f->latency.n_layers = 80;
    add_latency_sensitive(f);
    for (uint32_t i = 0; i < N_BE; i++) {
        struct sched_seq *s =
            fixture_add(f, 1 + i % 2, place_of(f, load), 500 + fixture_below(f, 3000));

        s->worker = s->place == SCHED_LEAVING ? 1 : s->worker;
        s->in_slot = s->place == SCHED_ARENA && fixture_below(f, 2) == 0;
        s->last_run_ns = f->state.now_ns - fixture_below(f, 2000) * NS_PER_MS;
    }
    for (uint32_t i = 0; i < N_LS; i++)
        f->seqs[i].tpot_slo_ns = TPOT_SLO_MS * NS_PER_MS;
    f->state.n_copies = 2;
    f->state.returned_rows = 4;
    f->state.n_free_blocks = f->limits.n_blocks / 8;
}

/* ---- Measuring ------------------------------------------------------------------------------- */

/* Reads as much as fits a core's own caches. */
static void use_the_cache(void)
{
    static uint64_t other[256 * 1024 / sizeof(uint64_t)];
    volatile uint64_t *at = other;

    for (size_t i = 0; i < sizeof other / sizeof *other; i += 8)
        at[i]++;
}

static bool measure(struct bench *b, const struct sched_policy *policy, uint32_t at)
{
    uint32_t n = 0;

    for (uint32_t l = 0; l < N_LOADS; l++) {
        policy->decide(&b->fixture[l].state, &b->decision);
        const char *broken = sched_check(&b->fixture[l].state, &b->decision);
        if (broken != NULL) {
            fprintf(stderr, "%s, %s: %s\n", policy->name, loads[l].name, broken);
            return false;
        }
        double *first = &b->samples[n];
        for (uint32_t i = 0; i < b->rounds; i++) {
            use_the_cache();
            uint64_t start = clock_now_ns();
            policy->decide(&b->fixture[l].state, &b->decision);
            b->samples[n++] = (double)(clock_now_ns() - start) / 1e3;
        }
        printf("%-10s %-8s %9.1f %9.1f %6u %6u %6u\n", policy->name, loads[l].name,
               median_of(first, b->rounds), quantile_of(first, b->rounds, 0.99), b->decision.n_rows,
               b->decision.n_seqs, b->decision.n_enter);
    }
    b->median[at] = median_of(b->samples, n);
    b->p99[at] = quantile_of(b->samples, n, 0.99);
    return true;
}

/* ---- Admission ------------------------------------------------------------------------------- */

/* The mix of a chat service: prompts of 200 to 1,200 tokens, so many of the 64 still waiting. */
static void fill_ls(struct sched_fixture *f, struct objective_past *past, uint32_t n_waiting)
{
    fixture_roomy(f);
    f->latency.n_layers = 80;
    f->limits.n_blocks = f->state.n_free_blocks = 400000;
    for (uint32_t i = 0; i < N_LS; i++) {
        bool waits = i >= N_LS - n_waiting;
        struct sched_seq *s =
            fixture_add(f, 0, waits ? SCHED_WAITING : SCHED_DEVICE, 200 + fixture_below(f, 1000));

        s->tpot_slo_ns = TPOT_SLO_MS * NS_PER_MS;
        s->n_rest = 50 + fixture_below(f, 300);
        s->first_due_ns = f->state.now_ns + 4 * NS_PER_S;
        past[i] = (struct objective_past){.n_output = !waits,
                                          .first_ns = waits ? 0 : f->state.now_ns,
                                          .last_ns = waits ? 0 : f->state.now_ns};
    }
}

static void measure_admission(struct bench *b, struct admission_scratch *scratch)
{
    static const struct {
        uint32_t waiting, ttft_ms;
    } asked[] = {{0, 1000}, {16, 1000}, {48, 1000}, {48, 60}};
    static struct objective_past past[N_LS];
    struct fair_share fair = {.n = 1, .weight = {1}};
    struct admission_verdict verdict;
    struct sched_fixture *f = &b->fixture[0];
    uint32_t n = 0;

    printf("\n%-10s %-8s %9s %9s %6s %s\n", "admission", "waiting", "median us", "p99 us", "sweeps",
           "answer (0: admitted)");
    for (uint32_t l = 0; l < sizeof asked / sizeof *asked; l++) {
        fill_ls(f, past, asked[l].waiting);
        const struct admission_view view = {.policy = sched_policy_find("omni", NULL),
                                            .limits = &f->limits,
                                            .latency = &f->latency,
                                            .now_ns = f->state.now_ns,
                                            .seqs = f->seqs,
                                            .past = past,
                                            .n_seqs = f->state.n_seqs,
                                            .fair = &fair};
        const struct sched_seq candidate = {.place = SCHED_WAITING,
                                            .latency_sensitive = 1,
                                            .n_todo = 600,
                                            .n_rest = 200,
                                            .worker = SCHED_NONE,
                                            .arrival_ns = f->state.now_ns,
                                            .first_due_ns =
                                                f->state.now_ns + asked[l].ttft_ms * NS_PER_MS,
                                            .tpot_slo_ns = TPOT_SLO_MS * NS_PER_MS};
        double *first = &b->samples[n];
        for (uint32_t i = 0; i < b->rounds; i++) {
            use_the_cache();
            uint64_t start = clock_now_ns();
            admission_judge(&view, &candidate, scratch, &verdict);
            b->samples[n++] = (double)(clock_now_ns() - start) / 1e3;
        }
        double p99 = quantile_of(first, b->rounds, 0.99);
        b->admit_p99_us = p99 > b->admit_p99_us ? p99 : b->admit_p99_us;
        printf("%-10s %-8u %9.1f %9.1f %6u %d\n", "", asked[l].waiting, median_of(first, b->rounds),
               p99, scratch->n_steps, (int)verdict.reason);
    }
    b->admit_us = median_of(b->samples, n);
}

/* ---- Output ---------------------------------------------------------------------------------- */

static void write_series(FILE *f, const char *name, const double *values)
{
    const struct sched_policy *const *policies = sched_policies();

    fprintf(f, "{\"name\": \"%s\", \"x\": [", name);
    for (uint32_t i = 0; policies[i] != NULL; i++)
        fprintf(f, "%s\"%s\"", i > 0 ? ", " : "", policies[i]->name);
    fprintf(f, "], \"y\": [");
    for (uint32_t i = 0; policies[i] != NULL; i++)
        fprintf(f, "%s%.2f", i > 0 ? ", " : "", values[i]);
    fprintf(f, "]}");
}

static int write_json(const struct bench *b)
{
    FILE *f = fopen(b->json, "w");

    if (f == NULL) {
        perror(b->json);
        return 1;
    }
    fprintf(f,
            "{\"title\": \"One decision, %d latency-sensitive and %d best-effort requests\", "
            "\"x_label\": \"policy\", \"y_label\": \"microseconds\", \"log_x\": false, "
            "\"rounds\": %u, \"series\": [",
            N_LS, N_BE, b->rounds);
    write_series(f, "median", b->median);
    fprintf(f, ", ");
    write_series(f, "p99", b->p99);
    fprintf(f, "]}\n");
    return fclose(f) == 0 ? 0 : 1;
}

static void parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--json") == 0)
            b->json = argv[i + 1];
        else if (strcmp(argv[i], "--rounds") == 0)
            b->rounds = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--limit-us") == 0)
            b->limit_us = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--admit-limit-us") == 0)
            b->admit_limit_us = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    }
    if (b->rounds == 0 || b->rounds > ROUNDS_MAX)
        b->rounds = 2001;
}

static bool above(const char *what, double us, uint32_t limit_us)
{
    if (limit_us == 0 || us <= limit_us)
        return false;
    fprintf(stderr, "%s: the median is above %u us\n", what, limit_us);
    return true;
}

static int run(struct bench *b, struct admission_scratch *scratch)
{
    const struct sched_policy *const *policies = sched_policies();
    uint32_t omni = 0;

    for (uint32_t l = 0; l < N_LOADS; l++)
        fill(&b->fixture[l], &loads[l], l + 1);
    printf("%-10s %-8s %9s %9s %6s %6s %6s\n", "policy", "load", "median us", "p99 us", "rows",
           "seqs", "enter");
    for (uint32_t i = 0; policies[i] != NULL; i++) {
        if (!measure(b, policies[i], i))
            return 1;
        omni = strcmp(policies[i]->name, "omni") == 0 ? i : omni;
    }
    if (b->json != NULL && write_json(b) != 0)
        return 1;
    measure_admission(b, scratch);
    printf(
        "rounds=%u layers=80 decide_us=%.1f decide_p99_us=%.1f admit_us=%.1f admit_p99_us=%.1f\n",
        b->rounds, b->median[omni], b->p99[omni], b->admit_us, b->admit_p99_us);
    bool slow = above("decisions", b->median[omni], b->limit_us);
    return above("admission", b->admit_us, b->admit_limit_us) || slow;
}

int main(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof *b);
    struct admission_scratch scratch = {.n_steps = 0};
    int rc = 1;

    if (b == NULL)
        return 1;
    parse(b, argc, argv);
    /* The bounds that fixture_roomy sets are the same for all loads. */
    struct sched_limits limits = {.copies_max = 8, .returned_max = 64, .elsewhere_max = 8};
    b->samples = calloc((size_t)N_LOADS * b->rounds, sizeof *b->samples);
    if (sched_decision_init(&b->decision, FIXTURE_SEQS_MAX, &limits) == 0 &&
        admission_scratch_init(&scratch, N_LS, &limits) == 0 && b->samples != NULL)
        rc = run(b, &scratch);
    admission_scratch_fini(&scratch);
    sched_decision_fini(&b->decision);
    free(b->samples);
    free(b);
    return rc;
}
