/* probe_posted.cu - does a kernel's end wait for its posted host writes?
 *
 * Why it matters: a kernel that writes jobs into pinned memory should cost the GPU's timeline the
 * issuing of the stores, not their way over the link.  And what the host may rely on: is everything
 * there when an event, or a word written by the next kernel, says that the kernel is over?
 *
 * THE EXPERIMENT.  Queued on one stream, then released together:
 *
 *   gate  waits for a word from the host (with a deadline), so that what follows is queued already
 *         and starts without launch latency
 *   A     writes n bytes to pinned memory, fresh content each time; notes on %globaltimer its first
 *         instruction and the moment at which its last store was issued, with no fence after it
 *   B     one thread, next in the stream: notes the time of its first instruction, then writes a
 *         word to pinned memory with a *relaxed* store: whatever order the host then sees comes
 *         from the kernel boundary and the link, not from a release in B
 *
 * On the device's clock: if B starts before the link can have carried n bytes, the end of A did not
 * wait (verdict.h).  Beside it the same with A writing device memory (what a boundary costs anyway)
 * and with a system fence at the end of A's threads (how long the writes take to be acknowledged).
 *
 * On the host's clock: one thread polls the last 16 bytes that every block of A writes (its
 * sentinels) and B's word, and notes when all sentinels and when the word were first seen;
 * sentinels without this round's content at the moment the word is seen are counted as stale.  In a
 * second series there is no B: the sentinels are counted right after cudaEventSynchronize on an
 * event behind A, and if any is stale, the time until all are visible is taken.  In both series
 * every 16-byte piece of A is looked at afterwards (that takes milliseconds, so it finds lost
 * writes, not late ones).
 *
 * The stale counts are facts of this machine; the rule in the code stays release and acquire. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"
#include "tests/gpu/sys_memory.cuh"
#include "tests/gpu/verdict.h"

#include <string.h>
#include <unistd.h>

enum { THREADS = 256, REPEATS = 15, SEED = 51 };

static const size_t SIZES[] = {64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB};
enum { N_SIZES = sizeof SIZES / sizeof SIZES[0] };
static const size_t SIZE_MAX_BYTES = 64 * MIB;

static const uint64_t GATE_BUDGET_NS = 2000000000u;
static const uint64_t HOST_BUDGET_NS = 1000000000u;

enum posted_mode { POSTED_HOST, POSTED_HOST_FENCED, POSTED_DEVICE };

/* Device memory, copied to the host after each round. */
struct posted_times {
    uint64_t start, issued, next; /* ns on %globaltimer */
};

struct posted {
    uint4 *host, *device; /* SIZE_MAX_BYTES each: what A writes to */
    uint32_t *gate;       /* pinned: host | gate kernel */
    uint32_t *next_word;  /* pinned: B | host, relaxed */
    uint32_t *gave_up;    /* pinned: gate kernel | host */
    struct posted_times *times;
    cudaEvent_t event;
    int n_blocks;
    uint32_t
        round; /* content and words of the current round; grows, so that nothing need be reset */
};

static __host__ __device__ inline uint32_t piece_word(uint32_t round, uint32_t i)
{
    return data_word(SEED + round, i);
}

static __global__ void gate_kernel(const uint32_t *gate, uint32_t want, uint32_t *gave_up,
                                   struct posted_times *times, uint64_t budget_ns)
{
    times->start = ~(uint64_t)0;
    times->issued = times->next = 0;
    if (!wait_word(gate, want, globaltimer_ns() + budget_ns))
        store_release_sys(gave_up, want);
}

/* Moves: one word over the link per look. */
static cudaError_t gate(struct posted *x, cudaStream_t stream)
{
    gate_kernel<<<1, 1, 0, stream>>>(x->gate, x->round, x->gave_up, x->times, GATE_BUDGET_NS);
    return cudaGetLastError();
}

static __global__ void __launch_bounds__(THREADS)
    posted_write_kernel(uint4 *out, size_t n16, uint32_t round, int fenced,
                        struct posted_times *times)
{
    const uint64_t start = globaltimer_ns();
    const size_t per_block = (n16 + gridDim.x - 1) / gridDim.x;
    const size_t from = blockIdx.x * per_block,
                 to = from + per_block < n16 ? from + per_block : n16;
    for (size_t i = from + threadIdx.x; i < to; i += THREADS) {
        const uint32_t w = piece_word(round, (uint32_t)i);
        out[i] = make_uint4(w, ~w, round, w);
    }
    if (fenced)
        __threadfence_system();
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicMin((unsigned long long *)&times->start, (unsigned long long)start);
        atomicMax((unsigned long long *)&times->issued, (unsigned long long)globaltimer_ns());
    }
}

/* Moves: writes 16 n16 bytes. */
static cudaError_t posted_write(const struct posted *x, uint4 *out, size_t n16, int fenced,
                                cudaStream_t stream)
{
    posted_write_kernel<<<x->n_blocks, THREADS, 0, stream>>>(out, n16, x->round, fenced, x->times);
    return cudaGetLastError();
}

static __global__ void after_kernel(uint32_t *word, uint32_t round, struct posted_times *times)
{
    times->next = globaltimer_ns();
    store_relaxed_sys(word, round);
}

/* Moves: one word over the link. */
static cudaError_t after(struct posted *x, cudaStream_t stream)
{
    after_kernel<<<1, 1, 0, stream>>>(x->next_word, x->round, x->times);
    return cudaGetLastError();
}

/* Every kernel once, behind an open gate: the first launch of a kernel loads its code, which may
 * wait for whatever runs, and behind a closed gate that would be for ever (until the gate's
 * deadline). */
static int kernels_load(struct probe *p, struct posted *x)
{
    PROBE_TRY(p, gate(x, p->stream)); /* wants round 0, which is what the word holds */
    PROBE_TRY(p, posted_write(x, x->device, 16, 0, p->stream));
    PROBE_TRY(p, after(x, p->stream));
    PROBE_TRY(p, cudaEventRecord(x->event, p->stream));
    PROBE_TRY(p, cudaEventSynchronize(x->event));
    return 0;
}

static int posted_open(struct probe *p, struct posted *x)
{
    char *words;
    memset(x, 0, sizeof *x);
    x->n_blocks = p->n_sm;
    PROBE_DO(probe_pinned_alloc(p, (void **)&x->host, SIZE_MAX_BYTES));
    PROBE_DO(probe_device_alloc(p, (void **)&x->device, SIZE_MAX_BYTES));
    PROBE_DO(probe_pinned_alloc(p, (void **)&words, 3 * 256));
    PROBE_DO(probe_device_alloc(p, (void **)&x->times, sizeof *x->times));
    PROBE_DO(probe_event(p, &x->event));
    x->gate = (uint32_t *)words;
    x->next_word = (uint32_t *)(words + 256);
    x->gave_up = (uint32_t *)(words + 512);
    return kernels_load(p, x);
}

/* Volatile: the device writes these words behind the compiler's back. */
static bool piece_seen(const struct posted *x, size_t i)
{
    const volatile uint32_t *piece = (const volatile uint32_t *)&x->host[i];
    const uint32_t w = piece_word(x->round, (uint32_t)i);
    return piece[0] == w && piece[1] == ~w && piece[2] == x->round && piece[3] == w;
}

static size_t missing_pieces(const struct posted *x, size_t n16)
{
    size_t n = 0;
    for (size_t i = 0; i < n16; i++)
        n += !piece_seen(x, i);
    return n;
}

/* The last piece that block b writes, or n16 when it writes none. */
static size_t sentinel(const struct posted *x, size_t n16, int b)
{
    const size_t per_block = (n16 + (size_t)x->n_blocks - 1) / (size_t)x->n_blocks;
    const size_t from = (size_t)b * per_block, to = from + per_block < n16 ? from + per_block : n16;
    return from < n16 ? to - 1 : n16;
}

static size_t stale_sentinels(const struct posted *x, size_t n16)
{
    size_t n = 0;
    for (int b = 0; b < x->n_blocks; b++)
        n += sentinel(x, n16, b) < n16 && !piece_seen(x, sentinel(x, n16, b));
    return n;
}

struct host_view {
    double word_after_last_us; /* word first seen minus last sentinel first seen; negative: word
                                  first */
    size_t n_stale;            /* sentinels not there when the word was seen */
};

/* Polls until both are seen.  0 or -1 at the deadline. */
static int host_watch(const struct posted *x, size_t n16, struct host_view *view)
{
    const uint64_t give_up_ns = probe_now_ns() + HOST_BUDGET_NS;
    uint64_t last_ns = 0, word_ns = 0;
    int b = 0;
    while (!last_ns || !word_ns) {
        const uint64_t now = probe_now_ns();
        if (now > give_up_ns)
            return -1;
        if (!word_ns && __atomic_load_n(x->next_word, __ATOMIC_ACQUIRE) == x->round) {
            word_ns = now;
            view->n_stale = last_ns ? 0 : stale_sentinels(x, n16);
        }
        while (b < x->n_blocks &&
               (sentinel(x, n16, b) == n16 || piece_seen(x, sentinel(x, n16, b))))
            b++;
        if (!last_ns && b == x->n_blocks)
            last_ns = now;
    }
    view->word_after_last_us = ((double)word_ns - (double)last_ns) / 1e3;
    return 0;
}

static void gate_open(struct posted *x)
{
    usleep(100); /* the launches before this reach the device's queue */
    __atomic_store_n(x->gate, x->round, __ATOMIC_RELEASE);
}

/* One round of gate, A, B in the given mode. */
static int sequence_run(struct probe *p, struct posted *x, enum posted_mode mode, size_t n16,
                        struct posted_times *times, struct host_view *view)
{
    int rc = 0;
    x->round++;
    PROBE_TRY(p, gate(x, p->stream));
    PROBE_TRY(p, posted_write(x, mode == POSTED_DEVICE ? x->device : x->host, n16,
                              mode == POSTED_HOST_FENCED, p->stream));
    PROBE_TRY(p, after(x, p->stream));
    gate_open(x);
    if (mode != POSTED_DEVICE)
        rc = host_watch(x, n16, view);
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    PROBE_TRY(p, cudaMemcpy(times, x->times, sizeof *times, cudaMemcpyDeviceToHost));
    if (rc || *x->gave_up)
        return probe_fail(p, "%s",
                          rc ? "writes not visible within 1 s" : "the gate was not opened in time");
    if (mode != POSTED_DEVICE && missing_pieces(x, n16))
        return probe_fail(p, "%zu pieces of round %u were lost", missing_pieces(x, n16), x->round);
    return 0;
}

struct series {
    double issued_us, gap_us, word_after_last_us; /* medians */
    size_t n_stale;                               /* over all rounds */
};

static int series_run(struct probe *p, struct posted *x, enum posted_mode mode, size_t n16,
                      struct series *out)
{
    double issued[REPEATS], gap[REPEATS], lag[REPEATS];
    out->n_stale = 0;
    for (int i = -1; i < REPEATS; i++) { /* the first warms up */
        struct posted_times t;
        struct host_view view = {0.0, 0};
        PROBE_DO(sequence_run(p, x, mode, n16, &t, &view));
        if (i < 0)
            continue;
        issued[i] = (double)(t.issued - t.start) / 1e3;
        gap[i] = ((double)t.next - (double)t.issued) / 1e3;
        lag[i] = view.word_after_last_us;
        out->n_stale += view.n_stale;
    }
    out->issued_us = stats_median(issued, REPEATS);
    out->gap_us = stats_median(gap, REPEATS);
    out->word_after_last_us = stats_median(lag, REPEATS);
    return 0;
}

static int size_run(struct probe *p, struct posted *x, size_t bytes, struct posted_point *point)
{
    struct series plain, fenced, control;
    char size[PROBE_SIZE_TEXT];
    probe_size(size, bytes);
    PROBE_DO(series_run(p, x, POSTED_HOST, bytes / 16, &plain));
    PROBE_DO(series_run(p, x, POSTED_HOST_FENCED, bytes / 16, &fenced));
    PROBE_DO(series_run(p, x, POSTED_DEVICE, bytes / 16, &control));
    probe_number(p, plain.issued_us, "posted_%s_issued_us", size);
    probe_number(p, plain.gap_us, "posted_%s_gap_us", size);
    probe_number(p, control.issued_us, "posted_%s_control_issued_us", size);
    probe_number(p, control.gap_us, "posted_%s_control_gap_us", size);
    probe_number(p, fenced.issued_us, "posted_%s_fenced_us", size);
    probe_number(p, plain.word_after_last_us, "posted_%s_word_after_last_us", size);
    probe_number(p, (double)plain.n_stale, "posted_%s_stale_at_word", size);
    *point = {(double)bytes, plain.issued_us, plain.gap_us, control.gap_us};
    return 0;
}

static int measure_boundary(struct probe *p)
{
    struct posted_point point[N_SIZES];
    struct posted x;
    PROBE_DO(posted_open(p, &x));
    for (int i = 0; i < N_SIZES; i++)
        PROBE_DO(size_run(p, &x, SIZES[i], &point[i]));
    probe_number(p, posted_rate(point, N_SIZES) / 1e3, "posted_rate_gbps");
    report_text(p->report, "kernel_end_host_writes", "%s",
                posted_verdict_name(posted_judge(point, N_SIZES)));
    return 0;
}

/* us: from the event to the last sentinel visible; 0 when all were there at once. */
static int event_round(struct probe *p, struct posted *x, size_t n16, size_t *n_stale, double *us)
{
    x->round++;
    PROBE_TRY(p, gate(x, p->stream));
    PROBE_TRY(p, posted_write(x, x->host, n16, 0, p->stream));
    PROBE_TRY(p, cudaEventRecord(x->event, p->stream));
    gate_open(x);
    PROBE_TRY(p, cudaEventSynchronize(x->event));
    const uint64_t start = probe_now_ns();
    *us = 0.0;
    *n_stale = stale_sentinels(x, n16);
    for (size_t left = *n_stale; left; left = stale_sentinels(x, n16)) {
        *us = (double)(probe_now_ns() - start) / 1e3;
        if (*us > (double)HOST_BUDGET_NS / 1e3)
            return probe_fail(p, "%zu sentinels not visible 1 s after the event", left);
    }
    if (missing_pieces(x, n16))
        return probe_fail(p, "%zu pieces of round %u were lost", missing_pieces(x, n16), x->round);
    return 0;
}

static int measure_event(struct probe *p)
{
    struct posted x;
    PROBE_DO(posted_open(p, &x));
    for (size_t bytes : SIZES) {
        double us = 0.0, worst_us = 0.0;
        size_t n_stale = 0, n_stale_all = 0;
        char size[PROBE_SIZE_TEXT];
        for (int i = 0; i < REPEATS; i++) {
            PROBE_DO(event_round(p, &x, bytes / 16, &n_stale, &us));
            worst_us = us > worst_us ? us : worst_us;
            n_stale_all += n_stale;
        }
        probe_number(p, (double)n_stale_all, "posted_%s_stale_at_event", probe_size(size, bytes));
        probe_number(p, worst_us, "posted_%s_event_to_visible_max_us", size);
    }
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"kernel_end_host_writes", measure_boundary},
    {"posted_event", measure_event},
};

const struct probe_part part_posted = {"posted", "whether a kernel's end waits for its host writes",
                                       40, 2, measurements};
