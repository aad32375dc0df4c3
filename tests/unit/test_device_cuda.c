/* The CUDA device against the cpu device, without a GPU: its host side over the stand-in for CUDA's
 * runtime, its kernels as fibers (tests/gpu/shim), a worker of cpu-attnd's as a thread.
 *
 * TOLERANCE.  The two differ in roundings alone: weights are the same f16 numbers, KV is rounded to f16
 * on both, and the cpu device keeps rows in f32 where the GPU rounds them to f16 (2^-11): five times a
 * layer (q, k, v; attention; y; norm; MLP) and at the head.  Errors of that size in a residual of size
 * one, spread over a row, come out of the head as they went in: each logit is off by about
 * sqrt(5 layers) * 2^-11 times its spread.  Logits of these models spread by about 4, so 0.01 for a
 * model of 3 layers; the log-probability of a token differs by at most twice the largest of that, taken
 * three times for the tail.  Tokens must be equal wherever the reference is sure by more than twice the
 * tolerance, and it must be sure of three quarters. */
#include "cuda_rig.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "gpu-engine/device/cuda/device_cuda.h"
#include "tests/gpu/shim/runtime.h"
#include "tests/gpu/shim/shim.h"

enum { N_PROMPT = 45, N_OUTPUT = 8, N_ALL = N_PROMPT + N_OUTPUT, N_REFS = 4 };

static const float tolerance = 0.06f;

static struct rig reference_rig, rig;
static struct rig_seq references[N_REFS];
static struct model_random_options options;

/* ---- The reference ------------------------------------------------------------------------------- */

static void make_options(void)
{
    options = model_random_defaults();
    options.n_layers = 3;
    options.n_embd = 128;
    options.n_heads = 4;
    options.k_width = options.v_width = 64;
    options.n_ff = 96;
    options.n_sinks = 0;
    options.mixed = false;
    options.type = options.embd_type = WEIGHT_F16;
    for (uint32_t l = 0; l < options.n_layers; l++) {
        options.kv_heads[l] = l == 1 ? 1 : 2;
        options.windows[l] = l == 1 ? 33 : 0;
        options.experts[l] = false;
    }
}

static struct rig_options rig_options_of(const struct device_ops *ops, bool offloads)
{
    return (struct rig_options){
        .ops = ops, .model = &options, .kv = KV_TYPE_F16, .offloads = offloads};
}

/* Its last one has penalties, a bias, and a token that may not come yet. */
enum { ADJUSTED = N_REFS - 1 };

static const struct device_bias bias = {.token = 77, .bias = 40};
static const uint32_t stop = 77;

static void set_adjust(struct rig_seq *s)
{
    s->adjusts = true;
    s->adjust.repetition = 1.7f;
    s->adjust.presence = 0.5f;
    s->adjust.frequency = 0.25f;
    s->adjust.n_prompt = N_PROMPT;
    s->adjust.biases = &bias;
    s->adjust.n_biases = 1;
    s->adjust.min_tokens = 3;
    s->adjust.stops = &stop;
    s->adjust.n_stops = 1;
}

/* Each decodes alone; what it draws is what all devices are given. */
static void make_references(void)
{
    const struct rig_options o = rig_options_of(&device_cpu, false);
    uint32_t prompt[N_PROMPT];

    rig_open(&reference_rig, &o);
    for (uint32_t i = 0; i < N_REFS; i++) {
        struct rig_seq *s = &references[i];

        rig_prompt(&reference_rig, i, prompt, N_PROMPT);
        rig_seq_init(&reference_rig, s, prompt, N_PROMPT);
        if (i == ADJUSTED)
            set_adjust(s);
        rig_prefill(&reference_rig, s, N_PROMPT, N_PROMPT);
        while (s->n_tokens < N_ALL) {
            s->tokens[s->n_tokens] = s->answers[s->n_tokens].token;
            s->n_tokens++;
            rig_add(&reference_rig, s, 1);
            rig_sweep(&reference_rig);
        }
    }
    rig_close(&reference_rig);
}

/* ---- Comparing ----------------------------------------------------------------------------------- */

static float worst;
static uint32_t n_compared, n_sure;

static void compare_top(const struct rig_answer *got, const struct rig_answer *want, bool sure)
{
    assert_true(got->n_top == 0 || got->n_top == want->n_top);
    for (uint32_t i = 0; i < got->n_top; i++)
        assert_true(fabsf(got->top[i].logprob - want->top[i].logprob) <= tolerance);
    if (got->n_top > 0 && sure)
        assert_int_equal(got->top[0].token, want->top[0].token);
}

static void compare(const struct rig_seq *s, const struct rig_seq *reference, uint32_t from)
{
    for (uint32_t pos = from; pos <= s->n_kv; pos++) {
        const struct rig_answer *got = &s->answers[pos], *want = &reference->answers[pos];
        float margin = want->top[0].logprob - want->top[1].logprob;
        bool sure = margin > 2 * tolerance;

        if (!got->is_there || !want->is_there)
            continue;
        compare_top(got, want, sure);
        n_compared++;
        n_sure += sure;
        if (sure && got->token != want->token)
            fail_msg("position %u: token %u, expected %u, which is ahead by %g", pos, got->token,
                     want->token, (double)margin);
        if (got->token != want->token)
            continue;
        float error = fabsf(got->logprob - want->logprob);
        worst = error > worst ? error : worst;
        if (!(error <= tolerance))
            fail_msg("position %u: log-probability %g, expected %g", pos, (double)got->logprob,
                     (double)want->logprob);
    }
}

static void compare_begin(void)
{
    worst = 0;
    n_compared = n_sure = 0;
}

static void compare_end(uint32_t n_expected)
{
    print_message("%u tokens, %u sure; worst log-probability %.4f of %.4f\n", n_compared, n_sure,
                  (double)worst, (double)tolerance);
    assert_int_equal(n_compared, n_expected);
    assert_true(n_sure * 4 >= n_compared * 3);
    assert_string_equal(shim_runtime_error(), "");
}

static void open_cuda(uint32_t seed, bool offloads)
{
    const struct rig_options o = rig_options_of(&device_cuda, offloads);

    shim_runtime_reset(seed, 1);
    shim_set_schedule((struct shim_schedule){
        .order = seed % SHIM_ORDERS, .landing = seed / SHIM_ORDERS % SHIM_LANDINGS, .seed = seed});
    rig_open(&rig, &o);
}

/* Nothing of CUDA's is left over. */
static void close_cuda(void)
{
    rig_close(&rig);
    assert_int_equal(shim_runtime_n_live(), 0);
}

static void init_seq(struct rig_seq *s, uint32_t i)
{
    rig_seq_init(&rig, s, references[i].tokens, N_ALL);
    if (i == ADJUSTED)
        set_adjust(s);
}

/* ---- Rows on the device -------------------------------------------------------------------------- */

static struct rig_seq seqs[RIG_SEQS];

static void check_chunks(uint32_t seed, uint32_t chunk)
{
    open_cuda(seed, false);
    init_seq(&seqs[0], 0);
    rig_prefill(&rig, &seqs[0], N_PROMPT, chunk);
    rig_prefill(&rig, &seqs[0], N_ALL, 1);
    compare(&seqs[0], &references[0], N_PROMPT);
    close_cuda();
}

static void test_chunks_and_decodes(void **state)
{
    (void)state;
    compare_begin();
    check_chunks(0, N_PROMPT);
    check_chunks(1, 7);
    check_chunks(5, 17);
    compare_end(3 * (N_OUTPUT + 1));
}

/* Decodes beside each other, in any place; a chunk beside decodes. */
static void test_many_sequences(void **state)
{
    (void)state;
    compare_begin();
    open_cuda(2, false);
    for (uint32_t i = 0; i < N_REFS; i++) {
        init_seq(&seqs[i], i);
        for (uint32_t k = 0; k < i; k++) {
            if (seqs[k].n_kv < N_ALL)
                rig_add(&rig, &seqs[k], 1);
        }
        rig_add(&rig, &seqs[i], N_PROMPT);
        rig_sweep(&rig);
    }
    for (uint32_t step = 0; step < N_OUTPUT; step++) {
        for (uint32_t i = 0; i < N_REFS; i++) {
            struct rig_seq *s = &seqs[(i + step) % N_REFS];
            if (s->n_kv < N_ALL)
                rig_add(&rig, s, 1);
        }
        if (rig.n_seqs > 0)
            rig_sweep(&rig);
    }
    for (uint32_t i = 0; i < N_REFS; i++)
        compare(&seqs[i], &references[i], N_PROMPT);
    close_cuda();
    compare_end(N_REFS * (N_OUTPUT + 1));
}

/* Decodes as batch A, a prompt in chunks as batch B. */
static void test_two_batches(void **state)
{
    (void)state;
    compare_begin();
    open_cuda(3, false);
    init_seq(&seqs[0], 0);
    init_seq(&seqs[1], 1);
    rig_prefill(&rig, &seqs[0], N_PROMPT, N_PROMPT);
    for (uint32_t step = 0; step < 3; step++) {
        rig_add(&rig, &seqs[0], 1);
        rig_add(&rig, &seqs[1], N_PROMPT / 3);
        rig.n_seqs_b = 1;
        rig_sweep(&rig);
        for (uint32_t l = 0; l < options.n_layers; l++) {
            const struct device_layer_log *log = &rig.done.layer[l];
            assert_true(log->b_ns > log->b_attention_ns && log->b_attention_ns > 0);
            assert_true(log->proj_ns - log->jobs_ns >= log->b_ns);
        }
    }
    rig_prefill(&rig, &seqs[1], N_ALL, 1);
    rig_prefill(&rig, &seqs[0], N_ALL, 1);
    compare(&seqs[0], &references[0], N_PROMPT);
    compare(&seqs[1], &references[1], N_PROMPT);
    close_cuda();
    compare_end(2 * (N_OUTPUT + 1));
}

/* The second sweep is queued before the first has run: its token is read on the device. */
static void test_a_sweep_behind_another(void **state)
{
    static const uint32_t previous = DEVICE_TOKEN_PREVIOUS | 0;
    struct device_sweep sweep;
    struct device_done done;

    (void)state;
    compare_begin();
    open_cuda(4, false);
    init_seq(&seqs[0], 0);
    rig_add(&rig, &seqs[0], N_PROMPT);
    sweep = rig_sweep_of(&rig);
    assert_int_equal(rig.ops->submit(rig.device, &sweep), 0);
    rig.seqs[0].pos = N_PROMPT;
    rig.seqs[0].n_rows = 1;
    rig.seqs[0].tokens = &previous;
    sweep = rig_sweep_of(&rig);
    assert_int_equal(rig.ops->submit(rig.device, &sweep), 0);
    sweep.seq++;
    assert_int_equal(rig.ops->submit(rig.device, &sweep), -EAGAIN);
    rig.ops->sync(rig.device);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(rig.ops->poll(rig.device, &done), 1);
        assert_int_equal(done.seq, i + 1);
        assert_int_equal(done.n_out, 1);
        seqs[0].answers[N_PROMPT + i] = (struct rig_answer){
            .token = done.out[0].token, .logprob = done.out[0].logprob, .is_there = true};
    }
    assert_int_equal(rig.ops->poll(rig.device, &done), 0);
    assert_int_equal(atomic_load(&rig.n_notified), 2);
    seqs[0].n_kv = N_PROMPT + 1;
    compare(&seqs[0], &references[0], N_PROMPT);
    close_cuda();
    compare_end(2);
}

/* ---- Offloaded rows ------------------------------------------------------------------------------ */

static void prefill_and_offload(uint32_t i, uint32_t slot)
{
    init_seq(&seqs[i], i);
    rig_prefill(&rig, &seqs[i], N_PROMPT, N_PROMPT);
    rig_offload(&rig, &seqs[i], slot);
}

static void test_offloaded_and_fetched(void **state)
{
    (void)state;
    compare_begin();
    open_cuda(5, true);
    prefill_and_offload(0, 3);
    while (seqs[0].n_kv < N_ALL - 2) {
        /* Two tokens in one job, causal among themselves, now and then. */
        rig_enter(&rig, &seqs[0], seqs[0].n_kv == N_PROMPT ? 2 : 1);
        rig_until_out(&rig, &seqs[0]);
    }
    rig_fetch(&rig, &seqs[0]);
    rig_prefill(&rig, &seqs[0], N_ALL, 1);
    compare(&seqs[0], &references[0], N_PROMPT);
    close_cuda();
    compare_end(N_OUTPUT);
}

/* More of them than a layer takes, each at a layer of its own, beside decodes. */
static void check_crowd(uint32_t seed, bool no_riding, uint16_t p_max)
{
    uint64_t until = clock_now_ns() + 60 * NS_PER_S;
    uint32_t n_ridden = 0, n_left = N_REFS;

    open_cuda(seed, true);
    rig.no_riding = no_riding;
    for (uint32_t l = 0; l < options.n_layers; l++)
        rig.picks[l].p_max = p_max;
    for (uint32_t i = 1; i < N_REFS; i++)
        prefill_and_offload(i, i);
    init_seq(&seqs[0], 0);
    while (n_left > 0) {
        struct device_offloaded rows;

        assert_true(clock_now_ns() < until);
        for (uint32_t i = 1; i < N_REFS; i++) {
            if (!seqs[i].in_slot && seqs[i].n_kv < N_ALL)
                rig_enter(&rig, &seqs[i], 1);
        }
        if (seqs[0].n_kv < N_ALL)
            rig_add(&rig, &seqs[0], seqs[0].n_kv < N_PROMPT ? 15 : 1);
        else if (rig.n_enters == 0 && rig.ops->n_returned(rig.device, &rows) == 0)
            clock_sleep_ns(50 * NS_PER_US);
        rig_sweep(&rig);
        n_left = 0;
        for (uint32_t i = 0; i < N_REFS; i++)
            n_left += seqs[i].n_kv < N_ALL;
    }
    for (uint32_t i = 0; i < N_REFS; i++) {
        compare(&seqs[i], &references[i], N_PROMPT);
        n_ridden += seqs[i].n_ridden;
    }
    if (no_riding)
        assert_int_equal(n_ridden, 0);
    close_cuda();
}

static void test_a_crowd_of_offloaded_rows(void **state)
{
    (void)state;
    compare_begin();
    check_crowd(6, false, RIG_RETURNED);
    check_crowd(7, true, 1);
    /* The first answer of an offloaded sequence is its prefill's. */
    compare_end(2 * N_REFS * (N_OUTPUT + 1));
}

/* What the log tells: who was picked where and when, and that all adds up. */
static void check_log(uint32_t n_posted, uint32_t n_picked)
{
    const struct device_done *done = &rig.done;
    uint32_t n = 0;
    uint64_t at = done->start_ns;

    assert_int_equal(done->n_posted, n_posted);
    for (uint32_t l = 0; l < options.n_layers; l++) {
        const struct device_layer_log *log = &done->layer[l];

        assert_int_equal(log->first, n);
        n += log->n_picked;
        assert_true(log->jobs_ns >= at && log->proj_ns >= log->jobs_ns);
        at = log->proj_ns + log->waited_ns;
        for (uint32_t i = 0; i < log->n_picked; i++)
            assert_int_equal(done->picked[log->first + i], seqs[0].slot);
    }
    assert_int_equal(n, n_picked);
    assert_true(done->head_ns >= at && done->end_ns >= done->head_ns);
}

/* With time enough all jobs ride, whatever the worker is at; without, none does while it sleeps. */
static void test_waits_and_the_log(void **state)
{
    uint64_t before = clock_now_ns(), waited = 0;

    (void)state;
    compare_begin();
    open_cuda(8, true);
    prefill_and_offload(0, 1);
    rig.pace = (struct device_pace){.fixed_ns = 1e6, .ns_per_byte = 1e-9};
    rig.wait_total_ns = 20 * NS_PER_S;
    for (uint32_t l = 0; l < options.n_layers; l++) {
        rig.picks[l].want = 1;
        rig.picks[l].wait_ns = 2000000000;
    }
    rig_enter(&rig, &seqs[0], 1);
    rig_sweep(&rig);
    assert_false(seqs[0].in_slot);
    assert_int_equal(seqs[0].n_ridden, options.n_layers);
    check_log(options.n_layers, options.n_layers);
    for (uint32_t l = 0; l < options.n_layers; l++)
        waited += rig.done.layer[l].waited_ns;
    assert_true(waited > 0);
    assert_true(rig.done.start_ns >= before && rig.done.end_ns <= clock_now_ns());
    /* A job that is not there in time is parked: the wait ends by the clock. */
    atomic_store(&rig.hold, true);
    clock_sleep_ns(5 * NS_PER_MS);
    rig.wait_total_ns = 3 * NS_PER_MS;
    rig_enter(&rig, &seqs[0], 1);
    rig_sweep(&rig);
    assert_true(seqs[0].in_slot);
    check_log(1, 0);
    assert_true(rig.done.layer[0].waited_ns >= 3 * NS_PER_MS);
    assert_true(rig.done.layer[0].waited_ns < NS_PER_S);
    assert_int_equal(rig.done.layer[1].waited_ns, 0);
    atomic_store(&rig.hold, false);
    rig_until_out(&rig, &seqs[0]);
    assert_true(seqs[0].n_parked >= 1);
    compare(&seqs[0], &references[0], N_PROMPT);
    close_cuda();
    compare_end(3);
}

/* Who leaves is forgotten; its slot serves another as soon as its job cannot come back. */
static void test_leaving(void **state)
{
    const uint32_t slot = 2;
    struct device_offloaded rows;

    (void)state;
    compare_begin();
    open_cuda(9, true);
    prefill_and_offload(0, slot);
    atomic_store(&rig.hold, true);
    clock_sleep_ns(5 * NS_PER_MS);
    rig_enter(&rig, &seqs[0], 1);
    rig_sweep(&rig);
    assert_true(seqs[0].in_slot);
    rig.leaves[rig.n_leaves++] = slot;
    rig_sweep(&rig);
    assert_int_equal(rig.done.n_out, 0);
    assert_int_equal(rig.ops->n_returned(rig.device, &rows), 0);
    for (uint32_t l = 0; l < options.n_layers; l++)
        assert_int_equal(rows.out[l] + rows.back[l], 0);
    assert_int_equal(rig.shm->base.ops->slot_release(&rig.shm->base, slot), 0); /* it has the job */
    atomic_store(&rig.hold, false);
    while (rig.shm->base.ops->slot_release(&rig.shm->base, slot) == 0)
        clock_sleep_ns(NS_PER_MS);
    rig.slot_owner[slot] = NULL;
    prefill_and_offload(1, slot);
    while (seqs[1].n_kv < N_ALL) {
        rig_enter(&rig, &seqs[1], 1);
        rig_until_out(&rig, &seqs[1]);
    }
    compare(&seqs[1], &references[1], N_PROMPT);
    close_cuda();
    compare_end(N_OUTPUT + 1);
}

/* A job that the worker refuses voids the token, and nothing else. */
static void test_a_job_that_fails(void **state)
{
    uint32_t n = 0;

    (void)state;
    open_cuda(10, true);
    prefill_and_offload(0, 0);
    seqs[0].ref.gen++;
    rig_enter(&rig, &seqs[0], 1);
    while (n++ < 1000) {
        const struct device_sweep sweep = rig_sweep_of(&rig);

        assert_int_equal(rig.ops->submit(rig.device, &sweep), 0);
        rig.ops->sync(rig.device);
        assert_int_equal(rig.ops->poll(rig.device, &rig.done), 1);
        rig.n_enters = 0;
        if (rig.done.n_out > 0)
            break;
        clock_sleep_ns(NS_PER_MS);
    }
    assert_int_equal(rig.done.n_out, 1);
    assert_int_equal(rig.done.out[0].source, 0 | DEVICE_TOKEN_OFFLOADED);
    assert_int_equal(rig.done.out[0].error, -EIO);
    close_cuda();
}

/* ---- Copies -------------------------------------------------------------------------------------- */

enum { N_COPIED = 5 };

static uint8_t *random_bytes(size_t n, uint32_t seed)
{
    uint8_t *bytes = malloc(n);

    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(seed >> 24);
    }
    return bytes;
}

/* Into the pool, to other blocks' turn, and out again: bit for bit, several under way. */
static void check_round_trip(enum kv_type kv)
{
    struct rig_options o = rig_options_of(&device_cuda, false);
    uint8_t *bytes, *back;
    void *in[N_COPIED], *out[N_COPIED];
    uint64_t tickets[4];

    o.kv = kv;
    shim_runtime_reset(11, 1);
    rig_open(&rig, &o);
    size_t n = rig.geometry.block_bytes;
    bytes = random_bytes(N_COPIED * n, kv);
    back = malloc(N_COPIED * n);
    memcpy(back, bytes, N_COPIED * n); /* what lies between the layers is not copied */
    for (uint32_t l = 0; l < rig.geometry.n_layers; l++) {
        const struct kv_layer *layer = &rig.geometry.layer[l];
        for (uint32_t b = 0; b < N_COPIED; b++)
            memset(back + b * n + layer->k_off, 0xaa, 64);
    }
    for (uint32_t i = 0; i < N_COPIED; i++) {
        in[i] = bytes + i * n;
        out[i] = back + i * n;
    }
    struct device_copy copy = {.direction = DEVICE_COPY_IN, .n_blocks = 2, .staging = in};
    uint32_t blocks[N_COPIED] = {7, 3, 60, 0, 21};
    copy.blocks = blocks;
    assert_int_equal(rig.ops->copy(rig.device, &copy, &tickets[0]), 0);
    copy.blocks = blocks + 2;
    copy.staging = in + 2;
    copy.n_blocks = 3;
    assert_int_equal(rig.ops->copy(rig.device, &copy, &tickets[1]), 0);
    rig.ops->sync(rig.device);
    assert_int_equal(rig.ops->copy_done(rig.device, tickets[0]), 1);
    assert_int_equal(rig.ops->copy_done(rig.device, tickets[1]), 1);
    copy = (struct device_copy){
        .direction = DEVICE_COPY_OUT, .n_blocks = N_COPIED, .blocks = blocks, .staging = out};
    assert_int_equal(rig.ops->copy(rig.device, &copy, &tickets[2]), 0);
    rig.ops->sync(rig.device);
    assert_memory_equal(bytes, back, N_COPIED * n);
    assert_int_equal(atomic_load(&rig.n_notified), 3);
    copy.n_blocks = RIG_TABLE + 1;
    assert_int_equal(rig.ops->copy(rig.device, &copy, &tickets[3]), -EINVAL);
    free(bytes);
    free(back);
    close_cuda();
    assert_string_equal(shim_runtime_error(), "");
}

static void test_copies_are_bit_exact(void **state)
{
    (void)state;
    check_round_trip(KV_TYPE_F16);
    options.type = options.embd_type = WEIGHT_BF16;
    check_round_trip(KV_TYPE_BF16);
    options.type = options.embd_type = WEIGHT_F16;
}

/* ---- Errors, measuring --------------------------------------------------------------------------- */

/* The bias wins as soon as it may: what a draw says is more than the model. */
static void test_adjusted_tokens(void **state)
{
    const struct rig_seq *want = &references[ADJUSTED];

    (void)state;
    compare_begin();
    open_cuda(16, false);
    init_seq(&seqs[0], ADJUSTED);
    rig_prefill(&rig, &seqs[0], N_PROMPT, 20);
    rig_prefill(&rig, &seqs[0], N_ALL, 1);
    compare(&seqs[0], want, N_PROMPT);
    assert_int_equal(seqs[0].answers[N_ALL].n_top, 2);
    for (uint32_t pos = N_PROMPT; pos < N_PROMPT + 3; pos++)
        assert_int_not_equal(seqs[0].answers[pos].token, stop);
    assert_int_equal(want->answers[N_PROMPT + 3].token, bias.token);
    assert_int_equal(seqs[0].answers[N_PROMPT + 3].token, bias.token);
    close_cuda();
    compare_end(N_OUTPUT + 1);
}

static void test_it_refuses_in_words(void **state)
{
    const struct rig_options o = rig_options_of(&device_cuda, false);
    struct device_sweep sweep;
    char why[128] = "";

    (void)state;
    open_cuda(12, false);
    init_seq(&seqs[0], 0);
    rig_add(&rig, &seqs[0], 1);
    rig.seqs[0].pos = RIG_CONTEXT;
    sweep = rig_sweep_of(&rig);
    assert_int_equal(rig.ops->submit(rig.device, &sweep), -EINVAL);
    close_cuda();
    shim_runtime_reset(12, -1);
    assert_int_equal(device_cuda_present(why, sizeof why), -ENODEV);
    assert_string_not_equal(why, "");
    assert_int_equal(rig_open_device(&rig, &o), -ENODEV);
    assert_int_equal(shim_runtime_n_live(), 0);
}

/* Whatever fails at open, all is given back; no memory is said to be no memory. */
static void test_open_fails_cleanly(void **state)
{
    static const char *const calls[] = {"cudaMalloc",
                                        "cudaHostAlloc",
                                        "cudaStreamCreateWithFlags",
                                        "cudaEventCreateWithFlags",
                                        "cudaGraphInstantiate",
                                        "cudaMemcpy",
                                        "cudaGraphUpload"};
    struct rig_options o = rig_options_of(&device_cuda, false);

    (void)state;
    open_cuda(13, false);
    rig.ops->close(rig.device);
    rig.device = NULL;
    o.n_kv_blocks = RIG_BLOCKS;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        shim_runtime_reset(13, 1);
        shim_runtime_fail(calls[i], cudaErrorMemoryAllocation);
        int rc = rig_open_device(&rig, &o);
        if (rc == 0) /* it does not call that */
            rig.ops->close(rig.device);
        rig.device = NULL;
        if (shim_runtime_n_live() != 0)
            fail_msg("%s fails: %u are left", calls[i], shim_runtime_n_live());
        assert_true(rc == -ENOMEM || rc == 0 || rc == -EIO);
    }
    shim_runtime_reset(13, 1);
    o.n_kv_blocks = 1 << 20;
    assert_int_equal(rig_open_device(&rig, &o), -ENOMEM);
    rig.device = NULL;
    close_cuda();
}

/* A sweep that fails is told, once and for all. */
static void test_a_sweep_that_fails(void **state)
{
    struct device_sweep sweep;
    struct device_done done;

    (void)state;
    open_cuda(14, false);
    init_seq(&seqs[0], 0);
    rig_add(&rig, &seqs[0], N_PROMPT);
    sweep = rig_sweep_of(&rig);
    shim_set_schedule((struct shim_schedule){.limit_ms = 1}); /* kernels take longer */
    assert_int_equal(rig.ops->submit(rig.device, &sweep), 0);
    rig.ops->sync(rig.device);
    assert_int_equal(rig.ops->poll(rig.device, &done), 1);
    assert_int_equal(done.error, -EIO);
    assert_int_equal(rig.ops->submit(rig.device, &sweep), -EIO);
    shim_runtime_reset(14, 1);
    shim_set_schedule((struct shim_schedule){.order = SHIM_FORWARD});
    close_cuda();
}

static void test_modules_are_timed(void **state)
{
    static const uint32_t layers[] = {0, 2};
    struct device_shape shape = {.layers = layers, .n_layers = 2, .n = 3, .ctx = 40};
    uint64_t ns;

    (void)state;
    open_cuda(15, false);
    for (int kind = 0; kind < DEVICE_SHAPE_KINDS; kind++) {
        shape.kind = (enum device_shape_kind)kind;
        ns = 0;
        assert_int_equal(rig.ops->measure(rig.device, &shape, &ns), 0);
        assert_true(ns > 0);
    }
    shape.kind = DEVICE_SHAPE_DECODES;
    shape.n = RIG_SEQS + 1;
    assert_int_equal(rig.ops->measure(rig.device, &shape, &ns), -EINVAL);
    close_cuda();
    assert_string_equal(shim_runtime_error(), "");
}

/* All tests, or those named on the command line. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_and_decodes),
        cmocka_unit_test(test_many_sequences),
        cmocka_unit_test(test_two_batches),
        cmocka_unit_test(test_a_sweep_behind_another),
        cmocka_unit_test(test_offloaded_and_fetched),
        cmocka_unit_test(test_a_crowd_of_offloaded_rows),
        cmocka_unit_test(test_waits_and_the_log),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_a_job_that_fails),
        cmocka_unit_test(test_copies_are_bit_exact),
        cmocka_unit_test(test_adjusted_tokens),
        cmocka_unit_test(test_it_refuses_in_words),
        cmocka_unit_test(test_open_fails_cleanly),
        cmocka_unit_test(test_a_sweep_that_fails),
        cmocka_unit_test(test_modules_are_timed),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    make_options();
    make_references();
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    shim_fini();
    return rc;
}
