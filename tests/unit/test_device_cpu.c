/* Exactness of the cpu device: what comes out of a position is a function of the model, the KV type
 * and the tokens before it, bit for bit.  Not of the other rows, the row's place, the chunks, the
 * threads, where attention ran and when its result came back, or whether it is computed again.
 *
 * The program is run once per instruction set (OMNI_ISA); it is skipped where the CPU lacks it. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_fixture.h"
#include "ref_model.h"

enum {
    N_PROMPT = 150, /* past the window of 64, and into the fifth block */
    N_OUTPUT = 12,
    N_MAX = N_PROMPT + N_OUTPUT + 1,
    EXIT_SKIPPED = 77,
    WAIT_MS = 1000,
};

static const struct device_sampling drawn = {
    .seed = 9, .temperature = 0.9f, .top_p = 0.95f, .min_p = 0.01f};

/* ---- The models ------------------------------------------------------------------------------ */

struct model_case {
    const char *name;
    struct model_random_options model;
    enum kv_type kv;
};

enum { CASE_UNIFORM, CASE_WINDOWS, CASE_EXPERTS, CASE_ALL, N_CASES };

static struct model_case cases[N_CASES];
static int first_case; /* in plain C, fifty times slower, the last one (all differences) must do */
static uint32_t row_step = 1;

/* Full attention and plain MLPs; then one difference after the other, then all of them. */
static void make_cases(void)
{
    static const char *const names[N_CASES] = {"uniform", "windows", "experts", "all"};
    static const enum kv_type kv[N_CASES] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_F32, KV_TYPE_F16};

    for (int c = 0; c < N_CASES; c++) {
        struct model_random_options o = model_random_defaults();

        for (uint32_t l = 0; l < o.n_layers; l++) {
            if (c == CASE_UNIFORM || c == CASE_EXPERTS) {
                o.windows[l] = 0;
                o.kv_heads[l] = 2;
            }
            if (c == CASE_UNIFORM || c == CASE_WINDOWS)
                o.experts[l] = false;
        }
        cases[c] = (struct model_case){.name = names[c], .model = o, .kv = kv[c]};
    }
}

static void open_case(struct device_fixture *f, const struct model_case *c, uint32_t n_groups,
                      uint32_t n_threads, uint32_t delay)
{
    const struct fixture_options o = {.model = &c->model,
                                      .kv = c->kv,
                                      .n_groups = n_groups,
                                      .n_threads = n_threads,
                                      .delay = delay};

    fixture_open(f, &o);
}

static void init_request(struct device_fixture *f, struct fixture_request *r)
{
    uint32_t prompt[N_PROMPT];

    fixture_prompt(f, 1, prompt, N_PROMPT);
    fixture_request_init(f, r, prompt, N_PROMPT, N_MAX);
    r->sampling = drawn;
}

/* The reference of a case: whole prompt in one chunk, then alone, one thread. */
static void make_reference(const struct model_case *c, struct fixture_request *r)
{
    static struct device_fixture f;

    open_case(&f, c, 1, 1, 0);
    init_request(&f, r);
    fixture_prefill(&f, r, N_PROMPT);
    fixture_decode(&f, r, N_OUTPUT);
    assert_int_equal(r->n_tokens, N_PROMPT + N_OUTPUT + 1);
    fixture_close(&f);
}

static struct device_fixture fixture; /* too large for the stack */
static struct fixture_request references[N_CASES], request;

/* ---- Rows ------------------------------------------------------------------------------------ */

/* One decode of the request as row `at` of n rows, the others in chunks before and behind it. */
static void check_row(const struct fixture_request *reference, uint32_t n, uint32_t at)
{
    uint32_t pos = N_PROMPT + 3;

    fixture_rewind(&request, pos, pos + 1);
    memset(request.hidden, 0, sizeof request.hidden);
    fixture_add_filler(&fixture, 0, at);
    fixture_add(&fixture, &request, 1);
    fixture_add_filler(&fixture, 1, n - 1 - at);
    fixture_sweep(&fixture);
    fixture_assert_equal(reference, &request, pos);
}

static void test_any_number_of_rows_and_any_place(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        open_case(&fixture, &cases[c], 1, 2, 0);
        init_request(&fixture, &request);
        fixture_prefill(&fixture, &request, N_PROMPT);
        fixture_decode(&fixture, &request, 4);
        for (uint32_t n = 1; n <= 64; n += row_step) {
            check_row(&references[c], n, 0);
            check_row(&references[c], n, n / 2);
            check_row(&references[c], n, n - 1);
        }
        for (uint32_t at = 0; at < 64; at += row_step)
            check_row(&references[c], 64, at);
        fixture_close(&fixture);
    }
}

/* Many sequences of one row: each has its own KV, and the head runs over several groups of rows. */
static void test_many_decodes_beside_each_other(void **state)
{
    (void)state;
    static struct fixture_request all[5];

    for (int c = first_case; c < N_CASES; c++) {
        open_case(&fixture, &cases[c], 1, 2, 0);
        for (uint32_t i = 0; i < 5; i++) {
            init_request(&fixture, &all[i]);
            fixture_prefill(&fixture, &all[i], N_PROMPT);
        }
        for (uint32_t step = 0; step < N_OUTPUT; step++) {
            for (uint32_t i = 0; i < 5; i++)
                fixture_add(&fixture, &all[(i + step) % 5], 1);
            fixture_add_filler(&fixture, 0, step);
            fixture_sweep(&fixture);
        }
        for (uint32_t i = 0; i < 5; i++)
            fixture_assert_equal(&references[c], &all[i], 0);
        fixture_close(&fixture);
    }
}

/* ---- Chunks, threads, again ------------------------------------------------------------------ */

static void check_chunks(int c, uint32_t chunk, uint32_t n_threads)
{
    open_case(&fixture, &cases[c], 1, n_threads, 0);
    init_request(&fixture, &request);
    fixture_prefill(&fixture, &request, chunk);
    fixture_decode(&fixture, &request, N_OUTPUT);
    fixture_assert_equal(&references[c], &request, 0);
    fixture_close(&fixture);
}

static void test_any_chunks(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_chunks(c, 1, 1);
        check_chunks(c, 7, 1);
        check_chunks(c, 64, 1);
    }
}

static void test_one_and_two_threads(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_chunks(c, N_PROMPT, 2);
        check_chunks(c, 7, 2);
    }
}

/* The KV of what was decoded is dropped and computed again as a prefill, in other blocks. */
static void test_decoded_or_prefilled_again(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 7, 64, N_MAX};
    static struct fixture_request again;

    for (int c = first_case; c < N_CASES; c++) {
        open_case(&fixture, &cases[c], 1, 2, 0);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            uint32_t n = N_PROMPT + N_OUTPUT / 2;

            fixture_request_init(&fixture, &again, references[c].tokens, n, N_MAX);
            again.sampling = drawn;
            fixture_prefill(&fixture, &again, chunks[i]);
            fixture_decode(&fixture, &again, N_OUTPUT - N_OUTPUT / 2);
            fixture_assert_equal(&references[c], &again, 0);
            fixture_request_fini(&fixture, &again);
        }
        fixture_close(&fixture);
    }
}

/* ---- Offloaded ------------------------------------------------------------------------------- */

/* Decodes half of the output with these groups in the arena, the rest back on the device. */
static void check_offloaded(int c, uint32_t n_groups, uint32_t groups, uint32_t delay)
{
    uint32_t n = N_OUTPUT / 2;

    open_case(&fixture, &cases[c], n_groups, 2, delay);
    init_request(&fixture, &request);
    fixture_prefill(&fixture, &request, 64);
    fixture_offload(&fixture, &request, 2, groups);
    fixture_decode(&fixture, &request, n);
    fixture_fetch(&fixture, &request);
    fixture_decode(&fixture, &request, N_OUTPUT - n);
    fixture_assert_equal(&references[c], &request, 0);
    /* One job per layer and token, each either back in time or not. */
    uint32_t n_layers = groups == (1U << n_groups) - 1 ? 6 : 3;
    assert_int_equal(request.n_ridden + request.n_parked, n * n_layers);
    if (delay == 0)
        assert_int_equal(request.n_parked, 0);
    else
        assert_true(request.n_parked > 0 && request.n_ridden > 0);
    fixture_close(&fixture);
}

static void test_offloaded_riding(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_offloaded(c, 1, 1, 0);
        check_offloaded(c, 2, 3, 0);
    }
}

static void test_offloaded_parked(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_offloaded(c, 1, 1, 3);
        check_offloaded(c, 1, 1, 20);
    }
}

static void test_half_of_the_layers_in_the_arena(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_offloaded(c, 2, 1, 0);
        check_offloaded(c, 2, 2, 0);
        check_offloaded(c, 2, 1, 4);
        check_offloaded(c, 2, 2, 4);
    }
}

/* ---- Many offloaded rows --------------------------------------------------------------------- */

static struct fixture_request crowd[FIXTURE_SLOTS];

/* How a crowd's sweeps are run. */
struct crowd_options {
    uint32_t n_groups, n_threads, delay;
    uint16_t p_max;
    bool two; /* common rows change between batch A and B, and entering ones too if halves */
    bool halves;
    bool waits;
};

/* Whoever is between two tokens enters, the next in turn first; true while somebody is not done.
 * entered[i]: position of the row that is in work, or was. */
static bool enter_crowd(uint32_t step, uint32_t entered[FIXTURE_SLOTS])
{
    bool busy = false;

    for (uint32_t k = 0; k < FIXTURE_SLOTS; k++) {
        uint32_t i = (k + step) % FIXTURE_SLOTS;
        struct fixture_request *r = &crowd[i];

        busy |= r->n_kv < N_PROMPT + N_OUTPUT;
        if (r->n_kv == entered[i] || r->n_kv == N_PROMPT + N_OUTPUT ||
            fixture.n_enters == FIXTURE_RETURNED)
            continue;
        entered[i] = r->n_kv;
        fixture_enter(&fixture, r);
    }
    return busy;
}

static void start_crowd(int c, const struct crowd_options *o)
{
    open_case(&fixture, &cases[c], o->n_groups, o->n_threads, o->delay);
    for (uint32_t l = 0; l < KV_LAYERS_MAX; l++)
        fixture.picks[l].p_max = o->p_max;
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++) {
        init_request(&fixture, &crowd[i]);
        fixture_prefill(&fixture, &crowd[i], N_PROMPT);
        fixture_offload(&fixture, &crowd[i], i, o->n_groups == 1 ? 1 : 1 + i % 3);
    }
    if (o->waits)
        fixture_wait(&fixture, WAIT_MS, UINT16_MAX, 1);
}

/* Common rows that fill the batch now and then, or batch A and B. */
static void add_fillers(const struct crowd_options *o, uint32_t step)
{
    bool full = step % (4 * row_step) == 3;

    fixture_add_filler(&fixture, 0, full ? FIXTURE_ROWS / 2 : step % 5);
    fixture_add_filler(&fixture, 1, full ? FIXTURE_ROWS / 2 : o->two ? step % 7 : 0);
    if (o->two)
        fixture.n_seqs_b = fixture.n_seqs < step % 3 ? fixture.n_seqs : step % 3;
    if (o->halves)
        fixture.n_enters_b = (fixture.n_enters + step % 2) / 2;
}

/* Each at a layer of its own, beside common rows; more of them return at a layer than it takes.
 * With two groups they also differ in what is in the arena, so that rows that stayed meet rows that
 * return. */
static void check_crowd(int c, const struct crowd_options *o)
{
    uint32_t entered[FIXTURE_SLOTS] = {0};
    uint32_t step = 0;

    start_crowd(c, o);
    for (; enter_crowd(step, entered); step++) {
        assert_true(step < 5000);
        add_fillers(o, step);
        fixture_sweep(&fixture);
    }
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++)
        fixture_assert_equal(&references[c], &crowd[i], 0);
    fixture_close(&fixture);
}

static void check_crowds(const struct crowd_options *all, size_t n)
{
    for (int c = first_case; c < N_CASES; c++) {
        for (size_t i = 0; i < n; i++)
            check_crowd(c, &all[i]);
    }
}

static void test_a_crowd_of_offloaded_rows(void **state)
{
    static const struct crowd_options all[] = {
        {.n_groups = 1, .n_threads = 2, .p_max = FIXTURE_RETURNED},
        {.n_groups = 1, .n_threads = 2, .p_max = FIXTURE_RETURNED, .delay = 5},
        {.n_groups = 1, .n_threads = 2, .p_max = 1, .delay = 5},
        {.n_groups = 2, .n_threads = 2, .p_max = FIXTURE_RETURNED, .delay = 5},
    };

    (void)state;
    check_crowds(all, sizeof all / sizeof *all);
}

/* ---- Two batches ----------------------------------------------------------------------------- */

static void test_a_crowd_beside_two_batches(void **state)
{
    static const struct crowd_options all[] = {
        {.n_groups = 1, .n_threads = 1, .p_max = FIXTURE_RETURNED, .two = true},
        {.n_groups = 1, .n_threads = 2, .p_max = 1, .delay = 5, .two = true},
        {.n_groups = 2, .n_threads = 2, .p_max = FIXTURE_RETURNED, .delay = 5, .two = true},
    };

    (void)state;
    check_crowds(all, sizeof all / sizeof *all);
}

static void test_a_crowd_in_two_batches(void **state)
{
    static const struct crowd_options all[] = {
        {.n_groups = 1, .n_threads = 2, .p_max = FIXTURE_RETURNED, .halves = true},
        {.n_groups = 1, .n_threads = 1, .p_max = 2, .delay = 5, .two = true, .halves = true},
        {.n_groups = 2, .n_threads = 2, .p_max = 3, .delay = 5, .two = true, .halves = true},
    };

    (void)state;
    check_crowds(all, sizeof all / sizeof *all);
}

static void test_a_crowd_that_is_waited_for(void **state)
{
    static const struct crowd_options all[] = {
        {.n_groups = 1, .n_threads = 2, .p_max = 2, .delay = 1, .waits = true},
        {.n_groups = 2,
         .n_threads = 1,
         .p_max = 4,
         .delay = 1,
         .two = true,
         .halves = true,
         .waits = true},
    };

    (void)state;
    check_crowds(all, sizeof all / sizeof *all);
}

/* Decodes as batch A, a prompt in chunks as batch B: neither knows of the other. */
static void check_chunks_beside_decodes(int c, uint32_t chunk, uint32_t n_threads)
{
    static struct fixture_request prompt;

    open_case(&fixture, &cases[c], 1, n_threads, 0);
    init_request(&fixture, &request);
    init_request(&fixture, &prompt);
    fixture_prefill(&fixture, &request, N_PROMPT);
    for (uint32_t i = 0; i < N_OUTPUT || prompt.n_kv < N_PROMPT; i++) {
        uint32_t left = N_PROMPT - prompt.n_kv;

        if (i < N_OUTPUT)
            fixture_add(&fixture, &request, 1);
        if (left > 0) {
            fixture_add(&fixture, &prompt, left < chunk ? left : chunk);
            fixture.n_seqs_b = 1;
        }
        fixture_sweep(&fixture);
    }
    fixture_decode(&fixture, &prompt, N_OUTPUT);
    fixture_assert_equal(&references[c], &request, 0);
    fixture_assert_equal(&references[c], &prompt, 0);
    fixture_close(&fixture);
}

static void test_chunks_beside_decodes(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_chunks_beside_decodes(c, 7, 1);
        check_chunks_beside_decodes(c, 64, 2);
    }
}

/* What batch B did lies in batch A's windows, and is told apart. */
static void test_the_log_of_two_batches(void **state)
{
    (void)state;
    open_case(&fixture, &cases[CASE_ALL], 1, 1, 0);
    init_request(&fixture, &request);
    fixture_prefill(&fixture, &request, N_PROMPT);
    for (uint32_t i = 0; i < 2; i++) {
        fixture_add(&fixture, &request, 1);
        fixture_add_filler(&fixture, 0, FIXTURE_ROWS / 2);
        fixture.n_seqs_b = i;
        fixture_sweep(&fixture);
        for (uint32_t l = 0; l < fixture.geometry.n_layers; l++) {
            const struct device_layer_log *log = &fixture.layers[l];

            assert_int_equal(log->b_waited_ns, 0);
            assert_true(i == 0 ? log->b_ns == 0 : log->b_ns > log->b_attention_ns);
            assert_true(log->proj_ns - log->jobs_ns >= log->b_ns);
            assert_true(i == 0 || log->b_attention_ns > 0);
        }
    }
    fixture_close(&fixture);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

static uint64_t waited_ns(void)
{
    uint64_t ns = 0;

    for (uint32_t l = 0; l < fixture.geometry.n_layers; l++)
        ns += fixture.layers[l].waited_ns;
    return ns;
}

/* One offloaded row enters; its results are hidden for up to so many looks. */
static void enter_one(uint32_t delay)
{
    open_case(&fixture, &cases[CASE_ALL], 1, 1, delay);
    init_request(&fixture, &request);
    fixture_prefill(&fixture, &request, N_PROMPT);
    fixture_offload(&fixture, &request, 0, 1);
    fixture_enter(&fixture, &request);
}

enum { NEVER_BACK = 1000000 };

/* With time enough all jobs ride, though none would without. */
static void test_a_wait_makes_rows_ride(void **state)
{
    (void)state;
    enter_one(6);
    fixture_wait(&fixture, 10 * WAIT_MS, 1, WAIT_MS);
    fixture_sweep(&fixture);
    assert_int_equal(request.n_kv, N_PROMPT + 1);
    assert_int_equal(request.n_ridden, fixture.geometry.n_layers);
    assert_int_equal(request.n_parked, 0);
    assert_true(waited_ns() > 0);
    fixture_assert_equal(&references[CASE_ALL], &request, 0);
    fixture_close(&fixture);
}

/* Bounds in time are asserted at five times their size. */
static void test_a_wait_ends_when_its_money_is_spent(void **state)
{
    (void)state;
    enter_one(NEVER_BACK);
    fixture_wait(&fixture, 6, 1, 5); /* on time until 10 ms */
    fixture_sweep(&fixture);
    assert_in_range(waited_ns(), 6 * NS_PER_MS, 5 * 6 * NS_PER_MS);
    fixture_close(&fixture);
}

static void test_nobody_waits_for_a_job_beyond_the_money(void **state)
{
    (void)state;
    enter_one(NEVER_BACK);
    fixture_wait(&fixture, 6, 1, 7);
    fixture_sweep(&fixture);
    assert_int_equal(waited_ns(), 0);
    fixture_close(&fixture);
}

/* Twice its prediction is waited for it once; then it is late, and costs no sweep anything; nor does
 * another job of that worker. */
static void test_nobody_waits_for_a_late_worker(void **state)
{
    static struct fixture_request other;

    (void)state;
    enter_one(NEVER_BACK);
    fixture_wait(&fixture, 1000, 1, 5);
    fixture_sweep(&fixture);
    assert_in_range(waited_ns(), 10 * NS_PER_MS, 5 * 10 * NS_PER_MS);
    init_request(&fixture, &other);
    fixture_prefill(&fixture, &other, N_PROMPT);
    fixture_offload(&fixture, &other, 1, 1);
    fixture_enter(&fixture, &other);
    for (uint32_t i = 0; i < 4; i++) {
        fixture_sweep(&fixture);
        assert_int_equal(waited_ns(), 0);
    }
    fixture_close(&fixture);
}

/* Nothing is known of the worker, or nothing is wanted. */
static void test_waits_are_asked_for(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        enter_one(NEVER_BACK);
        fixture_wait(&fixture, i == 0 ? 0 : 1000, i == 1 ? 0 : 1, i == 2 ? 0 : 5);
        fixture_sweep(&fixture);
        assert_int_equal(waited_ns(), 0);
        fixture_close(&fixture);
    }
}

/* ---- Two sweeps in flight -------------------------------------------------------------------- */

static struct device_seq one_row(const struct fixture_request *r, uint32_t pos,
                                 const uint32_t *token)
{
    return (struct device_seq){.n_rows = 1,
                               .pos = pos,
                               .tokens = token,
                               .tables = r->blocks,
                               .table_stride = FIXTURE_TABLE,
                               .sample = 1,
                               .sampling = drawn};
}

/* The second sweep's token is the first one's output, known to nobody when it is submitted. */
static void check_previous(int c)
{
    uint32_t pos = N_PROMPT, previous = DEVICE_TOKEN_PREVIOUS | 0;
    struct device_done done;

    open_case(&fixture, &cases[c], 1, 2, 0);
    init_request(&fixture, &request);
    fixture_prefill(&fixture, &request, N_PROMPT);
    for (uint32_t i = 0; i < 2; i++) {
        struct device_seq seq =
            one_row(&request, pos + i, i == 0 ? &request.tokens[pos] : &previous);
        struct device_sweep sweep = {.seq = fixture.n_sweeps + 1 + i,
                                     .p_total = UINT32_MAX,
                                     .batch = {{.n_seqs = 1, .seqs = &seq}},
                                     .pick = fixture.picks,
                                     .arrival_ns = fixture.arrivals};
        assert_int_equal(device_cpu.submit(fixture.device, &sweep), 0);
        if (i == 1)
            assert_int_equal(device_cpu.submit(fixture.device, &sweep), -EAGAIN);
    }
    device_cpu.sync(fixture.device);
    for (uint32_t i = 1; i <= 2; i++) {
        assert_int_equal(device_cpu.poll(fixture.device, &done), 1);
        assert_int_equal(done.n_out, 1);
        assert_int_equal(done.out[0].token, references[c].sampled[pos + i]);
        assert_memory_equal(&done.out[0].logprob, &references[c].logprob[pos + i], sizeof(float));
    }
    assert_int_equal(device_cpu.poll(fixture.device, &done), 0);
    fixture_close(&fixture);
}

static void test_a_token_of_the_sweep_before(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++)
        check_previous(c);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

static int try_seq(struct device_seq seq, uint32_t n)
{
    struct device_seq seqs[2] = {seq, seq};
    const struct device_sweep sweep = {.seq = fixture.n_sweeps + 1,
                                       .p_total = UINT32_MAX,
                                       .batch = {{.n_seqs = n, .seqs = seqs}},
                                       .pick = fixture.picks,
                                       .arrival_ns = fixture.arrivals};

    return device_cpu.submit(fixture.device, &sweep);
}

static void test_a_sweep_beyond_its_bounds_is_refused(void **state)
{
    (void)state;
    static uint32_t tokens[FIXTURE_ROWS + 1];

    open_case(&fixture, &cases[CASE_ALL], 1, 1, 0);
    init_request(&fixture, &request);
    struct device_seq ok = one_row(&request, 0, tokens), bad = ok;
    bad.n_rows = FIXTURE_ROWS + 1;
    assert_int_equal(try_seq(bad, 1), -EINVAL);
    bad.n_rows = FIXTURE_ROWS / 2 + 1;
    assert_int_equal(try_seq(bad, 2), -EINVAL);
    bad = ok;
    bad.n_rows = 0;
    assert_int_equal(try_seq(bad, 1), -EINVAL);
    bad = ok;
    bad.pos = FIXTURE_CONTEXT;
    assert_int_equal(try_seq(bad, 1), -EINVAL);
    bad = ok;
    bad.table_stride = 1;
    bad.pos = FIXTURE_BLOCK_TOKENS;
    assert_int_equal(try_seq(bad, 1), -EINVAL);
    bad = ok;
    bad.in_host = 1;
    assert_int_equal(try_seq(bad, 1), -ENOTSUP);
    bad = ok;
    bad.n_rows = FIXTURE_ROWS / 2 + 1;
    const struct device_sweep two_batches = {
        .seq = 1,
        .batch = {{.n_seqs = 1, .seqs = &bad}, {.n_seqs = 1, .seqs = &bad}},
        .pick = fixture.picks,
        .arrival_ns = fixture.arrivals};
    assert_int_equal(device_cpu.submit(fixture.device, &two_batches), -EINVAL);
    assert_int_equal(try_seq(ok, 1), 0);
    device_cpu.sync(fixture.device);
    fixture_close(&fixture);
}

/* ---- Against a plain forward pass ------------------------------------------------------------ */

/* KV in F32, as the reference keeps it.  Ours adds in fp32, it in double: over these six layers the
 * logits, of a spread of about 1, come within 1e-3. */
static void test_logits_agree_with_the_plain_reference(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        struct model_case f32 = cases[c];

        f32.kv = KV_TYPE_F32;
        open_case(&fixture, &f32, 1, 2, 0);
        init_request(&fixture, &request);
        struct ref_model *ref = ref_model_create(fixture.model, N_MAX);
        for (uint32_t pos = 0; pos < N_PROMPT; pos++) {
            const float *expected = ref_model_step(ref, request.tokens[pos]);

            fixture_rewind(&request, pos, pos + 1);
            fixture_decode(&fixture, &request, 1);
            fixture_rewind(&request, pos + 1, N_PROMPT);
            fixture_prompt(&fixture, 1, request.tokens, N_PROMPT);
            for (uint32_t i = 0; i < fixture.model->n_vocab; i++)
                assert_true(fabsf(expected[i] - fixture_logits(&fixture, 0)[i]) < 1e-3f);
        }
        ref_model_destroy(ref);
        fixture_close(&fixture);
    }
}

/* The tests compare with references; these must differ from each other, and the drawn text must
 * not be one token over and over. */
static void test_references_are_worth_comparing_with(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        uint32_t n_distinct = 0;

        for (uint32_t pos = N_PROMPT; pos < N_PROMPT + N_OUTPUT; pos++) {
            n_distinct += references[c].tokens[pos] != references[c].tokens[pos + 1];
            for (int other = first_case; other < c; other++)
                assert_true(references[c].hidden[pos] != references[other].hidden[pos]);
        }
        assert_true(n_distinct > N_OUTPUT / 2);
    }
}

static int setup(void **state)
{
    (void)state;
    make_cases();
    for (int c = first_case; c < N_CASES; c++)
        make_reference(&cases[c], &references[c]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_references_are_worth_comparing_with),
        cmocka_unit_test(test_any_number_of_rows_and_any_place),
        cmocka_unit_test(test_many_decodes_beside_each_other),
        cmocka_unit_test(test_any_chunks),
        cmocka_unit_test(test_one_and_two_threads),
        cmocka_unit_test(test_decoded_or_prefilled_again),
        cmocka_unit_test(test_offloaded_riding),
        cmocka_unit_test(test_offloaded_parked),
        cmocka_unit_test(test_half_of_the_layers_in_the_arena),
        cmocka_unit_test(test_a_crowd_of_offloaded_rows),
        cmocka_unit_test(test_a_crowd_beside_two_batches),
        cmocka_unit_test(test_a_crowd_in_two_batches),
        cmocka_unit_test(test_a_crowd_that_is_waited_for),
        cmocka_unit_test(test_chunks_beside_decodes),
        cmocka_unit_test(test_the_log_of_two_batches),
        cmocka_unit_test(test_a_wait_makes_rows_ride),
        cmocka_unit_test(test_a_wait_ends_when_its_money_is_spent),
        cmocka_unit_test(test_nobody_waits_for_a_job_beyond_the_money),
        cmocka_unit_test(test_nobody_waits_for_a_late_worker),
        cmocka_unit_test(test_waits_are_asked_for),
        cmocka_unit_test(test_a_token_of_the_sweep_before),
        cmocka_unit_test(test_a_sweep_beyond_its_bounds_is_refused),
        cmocka_unit_test(test_logits_agree_with_the_plain_reference),
    };
    enum isa isa;

    if (isa_detect(&isa) != 0)
        return EXIT_SKIPPED;
    if (isa == ISA_REF) {
        first_case = CASE_ALL;
        row_step = 9;
    }
    return cmocka_run_group_tests(tests, setup, NULL);
}
