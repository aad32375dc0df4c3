/* bench_rings.c - posting and taking back 1, 64 and 400 attention jobs between two processes
 *
 *   bench_rings [--json FILE] [--rounds N] [--cpus A,B] [--limit-us N]
 *
 * An engine's and a worker's process, each pinned on a core of its own, over a job table of
 * Llama-3-8B shape (32 heads, 8 KV heads, 128 wide, fp32 payload).  A round:
 *
 *   push  engine: posts n jobs (fields, state, hint) and rings the bell
 *   take  worker: takes all of them; back: completes all of them (times, state, done word, hint)
 *   pop   engine: takes the announcements off the ring, reads the done words, frees the slots
 *   touch worker: reads every slot and done word, so that the next push finds them shared
 *
 * The sides meet on a line of their own before each step, so a step begins when all that the other
 * side wrote lies in the other core's cache.  First without a byte of payload, then with it: the
 * copies in and out are timed apart, while the worker reads the input and writes the output. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/shm/job_engine.h"
#include "common/shm/job_worker.h"
#include "common/topology/topology.h"
#include "tests/bench/median.h"

enum {
    N_SLOTS = 400,
    N_COUNTS = 3,
    N_LAYERS = 32,
    ROUNDS_MAX = 100000,
    WARM_UP = 50,
    PINGS = 2000
};
static const uint32_t counts[N_COUNTS] = {1, 64, N_SLOTS};

enum step { PUSH, TAKE, BACK, POP, COPY_IN, COPY_OUT, N_STEPS };
static const char *const step_names[N_STEPS] = {"push", "take",    "back",
                                                "pop",  "copy in", "copy out"};

/* Where the two processes meet: each writes its own line. */
struct meeting {
    _Atomic uint64_t engine_at;
    uint8_t pad0[120];
    _Atomic uint64_t worker_at;
    uint8_t pad1[120];
    uint32_t n; /* of the round; 0 ends the worker; by the engine, before engine_at */
    bool with_payload;
    uint64_t take_ns, back_ns; /* by the worker, before worker_at */
};

struct bench {
    char dir[64];
    int cpus[2];
    uint32_t rounds;
    uint32_t limit_us; /* of the medians of 400 jobs; 0 = none */
    const char *json;
    struct kv_geometry geometry;
    struct engine_page page;
    struct job_table table; /* this process's side */
    struct meeting *meeting;
    uint64_t step_at; /* meetings so far */
    uint32_t generation[N_SLOTS];
    double *samples[N_STEPS]; /* [rounds], microseconds */
    double ping_ns;           /* a line there and back: what the machine charges for any of this */
    double median[N_COUNTS][N_STEPS], p99[N_COUNTS][N_STEPS];
    size_t in_bytes, out_bytes; /* payload of one job */
    uint8_t *local;             /* the engine's own memory, source and target of the copies */
};

/* ---- Meeting --------------------------------------------------------------------------------- */

static void wait_for(_Atomic uint64_t *at, uint64_t value)
{
    uint32_t spins = 0;

    while (atomic_load_explicit(at, memory_order_acquire) < value) {
        if (++spins % 4096 == 0) /* somebody else has our or the other's core */
            sched_yield();
        __builtin_ia32_pause();
    }
}

static void say(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_release);
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    invariant(sched_setaffinity(0, sizeof set, &set) == 0);
}

/* ---- Worker ---------------------------------------------------------------------------------- */

static void read_input(const struct bench *b, uint32_t slot)
{
    const uint64_t *in = job_table_q(&b->table, slot);
    volatile uint64_t sum = 0;

    for (size_t i = 0; i < b->in_bytes / sizeof *in; i += 8)
        sum += in[i];
}

static void worker_round(struct bench *b, uint32_t n, struct job *jobs)
{
    struct meeting *m = b->meeting;
    uint64_t start = clock_now_ns(), taken;

    for (uint32_t i = 0; i < n; i++)
        invariant(job_worker_next(&b->table, &jobs[i]));
    taken = clock_now_ns();
    m->take_ns = taken - start;
    for (uint32_t i = 0; i < n && m->with_payload; i++) {
        read_input(b, jobs[i].slot);
        memset(job_table_out(&b->table, jobs[i].slot), (int)i, b->out_bytes);
    }
    start = clock_now_ns();
    for (uint32_t i = 0; i < n; i++)
        invariant(job_worker_complete(&b->table, &jobs[i], start, start + 1, 0) == 0);
    m->back_ns = clock_now_ns() - start;
}

static void touch_all(const struct bench *b)
{
    volatile uint64_t sum = 0;

    for (uint32_t i = 0; i < N_SLOTS; i++) {
        sum += atomic_load_explicit(&b->table.slots[i].word, memory_order_acquire);
        sum += b->table.slots[i].end_ns;
        sum += atomic_load_explicit(&b->table.done[i], memory_order_acquire);
    }
}

static void worker_main(struct bench *b)
{
    static struct job jobs[N_SLOTS];
    struct meeting *m = b->meeting;
    struct engine_page page;
    struct error err;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(b->cpus[1]);
    invariant(engine_page_attach(&page, b->dir, 0, &err) == 0);
    invariant(job_table_attach(&b->table, b->dir, 0, 0, &page.shared->done_bell, &err) == 0);
    invariant(!job_worker_next(&b->table, jobs)); /* the scan of the attach ends */
    for (uint64_t at = 1; at <= PINGS; at++) {
        say(&m->worker_at, at);
        wait_for(&m->engine_at, at);
    }
    say(&m->worker_at, PINGS + 1);
    for (uint64_t at = PINGS + 1;; at += 2) {
        wait_for(&m->engine_at, at); /* posted */
        if (m->n == 0)
            break;
        worker_round(b, m->n, jobs);
        say(&m->worker_at, at + 1);
        wait_for(&m->engine_at, at + 1); /* taken back */
        touch_all(b);
        say(&m->worker_at, at + 2);
    }
    job_table_detach(&b->table);
    _exit(0);
}

/* ---- Engine ---------------------------------------------------------------------------------- */

static void push(struct bench *b, uint32_t n, uint32_t round)
{
    struct job_desc desc = {.seq_gen = 1, .n_q = 1, .layer = round % N_LAYERS, .sweep = round};

    desc.posted_ns = clock_now_ns();
    for (uint32_t i = 0; i < n; i++) {
        desc.seq_idx = i;
        desc.pos = 1000 + i;
        desc.ctx_len = desc.pos + 1;
        invariant(job_engine_post(&b->table, i, &desc, &b->generation[i]) == 0);
    }
    job_engine_flush(&b->table);
}

static void pop(struct bench *b, uint32_t n)
{
    uint32_t slots[N_SLOTS], n_done = 0;

    invariant(job_engine_poll(&b->table, slots, N_SLOTS) == n);
    for (uint32_t i = 0; i < n; i++)
        n_done += job_engine_done_generation(&b->table, i) == b->generation[i];
    invariant(n_done == n);
    for (uint32_t i = 0; i < n; i++)
        invariant(job_engine_take(&b->table, i, b->generation[i], NULL) == JOB_OK);
}

static void copy_in(struct bench *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(job_table_q(&b->table, i), b->local + i * b->in_bytes, b->in_bytes);
}

static void copy_out(struct bench *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(b->local + i * b->out_bytes, job_table_out(&b->table, i), b->out_bytes);
}

static double us_since(uint64_t start)
{
    return (double)(clock_now_ns() - start) / 1e3;
}

/* sample: where the round's times go, by step. */
static void engine_round(struct bench *b, uint32_t n, uint32_t round, bool with_payload,
                         double sample[N_STEPS])
{
    struct meeting *m = b->meeting;
    uint64_t start, at = ++b->step_at;

    m->n = n;
    m->with_payload = with_payload;
    start = clock_now_ns();
    if (with_payload)
        copy_in(b, n);
    sample[COPY_IN] = us_since(start);
    start = clock_now_ns();
    push(b, n, round);
    sample[PUSH] = us_since(start);
    say(&m->engine_at, at);
    wait_for(&m->worker_at, at + 1); /* completed */
    start = clock_now_ns();
    pop(b, n);
    sample[POP] = us_since(start);
    start = clock_now_ns();
    if (with_payload)
        copy_out(b, n);
    sample[COPY_OUT] = us_since(start);
    sample[TAKE] = (double)m->take_ns / 1e3;
    sample[BACK] = (double)m->back_ns / 1e3;
    b->step_at++;
    say(&m->engine_at, at + 1);
    wait_for(&m->worker_at, at + 2); /* touched */
}

static void measure_ping(struct bench *b)
{
    double *ns = b->samples[PUSH];
    uint32_t n = b->rounds < PINGS ? b->rounds : PINGS;

    wait_for(&b->meeting->worker_at, 1);
    for (uint64_t at = 1; at <= PINGS; at++) {
        uint64_t start = clock_now_ns();

        say(&b->meeting->engine_at, at);
        wait_for(&b->meeting->worker_at, at + 1);
        ns[at % n] = (double)(clock_now_ns() - start);
    }
    b->ping_ns = median_of(ns, n);
    b->step_at = PINGS;
}

static void run_rounds(struct bench *b, uint32_t c, bool with_payload)
{
    uint32_t rounds = with_payload ? b->rounds / 10 + 1 : b->rounds;
    double sample[N_STEPS];

    for (uint32_t r = 0; r < rounds + WARM_UP; r++) {
        engine_round(b, counts[c], r, with_payload, sample);
        for (enum step s = PUSH; r >= WARM_UP && s < N_STEPS; s++)
            b->samples[s][r - WARM_UP] = sample[s];
    }
    for (enum step s = with_payload ? COPY_IN : PUSH; s < (with_payload ? N_STEPS : COPY_IN); s++) {
        b->median[c][s] = median_of(b->samples[s], rounds);
        b->p99[c][s] = quantile_of(b->samples[s], rounds, 0.99);
    }
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static void make_geometry(struct kv_geometry *g)
{
    struct kv_layer_spec layers[N_LAYERS];
    const struct kv_geometry_config config = {
        .type = KV_TYPE_F16, .block_tokens = 32, .n_groups = 1, .n_ranks = 1, .model_hash = 1};
    const char *field;

    for (uint32_t i = 0; i < N_LAYERS; i++)
        layers[i] = (struct kv_layer_spec){.attention = KV_ATTENTION_FULL,
                                           .n_heads = 32,
                                           .n_kv_heads = 8,
                                           .dk = 128,
                                           .dv = 128,
                                           .scale = 0.088388f};
    invariant(geometry_init(g, &config, layers, N_LAYERS, &field) == 0);
}

static int open_engine(struct bench *b)
{
    const struct job_table_config config = {
        .n_slots = N_SLOTS, .n_q_max = 1, .element = JOB_ELEMENT_F32};
    const struct kv_layer *l = &b->geometry.layer[0];
    struct error err = {.text = ""};

    make_geometry(&b->geometry);
    snprintf(b->dir, sizeof b->dir, "/dev/shm/omni-bench-%d", (int)getpid());
    int rc = segment_dir_prepare(b->dir, &err);
    if (rc == 0)
        rc = engine_page_open(&b->page, b->dir, 0, &err);
    if (rc == 0)
        rc = job_table_open(&b->table, b->dir, 0, 0, &config, &b->geometry, SEGMENT_ANY_NODE, &err);
    if (rc != 0) {
        fprintf(stderr, "bench_rings: %s\n", err.text);
        return rc;
    }
    job_engine_raise_epoch(&b->table, 1);
    job_engine_free_all(&b->table);
    engine_page_enter(&b->page, 1, clock_now_ns());
    b->in_bytes = sizeof(float) * (kv_layer_q_width(l) + kv_layer_k_width(l) + kv_layer_v_width(l));
    b->out_bytes = sizeof(float) * kv_layer_out_width(l);
    return 0;
}

static void allocate(struct bench *b)
{
    b->meeting =
        mmap(NULL, sizeof *b->meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    invariant(b->meeting != MAP_FAILED);
    b->local = malloc(N_SLOTS * b->in_bytes);
    invariant(b->local != NULL);
    memset(b->local, 1, N_SLOTS * b->in_bytes);
    for (enum step s = PUSH; s < N_STEPS; s++) {
        b->samples[s] = malloc(b->rounds * sizeof(double));
        invariant(b->samples[s] != NULL);
    }
}

/* The first two cores that this process may use, unless --cpus named them. */
static bool choose_cpus(struct bench *b)
{
    struct topology t;
    struct error err;
    int n = 0;

    if (b->cpus[0] >= 0)
        return true;
    if (topology_load(&t, NULL, &err) != 0)
        return false;
    for (uint32_t node = 0; node < t.n_nodes; node++) {
        for (uint32_t i = 0; i < t.node[node].n_cores && n < 2; i++)
            b->cpus[n++] = t.node[node].core_cpu[i];
    }
    return n == 2;
}

/* ---- Report ---------------------------------------------------------------------------------- */

static double gb_per_s(const struct bench *b, uint32_t c, enum step s)
{
    size_t bytes = (s == COPY_IN ? b->in_bytes : b->out_bytes) * counts[c];

    return (double)bytes / b->median[c][s] / 1e3;
}

static void print_table(const struct bench *b)
{
    printf("a cache line there and back: %.0f ns\n", b->ping_ns);
    printf("indices, states and done words; microseconds, median (p99) of %u rounds\n", b->rounds);
    printf("%6s %18s %18s %18s %18s\n", "jobs", "push", "take", "back", "pop");
    for (uint32_t c = 0; c < N_COUNTS; c++) {
        printf("%6u", counts[c]);
        for (enum step s = PUSH; s <= POP; s++)
            printf(" %8.2f (%7.2f)", b->median[c][s], b->p99[c][s]);
        printf("\n");
    }
    printf("payload: %zu bytes in (q, k, v) and %zu bytes out per job, fp32\n", b->in_bytes,
           b->out_bytes);
    printf("%6s %14s %8s %14s %8s\n", "jobs", "copy in us", "GB/s", "copy out us", "GB/s");
    for (uint32_t c = 0; c < N_COUNTS; c++)
        printf("%6u %14.2f %8.2f %14.2f %8.2f\n", counts[c], b->median[c][COPY_IN],
               gb_per_s(b, c, COPY_IN), b->median[c][COPY_OUT], gb_per_s(b, c, COPY_OUT));
}

static int write_json(const struct bench *b)
{
    FILE *f = fopen(b->json, "w");

    if (f == NULL)
        return -errno;
    fprintf(f,
            "{\"title\": \"job table between two processes\", \"x_label\": \"jobs\", "
            "\"y_label\": \"microseconds, median\", \"log_x\": true, \"log_y\": true,\n"
            " \"rounds\": %u, \"ping_ns\": %.0f, \"cpus\": [%d, %d], \"in_bytes\": %zu, "
            "\"out_bytes\": %zu,\n"
            " \"series\": [",
            b->rounds, b->ping_ns, b->cpus[0], b->cpus[1], b->in_bytes, b->out_bytes);
    for (enum step s = PUSH; s < N_STEPS; s++)
        fprintf(f, "%s\n  {\"name\": \"%s\", \"x\": [%u, %u, %u], \"y\": [%.3f, %.3f, %.3f]}",
                s == PUSH ? "" : ",", step_names[s], counts[0], counts[1], counts[2],
                b->median[0][s], b->median[1][s], b->median[2][s]);
    fprintf(f, "]}\n");
    return fclose(f) == 0 ? 0 : -errno;
}

static bool set_option(struct bench *b, const char *name, const char *text)
{
    int n = atoi(text);

    if (strcmp(name, "--json") == 0) {
        b->json = text;
        return true;
    }
    if (strcmp(name, "--rounds") == 0) {
        b->rounds = (uint32_t)n;
        return n >= 11 && n <= ROUNDS_MAX;
    }
    if (strcmp(name, "--limit-us") == 0) {
        b->limit_us = (uint32_t)n;
        return n > 0;
    }
    return strcmp(name, "--cpus") == 0 && sscanf(text, "%d,%d", &b->cpus[0], &b->cpus[1]) == 2 &&
           b->cpus[0] >= 0 && b->cpus[1] >= 0 && b->cpus[0] != b->cpus[1];
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || !set_option(b, argv[i], argv[i + 1]))
            return false;
    }
    return true;
}

/* The last line; false: over the limit. */
static bool summary(const struct bench *b)
{
    const double *one = b->median[0], *some = b->median[1], *all = b->median[2];

    printf("push400_us=%.2f pop400_us=%.2f push64_us=%.2f pop64_us=%.2f push1_us=%.2f "
           "pop1_us=%.2f copy_in_gb_s=%.2f copy_out_gb_s=%.2f ping_ns=%.0f\n",
           all[PUSH], all[POP], some[PUSH], some[POP], one[PUSH], one[POP], gb_per_s(b, 2, COPY_IN),
           gb_per_s(b, 2, COPY_OUT), b->ping_ns);
    return b->limit_us == 0 || (all[PUSH] <= b->limit_us && all[POP] <= b->limit_us);
}

static void close_all(struct bench *b)
{
    struct error err;
    uint32_t n_removed, n_busy;

    job_table_detach(&b->table);
    engine_page_detach(&b->page);
    segment_unlink_stale(b->dir, &n_removed, &n_busy, &err);
    munmap(b->meeting, sizeof *b->meeting);
    free(b->local);
    for (enum step s = PUSH; s < N_STEPS; s++)
        free(b->samples[s]);
}

static int measure(struct bench *b)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0)
        worker_main(b);
    pin(b->cpus[0]);
    measure_ping(b);
    for (uint32_t c = 0; c < N_COUNTS; c++) {
        run_rounds(b, c, false);
        run_rounds(b, c, true);
    }
    b->meeting->n = 0;
    say(&b->meeting->engine_at, b->step_at + 1);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int main(int argc, char **argv)
{
    static struct bench b = {.cpus = {-1, -1}, .rounds = 2001};

    b.page.segment = SEGMENT_NONE;
    b.table = JOB_TABLE_NONE;
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "usage: bench_rings [--json FILE] [--rounds 11..%d] [--cpus A,B] [--limit-us N]\n",
                ROUNDS_MAX);
        return 2;
    }
    if (!choose_cpus(&b)) {
        fprintf(stderr, "bench_rings: two cores are needed\n");
        return 77;
    }
    if (open_engine(&b) != 0)
        return 1;
    allocate(&b);
    printf("engine on cpu %d, worker on cpu %d; %u slots\n", b.cpus[0], b.cpus[1],
           (unsigned)N_SLOTS);
    int rc = measure(&b);
    if (rc == 0) {
        print_table(&b);
        if (b.json != NULL && write_json(&b) != 0)
            fprintf(stderr, "cannot write %s\n", b.json);
        if (!summary(&b))
            rc = -ETIME;
    }
    close_all(&b);
    return rc == 0 ? 0 : 1;
}
