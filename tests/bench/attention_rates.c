#include "tests/bench/attention_rates.h"

#include <immintrin.h>
#include <time.h>

enum {
    CHAINS = 12,   /* independent ones: four cycles of latency, two a cycle, and some to spare */
    TURNS = 20000, /* of the arithmetic loops */
    EXPS = 4096,
    EXP_TURNS = 40
};

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define AVX512BF16                                                                                 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")))
#define AVX512FP16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512fp16")))
#define AMX        __attribute__((target("amx-tile,amx-bf16")))
#define AVX2       __attribute__((target("avx2,fma")))

/* The loops run CHAINS times `step` a turn; the barrier keeps every step from being folded. */
#define LOOP(type, zero, step, barrier)                                                            \
    type a[CHAINS], x = zero;                                                                      \
                                                                                                   \
    _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) a[i] = zero;                         \
                                                                                                   \
    for (uint32_t t = 0; t < TURNS; t++) {                                                         \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                                  \
        {                                                                                          \
            a[i] = step;                                                                           \
            __asm__ volatile("" : barrier(a[i]), barrier(x));                                      \
        }                                                                                          \
    }

AVX512 static uint32_t fma_avx512(void)
{
    LOOP(__m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, x, a[i]), "+v")
    return 16;
}
AVX2 static uint32_t fma_avx2(void)
{
    LOOP(__m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, x, a[i]), "+x")
    return 8;
}
AVX512BF16 static uint32_t dot_bf16(void)
{
    LOOP(__m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)x), "+v")
    return 32;
}
AVX512BF16 static uint32_t dot_i16(void)
{
    LOOP(__m512i, _mm512_setzero_si512(), _mm512_dpwssd_epi32(a[i], x, x), "+v")
    return 32;
}
AVX512FP16 static uint32_t fma_f16(void)
{
    LOOP(__m512h, _mm512_setzero_ph(), _mm512_fmadd_ph(x, x, a[i]), "+v")
    return 32;
}
/* Tiles of 12 rows, as the kernels' largest groups have, 16 pairs and 16 columns.  One product a
 * step, over two tiles of sums. */
AMX static uint32_t dot_tiles(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64},
                .rows = {12, 12, 12, 16}}; /* two of sums, queries, keys */

    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (uint32_t t = 0; t < TURNS; t++) {
        for (int i = 0; i < CHAINS / 2; i++) {
            _tile_dpbf16ps(0, 2, 3);
            _tile_dpbf16ps(1, 2, 3);
        }
    }
    _tile_release();
    return 12 * 16 * 32;
}
AVX512 static uint32_t madd_avx512(void)
{
    LOOP(__m512i, _mm512_setzero_si512(), _mm512_add_epi32(a[i], _mm512_madd_epi16(x, x)), "+v")
    return 32;
}
AVX2 static uint32_t madd_avx2(void)
{
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_add_epi32(a[i], _mm256_madd_epi16(x, x)), "+x")
    return 16;
}
static uint32_t mac_c(void)
{
    LOOP(float, 0.0f, a[i] + x * x, "+x")
    return 1;
}

typedef uint32_t mac_fn(void); /* returns the multiply-adds of one step */

static mac_fn *mac_of(enum isa isa, enum kv_type type)
{
    switch (isa) {
    case ISA_AMX:
        return type == KV_TYPE_BF16 ? dot_tiles : type == KV_TYPE_I8 ? dot_i16 : fma_avx512;
    case ISA_AVX512FP16:
        if (type == KV_TYPE_F16)
            return fma_f16;
        return type == KV_TYPE_I8 ? dot_i16 : type == KV_TYPE_BF16 ? dot_bf16 : fma_avx512;
    case ISA_AVX512BF16:
        return type == KV_TYPE_I8 ? dot_i16 : type == KV_TYPE_BF16 ? dot_bf16 : fma_avx512;
    case ISA_AVX512:
        return type == KV_TYPE_I8 ? madd_avx512 : fma_avx512;
    case ISA_AVX2:
        return type == KV_TYPE_I8 ? madd_avx2 : fma_avx2;
    case ISA_REF:
    case ISA_COUNT:
        break;
    }
    return mac_c;
}

enum { READ_AHEAD = 8192 }; /* of 1,024 to 32,768 bytes the best, or as good as any */

/* Four loads a turn, in order, the lines asked for ahead: of the patterns tried (one to sixteen
 * streams, with and without that) none reads faster. */
AVX512 static void read_avx512(const uint8_t *p, size_t n)
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;

    for (size_t i = 0; i + 256 <= n; i += 256) {
        for (size_t line = 0; line < 256; line += 64)
            _mm_prefetch((const char *)p + i + READ_AHEAD + line, _MM_HINT_T0);
        a = _mm512_or_si512(a, _mm512_loadu_si512(p + i));
        b = _mm512_or_si512(b, _mm512_loadu_si512(p + i + 64));
        c = _mm512_or_si512(c, _mm512_loadu_si512(p + i + 128));
        d = _mm512_or_si512(d, _mm512_loadu_si512(p + i + 192));
    }
    a = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
    __asm__ volatile("" : : "v"(a));
}
AVX2 static void read_avx2(const uint8_t *p, size_t n)
{
    __m256i a = _mm256_setzero_si256();

    for (size_t i = 0; i + 128 <= n; i += 128) {
        const __m256i *q = (const __m256i *)(const void *)(p + i);
        __m256i b = _mm256_or_si256(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
        __m256i c = _mm256_or_si256(_mm256_loadu_si256(q + 2), _mm256_loadu_si256(q + 3));

        a = _mm256_or_si256(a, _mm256_or_si256(b, c));
    }
    __asm__ volatile("" : : "x"(a));
}
static void read_c(const uint8_t *p, size_t n)
{
    const uint64_t *q = (const uint64_t *)(const void *)p;
    uint64_t sum[8] = {0};

    for (size_t i = 0; i + 8 <= n / 8; i += 8)
        for (size_t l = 0; l < 8; l++)
            sum[l] += q[i + l];
    for (size_t l = 0; l < 8; l++)
        __asm__ volatile("" : : "r"(sum[l]));
}

struct rate_run {
    enum isa isa;
    mac_fn *mac;
    uint32_t macs; /* of a step */
    const uint8_t *p;
    size_t bytes_per_thread;
};

static void read_thread(void *ctx, uint32_t thread)
{
    const struct rate_run *r = ctx;
    const uint8_t *p = r->p + thread * r->bytes_per_thread;

    /* The widest loads there are, whatever the kernels use: the machine's ceiling. */
    if (isa_supported(ISA_AVX512))
        read_avx512(p, r->bytes_per_thread);
    else if (isa_supported(ISA_AVX2))
        read_avx2(p, r->bytes_per_thread);
    else
        read_c(p, r->bytes_per_thread);
}

static void mac_thread(void *ctx, uint32_t thread)
{
    struct rate_run *r = ctx;
    uint32_t macs = r->mac();

    if (thread == 0)
        r->macs = macs;
}

static void exp_thread(void *ctx, uint32_t thread)
{
    const struct rate_run *r = ctx;
    float x[EXPS];

    (void)thread;
    for (int i = 0; i < EXPS; i++)
        x[i] = -(float)(i % 20);
    for (int t = 0; t < EXP_TURNS; t++) /* 2^x, 2^2^x, ...: stays in range */
        kernels_of(r->isa)->attn_exp2(x, EXPS);
    __asm__ volatile("" : : "m"(x));
}

double rates_now(const struct team *team)
{
    struct timespec t;

    clock_gettime(team_n_threads(team) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double timed(struct team *team, team_fn *fn, struct rate_run *r)
{
    double start = rates_now(team);

    team_run(team, fn, r);
    return rates_now(team) - start;
}

void rates_measure(struct team *team, enum isa isa, enum kv_type type, const uint8_t *p, size_t n,
                   struct rates *out)
{
    uint32_t n_threads = team_n_threads(team);
    struct rate_run r = {.isa = isa, .mac = mac_of(isa, type), .p = p};
    double seconds;

    r.bytes_per_thread = n / n_threads / 4096 * 4096;
    seconds = timed(team, read_thread, &r);
    out->read = (double)r.bytes_per_thread * n_threads / seconds;
    seconds = timed(team, mac_thread, &r);
    out->mac = (double)r.macs * CHAINS * TURNS * n_threads / seconds;
    seconds = timed(team, exp_thread, &r);
    out->exp = (double)EXPS * EXP_TURNS * n_threads / seconds;
}
