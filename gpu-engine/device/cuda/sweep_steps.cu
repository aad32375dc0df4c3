/* sweep_steps.cu - see sweep_steps.h. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/sweep_steps.h"

enum { THREADS = 128, PIECE = 8 };

/* ---- The beginning ------------------------------------------------------------------------------- */

static __device__ __forceinline__ void slot_enter(const struct sweep_begin &a,
                                                  const struct sweep_enter &e)
{
    struct pick_slot &slot = a.slots[e.slot];
    slot.generation = e.generation;
    slot.layer = 0;
    slot.age = a.head->sweep;
    slot.state = PICK_SLOT_POSTED; /* it will be, before the first look */
    slot.n_q = (uint16_t)e.owner.n_q;
    slot.batch = 0;
    a.owner[e.slot] = e.owner;
    a.generation[e.slot] = e.generation;
    a.slot_sampling[e.slot] = e.sampling;
}

static __global__ void __launch_bounds__(THREADS) sweep_begin_kernel(const struct sweep_begin a)
{
    for (uint32_t i = threadIdx.x; i < a.head->n_leave; i += THREADS)
        a.slots[a.leave[i]].state = PICK_SLOT_FREE;
    __syncthreads(); /* who leaves may enter again */
    for (uint32_t i = threadIdx.x; i < a.head->n_enter; i += THREADS)
        slot_enter(a, a.enter[i]);
    if (threadIdx.x != 0)
        return;
    const uint64_t now_ns = globaltimer_ns();
    *a.n_live = a.head->n_rows;
    *a.start_ns = now_ns;
    a.budget->p = a.head->p;
    a.budget->wait_ns = a.head->wait_ns;
    *a.deadline_ns = now_ns + *a.arrival_ns + a.head->clock_ns;
}

int sweep_begin(const struct sweep_begin *a, cuda_stream stream)
{
    return launch(sweep_begin_kernel, dim3(1), THREADS, 0, stream, *a);
}

/* ---- What is sampled ------------------------------------------------------------------------------ */

/* Row of the batch, and its slot, of the k-th output among the picked; counts them all. */
struct picked_output {
    uint32_t row, slot, n;
};

static __device__ __forceinline__ struct picked_output picked_find(const struct sweep_outputs &a,
                                                                   uint32_t k)
{
    struct picked_output found = {0, 0, 0};
    if (a.n_live == NULL)
        return found;
    const uint32_t n_common = *a.n_common, n_picked = *a.n_live - n_common;
    for (uint32_t i = 0; i < n_picked; i++) {
        const uint32_t slot = a.source[i] >> 8, q = a.source[i] & 0xff;
        if (q + 1 != a.owner[slot].n_q)
            continue;
        if (found.n++ == k) {
            found.row = n_common + i;
            found.slot = slot;
        }
    }
    return found;
}

static __device__ __forceinline__ void groups_count(const struct sweep_outputs &a, uint32_t n)
{
    for (uint32_t g = threadIdx.x; g < a.groups; g += THREADS) {
        const uint32_t first = g * a.group_rows;
        a.n_outputs[g] = n > first ? min(n - first, a.group_rows) : 0;
    }
}

/* A block per output. */
static __global__ void __launch_bounds__(THREADS) sweep_outputs_kernel(const struct sweep_outputs a)
{
    const uint32_t n_mine = a.head->n_out[a.batch], both = a.head->n_out[0] + a.head->n_out[1];
    const uint32_t i = blockIdx.x, k = i - n_mine;
    struct picked_output *shared = (struct picked_output *)shared_memory();
    uint32_t row, to;
    if (threadIdx.x == 0 && (i >= n_mine || i == 0))
        *shared = picked_find(a, k);
    __syncthreads();
    if (i == 0 && a.batch == 0) {
        groups_count(a, both + shared->n);
        if (threadIdx.x == 0)
            *a.stamp_ns = globaltimer_ns();
    }
    if (i < n_mine) {
        row = a.out_row[i];
        to = a.batch == 0 ? i : a.head->n_out[0] + i;
    } else {
        if (k >= shared->n)
            return;
        row = shared->row;
        to = both + k;
    }
    if (threadIdx.x == 0) {
        a.row[to] = i < n_mine ? a.out_how[i] : a.slot_sampling[shared->slot];
        if (i >= n_mine)
            a.out_slot[k] = shared->slot;
    }
    for (uint32_t at = threadIdx.x * PIECE; at < a.width; at += THREADS * PIECE)
        *(uint4 *)(a.out + (size_t)to * a.width + at) =
            *(const uint4 *)(a.in + (size_t)row * a.width + at);
}

int sweep_outputs(const struct sweep_outputs *a, cuda_stream stream)
{
    if (a->width % PIECE != 0)
        return CUDA_NOT_SUPPORTED;
    /* One block at least: it also says that there are none. */
    return launch(sweep_outputs_kernel, dim3(a->outputs_max > 0 ? a->outputs_max : 1), THREADS,
                  sizeof(struct picked_output), stream, *a);
}

/* ---- Time ------------------------------------------------------------------------------------------ */

static __global__ void __launch_bounds__(32) sweep_stamp_kernel(uint64_t *at)
{
    if (threadIdx.x == 0)
        *at = globaltimer_ns();
}

int sweep_stamp(uint64_t *at, cuda_stream stream)
{
    return launch(sweep_stamp_kernel, dim3(1), 32, 0, stream, at);
}
