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

static void start_crowd(int c, uint32_t n_groups, uint32_t delay, uint16_t p_max)
{
    open_case(&fixture, &cases[c], n_groups, 2, delay);
    for (uint32_t l = 0; l < KV_LAYERS_MAX; l++)
        fixture.picks[l].p_max = p_max;
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++) {
        init_request(&fixture, &crowd[i]);
        fixture_prefill(&fixture, &crowd[i], N_PROMPT);
        fixture_offload(&fixture, &crowd[i], i, n_groups == 1 ? 1 : 1 + i % 3);
    }
}

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

/* Each at a layer of its own, beside common rows that fill the batch now and then; more of them
 * return at a layer than it takes.  With two groups they also differ in what is in the arena, so
 * that rows that stayed meet rows that return. */
static void check_crowd(int c, uint32_t n_groups, uint32_t delay, uint16_t p_max)
{
    uint32_t entered[FIXTURE_SLOTS] = {0};
    uint32_t step = 0;

    start_crowd(c, n_groups, delay, p_max);
    for (; enter_crowd(step, entered); step++) {
        assert_true(step < 5000);
        bool full = step % (4 * row_step) == 3;
        fixture_add_filler(&fixture, 0, full ? FIXTURE_ROWS / 2 : step % 5);
        fixture_add_filler(&fixture, 1, full ? FIXTURE_ROWS / 2 : 0);
        fixture_sweep(&fixture);
    }
    for (uint32_t i = 0; i < FIXTURE_SLOTS; i++)
        fixture_assert_equal(&references[c], &crowd[i], 0);
    fixture_close(&fixture);
}

static void test_a_crowd_of_offloaded_rows(void **state)
{
    (void)state;
    for (int c = first_case; c < N_CASES; c++) {
        check_crowd(c, 1, 0, FIXTURE_RETURNED);
        check_crowd(c, 1, 5, FIXTURE_RETURNED);
        check_crowd(c, 1, 5, 1);
        check_crowd(c, 2, 5, FIXTURE_RETURNED);
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
    const struct device_sweep two_batches = {.seq = 1,
                                             .batch = {{.n_seqs = 0}, {.n_seqs = 1, .seqs = &ok}},
                                             .pick = fixture.picks,
                                             .arrival_ns = fixture.arrivals};
    assert_int_equal(device_cpu.submit(fixture.device, &two_batches), -ENOTSUP);
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
