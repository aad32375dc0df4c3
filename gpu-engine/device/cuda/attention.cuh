/* attention.cuh - what a warp does with tiles of keys and values, for both attention kernels.
 *
 * A warp has 16 query rows. Scores: A = q (16 rows x 16 elements), B = K (16 elements x 8 tokens).
 * Output: A = weights (16 rows x 16 tokens), which already lie in the registers where A wants them,
 * B = V (16 tokens x 8 elements). Lane l holds rows l/4 and l/4 + 8: h = 0 and 1 below.
 *
 * 8-bit elements are whole numbers, exact in f16, in which they are multiplied; scales go to the scores,
 * and with WEIGHT_SCALE to the weights.  They are fetched from shared memory in pairs, as if a pair were
 * one 16-bit element, which puts them into other places of a fragment: of K, lane t of four holds
 * elements 4t..4t+3 of 16, and q is permuted alike (a product does not mind the order of its terms); of
 * V, one fragment holds the even elements of 16, the next the odd ones, and so do the outputs. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_CUH
#define OMNI_GPU_ENGINE_DEVICE_CUDA_ATTENTION_CUH
#include "gpu-engine/device/cuda/cuda_kv.h"
#include "gpu-engine/device/cuda/ptx.cuh"

/* Tokens that a warp fetches together: they lie in one block of the pool. */
enum { ATTENTION_FETCH = 16, ATTENTION_ROWS = 16 };

/* Keeps weights times V's scales, which may be small, within f16's normal numbers; V's magnitude may be
 * 32,000 then. */
#define ATTENTION_WEIGHT_SCALE 256.0f

/* The type that tensor cores multiply. */
template <int TYPE> struct attention_type {
    static const int MMA = TYPE == KV_TYPE_I8 ? (int)KV_TYPE_F16 : TYPE;
    static const int BYTES = TYPE == KV_TYPE_I8 ? 1 : 2;
};

/* ---- Tiles ----------------------------------------------------------------------------------------- */

/* A row is CHUNKS pieces of 16 bytes.  8 rows of one column must lie in 8 different bank groups: rows of
 * a multiple of 8 chunks are swizzled, others padded to an odd number of chunks. */
template <int D, int TYPE> struct attention_row {
    static const int CHUNKS = D * attention_type<TYPE>::BYTES / 16;
    static const int STRIDE = CHUNKS % 8 == 0 ? CHUNKS : CHUNKS | 1;
};

template <int TYPE, int T> struct attention_scales {
};
template <int T> struct attention_scales<KV_TYPE_I8, T> {
    float k_scale[T], v_scale[T];
};

template <int D, int TYPE, int T> struct attention_tile : attention_scales<TYPE, T> {
    uint4 k[T][attention_row<D, TYPE>::STRIDE];
    uint4 v[T][attention_row<D, TYPE>::STRIDE];
};

template <int D, int TYPE>
static __device__ __forceinline__ uint4 *chunk_at(uint4 (*rows)[attention_row<D, TYPE>::STRIDE],
                                                  int row, int chunk)
{
    return &rows[row][attention_row<D, TYPE>::CHUNKS % 8 == 0 ? chunk ^ (row & 7) : chunk];
}

/* Scales of 16 tokens, 4 a lane; those from `end` on may be anything: nobody counts them. */
template <int T>
static __device__ __forceinline__ void scales_fetch(const struct cuda_kv &kv, uint32_t block,
                                                    uint32_t head, uint32_t token, uint32_t end,
                                                    attention_scales<KV_TYPE_I8, T> *tile, int at)
{
    const uint32_t lane = threadIdx.x % 32, t = lane % 4 * 4;
    if (lane >= 8)
        return;
    float *to = (lane < 4 ? tile->k_scale : tile->v_scale) + at + t;
    const uint64_t off = lane < 4 ? kv.k_scale_off : kv.v_scale_off;
    cp_async16(to, kv.pool + cuda_kv_scale(&kv, off, block, head, token % kv.block_tokens + t),
               token + t < end);
}

/* Queues the copies of 16 tokens into rows at..at+15; those from `end` on become zeros, since 0 * garbage
 * may be NaN. */
template <int D, int TYPE, int T>
static __device__ __forceinline__ void tile_fetch(const struct cuda_kv &kv, const uint32_t *table,
                                                  uint32_t head, uint32_t token, uint32_t end,
                                                  attention_tile<D, TYPE, T> *tile, int at)
{
    const int CHUNKS = attention_row<D, TYPE>::CHUNKS, lane = threadIdx.x % 32;
    const uint32_t block = token < end ? table[token / kv.block_tokens] : 0;
    const uint8_t *from = kv.pool + cuda_kv_row(&kv, 0, block, head, token % kv.block_tokens);
#pragma unroll
    for (int i = lane; i < ATTENTION_FETCH * CHUNKS; i += 32) {
        const int t = i / CHUNKS, chunk = i % CHUNKS;
        const bool valid = token + t < end;
        cp_async16(chunk_at<D, TYPE>(tile->k, at + t, chunk), from + kv.k_off + (size_t)i * 16,
                   valid);
        cp_async16(chunk_at<D, TYPE>(tile->v, at + t, chunk), from + kv.v_off + (size_t)i * 16,
                   valid);
    }
    if constexpr (TYPE == KV_TYPE_I8)
        scales_fetch<T>(kv, block, head, token, end, tile, at);
}

/* ---- Which tokens ----------------------------------------------------------------------------------- */

/* Tiles of T tokens that hold what is visible of begin..to-1: the first n_sinks from `begin` on, the rest
 * from `rest` on, which lies beyond. */
struct attention_range {
    uint32_t begin, n_sinks, rest, n;
};

/* first: the first visible token but for those below `sinks`, of which there may be none.  Steps of `step`
 * tokens begin at its multiples, whatever else is in the block: a row's bits are its own. */
static __device__ __forceinline__ struct attention_range
attention_range(uint32_t begin, uint32_t to, uint32_t first, uint32_t sinks, uint32_t T,
                uint32_t step)
{
    struct attention_range r = {begin, 0, max(begin, first / step * step), 0};
    const uint32_t sinks_end = min((sinks + T - 1) / T * T, to);
    if (sinks_end >= r.rest)
        r.rest = begin; /* they touch: one range */
    else if (sinks_end > begin)
        r.n_sinks = (sinks_end - begin + T - 1) / T;
    r.n = r.n_sinks + (r.rest < to ? (to - r.rest + T - 1) / T : 0);
    return r;
}

static __device__ __forceinline__ uint32_t range_token(const struct attention_range &r, uint32_t i,
                                                       uint32_t T)
{
    return i < r.n_sinks ? r.begin + i * T : r.rest + (i - r.n_sinks) * T;
}

/* What row h sees: first[h]..end[h]-1 and those below n_sinks; and how a score becomes the exponent. */
struct attention_seen_by {
    uint32_t first[2], end[2], n_sinks;
    float factor; /* scale * log2(e); with a cap 2 * log2(e) * scale / cap */
    float cap;    /* cap * log2(e); 0: none */
};

static __device__ __forceinline__ void seen_scale(struct attention_seen_by &s, float scale,
                                                  float softcap)
{
    const float log2e = 1.44269504f;
    s.cap = softcap * log2e;
    s.factor = softcap == 0.0f ? scale * log2e : 2.0f * log2e * scale / softcap;
}

/* tanh(y) = 1 - 2 / (exp(2y) + 1). */
static __device__ __forceinline__ float score_scaled(const struct attention_seen_by &s, float x)
{
    return s.cap == 0.0f ? x * s.factor : s.cap * (1.0f - 2.0f / (exp2f(x * s.factor) + 1.0f));
}

/* ---- Queries ---------------------------------------------------------------------------------------- */

/* Where a warp keeps M groups of 16 rows of q: where registers do not hold them beside the outputs, in
 * shared memory, of which a lane reads what it wrote. */
template <int D, int M> struct attention_place {
    static const bool SHARED = D > 128 || (M > 1 && D > 64);
    static const int WORDS = D / 16 * 4 * 32;                              /* a group */
    static const size_t BYTES = SHARED ? M * WORDS * sizeof(uint32_t) : 0; /* a warp */
};

/* A group of 16 rows of q as fragments of A. */
template <int D, bool SHARED> struct attention_query {
    uint32_t a[D / 16][4];
    __device__ __forceinline__ void init(uint32_t *)
    {
    }
    __device__ __forceinline__ void put(int kk, int e, uint32_t pair)
    {
        a[kk][e] = pair;
    }
    __device__ __forceinline__ void fragment(uint32_t out[4], int kk) const
    {
#pragma unroll
        for (int e = 0; e < 4; e++)
            out[e] = a[kk][e];
    }
};
template <int D> struct attention_query<D, true> {
    uint4 *at;
    __device__ __forceinline__ void init(uint32_t *shared)
    {
        at = (uint4 *)shared + threadIdx.x % 32;
    }
    __device__ __forceinline__ void put(int kk, int e, uint32_t pair)
    {
        ((uint32_t *)&at[kk * 32])[e] = pair;
    }
    __device__ __forceinline__ void fragment(uint32_t out[4], int kk) const
    {
        const uint4 v = at[kk * 32];
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
};

/* Rows from, from + stride, ...; those from n_rows on are zero.  shared: the group's. */
template <int D, int TYPE, bool SHARED>
static __device__ __forceinline__ void query_load(attention_query<D, SHARED> &q, uint32_t *shared,
                                                  const uint16_t *from, size_t stride,
                                                  uint32_t n_rows, uint32_t row_type)
{
    const int MMA = attention_type<TYPE>::MMA;
    const uint32_t t = threadIdx.x % 4, first_row = threadIdx.x % 32 / 4;
    q.init(shared);
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t row = first_row + 8 * (e % 2), half = e / 2;
            const uint32_t at =
                16 * kk + (TYPE == KV_TYPE_I8 ? 4 * t + 2 * half : 2 * t + 8 * half);
            const uint32_t pair = row < n_rows ? *(const uint32_t *)(from + row * stride + at) : 0u;
            q.put(kk, e, row_type == MMA ? pair : pair_convert<MMA>(pair, row_type));
        }
    }
}

/* ---- Products --------------------------------------------------------------------------------------- */

/* s[m][i] = q . k of group m's rows and tokens 8i..8i+7: element e is row h = e/2, token 8i + 2(l%4) + e%2.
 * What is read of a tile serves all M groups of 16 rows. */
template <int D, int TYPE, int T, int S, int M, bool SHARED>
static __device__ __forceinline__ void tile_scores(float s[M][S / 8][4],
                                                   const attention_query<D, SHARED> q[M],
                                                   attention_tile<D, TYPE, T> *tile, int at)
{
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = at + lane % 8 + matrix / 2 * 8;
#pragma unroll
    for (int i = 0; i < M * S / 2; i++)
        s[i / (S / 2)][i % (S / 2) / 4][i % 4] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            q[m].fragment(a[m], kk);
#pragma unroll
        for (int j = 0; j < S / 16; j++) {
            uint32_t b[4];
            ldmatrix_x4(b, chunk_at<D, TYPE>(tile->k, 16 * j + row, 2 * kk + matrix % 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<TYPE>(s[m][2 * j], a[m], b);
                mma<TYPE>(s[m][2 * j + 1], a[m], b + 2);
            }
        }
    }
}

/* 8 bits: a chunk is 16 elements of a token, so an ldmatrix brings two steps (the last, of an odd number
 * of chunks, one that is not used). */
template <int D, int T, int S, bool SHARED>
static __device__ __forceinline__ void
tile_scores_i8(float s[S / 8][4], const attention_query<D, SHARED> &q,
               attention_tile<D, KV_TYPE_I8, T> *tile, int at)
{
    const int CHUNKS = D / 16, lane = threadIdx.x % 32, matrix = lane / 8;
    const int row = at + lane % 8 + matrix / 2 * 8;
#pragma unroll
    for (int i = 0; i < S / 8; i++)
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c += 2) {
        uint32_t a[2][4];
        q.fragment(a[0], c);
        if (c + 1 < CHUNKS)
            q.fragment(a[1], c + 1);
#pragma unroll
        for (int j = 0; j < S / 16; j++) {
            uint32_t r[4];
            ldmatrix_x4(
                r, chunk_at<D, KV_TYPE_I8>(tile->k, 16 * j + row, min(c + matrix % 2, CHUNKS - 1)));
#pragma unroll
            for (int m = 0; m < 4; m++) {
                if (c + m % 2 >= CHUNKS)
                    continue;
                const uint32_t b[2] = {i8_pair_to_f16<0, 1>(r[m]), i8_pair_to_f16<2, 3>(r[m])};
                mma<KV_TYPE_F16>(s[2 * j + m / 2], a[m % 2], b);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < S / 8; i++) {
        const float2 k = *(const float2 *)&tile->k_scale[at + 8 * i + 2 * (lane % 4)];
        s[i][0] *= k.x;
        s[i][1] *= k.y;
        s[i][2] *= k.x;
        s[i][3] *= k.y;
    }
}

/* Scores of a tile that all rows of the warp see. */
template <int T>
static __device__ __forceinline__ void scores_scale(float s[T / 8][4],
                                                    const struct attention_seen_by &seen)
{
    if (seen.cap == 0.0f) {
#pragma unroll
        for (int i = 0; i < T / 2; i++)
            s[i / 4][i % 4] *= seen.factor;
        return;
    }
#pragma unroll
    for (int i = 0; i < T / 2; i++)
        s[i / 4][i % 4] = score_scaled(seen, s[i / 4][i % 4]);
}

/* The same, and hides what a row does not see. */
template <int T>
static __device__ __forceinline__ void scores_mask(float s[T / 8][4], uint32_t token,
                                                   const struct attention_seen_by &seen)
{
    const uint32_t mine = token + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < T / 2; i++) {
        const int h = i % 4 / 2;
        const uint32_t t = mine + 8 * (i / 4) + i % 2;
        const bool visible = (t >= seen.first[h] || t < seen.n_sinks) && t < seen.end[h];
        s[i / 4][i % 4] = visible ? score_scaled(seen, s[i / 4][i % 4]) : -INFINITY;
    }
}

/* Turns scores into weights, and returns in alpha what the sums so far are to be multiplied by. */
template <int T>
static __device__ __forceinline__ void
tile_weights(float s[T / 8][4], uint32_t token, const struct attention_seen_by &seen,
             float max_so_far[2], float sum[2], float alpha[2])
{
    const bool open =
        token >= max(seen.first[0], seen.first[1]) && token + T <= min(seen.end[0], seen.end[1]);
    if (__all_sync(~0u, open))
        scores_scale<T>(s, seen);
    else
        scores_mask<T>(s, token, seen);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = max_so_far[h];
#pragma unroll
        for (int i = 0; i < T / 4; i++)
            top = fmaxf(top, s[i / 2][2 * h + i % 2]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float base = top == -INFINITY ? 0.0f : top; /* nothing visible yet */
        alpha[h] = exp2f(max_so_far[h] - base);
        max_so_far[h] = top;
        sum[h] *= alpha[h];
#pragma unroll
        for (int i = 0; i < T / 4; i++) {
            float &x = s[i / 2][2 * h + i % 2];
            x = exp2f(x - base);
            sum[h] += x;
        }
    }
}

/* Nothing where no row has a new maximum, which is most of the time. */
template <int D>
static __device__ __forceinline__ void output_scale(float o[D / 8][4], const float alpha[2])
{
    if (__all_sync(~0u, alpha[0] == 1.0f && alpha[1] == 1.0f))
        return;
#pragma unroll
    for (int i = 0; i < D / 2; i++)
        o[i / 4][i % 4] *= alpha[i % 4 / 2];
}

/* Weights of 16 tokens as a fragment of A. */
template <int MMA>
static __device__ __forceinline__ void weights_fragment(uint32_t a[4], float (*w)[4])
{
    a[0] = element_pair<MMA>(w[0][0], w[0][1]);
    a[1] = element_pair<MMA>(w[0][2], w[0][3]);
    a[2] = element_pair<MMA>(w[1][0], w[1][1]);
    a[3] = element_pair<MMA>(w[1][2], w[1][3]);
}

template <int D, int TYPE, int T, int S, int M>
static __device__ __forceinline__ void tile_output(float o[M][D / 8][4], float s[M][S / 8][4],
                                                   attention_tile<D, TYPE, T> *tile, int at)
{
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = at + lane % 8 + matrix % 2 * 8;
#pragma unroll
    for (int j = 0; j < S / 16; j++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            weights_fragment<TYPE>(a[m], s[m] + 2 * j);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, chunk_at<D, TYPE>(tile->v, 16 * j + row, n + matrix / 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<TYPE>(o[m][n], a[m], b);
                mma<TYPE>(o[m][n + 1], a[m], b + 2);
            }
        }
    }
}

/* A token's weight times its scale; where the weight is 0 the scale may be anything. */
static __device__ __forceinline__ float weight_scaled(float w, float scale)
{
    return w == 0.0f ? 0.0f : w * (scale * ATTENTION_WEIGHT_SCALE);
}

template <int D, int T, int S>
static __device__ __forceinline__ void
tile_output_i8(float o[D / 8][4], float s[S / 8][4], attention_tile<D, KV_TYPE_I8, T> *tile, int at)
{
    const int CHUNKS = D / 16, lane = threadIdx.x % 32, matrix = lane / 8;
    const int row = at + lane % 8 + matrix % 2 * 8;
#pragma unroll
    for (int j = 0; j < S / 16; j++) {
        float w[2][4];
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 8; i++)
            w[i / 4][i % 4] =
                weight_scaled(s[2 * j + i / 4][i % 4],
                              tile->v_scale[at + 16 * j + 8 * (i / 4) + 2 * (lane % 4) + i % 2]);
        weights_fragment<KV_TYPE_F16>(a, w);
#pragma unroll
        for (int c = 0; c < CHUNKS; c += 2) {
            uint32_t r[4];
            ldmatrix_x4_trans(
                r, chunk_at<D, KV_TYPE_I8>(tile->v, 16 * j + row, min(c + matrix / 2, CHUNKS - 1)));
#pragma unroll
            for (int m = 0; m < 2 && c + m < CHUNKS; m++) {
                const uint32_t even[2] = {i8_pair_to_f16<0, 2>(r[2 * m]),
                                          i8_pair_to_f16<0, 2>(r[2 * m + 1])};
                const uint32_t odd[2] = {i8_pair_to_f16<1, 3>(r[2 * m]),
                                         i8_pair_to_f16<1, 3>(r[2 * m + 1])};
                mma<KV_TYPE_F16>(o[2 * (c + m)], a, even);
                mma<KV_TYPE_F16>(o[2 * (c + m) + 1], a, odd);
            }
        }
    }
}

/* What a warp keeps of M groups of 16 rows from tile to tile. */
template <int D, int M> struct attention_rows {
    attention_query<D, attention_place<D, M>::SHARED> q[M];
    struct attention_seen_by seen[M];
    float o[M][D / 8][4], max[M][2], sum[M][2];
    __device__ __forceinline__ void init(void)
    {
#pragma unroll
        for (int m = 0; m < M; m++) {
            max[m][0] = max[m][1] = -INFINITY;
            sum[m][0] = sum[m][1] = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 2; i++)
                o[m][i / 4][i % 4] = 0.0f;
        }
    }
};

/* The part of S tokens of a tile, from its row `at` on, in the running maximum, sum and output; token: the
 * first of them. */
template <int D, int TYPE, int T, int S, int M>
static __device__ __forceinline__ void
tile_attend(attention_rows<D, M> &rows, attention_tile<D, TYPE, T> *tile, int at, uint32_t token)
{
    float s[M][S / 8][4], alpha[2];
    static_assert(TYPE != KV_TYPE_I8 || M == 1, "8 bits: one group a warp");
    if constexpr (TYPE == KV_TYPE_I8)
        tile_scores_i8<D, T, S>(s[0], rows.q[0], tile, at);
    else
        tile_scores<D, TYPE, T, S, M>(s, rows.q, tile, at);
#pragma unroll
    for (int m = 0; m < M; m++) {
        tile_weights<S>(s[m], token, rows.seen[m], rows.max[m], rows.sum[m], alpha);
        output_scale<D>(rows.o[m], alpha);
    }
    if constexpr (TYPE == KV_TYPE_I8)
        tile_output_i8<D, T, S>(rows.o[0], s[0], tile, at);
    else
        tile_output<D, TYPE, T, S, M>(rows.o, s, tile, at);
}

/* ---- Outputs ---------------------------------------------------------------------------------------- */

/* Pair p (of D / 8) of what a lane holds of row h: two adjacent elements and where they belong. */
struct output_pair {
    uint32_t at;
    float low, high;
};

template <int D, int TYPE>
static __device__ __forceinline__ struct output_pair output_take(const float o[D / 8][4], int h,
                                                                 int p)
{
    const uint32_t t = threadIdx.x % 4;
    if (TYPE != KV_TYPE_I8)
        return {8u * p + 2 * t, o[p][2 * h], o[p][2 * h + 1]};
    const int n = p / 2 * 2, u = p % 2;
    const float factor = 1.0f / ATTENTION_WEIGHT_SCALE;
    return {8u * n + 4 * t + 2 * u, o[n][2 * h + u] * factor, o[n + 1][2 * h + u] * factor};
}

/* The sum of a row over the four lanes that hold it. */
static __device__ __forceinline__ float row_sum(float sum)
{
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}

#endif
