/* rotary_write.cu - see rotary_write.h.  A block per common row, or per job with all its rows: so one
 * barrier stands between a job's last byte and its release, and no block waits for another.
 *
 * Within a block 8, 16 or 32 lanes share a head, 8 elements each, so that what is taken over a head (its
 * norm, its scale) stays in them. */
#include "gpu-engine/device/cuda/ptx.cuh"
#include "gpu-engine/device/cuda/rotary_write.h"

enum { THREADS = 256, PIECE = 8 };

/* ---- Elements of a head ---------------------------------------------------------------------------- */

/* Lanes that share a head. */
static __device__ __forceinline__ uint32_t head_lanes(uint32_t d)
{
    return d <= 64 ? 8 : d <= 128 ? 16 : 32;
}

/* The norm of a head, as its lanes apply it; weight NULL: none. */
struct head_norm {
    const float *weight;
    float factor;
};

/* 8 elements from `at` on, normed. */
template <int TYPE>
static __device__ __forceinline__ void piece_load(float x[PIECE], const uint16_t *from, uint32_t at,
                                                  const struct head_norm &norm)
{
    element_unpack8<TYPE>(x, *(const uint4 *)(from + at));
    if (norm.weight == NULL)
        return;
#pragma unroll
    for (int e = 0; e < PIECE; e++)
        x[e] *= norm.factor * norm.weight[at + e];
}

/* All lanes; valid: this one has elements.  Sums over the head's lanes only where the model norms. */
template <int TYPE>
static __device__ __forceinline__ struct head_norm
norm_of(const struct rotary_write &a, const uint16_t *from, uint32_t head, uint32_t at, bool valid)
{
    struct head_norm norm = {NULL, 1.0f};
    float x[PIECE], squares = 0.0f;
    if (a.q_norm == NULL)
        return norm;
    if (valid) {
        piece_load<TYPE>(x, from, at, norm);
#pragma unroll
        for (int e = 0; e < PIECE; e++)
            squares += x[e] * x[e];
    }
    for (uint32_t bits = head_lanes(a.kv.head_dim) / 2; bits > 0; bits /= 2)
        squares += __shfl_xor_sync(~0u, squares, bits);
    norm.weight = head < a.n_heads                     ? a.q_norm
                  : head < a.n_heads + a.kv.n_kv_heads ? a.k_norm
                                                       : NULL;
    norm.factor = rsqrtf(squares / (float)a.kv.head_dim + a.head_eps);
    return norm;
}

/* Elements at..at+7 of a head, normed and rotated; from: the head's first. */
template <int TYPE>
static __device__ __forceinline__ void piece_rotate(float x[PIECE], const struct rotary_write &a,
                                                    const uint16_t *from, uint32_t at, uint32_t pos,
                                                    const struct head_norm &norm)
{
    const uint32_t half = a.n_dims / 2;
    const float2 *turn = (const float2 *)a.angles + (size_t)pos * half;
    piece_load<TYPE>(x, from, at, norm);
    if (at >= a.n_dims)
        return;
    if (a.is_neox) {
        float other[PIECE];
        const bool low = at < half;
        piece_load<TYPE>(other, from, low ? at + half : at - half, norm);
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

/* ---- The pool ---------------------------------------------------------------------------------------- */

/* Head h of k, then of v, of a common row. */
struct pool_place {
    uint8_t *row;
    float *scale;
};

static __device__ __forceinline__ struct pool_place pool_place(const struct rotary_write &a,
                                                               uint32_t row, uint32_t h)
{
    const struct cuda_kv &kv = a.kv;
    const uint32_t pos = a.row[row].pos, token = pos % kv.block_tokens, head = h % kv.n_kv_heads;
    const uint32_t block =
        kv.tables[(size_t)a.row[row].table * kv.table_stride + pos / kv.block_tokens];
    const bool is_k = h < kv.n_kv_heads;
    const uint64_t at = cuda_kv_row(&kv, is_k ? kv.k_off : kv.v_off, block, head, token);
    const uint64_t scale_at =
        cuda_kv_scale(&kv, is_k ? kv.k_scale_off : kv.v_scale_off, block, head, token);
    return {kv.pool + at, (float *)(kv.pool + scale_at)};
}

/* Largest finite magnitude of a head; all lanes. */
static __device__ __forceinline__ float head_top(const float x[PIECE], uint32_t n_lanes, bool valid)
{
    float top = 0.0f;
#pragma unroll
    for (int e = 0; e < PIECE; e++)
        top = valid && fabsf(x[e]) < INFINITY ? fmaxf(top, fabsf(x[e])) : top;
    for (uint32_t bits = n_lanes / 2; bits > 0; bits /= 2)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, bits));
    return top;
}

static __device__ __forceinline__ uint32_t element_i8(float x, float scale)
{
    const float q = scale > 0.0f ? rintf(x / scale) : 0.0f;
    if (!(fabsf(q) < INFINITY))
        return 0;
    return (uint32_t)(int)fmaxf(-127.0f, fminf(127.0f, q)) & 0xffu;
}

static __device__ __forceinline__ void piece_store_i8(const struct pool_place &to, uint32_t at,
                                                      const float x[PIECE], float top)
{
    const float scale = top / 127.0f;
    uint2 out = {0, 0};
#pragma unroll
    for (int e = 0; e < 4; e++) {
        out.x |= element_i8(x[e], scale) << 8 * e;
        out.y |= element_i8(x[e + 4], scale) << 8 * e;
    }
    *(uint2 *)(to.row + at) = out;
    if (at == 0)
        *to.scale = scale;
}

static __device__ __forceinline__ void piece_store_16(const struct pool_place &to, uint32_t at,
                                                      const float x[PIECE], uint32_t type)
{
    *(uint4 *)(to.row + 2 * at) =
        type == KV_TYPE_BF16 ? element_pack8<KV_TYPE_BF16>(x) : element_pack8<KV_TYPE_F16>(x);
}

/* ---- Jobs -------------------------------------------------------------------------------------------- */

/* Where piece `at` of row j of a job goes; heads: q, then k, then v.  The payload has the rows' type. */
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
    const uint64_t deadline_ns = *a.deadline_ns, now_ns = globaltimer_ns() + *a.clock_ns;
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
                               (uint32_t)*a.sweep,
                               (uint32_t)(*a.sweep >> 32),
                               0,
                               0};
#pragma unroll
    for (int i = 0; i < 14; i++)
        store_relaxed_sys(line + 2 + i, head[i]);
    /* R1: all threads' payload (the barrier orders it before) and the line above. */
    store_release_sys((uint64_t *)line, cuda_job_word(a.generation[slot], a.jobs.epoch));
    if (a.posted != NULL)
        store_release_sys(a.posted + slot, a.generation[slot]); /* R3: pairs with the host's look */
}

static __device__ __forceinline__ void block_stamp(const struct rotary_write &a)
{
    if (blockIdx.x == 0 && threadIdx.x == 0 && a.stamp_ns != NULL)
        *a.stamp_ns = globaltimer_ns();
}

/* ---- A row ------------------------------------------------------------------------------------------- */

/* A lane's piece of one head of row first + j; at >= head_dim, or no such head: it has none. */
struct head_piece {
    uint32_t j, head, at;
    bool valid;
};

/* All lanes. */
template <int TYPE>
static __device__ __forceinline__ void piece_write(const struct rotary_write &a, uint32_t first,
                                                   const struct rotary_row &unit,
                                                   const struct head_piece &p)
{
    const uint32_t d = a.kv.head_dim, n_all = a.n_heads + 2 * a.kv.n_kv_heads;
    const uint16_t *from = a.qkv + ((size_t)(first + p.j) * n_all + p.head) * d;
    const bool rotates = p.head < a.n_heads + a.kv.n_kv_heads;
    const bool common = unit.slot == CUDA_SLOT_NONE, to_pool = common && p.head >= a.n_heads;
    const struct head_norm norm = norm_of<TYPE>(a, from, p.head, p.at, p.valid);
    float x[PIECE] = {}, top = 0.0f;
    if (p.valid && rotates)
        piece_rotate<TYPE>(x, a, from, p.at, unit.pos + p.j, norm);
    else if (p.valid)
        piece_load<TYPE>(x, from, p.at, {NULL, 1.0f});
    if (a.kv.type == KV_TYPE_I8)
        top = head_top(x, head_lanes(d), p.valid);
    if (!p.valid)
        return;
    if (!common)
        store_relaxed_sys4(job_place(a, unit.slot, p.j, p.head, p.at), element_pack8<TYPE>(x));
    else if (!to_pool)
        *(uint4 *)(a.q + ((size_t)(first + p.j) * a.n_heads + p.head) * d + p.at) =
            element_pack8<TYPE>(x);
    else if (a.kv.type == KV_TYPE_I8)
        piece_store_i8(pool_place(a, first + p.j, p.head - a.n_heads), p.at, x, top);
    else
        piece_store_16(pool_place(a, first + p.j, p.head - a.n_heads), p.at, x, a.kv.type);
}

template <int TYPE>
static __global__ void __launch_bounds__(THREADS) rotary_write_kernel(const struct rotary_write a)
{
    const uint32_t first = blockIdx.x, n_all = a.n_heads + 2 * a.kv.n_kv_heads;
    if (a.rows.n_live != NULL && first >= *a.rows.n_live) {
        block_stamp(a); /* also where there is no row at all */
        return;
    }
    const struct rotary_row unit = a.row[first];
    const uint32_t lanes = head_lanes(a.kv.head_dim), n = unit.n_q * n_all;
    const uint32_t warp_first = threadIdx.x / 32 * (32 / lanes);
    for (uint32_t base = warp_first; base < n; base += THREADS / lanes) {
        const uint32_t i = base + threadIdx.x % 32 / lanes, at = threadIdx.x % lanes * PIECE;
        const bool valid = i < n && at < a.kv.head_dim;
        piece_write<TYPE>(a, first, unit,
                          {valid ? i / n_all : 0, valid ? i % n_all : 0, valid ? at : 0, valid});
    }
    __syncthreads();
    if (unit.slot != CUDA_SLOT_NONE && unit.n_q > 0 && threadIdx.x == 0)
        job_post(a, unit.slot);
    block_stamp(a);
}

int rotary_write(const struct rotary_write *a, cuda_stream stream)
{
    const dim3 grid(a->rows.n);
    if (a->n_dims % 16 != 0 || a->n_dims > a->kv.head_dim || a->kv.head_dim % PIECE != 0 ||
        a->kv.head_dim > 32 * PIECE || cuda_kv_row_type(&a->kv) == KV_TYPE_I8)
        return CUDA_NOT_SUPPORTED;
    if (a->rows.n == 0)
        return 0;
    return cuda_kv_row_type(&a->kv) == KV_TYPE_BF16
               ? launch(rotary_write_kernel<KV_TYPE_BF16>, grid, THREADS, 0, stream, *a)
               : launch(rotary_write_kernel<KV_TYPE_F16>, grid, THREADS, 0, stream, *a);
}
