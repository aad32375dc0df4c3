/* pick_step.cu - see pick_step.h.
 *
 * DESIGN.  All threads look at their slots and done words; those of this layer that are back are
 * gathered in ascending order into shared memory, a few at most, and one thread lets pick_rows choose
 * among them: leaving out slots that it would pass over changes nothing of its choice.  A slot picked
 * goes on to the next layer here, at once: its generation grows, so that its old done word no longer
 * fits, whenever its job is posted. */
#include "gpu-engine/device/cuda/pick_step.h"
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/pick.c"

enum { THREADS = 256, BACK_MAX = 2048, WARPS = THREADS / 32 };

struct pick_shared {
    struct pick_slot slots[BACK_MAX]; /* that are back, of this layer */
    uint32_t done[BACK_MAX];
    uint32_t index[BACK_MAX]; /* their slots */
    uint32_t picked[PICK_STEP_ROWS_MAX];
    uint32_t in_warp[WARPS];
    uint32_t n_back, n_rows_back, n_picked, is_over;
};

static __device__ __forceinline__ bool is_back(const struct pick_step &a, uint32_t s)
{
    if (s >= a.n_slots || a.slots[s].state != PICK_SLOT_POSTED || a.slots[s].layer != a.layer)
        return false;
    const uint32_t *done = a.done[s / a.slots_per_worker] + s % a.slots_per_worker;
    return load_relaxed_sys(done) == a.slots[s].generation;
}

/* Gathers slots that are back, ascending; beyond BACK_MAX they wait for the next visit. */
static __device__ __forceinline__ void look(const struct pick_step &a, struct pick_shared *shared)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t n = 0;
    if (threadIdx.x == 0)
        shared->n_rows_back = 0;
    for (uint32_t first = 0; first < a.n_slots; first += THREADS) {
        const uint32_t s = first + threadIdx.x;
        const bool back = is_back(a, s);
        const uint32_t bits = __ballot_sync(~0u, back);
        uint32_t at = n + __popc(bits & ((1u << lane) - 1));
        if (lane == 0)
            shared->in_warp[warp] = __popc(bits);
        __syncthreads();
        for (uint32_t w = 0; w < WARPS; w++) {
            n += shared->in_warp[w];
            at += w < warp ? shared->in_warp[w] : 0;
        }
        if (back && at < BACK_MAX) {
            shared->slots[at] = a.slots[s];
            shared->done[at] = a.slots[s].generation;
            shared->index[at] = s;
            atomicAdd(&shared->n_rows_back, (uint32_t)a.slots[s].n_q);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0)
        shared->n_back = min(n, (uint32_t)BACK_MAX);
    __syncthreads();
}

/* Looks until enough is back or the funded time is over; the nanoseconds waited. */
static __device__ __forceinline__ uint64_t look_and_wait(const struct pick_step &a,
                                                         struct pick_shared *shared)
{
    const uint64_t from_ns = globaltimer_ns();
    const uint64_t left_ns = a.budget != NULL ? a.budget->wait_ns : UINT64_MAX;
    const uint64_t wait_ns = min((uint64_t)a.ask->wait_ns, left_ns);
    const uint32_t want = a.ask->want;
    for (;;) {
        look(a, shared);
        if (threadIdx.x == 0)
            shared->is_over = wait_ns == 0 || shared->n_rows_back >= want ||
                              globaltimer_ns() - from_ns >= wait_ns;
        __syncthreads();
        const bool is_over = shared->is_over != 0;
        __syncthreads();
        if (is_over)
            break;
        __nanosleep(200);
    }
    return wait_ns == 0 ? 0 : globaltimer_ns() - from_ns;
}

/* One thread: rows, next job and log of slot i of the picked, whose rows begin at n_rows. */
static __device__ __forceinline__ uint32_t take(const struct pick_step &a, uint32_t s, uint32_t i,
                                                uint32_t n_rows)
{
    struct pick_slot &slot = a.slots[s];
    const uint32_t row = a.ask->n_common + n_rows;
    const uint8_t *job =
        a.job_slots[s / a.slots_per_worker] + (size_t)(s % a.slots_per_worker) * CUDA_SLOT_BYTES;
    const bool failed = load_relaxed_sys((const uint32_t *)(job + CUDA_SLOT_STATUS)) != 0;
    const bool rode = slot.age == a.ask->sweep;
    for (uint32_t q = 0; q < slot.n_q; q++) {
        a.row_slot[row + q] = a.residual_first + s * a.n_q_max + q;
        a.source[n_rows + q] = s << 8 | q;
        a.row[row + q] = {a.owner[s].pos, 0, s, q == 0 ? (uint32_t)slot.n_q : 0u};
    }
    slot.generation++;
    slot.layer = a.layer + 1;
    slot.age = a.ask->sweep;
    slot.state = a.is_last ? PICK_SLOT_FREE : PICK_SLOT_POSTED;
    a.generation[s] = slot.generation;
    a.picked[i] = failed ? s | PICK_LOG_FAILED : s;
    return rode;
}

/* One thread: what was spent, and when the next layer is expected. */
static __device__ __forceinline__ void account(const struct pick_step &a, uint32_t n_rows,
                                               uint64_t waited_ns)
{
    const uint64_t now_ns = globaltimer_ns();
    a.log->waited_ns = waited_ns;
    a.log->proj_ns = now_ns;
    if (a.budget != NULL) {
        a.budget->p -= n_rows;
        a.budget->wait_ns -= min(waited_ns, a.budget->wait_ns);
    }
    if (a.deadline_ns != NULL)
        *a.deadline_ns = now_ns + a.arrival_ns[1] - a.arrival_ns[0] + *a.clock_ns;
}

static __global__ void __launch_bounds__(THREADS) pick_step_kernel(const struct pick_step a)
{
    struct pick_shared *shared = (struct pick_shared *)shared_memory();
    const uint64_t waited_ns = look_and_wait(a, shared);
    fence_acquire_sys(); /* A1: the outputs behind the done words, for this thread and, by the kernel's
                            end, for those that gather them */
    if (threadIdx.x != 0)
        return;
    uint32_t p_max = min(a.ask->p_max, (uint32_t)PICK_STEP_ROWS_MAX);
    if (a.budget != NULL)
        p_max = min(p_max, a.budget->p);
    const uint32_t n = pick_rows(shared->slots, shared->n_back, a.layer, shared->done, 1,
                                 a.ask->age_max, a.ask->batches, p_max, shared->picked);
    uint32_t n_rows = 0, n_ridden = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct pick_slot &slot = shared->slots[shared->picked[i]];
        n_ridden += take(a, shared->index[shared->picked[i]], i, n_rows);
        n_rows += slot.n_q;
    }
    *a.n_live = a.ask->n_common + n_rows;
    account(a, n_rows, waited_ns);
    a.log->n_ridden = n_ridden;
    a.log->n_rows = n_rows;
    store_release_sys(&a.log->n_picked, n); /* R2 */
}

int pick_step(const struct pick_step *a, cuda_stream stream)
{
    if (a->n_slots > PICK_STEP_SLOTS_MAX)
        return CUDA_NOT_SUPPORTED;
    return launch(pick_step_kernel, dim3(1), THREADS, sizeof(struct pick_shared), stream, *a);
}
