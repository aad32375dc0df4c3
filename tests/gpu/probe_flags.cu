/* probe_flags.cu - a word written by the host, seen by a running kernel, and back.
 *
 * Round trip without payload: the floor of any exchange.  With payload: the exchange in miniature,
 * a block that takes an 8 KiB result and answers with an 8 KiB job, every word checked on both
 * sides, so that a wrong memory order shows as torn payloads and not as good latency.
 *
 *   host                                     kernel
 *   writes payload in                        thread 0: A1 to_device, then block barrier
 *   R1 to_device = r         -- pairs A1 ->  all threads: read payload in, write payload out
 *   A2 to_host == r          <- pairs R2 --  block barrier, thread 0: R2 to_host = r
 *   reads payload out
 *
 * The barrier makes all threads' stores happen before thread 0's release, which is cumulative. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"
#include "tests/gpu/sys_memory.cuh"

#include <string.h>

enum {
    ROUNDS = 2000,
    WARM_UP = 100,
    PAYLOAD_BYTES = 8192,
    PAYLOAD_WORDS = PAYLOAD_BYTES / 4,
    PAYLOAD_PIECES = PAYLOAD_BYTES / 16,
    THREADS = 256
};
enum { SEED_TO_DEVICE = 41, SEED_TO_HOST = 42, POLL_ROUNDS = 400, POLL_WORDS_MAX = 4096 };

/* The kernel's whole life; the host gives up earlier, so that it is there to see the kernel end. */
static const uint64_t KERNEL_BUDGET_NS = 6000000000u;
static const uint64_t HOST_BUDGET_NS = 5000000000u;

/* Pinned.  Each word on lines of its own: the two sides must not share what they spin on. */
struct mailbox {
    alignas(256) uint32_t to_device; /* host | kernel | R1/A1 */
    alignas(256) uint32_t to_host;   /* kernel | host | R2/A2 */
    alignas(256)
        uint32_t gave_up; /* kernel | host, after the kernel: the round it waited for in vain */
    uint32_t n_torn;      /* kernel | host, after the kernel: payloads that were wrong */
    alignas(256) uint32_t in[PAYLOAD_WORDS];
    alignas(256) uint32_t out[PAYLOAD_WORDS];
};

static __global__ void ping_kernel(struct mailbox *box, uint32_t n_rounds, uint64_t budget_ns)
{
    const uint64_t deadline = globaltimer_ns() + budget_ns;
    for (uint32_t r = 1; r <= n_rounds; r++) {
        if (!wait_word(&box->to_device, r, deadline)) { /* A1 */
            store_release_sys(&box->gave_up, r);
            return;
        }
        store_release_sys(&box->to_host, r); /* R2 */
    }
}

/* Moves per round: reads and writes 4 bytes over the link. */
static cudaError_t ping(struct mailbox *box, uint32_t n_rounds, cudaStream_t stream)
{
    ping_kernel<<<1, 1, 0, stream>>>(box, n_rounds, KERNEL_BUDGET_NS);
    return cudaGetLastError();
}

static __device__ __forceinline__ bool piece_differs(uint4 v, uint32_t seed, uint32_t i)
{
    return v.x != data_word(seed, 4 * i) || v.y != data_word(seed, 4 * i + 1) ||
           v.z != data_word(seed, 4 * i + 2) || v.w != data_word(seed, 4 * i + 3);
}

/* All loads before the first store, as a gather would have it: one trip over the link, not several.
 */
static __device__ __forceinline__ bool payload_answer(struct mailbox *box, uint32_t r)
{
    const uint4 *in = (const uint4 *)box->in;
    uint4 *out = (uint4 *)box->out;
    uint4 v[PAYLOAD_PIECES / THREADS];
    bool wrong = false;
#pragma unroll
    for (int k = 0; k < PAYLOAD_PIECES / THREADS; k++)
        v[k] = in[threadIdx.x + k * THREADS];
#pragma unroll
    for (int k = 0; k < PAYLOAD_PIECES / THREADS; k++) {
        const uint32_t i = threadIdx.x + k * THREADS, seed = SEED_TO_HOST + r;
        wrong |= piece_differs(v[k], SEED_TO_DEVICE + r, i);
        out[i] = make_uint4(data_word(seed, 4 * i), data_word(seed, 4 * i + 1),
                            data_word(seed, 4 * i + 2), data_word(seed, 4 * i + 3));
    }
    return wrong;
}

static __global__ void __launch_bounds__(THREADS)
    echo_kernel(struct mailbox *box, uint32_t n_rounds, uint64_t budget_ns)
{
    __shared__ bool seen;
    uint32_t n_torn = 0;
    const uint64_t deadline = globaltimer_ns() + budget_ns;
    for (uint32_t r = 1; r <= n_rounds; r++) {
        if (threadIdx.x == 0)
            seen = wait_word(&box->to_device, r, deadline); /* A1 */
        __syncthreads();
        if (!seen)
            break;
        n_torn += __syncthreads_or(payload_answer(box, r)) != 0;
        if (threadIdx.x == 0)
            store_release_sys(&box->to_host, r); /* R2 */
    }
    if (threadIdx.x == 0) {
        box->n_torn = n_torn;
        box->gave_up = !seen;
    }
}

/* Moves per round: reads and writes PAYLOAD_BYTES + 4 over the link. */
static cudaError_t echo(struct mailbox *box, uint32_t n_rounds, cudaStream_t stream)
{
    echo_kernel<<<1, THREADS, 0, stream>>>(box, n_rounds, KERNEL_BUDGET_NS);
    return cudaGetLastError();
}

/* One round; 0 or -1 when the answer does not come. */
static int round_trip(struct mailbox *box, uint32_t r, uint64_t give_up_ns, double *us)
{
    const uint64_t start = probe_now_ns();
    __atomic_store_n(&box->to_device, r, __ATOMIC_RELEASE); /* R1 */
    uint64_t now = start;
    while (__atomic_load_n(&box->to_host, __ATOMIC_ACQUIRE) != r) { /* A2 */
        now = probe_now_ns();
        if (now > give_up_ns)
            return -1;
    }
    *us = (double)(probe_now_ns() - start) / 1e3;
    return 0;
}

static int trips_report(struct probe *p, const char *name, double *sample)
{
    stats_sort(sample, ROUNDS);
    probe_number(p, stats_percentile(sample, ROUNDS, 50.0), "%s_us", name);
    probe_number(p, stats_percentile(sample, ROUNDS, 99.0), "%s_p99_us", name);
    probe_number(p, sample[0], "%s_min_us", name);
    probe_number(p, sample[ROUNDS - 1], "%s_max_us", name);
    return 0;
}

/* The kernel is always waited for: it ends by itself, by rounds or by budget. */
static int kernel_end(struct probe *p, const struct mailbox *box, int rc, uint32_t r)
{
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    if (rc || box->gave_up)
        return probe_fail(p, "no answer in round %u of %d", r, ROUNDS + WARM_UP);
    return 0;
}

static int measure_ping(struct probe *p)
{
    static double sample[ROUNDS + WARM_UP];
    struct mailbox *box;
    int rc = 0;
    uint32_t r = 0;
    PROBE_DO(probe_pinned_alloc(p, (void **)&box, sizeof *box));
    PROBE_TRY(p, ping(box, ROUNDS + WARM_UP, p->stream));
    const uint64_t give_up_ns = probe_now_ns() + HOST_BUDGET_NS;
    for (r = 1; !rc && r <= ROUNDS + WARM_UP; r++)
        rc = round_trip(box, r, give_up_ns, &sample[r - 1]);
    PROBE_DO(kernel_end(p, box, rc, r - 1));
    return trips_report(p, "flag_rtt", sample + WARM_UP);
}

static int payload_is_torn(const struct mailbox *box, uint32_t r)
{
    for (uint32_t i = 0; i < PAYLOAD_WORDS; i++)
        if (box->out[i] != data_word(SEED_TO_HOST + r, i))
            return 1;
    return 0;
}

static int measure_echo(struct probe *p)
{
    static double sample[ROUNDS + WARM_UP];
    struct mailbox *box;
    int rc = 0, n_torn = 0;
    uint32_t r = 0;
    PROBE_DO(probe_pinned_alloc(p, (void **)&box, sizeof *box));
    PROBE_TRY(p, echo(box, ROUNDS + WARM_UP, p->stream));
    const uint64_t give_up_ns = probe_now_ns() + HOST_BUDGET_NS;
    for (r = 1; !rc && r <= ROUNDS + WARM_UP; r++) {
        for (uint32_t i = 0; i < PAYLOAD_WORDS; i++)
            box->in[i] = data_word(SEED_TO_DEVICE + r, i);
        rc = round_trip(box, r, give_up_ns, &sample[r - 1]);
        n_torn += !rc && payload_is_torn(box, r);
    }
    PROBE_DO(kernel_end(p, box, rc, r - 1));
    report_text(p->report, "flag_payload_torn_to_host", "%d", n_torn);
    report_text(p->report, "flag_payload_torn_to_device", "%u", box->n_torn);
    return trips_report(p, "flag_payload8k_rtt", sample + WARM_UP);
}

/* A chain of dependent system-scope loads from pinned memory: zero is stored there, so that the
 * next address depends on the value and the loads cannot overlap.  *ns: of one load. */
static __global__ void load_chain_kernel(uint32_t *ns, const uint32_t *zero, int n)
{
    uint32_t at = 0;
    const uint64_t start = globaltimer_ns();
    for (int i = 0; i < n; i++)
        at = load_relaxed_sys(zero + at);
    *ns = (uint32_t)((globaltimer_ns() - start) / (uint64_t)n) + at;
}

/* Moves: reads 4 n bytes over the link, one after the other. */
static cudaError_t load_chain(uint32_t *ns, const uint32_t *zero, int n, cudaStream_t stream)
{
    load_chain_kernel<<<1, 1, 0, stream>>>(ns, zero, n);
    return cudaGetLastError();
}

/* What a pick step does first: one block reads every slot's done word.  *ns: of one pass. */
static __global__ void __launch_bounds__(THREADS)
    poll_words_kernel(uint32_t *ns, uint32_t *sum, const uint4 *words, int n4, int n_rounds)
{
    uint32_t acc = 0;
    const uint64_t start = globaltimer_ns();
    for (int r = 0; r < n_rounds; r++) {
        for (int i = (int)threadIdx.x; i < n4; i += THREADS) {
            const uint4 v = load_relaxed_sys4(words + i);
            acc += v.x + v.y + v.z + v.w;
        }
        /* Depends on acc, so that a pass ends with its loads and not with having issued them. */
        acc += (uint32_t)__syncthreads_or(acc == 0xffffffffu);
    }
    atomicAdd(sum, acc);
    if (threadIdx.x == 0)
        *ns = (uint32_t)((globaltimer_ns() - start) / (uint64_t)n_rounds);
}

/* Moves per round: reads 16 n4 bytes over the link. */
static cudaError_t poll_words(uint32_t *ns, uint32_t *sum, const uint4 *words, int n4, int n_rounds,
                              cudaStream_t stream)
{
    poll_words_kernel<<<1, THREADS, 0, stream>>>(ns, sum, words, n4, n_rounds);
    return cudaGetLastError();
}

/* The step of %globaltimer: deadlines of a few microseconds need it to be far below one. */
static __global__ void timer_step_kernel(uint32_t *ns, int n_steps)
{
    const uint64_t start = globaltimer_ns();
    uint64_t last = start, smallest = ~(uint64_t)0;
    /* The number of looks bounds it also on a clock that stands still. */
    for (int i = 0, looks = 0; i < n_steps && looks < 4000000; looks++) {
        const uint64_t now = globaltimer_ns();
        if (now == last)
            continue;
        smallest = now - last < smallest ? now - last : smallest;
        last = now;
        i++;
    }
    *ns = (uint32_t)smallest;
}

/* Moves: nothing. */
static cudaError_t timer_step(uint32_t *ns, int n_steps, cudaStream_t stream)
{
    timer_step_kernel<<<1, 1, 0, stream>>>(ns, n_steps);
    return cudaGetLastError();
}

static int measure_timer(struct probe *p)
{
    uint32_t *ns;
    PROBE_DO(probe_pinned_alloc(p, (void **)&ns, 256));
    PROBE_TRY(p, timer_step(ns, 200, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    report_text(p->report, "globaltimer_step_ns", "%u", *ns);
    return 0;
}

static int measure_polls(struct probe *p)
{
    static const int n_words_list[] = {256, 1024, POLL_WORDS_MAX};
    uint32_t *ns, *sum, *words;
    PROBE_DO(probe_pinned_alloc(p, (void **)&ns, 256));
    PROBE_DO(probe_pinned_alloc(p, (void **)&words, POLL_WORDS_MAX * sizeof *words));
    PROBE_DO(probe_device_alloc(p, (void **)&sum, 256));
    PROBE_TRY(p, cudaMemsetAsync(sum, 0, 256, p->stream));
    PROBE_TRY(p, load_chain(ns, words, 2000, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    probe_number(p, *ns / 1e3, "pinned_load_us");
    for (int n : n_words_list) {
        PROBE_TRY(p, poll_words(ns, sum, (const uint4 *)words, n / 4, POLL_ROUNDS, p->stream));
        PROBE_TRY(p, cudaStreamSynchronize(p->stream));
        probe_number(p, *ns / 1e3, "poll_words%d_us", n);
    }
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"globaltimer_step_ns", measure_timer},
    {"pinned_load_us", measure_polls},
    {"flag_rtt_us", measure_ping},
    {"flag_payload8k_rtt_us", measure_echo},
};

const struct probe_part part_flags = {"flags", "flag latency between host and a running kernel", 30,
                                      4, measurements};
