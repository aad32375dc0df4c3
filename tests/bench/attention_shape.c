#include "tests/bench/attention_shape.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "common/base/invariant.h"
#include "common/base/round.h"
#include "common/topology/topology.h"
#include "tests/bench/median.h"

enum { READ_MIB = 24, TRIES = 12 };
static const double CALL_SECONDS = 2e-3; /* at least, per repetition */
static const size_t HUGE_PAGE = (size_t)2 << 20;

const char *shape_type_name(enum kv_type type)
{
    return type == KV_TYPE_F16    ? "f16"
           : type == KV_TYPE_BF16 ? "bf16"
           : type == KV_TYPE_F32  ? "f32"
                                  : "i8";
}

/* ---- One shape ------------------------------------------------------------------------------- */

/* Sequences of the shape, block tables scattered over the whole pool. */
struct work {
    struct kv_geometry geometry;
    uint32_t *table;
    uint32_t n_blocks, per_sequence, at; /* at: the next call's first entry of table */
    struct attn_job jobs[SHAPE_JOBS_MAX];
};

static void work_init(const struct shape_bench *b, const struct shape *s, struct work *w)
{
    struct kv_layer_spec spec = {.attention = KV_ATTENTION_FULL,
                                 .n_heads = s->n_kv_heads * s->group,
                                 .n_kv_heads = s->n_kv_heads,
                                 .dk = s->width,
                                 .dv = s->width,
                                 .scale = 0.1f};
    struct kv_geometry_config config = {
        .type = s->type, .block_tokens = b->block_tokens, .n_groups = 1, .n_ranks = 1};
    const char *field;

    invariant(geometry_init(&w->geometry, &config, &spec, 1, &field) == 0);
    w->n_blocks = (uint32_t)(b->pool_bytes / w->geometry.block_bytes);
    w->per_sequence = (s->context - 1) / b->block_tokens + 1;
    w->table = malloc((w->n_blocks + w->per_sequence) * sizeof *w->table);
    invariant(w->table != NULL && w->per_sequence <= w->n_blocks);
    for (uint32_t i = 0; i < w->n_blocks + w->per_sequence; i++) /* 7919: prime */
        w->table[i] = (uint32_t)((uint64_t)i * 7919 % w->n_blocks);
    w->at = 0;
}

static void work_call(const struct shape_bench *b, const struct shape *s, struct work *w)
{
    const struct kv_layer *l = &w->geometry.layer[0];
    int many = s->n_threads > 1;

    for (uint32_t i = 0; i < s->n_jobs; i++) {
        w->jobs[i] = (struct attn_job){.q = b->q,
                                       .out = b->out + (size_t)i * kv_layer_out_width(l),
                                       .n_q = 1,
                                       .pos = s->context - 1,
                                       .kv = {.base = b->pool,
                                              .table = w->table + w->at,
                                              .block_bytes = w->geometry.block_bytes,
                                              .block_tokens = b->block_tokens,
                                              .n_blocks = w->per_sequence,
                                              .type = s->type,
                                              .layer = l}};
        if (!b->common || i + 1 == s->n_jobs)
            w->at = (w->at + w->per_sequence) % w->n_blocks;
    }
    attn_run(b->team[many], b->scratch[many], w->jobs, s->n_jobs);
}

static double shape_bytes(const struct shape *s, const struct kv_geometry *g)
{
    return (double)s->context * geometry_layer_token_bytes(g, 0);
}

static double roof_seconds(const struct shape *s, double bytes, const struct rates *rates,
                           bool *bytes_bind)
{
    double scores = (double)s->context * s->n_kv_heads * s->group;
    double memory = bytes / rates->read;
    double arithmetic = scores * 2 * s->width / rates->mac + scores / rates->exp;

    *bytes_bind = memory >= arithmetic;
    return memory >= arithmetic ? memory : arithmetic;
}

void shape_rates(struct shape_bench *b, const struct shape *s, struct rates *rates)
{
    size_t n = (size_t)READ_MIB << 20;

    if (b->read_at + n > b->pool_bytes)
        b->read_at = 0;
    rates_measure(b->team[s->n_threads > 1], b->isa, s->type, b->pool + b->read_at, n, rates);
    b->read_at += n;
}

/* How often a thread of ours lost its core to somebody else. */
static long preemptions(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

struct repetition {
    double seconds, roof; /* of a job */
    bool bytes_bind, disturbed;
};

static struct repetition repeat_once(struct shape_bench *b, const struct shape *s, struct work *w,
                                     uint32_t n_calls)
{
    const struct team *team = b->team[s->n_threads > 1];
    double bytes = shape_bytes(s, &w->geometry), start;
    long disturbed = preemptions();
    struct repetition r;
    struct rates rates;

    shape_rates(b, s, &rates);
    start = rates_now(team);
    for (uint32_t c = 0; c < n_calls; c++)
        work_call(b, s, w);
    r.seconds = (rates_now(team) - start) / ((double)n_calls * s->n_jobs);
    r.roof = roof_seconds(s, bytes, &rates, &r.bytes_bind);
    r.disturbed = s->n_threads > 1 && preemptions() != disturbed;
    return r;
}

/* Calls that take CALL_SECONDS. */
static uint32_t calls_needed(struct shape_bench *b, const struct shape *s, struct work *w)
{
    const struct team *team = b->team[s->n_threads > 1];
    double start = rates_now(team), seconds;

    work_call(b, s, w);
    seconds = rates_now(team) - start;
    return seconds < CALL_SECONDS ? 1 + (uint32_t)(CALL_SECONDS / seconds) : 1;
}

/* Several threads can only be timed by the wall: a repetition in which one lost its core says
 * nothing and is made again, a limited number of times. */
void shape_run(struct shape_bench *b, const struct shape *s, struct result *out)
{
    static struct work w;
    double seconds[SHAPE_REPEAT_MAX], shares[SHAPE_REPEAT_MAX], roofs[SHAPE_REPEAT_MAX];
    uint32_t n_calls, n_bytes_bind = 0, n_disturbed = 0, tries_left = TRIES * b->repeat;

    work_init(b, s, &w);
    n_calls = calls_needed(b, s, &w);
    for (uint32_t i = 0; i < b->repeat; i++) {
        struct repetition r = repeat_once(b, s, &w, n_calls);

        while (r.disturbed && tries_left > 0) {
            tries_left--;
            r = repeat_once(b, s, &w, n_calls);
        }
        seconds[i] = r.seconds;
        roofs[i] = r.roof;
        shares[i] = r.roof / r.seconds;
        n_bytes_bind += r.bytes_bind;
        n_disturbed += r.disturbed;
    }
    *out = (struct result){.shape = *s,
                           .us_per_job = median_of(seconds, b->repeat) * 1e6,
                           .share = median_of(shares, b->repeat),
                           .roof_us = median_of(roofs, b->repeat) * 1e6,
                           .bytes_bind = 2 * n_bytes_bind >= b->repeat,
                           .disturbed = n_disturbed > 0};
    out->gbs = shape_bytes(s, &w.geometry) / out->us_per_job * 1e-3;
    free(w.table);
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* Shared memory has such pages only where the system was told so; private memory has them for the
 * asking. */
static uint8_t *map_huge(size_t bytes)
{
    uint8_t *p =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return p;
    p = (uint8_t *)(uintptr_t)round_up((uintptr_t)p, HUGE_PAGE);
    return madvise(p, bytes, MADV_HUGEPAGE) == 0 ? p : MAP_FAILED;
}

/* Small numbers as f16 and bf16, positive ones as a float of two: any reading of the pool is of
 * ordinary values.  Shared and anonymous: pages as the arena has them. */
static int make_pool(struct shape_bench *b)
{
    uint16_t *p;
    uint32_t state = 1;

    b->pool = b->huge ? map_huge(b->pool_bytes)
                      : mmap(NULL, b->pool_bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->pool == MAP_FAILED)
        return -errno;
    p = (uint16_t *)(void *)b->pool;
    for (size_t i = 0; i < b->pool_bytes / 2; i++) {
        state = state * 1664525U + 1013904223U;
        p[i] = (uint16_t)((state >> 16 & (i % 2 ? 0x3ffU : 0x83ffU)) | 0x3000U);
    }
    return 0;
}

/* The first hardware thread of every core that this process may use. */
static int list_cores(int *cpus, uint32_t *n)
{
    struct topology t;
    struct error err;
    int rc = topology_load(&t, NULL, &err);

    *n = 0;
    for (uint32_t node = 0; rc == 0 && node < t.n_nodes; node++)
        for (uint32_t i = 0; i < t.node[node].n_cores && *n < TEAM_THREADS_MAX; i++)
            cpus[(*n)++] = t.node[node].core_cpu[i];
    return rc;
}

static int make_team(struct shape_bench *b, uint32_t i, uint32_t n_threads, const int *cpus)
{
    int rc = team_create(&b->team[i], n_threads, cpus, cpus != NULL ? 50 : 0);

    return rc != 0 ? rc
                   : attn_scratch_create(&b->scratch[i], b->isa, n_threads, SHAPE_WIDTH_MAX,
                                         SHAPE_WIDTH_MAX);
}

int shape_bench_init(struct shape_bench *b)
{
    int cpus[TEAM_THREADS_MAX], rc = list_cores(cpus, &b->n_cpus);

    if (rc == 0)
        rc = make_pool(b);
    b->q = malloc(SHAPE_ROW_MAX * sizeof *b->q);
    b->out = malloc((size_t)SHAPE_JOBS_MAX * SHAPE_ROW_MAX * sizeof *b->out);
    if (rc == 0 && (b->q == NULL || b->out == NULL))
        rc = -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < SHAPE_ROW_MAX; i++)
        b->q[i] = (float)(i * 7 % 17) / 17.0f - 0.5f;
    if (rc == 0)
        rc = make_team(b, 0, 1, NULL);
    if (rc == 0 && b->n_cpus > 1)
        rc = make_team(b, 1, b->n_cpus, cpus);
    return rc;
}

void shape_bench_fini(struct shape_bench *b)
{
    for (uint32_t i = 0; i < 2; i++) {
        attn_scratch_destroy(b->scratch[i]);
        team_destroy(b->team[i]);
    }
    if (b->pool != NULL)
        munmap(b->pool, b->pool_bytes);
    free(b->q);
    free(b->out);
}
