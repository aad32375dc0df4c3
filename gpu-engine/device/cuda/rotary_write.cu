/* rotary_write.cu - see rotary_write.h.  A block per common row, or per job with all its rows: so one
 * barrier stands between a job's last byte and its release, and no block waits for another. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/rotary_write.h"

enum { THREADS = 128, PIECE = 8 };

/* Elements at..at+7 of a head, rotated; from: the head's first. */
template <int TYPE>
static __device__ __forceinline__ void piece_rotate(float x[PIECE], const struct rotary_write &a,
                                                    const uint16_t *from, uint32_t at, uint32_t pos)
{
    const uint32_t half = a.n_dims / 2;
    const float2 *turn = (const float2 *)a.angles + (size_t)pos * half;
    element_unpack8<TYPE>(x, *(const uint4 *)(from + at));
    if (at >= a.n_dims)
        return;
    if (a.is_neox) {
        float other[PIECE];
        const bool low = at < half;
        element_unpack8<TYPE>(other, *(const uint4 *)(from + (low ? at + half : at - half)));
#pragma unroll
        for (int e = 0; e < PIECE; e++) {
            const float2 t = turn[at % half + e];
            x[e] = x[e] * t.x + (low ? -other[e] : other[e]) * t.y;
        }
        return;
    }
#pragma unroll
    for (int e = 0; e < PIECE; e += 2) {
        const float2 t = turn[(at + e) / 2];
        const float even = x[e];
        x[e] = even * t.x - x[e + 1] * t.y;
        x[e + 1] = even * t.y + x[e + 1] * t.x;
    }
}

/* Where piece `at` of a common row goes; heads: q, then k, then v. */
static __device__ __forceinline__ uint4 *common_place(const struct rotary_write &a, uint32_t row,
                                                      uint32_t head, uint32_t at)
{
    const struct cuda_kv &kv = a.kv;
    const uint32_t pos = a.row[row].pos, n_k = kv.n_kv_heads;
    if (head < a.n_heads)
        return (uint4 *)(a.q + ((size_t)row * a.n_heads + head) * kv.head_dim + at);
    const uint32_t h = head - a.n_heads;
    const uint32_t block =
        kv.tables[(size_t)a.row[row].table * kv.table_stride + pos / kv.block_tokens];
    const uint64_t to =
        cuda_kv_row(&kv, h < n_k ? kv.k_off : kv.v_off, block, h % n_k, pos % kv.block_tokens);
    return (uint4 *)(kv.pool + to + at * 2);
}

/* The same of row j of a job; the payload has the pool's type. */
static __device__ __forceinline__ uint4 *job_place(const struct rotary_write &a, uint32_t slot,
                                                   uint32_t j, uint32_t head, uint32_t at)
{
    const struct cuda_jobs &jobs = a.jobs;
    const uint32_t n_k = a.kv.n_kv_heads, d = a.kv.head_dim;
    uint8_t *to = cuda_job_in(&jobs, slot);
    if (head < a.n_heads)
        return (uint4 *)(to + ((size_t)j * jobs.q_width + head * d + at) * 2);
    if (head < a.n_heads + n_k)
        return (uint4 *)(to + jobs.k_off +
                         ((size_t)j * jobs.k_width + (head - a.n_heads) * d + at) * 2);
    return (uint4 *)(to + jobs.v_off +
                     ((size_t)j * jobs.v_width + (head - a.n_heads - n_k) * d + at) * 2);
}

/* One thread, after the barrier behind the payload. */
static __device__ __forceinline__ void job_post(const struct rotary_write &a, uint32_t slot)
{
    const struct cuda_job_owner owner = a.owner[slot];
    const uint64_t deadline_ns = *a.deadline_ns, now_ns = globaltimer_ns();
    uint32_t *line = (uint32_t *)cuda_job_slot(&a.jobs, slot);
    const uint32_t head[14] = {owner.seq_idx,
                               owner.seq_gen,
                               a.layer,
                               owner.n_q,
                               owner.pos,
                               owner.pos + owner.n_q,
                               (uint32_t)deadline_ns,
                               (uint32_t)(deadline_ns >> 32),
                               (uint32_t)now_ns,
                               (uint32_t)(now_ns >> 32),
                               (uint32_t)a.sweep,
                               (uint32_t)(a.sweep >> 32),
                               0,
                               0};
#pragma unroll
    for (int i = 0; i < 14; i++)
        store_relaxed_sys(line + 2 + i, head[i]);
    /* R1: all threads' payload (the barrier orders it before) and the line above. */
    store_release_sys((uint64_t *)line, cuda_job_word(a.generation[slot], a.jobs.epoch));
}

template <int TYPE>
static __global__ void __launch_bounds__(THREADS) rotary_write_kernel(const struct rotary_write a)
{
    const uint32_t first = blockIdx.x, d = a.kv.head_dim, n_rotated = a.n_heads + a.kv.n_kv_heads;
    if (a.rows.n_live != NULL && first >= *a.rows.n_live)
        return;
    const struct rotary_row unit = a.row[first];
    const uint32_t per_row = (n_rotated + a.kv.n_kv_heads) * (d / PIECE);
    for (uint32_t i = threadIdx.x; i < unit.n_q * per_row; i += THREADS) {
        const uint32_t j = i / per_row, piece = i % per_row;
        const uint32_t head = piece / (d / PIECE), at = piece % (d / PIECE) * PIECE;
        const uint16_t *from =
            a.qkv + ((size_t)(first + j) * (n_rotated + a.kv.n_kv_heads) + head) * d;
        float x[PIECE];
        uint4 out = *(const uint4 *)(from + at);
        if (head < n_rotated && at < a.n_dims) {
            piece_rotate<TYPE>(x, a, from, at, unit.pos + j);
            out = element_pack8<TYPE>(x);
        }
        if (unit.slot == CUDA_SLOT_NONE)
            *common_place(a, first + j, head, at) = out;
        else
            store_relaxed_sys4(job_place(a, unit.slot, j, head, at), out);
    }
    __syncthreads();
    if (unit.slot != CUDA_SLOT_NONE && unit.n_q > 0 && threadIdx.x == 0)
        job_post(a, unit.slot);
}

int rotary_write(const struct rotary_write *a, cuda_stream stream)
{
    const dim3 grid(a->rows.n);
    if (a->n_dims % 16 != 0 || a->n_dims > a->kv.head_dim || a->kv.head_dim % PIECE != 0)
        return CUDA_NOT_SUPPORTED;
    if (a->rows.n == 0)
        return 0;
    return a->kv.type == KV_TYPE_BF16
               ? launch(rotary_write_kernel<KV_TYPE_BF16>, grid, THREADS, 0, stream, *a)
               : launch(rotary_write_kernel<KV_TYPE_F16>, grid, THREADS, 0, stream, *a);
}
