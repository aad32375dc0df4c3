/* sampling.cu - see sampling.h.
 *
 * DESIGN.  Nothing is sorted.  Weights are positive floats, whose bits order as they do, so the weight at
 * which a head of the sorted list ends is found 8 bits at a time, from a histogram of those that fit so
 * far, by number (top-k) or by sum (top-p, and the draw itself).  Equal weights go by lower id, so a head
 * is a weight and how many of those that have it are in.
 *
 * One block finishes a row.  With scratch, many have surveyed it (sampling_survey.cu): the block goes over
 * the ids that they listed, in order, or, without filters, over the one slice that the draw falls into. */
#include "gpu-engine/device/cuda/sampling.cuh"

enum { THREADS = 512, BINS = 256 };

/* A head of the list in descending order of weight. */
struct sampling_head {
    uint32_t bits;   /* weights above are in; of equal ones, all but `excess` */
    uint32_t excess; /* those with the highest ids */
    u64 sum;
};

/* Where a descent ended. */
struct sampling_place {
    uint32_t bits, n_above, n_at; /* n_at: of the head */
    u64 sum_above;
};

struct sampling_shared {
    u64 sums[BINS], thread_sums[THREADS];
    u64 slice_sums[SAMPLING_SLICES_MAX];
    uint32_t slice_first[SAMPLING_SLICES_MAX + 1]; /* of the listed, counted through */
    uint32_t counts[BINS], thread_counts[THREADS];
    float floats[32], values[32];
    uint32_t ids[32];
    struct sampling_place place;
    uint32_t token;
};

struct sampling_task {    /* one row, as its block sees it */
    const float *logits;  /* that are drawn from */
    const uint32_t *list; /* candidates, by slices; NULL: all ids are */
    struct sampling_row how;
    uint32_t n, n_slices; /* candidates; 0 slices: no survey */
    float max;
    struct sampling_shared *shared;
};

/* How often `each` fits into x, at most n_max: by bits, because a division of 64 bits is a call, and a
 * call spills registers. */
static __device__ __forceinline__ uint32_t times(u64 x, u64 each, uint32_t n_max)
{
    uint32_t n = 0;
    for (uint32_t bit = 1u << 31; bit > 0; bit /= 2) {
        if ((n | bit) <= n_max && (n | bit) * each <= x)
            n |= bit;
    }
    return n;
}

/* Candidate i's id: ids ascend with i. */
static __device__ __forceinline__ uint32_t id_of(const struct sampling_task &t, uint32_t i)
{
    if (t.list == NULL)
        return i;
    uint32_t low = 0, high = t.n_slices; /* slice_first[low] <= i < slice_first[high] */
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (t.shared->slice_first[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return t.list[low * SAMPLING_SLICE + i - t.shared->slice_first[low]];
}

/* Bits of candidate i's weight, 0 where it is none. */
static __device__ __forceinline__ uint32_t weight_bits(const struct sampling_task &t, uint32_t i)
{
    return weight_bits_of(t.how, t.max, t.logits[id_of(t, i)]);
}

/* Philox4x32-10, as in device/sampler.c: uniform in [0, 1), 53 bits. */
static __device__ __forceinline__ double uniform_of(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ key[0];
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ key[1];
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* ---- Heads -------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void histogram(const struct sampling_task &t,
                                                 const struct sampling_head &head, uint32_t prefix,
                                                 int shift)
{
    struct sampling_shared *s = t.shared;
    __syncthreads();
    for (uint32_t b = threadIdx.x; b < BINS; b += THREADS) {
        s->counts[b] = 0;
        s->sums[b] = 0;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < t.n; i += THREADS) {
        const uint32_t bits = weight_bits(t, i);
        if (bits == 0 || bits < head.bits || (shift < 24 && (bits ^ prefix) >> (shift + 8) != 0))
            continue;
        atomicAdd(&s->counts[bits >> shift & 0xff], 1u);
        atomicAdd(&s->sums[bits >> shift & 0xff], fixed(__uint_as_float(bits)));
    }
    __syncthreads();
    if (threadIdx.x == 0 && (shift == 24 || (head.bits ^ prefix) >> (shift + 8) == 0)) {
        s->counts[head.bits >> shift & 0xff] -= head.excess;
        s->sums[head.bits >> shift & 0xff] -= head.excess * fixed(__uint_as_float(head.bits));
    }
}

/* One thread: goes down the bins while the target lies further on; the last that has any, at most. */
static __device__ __forceinline__ void bins_walk(struct sampling_shared *s, int shift, uint32_t k,
                                                 u64 target)
{
    struct sampling_place &p = s->place;
    struct sampling_place found = p;
    uint32_t n = p.n_above;
    u64 sum = p.sum_above;
    for (int b = BINS - 1; b >= 0; b--) {
        if (s->counts[b] == 0)
            continue;
        found = {p.bits | (uint32_t)b << shift, n, s->counts[b], sum};
        n += s->counts[b];
        sum += s->sums[b];
        if (n >= k || sum > target)
            break;
    }
    p = found;
}

/* The weight at which number k of the head lies, or its sum passes target; whichever comes first. */
static __device__ struct sampling_place
descend(const struct sampling_task &t, const struct sampling_head &head, uint32_t k, u64 target)
{
    __syncthreads();
    if (threadIdx.x == 0)
        t.shared->place = {};
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        histogram(t, head, t.shared->place.bits, shift);
        if (threadIdx.x == 0)
            bins_walk(t.shared, shift, k, target);
    }
    __syncthreads();
    return t.shared->place;
}

/* The head that ends with the n-th of the equal weights at p. */
static __device__ __forceinline__ struct sampling_head
head_cut(const struct sampling_head &head, const struct sampling_place &p, uint32_t n)
{
    const uint32_t in = n < p.n_at ? (n > 0 ? n : 1) : p.n_at;
    const uint32_t had = p.bits == head.bits ? head.excess : 0;
    return {p.bits, had + p.n_at - in, p.sum_above + in * fixed(__uint_as_float(p.bits))};
}

static __device__ __forceinline__ struct sampling_head head_keep(const struct sampling_task &t,
                                                                 u64 total)
{
    struct sampling_head head = {0, 0, total};
    if (t.how.top_k > 0 && t.n >= t.how.top_k) { /* else all are in, and the list may be top-p's */
        const struct sampling_place p = descend(t, head, t.how.top_k, ~(u64)0);
        head = head_cut(head, p, t.how.top_k - p.n_above);
    }
    if (t.how.top_p < 1.0f) {
        const u64 target = (u64)((double)t.how.top_p * (double)head.sum);
        const struct sampling_place p = descend(t, head, UINT32_MAX, target > 0 ? target - 1 : 0);
        const u64 each = fixed(__uint_as_float(p.bits));
        const u64 missing = target - min(target, p.sum_above);
        head = head_cut(head, p, times(missing + each - min(each, (u64)1), each, p.n_at));
    }
    return head;
}

/* ---- Draws ----------------------------------------------------------------------------------------------- */

/* Candidates of this thread in scans in order: *first..*end-1 of from..to-1. */
static __device__ __forceinline__ void share_of(uint32_t from, uint32_t to, uint32_t *first,
                                                uint32_t *end)
{
    const uint32_t each = (to - from + THREADS - 1) / THREADS;
    *first = min(from + threadIdx.x * each, to);
    *end = min(*first + each, to);
}

/* Number n (from 0, by id) of the tokens with this weight. */
static __device__ __forceinline__ void draw_equal(const struct sampling_task &t, uint32_t bits,
                                                  uint32_t n)
{
    uint32_t first, end, before = 0, mine = 0;
    share_of(0, t.n, &first, &end);
    for (uint32_t i = first; i < end; i++)
        mine += weight_bits(t, i) == bits;
    t.shared->thread_counts[threadIdx.x] = mine;
    __syncthreads();
    for (uint32_t i = 0; i < threadIdx.x; i++)
        before += t.shared->thread_counts[i];
    for (uint32_t i = first; i < end && n >= before && n < before + mine; i++) {
        if (weight_bits(t, i) == bits && n == before++) {
            t.shared->token = id_of(t, i);
            break;
        }
    }
}

/* Each thread's share of the weights of ids from..to-1, into shared memory. */
static __device__ __forceinline__ void shares_weigh(const struct sampling_task &t, uint32_t from,
                                                    uint32_t to)
{
    uint32_t first, end;
    u64 sum = 0;
    share_of(from, to, &first, &end);
    for (uint32_t i = first; i < end; i++)
        sum += fixed(__uint_as_float(weight_bits_of(t.how, t.max, t.logits[i])));
    t.shared->thread_sums[threadIdx.x] = sum;
    __syncthreads();
}

/* Without filters the CPU goes through the ids from the highest down: so does this, over ids from..to-1,
 * weighed, which `after` lies beyond. */
static __device__ __forceinline__ void draw_by_id(const struct sampling_task &t, uint32_t from,
                                                  uint32_t to, u64 after, u64 target)
{
    uint32_t first, end;
    share_of(from, to, &first, &end);
    for (uint32_t i = threadIdx.x + 1; i < THREADS; i++)
        after += t.shared->thread_sums[i];
    if (target < after || target >= after + t.shared->thread_sums[threadIdx.x])
        return;
    for (uint32_t i = end; i-- > first;) {
        after += fixed(__uint_as_float(weight_bits_of(t.how, t.max, t.logits[i])));
        if (after > target) {
            t.shared->token = i;
            break;
        }
    }
}

/* Sum of all candidates' weights: of the slices', or made here. */
static __device__ __forceinline__ u64 total_weight(const struct sampling_task &t)
{
    u64 sum = 0;
    for (uint32_t s = 0; s < t.n_slices; s++)
        sum += t.shared->slice_sums[s];
    if (t.n_slices > 0)
        return sum;
    shares_weigh(t, 0, t.n);
    for (uint32_t i = 0; i < THREADS; i++)
        sum += t.shared->thread_sums[i];
    return sum;
}

/* Without filters: in the slice that target falls into. */
static __device__ __forceinline__ void draw_plain(const struct sampling_task &t, uint32_t n_vocab,
                                                  u64 target)
{
    u64 after = 0;
    if (t.n_slices == 0) {
        draw_by_id(t, 0, n_vocab, 0, target);
        return;
    }
    for (uint32_t s = t.n_slices; s-- > 0;) {
        if (target < after + t.shared->slice_sums[s]) {
            const uint32_t from = s * SAMPLING_SLICE;
            const uint32_t to = min(from + (uint32_t)SAMPLING_SLICE, n_vocab);
            shares_weigh(t, from, to);
            draw_by_id(t, from, to, after, target);
            return;
        }
        after += t.shared->slice_sums[s];
    }
}

static __device__ __forceinline__ void draw(const struct sampling_task &t, uint32_t n_vocab)
{
    const double u = uniform_of(t.how.seed, t.how.pos);
    const u64 total = total_weight(t);
    if (!row_filters(t.how)) {
        draw_plain(t, n_vocab, (u64)(u * (double)total));
        return;
    }
    const struct sampling_head head = head_keep(t, total);
    const u64 target = (u64)(u * (double)head.sum);
    const struct sampling_place p = descend(t, head, UINT32_MAX, target);
    const u64 each = fixed(__uint_as_float(p.bits));
    const uint32_t n = each == 0 ? 0 : times(target - min(target, p.sum_above), each, p.n_at - 1);
    draw_equal(t, p.bits, n);
}

/* ---- A row ----------------------------------------------------------------------------------------------- */

/* What all of a row's logits say: best token, and the logarithm of their unmodified norm. */
struct row_view {
    uint32_t best;
    float log_norm;
};

/* By this block alone. */
static __device__ __forceinline__ struct row_view row_survey(struct sampling_task &t)
{
    float value = -INFINITY, sum = 0.0f;
    uint32_t id = UINT32_MAX;
    for (uint32_t i = threadIdx.x; i < t.n; i += THREADS)
        better(value, id, t.logits[i], i);
    block_best(value, id, t.shared->values, t.shared->ids);
    t.max = value;
    for (uint32_t i = threadIdx.x; i < t.n; i += THREADS)
        sum += expf(t.logits[i] - t.max);
    sum = block_sum(sum, t.shared->floats);
    return {id, t.max + logf(sum)};
}

/* From the slices' parts. */
static __device__ __forceinline__ struct row_view parts_join(struct sampling_task &t,
                                                             const struct sampling_part *parts)
{
    float value = -INFINITY, norm = -INFINITY, sum = 0.0f;
    uint32_t id = UINT32_MAX;
    for (uint32_t s = 0; s < t.n_slices; s++) {
        better(value, id, parts[s].max, parts[s].best);
        norm = fmaxf(norm, parts[s].norm_max);
    }
    for (uint32_t s = 0; s < t.n_slices; s++)
        sum += parts[s].norm_sum * expf(parts[s].norm_max - norm);
    for (uint32_t s = threadIdx.x; s < t.n_slices; s += THREADS) {
        t.shared->slice_sums[s] = parts[s].weight;
        t.shared->slice_first[s + 1] = parts[s].n_listed;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        t.shared->slice_first[0] = 0;
        for (uint32_t s = 0; s < t.n_slices; s++)
            t.shared->slice_first[s + 1] += t.shared->slice_first[s];
    }
    __syncthreads();
    t.max = value;
    t.n = t.list != NULL ? t.shared->slice_first[t.n_slices] : t.n;
    return {id, norm + logf(sum)};
}

/* The best of the slices' best, in order. */
static __device__ __forceinline__ void tops_merge(const struct sampling &a,
                                                  const struct sampling_space &s,
                                                  const struct sampling_task &t, float log_norm)
{
    const uint32_t row = blockIdx.x, n = s.n_slices * SAMPLING_TOP_MAX;
    struct sampling_top *from = s.tops + (size_t)row * n;
    struct sampling_top *to = a.top + (size_t)row * SAMPLING_TOP_MAX;
    for (uint32_t k = 0; k < t.how.n_top; k++) {
        float value = -INFINITY;
        uint32_t id = UINT32_MAX, at = UINT32_MAX;
        for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
            if (from[i].token == UINT32_MAX)
                continue;
            const uint32_t before = id;
            better(value, id, from[i].logprob, from[i].token);
            at = id != before ? i : at;
        }
        const uint32_t mine = id;
        __syncthreads(); /* the last round's shared words are read */
        block_best(value, id, t.shared->values, t.shared->ids);
        if (threadIdx.x == 0)
            to[k] = {id, value - log_norm};
        if (mine == id && at != UINT32_MAX)
            from[at].token = UINT32_MAX; /* taken */
        __syncthreads();
    }
}

static __device__ __forceinline__ struct sampling_task task_of(const struct sampling &a,
                                                               const struct sampling_space &s)
{
    const uint32_t row = blockIdx.x;
    struct sampling_task t = {
        a.logits + (size_t)row * a.n_vocab,       NULL, a.row[row], a.n_vocab, 0, 0.0f,
        (struct sampling_shared *)shared_memory()};
    if (a.scratch == NULL)
        return t;
    t.logits = drawn_from(a, s, row);
    t.n_slices = s.n_slices;
    if (row_filters(t.how))
        t.list = s.list + (size_t)row * a.n_vocab;
    return t;
}

/* A block per row. */
static __global__ void __launch_bounds__(THREADS, 1) sampling_kernel(const struct sampling a)
{
    const uint32_t row = blockIdx.x;
    if (!row_is_there(a, row))
        return;
    const struct sampling_space s = space_of(a);
    struct sampling_task t = task_of(a, s);
    const struct row_view view =
        t.n_slices == 0 ? row_survey(t) : parts_join(t, s.parts + (size_t)row * s.n_slices);
    if (threadIdx.x == 0)
        t.shared->token = view.best < a.n_vocab ? view.best : 0; /* NaNs have no best */
    __syncthreads();
    if (t.how.temperature > 0.0f)
        draw(t, a.n_vocab);
    __syncthreads();
    if (threadIdx.x == 0) {
        const uint32_t token = t.shared->token;
        a.tokens[row] = token;
        a.logprobs[row] = a.logits[(size_t)row * a.n_vocab + token] - view.log_norm;
        if (a.adjusts && t.how.adjust != NULL)
            t.how.adjust->log[t.how.pos] = token;
    }
    if (a.top != NULL && t.how.n_top > 0)
        tops_merge(a, s, t, view.log_norm);
}

size_t sampling_scratch(uint32_t n_rows, uint32_t n_vocab, uint32_t adjusts)
{
    size_t bytes;
    (void)sampling_space(NULL, n_rows, n_vocab, adjusts, &bytes);
    return bytes;
}

int sampling(const struct sampling *a, cuda_stream stream)
{
    int rc = 0;
    if (a->rows.n == 0)
        return 0;
    if (a->scratch == NULL && (a->adjusts || a->top != NULL))
        return CUDA_NOT_SUPPORTED;
    if (sampling_slices(a->n_vocab) > SAMPLING_SLICES_MAX ||
        (a->scratch_rows != 0 && a->rows.n > a->scratch_rows))
        return CUDA_NOT_SUPPORTED;
    if (a->adjusts)
        rc = sampling_adjust_launch(a, stream);
    if (rc == 0 && a->scratch != NULL)
        rc = sampling_survey_launch(a, stream);
    if (rc == 0 && a->top != NULL)
        rc = sampling_top_launch(a, stream);
    if (rc != 0)
        return rc;
    return launch(sampling_kernel, dim3(a->rows.n), THREADS, sizeof(struct sampling_shared), stream,
                  *a);
}
