/* bench_attention.c - decode attention against the machine's limits, and against ggml's
 *
 *   bench_attention [--json FILE] [--full] [--block TOKENS] [--pool-mib N] [--repeat N]
 *                   [--shape KV:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS]... [--common]
 *
 * Every repetition measures the machine (read bandwidth on the same mapping, multiply-adds,
 * exponentials: attention_rates.h) and then the kernel, so that both see the same moment of a
 * shared machine; a shape's share of the roofline is the median of these ratios.  The roofline of a
 * shape is the larger of its KV bytes over the bandwidth and of (multiply-adds + one exponential
 * per score) over their rates.
 *
 * KV comes from memory: blocks are scattered over a pool many times the caches, and every call
 * takes the next sequences of it.  OMNI_GGML_PEER names the program that tests/bench/peer_ggml.sh
 * builds: then ggml runs the same shapes in between.  With --shape only those shapes run, and
 * nothing else: for work on a kernel.  With --common all jobs of a call share their KV, as behind a
 * common prefix; bytes are still counted once per job. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/compute/attention.h"
#include "tests/bench/attention_overhead.h"
#include "tests/bench/attention_rates.h"
#include "tests/bench/median.h"

enum {
    REPEAT_MAX = 31,
    JOBS_MAX = 64,
    RESULTS_MAX = 8192,
    READ_MIB = 24,
    WIDTH_LIMIT = 256,
    ROW_MAX = 8192, /* elements of a query */
    TRIES = 12,
    SHAPES_MAX = 64
};
static const double CALL_SECONDS = 2e-3;      /* at least, per repetition */
static const double BYTES_PER_CALL_MAX = 2e9; /* shapes beyond are left out */

struct shape {
    uint32_t width, n_kv_heads, group, context, n_jobs, n_threads;
    enum kv_type type;
};

struct result {
    struct shape shape;
    double us_per_job, gbs, share;
    double roof_us; /* per job */
    bool bytes_bind;
    bool disturbed; /* not enough repetitions without losing a core: not in the summary */
};

struct bench {
    enum isa isa;
    uint32_t n_cpus, block_tokens, repeat;
    bool full, common;
    const char *json, *peer;
    uint8_t *pool;
    size_t pool_bytes, read_at;
    struct team *team[2]; /* of one thread, of all */
    struct attn_scratch *scratch[2];
    float *q, *out;
    struct result results[RESULTS_MAX];
    uint32_t n_results;
    struct shape only[SHAPES_MAX]; /* --shape */
    uint32_t n_only;
};

static const char *type_name(enum kv_type type)
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
    struct attn_job jobs[JOBS_MAX];
};

static void work_init(const struct bench *b, const struct shape *s, struct work *w)
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

static void work_call(const struct bench *b, const struct shape *s, struct work *w)
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

static void next_rates(struct bench *b, const struct shape *s, struct rates *rates)
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

/* Several threads can only be timed by the wall: a repetition in which one lost its core says
 * nothing and is made again, a limited number of times. */
static void run_shape(struct bench *b, const struct shape *s, struct result *out)
{
    static struct work w;
    double seconds[REPEAT_MAX], shares[REPEAT_MAX], roofs[REPEAT_MAX], bytes, start;
    uint32_t n_calls = 1, n_bytes_bind = 0, n_disturbed = 0;
    bool bytes_bind;

    work_init(b, s, &w);
    bytes = shape_bytes(s, &w.geometry);
    start = rates_now(b->team[s->n_threads > 1]);
    work_call(b, s, &w);
    start = rates_now(b->team[s->n_threads > 1]) - start;
    if (start < CALL_SECONDS)
        n_calls += (uint32_t)(CALL_SECONDS / start);
    for (uint32_t i = 0, tries = 0; i < b->repeat; tries++) {
        struct rates rates;
        long disturbed = preemptions();

        next_rates(b, s, &rates);
        start = rates_now(b->team[s->n_threads > 1]);
        for (uint32_t c = 0; c < n_calls; c++)
            work_call(b, s, &w);
        seconds[i] = (rates_now(b->team[s->n_threads > 1]) - start) / ((double)n_calls * s->n_jobs);
        roofs[i] = roof_seconds(s, bytes, &rates, &bytes_bind);
        shares[i] = roofs[i] / seconds[i];
        if (s->n_threads > 1 && preemptions() != disturbed) {
            if (tries < TRIES * b->repeat)
                continue;
            n_disturbed++;
        }
        n_bytes_bind += bytes_bind;
        i++;
    }
    *out = (struct result){.shape = *s,
                           .us_per_job = median_of(seconds, b->repeat) * 1e6,
                           .share = median_of(shares, b->repeat),
                           .roof_us = median_of(roofs, b->repeat) * 1e6,
                           .bytes_bind = 2 * n_bytes_bind >= b->repeat,
                           .disturbed = n_disturbed > 0};
    out->gbs = bytes / out->us_per_job * 1e-3;
    free(w.table);
}

/* ---- The grid -------------------------------------------------------------------------------- */

static void print_result(const struct result *r)
{
    const struct shape *s = &r->shape;

    printf("%-4s %4u %3u %3u %6u %4u %3u  %10.1f %7.1f  %5.0f %%  %s%s\n", type_name(s->type),
           s->width, s->n_kv_heads, s->group, s->context, s->n_jobs, s->n_threads, r->us_per_job,
           r->gbs, 100 * r->share, r->bytes_bind ? "bytes" : "arithmetic",
           r->disturbed ? "  (disturbed)" : "");
}

static void add_shape(struct bench *b, const struct shape *s)
{
    double bytes = (double)s->context * s->n_jobs * s->n_kv_heads * 4 * s->width;

    if (bytes > BYTES_PER_CALL_MAX || b->n_results == RESULTS_MAX)
        return;
    run_shape(b, s, &b->results[b->n_results]);
    print_result(&b->results[b->n_results++]);
}

/* By default one number of KV heads per width, 1 and 16 jobs, and the other types at 4k and 16k. */
static void run_type(struct bench *b, enum kv_type type, uint32_t n_threads)
{
    static const uint32_t groups[] = {1, 3, 4, 8}, jobs[] = {1, 16, 4, 64}, heads[] = {2, 3, 8};
    static const uint32_t contexts[] = {256, 1024, 4096, 16384, 65536};

    for (uint32_t width = 64; width <= 128; width *= 2)
        for (uint32_t h = 0; h < 3; h++)
            for (uint32_t g = 0; g < 4; g++)
                for (uint32_t c = 0; c < 5; c++)
                    for (uint32_t j = 0; j < 4; j++) {
                        struct shape s = {width,   heads[h],  groups[g], contexts[c],
                                          jobs[j], n_threads, type};
                        bool usual = heads[h] == (width == 64 ? 3 : 8) && j < 2;

                        if (type != KV_TYPE_F16 && c != 2 && c != 3)
                            usual = false;
                        if (b->full || usual)
                            add_shape(b, &s);
                    }
}

static void run_grid(struct bench *b)
{
    printf("%-4s %4s %3s %3s %6s %4s %3s  %10s %7s  %7s  %s\n", "kv", "dim", "kvh", "grp", "ctx",
           "jobs", "thr", "us/job", "GB/s", "of roof", "bound");
    for (uint32_t i = 0; i < b->n_only; i++)
        add_shape(b, &b->only[i]);
    if (b->n_only > 0)
        return;
    for (uint32_t many = 0; many < (b->n_cpus > 1 ? 2U : 1U); many++) {
        uint32_t n_threads = many ? b->n_cpus : 1;

        run_type(b, KV_TYPE_F16, n_threads);
        run_type(b, KV_TYPE_BF16, n_threads);
        run_type(b, KV_TYPE_I8, n_threads);
    }
}

/* ---- Summaries ------------------------------------------------------------------------------- */

/* Smallest share, in percent, over contexts low..high where bytes (arithmetic) bind; -1: none. */
static double worst_share(const struct bench *b, uint32_t low, uint32_t high, bool bytes, bool both)
{
    double worst = -0.01;

    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct result *r = &b->results[i];

        if (r->disturbed || r->shape.context < low || r->shape.context > high ||
            (!both && r->bytes_bind != bytes))
            continue;
        if (worst < 0 || r->share < worst)
            worst = r->share;
    }
    return 100 * worst;
}

/* The result of the same shape but for type and threads. */
static const struct result *find(const struct bench *b, struct shape s, enum kv_type type,
                                 uint32_t n_threads)
{
    s.type = type;
    s.n_threads = n_threads;
    for (uint32_t i = 0; i < b->n_results; i++)
        if (memcmp(&b->results[i].shape, &s, sizeof s) == 0)
            return &b->results[i];
    return NULL;
}

/* Jobs/s of all threads over one, where the roofline itself grows by 1.8: the median. */
static double scale_threads(const struct bench *b)
{
    static double ratios[RESULTS_MAX];
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct result *one = &b->results[i];
        const struct result *all = find(b, one->shape, one->shape.type, b->n_cpus);

        if (one->shape.n_threads == 1 && b->n_cpus > 1 && all != NULL && !all->disturbed &&
            one->roof_us >= 1.8 * all->roof_us)
            ratios[n++] = one->us_per_job / all->us_per_job;
    }
    return n > 0 ? median_of(ratios, n) : -1;
}

/* Jobs/s of int8 over f16 at 4,096 and more where bytes bind both: the smallest. */
static double int8_ratio(const struct bench *b)
{
    double worst = -1;

    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct result *i8 = &b->results[i];
        const struct result *f16 = find(b, i8->shape, KV_TYPE_F16, i8->shape.n_threads);
        double ratio;

        if (i8->shape.type != KV_TYPE_I8 || i8->shape.context < 4096 || f16 == NULL ||
            !i8->bytes_bind || !f16->bytes_bind || i8->disturbed || f16->disturbed)
            continue;
        ratio = f16->us_per_job / i8->us_per_job;
        worst = worst < 0 || ratio < worst ? ratio : worst;
    }
    return worst;
}

/* ---- ggml ------------------------------------------------------------------------------------ */

/* GB/s of KV that the peer reads; -1: it could not be run. */
static double peer_gbs(const struct bench *b, const struct shape *s, const char *layout)
{
    char command[512], line[256];
    double gbs = -1;
    FILE *f;

    snprintf(command, sizeof command, "'%s' %u %u %u %u %u %s", b->peer, s->width, s->n_kv_heads,
             s->group, s->context, s->n_threads, layout);
    fflush(NULL);
    f = popen(command, "r");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL)
        (void)sscanf(line, "gbs=%lf", &gbs);
    pclose(f);
    return gbs;
}

/* Ours (before and after) over the peer's, the smallest over the shapes; -1 without a peer. */
static double versus_ggml(struct bench *b, const struct shape *shapes, uint32_t n)
{
    double worst = -1;

    for (uint32_t i = 0; b->peer != NULL && i < n; i++) {
        struct result before, after;
        double token, head, ours;

        run_shape(b, &shapes[i], &before);
        token = peer_gbs(b, &shapes[i], "token");
        head = peer_gbs(b, &shapes[i], "head");
        run_shape(b, &shapes[i], &after);
        ours = (before.gbs + after.gbs) / 2;
        printf("ggml %4u %3u %3u %6u  %u thr: token-major %5.2f GB/s, head-major %5.2f; here "
               "%5.1f: %4.1fx, %4.1fx\n",
               shapes[i].width, shapes[i].n_kv_heads, shapes[i].group, shapes[i].context,
               shapes[i].n_threads, token, head, ours, ours / token, ours / head);
        /* Without groups ggml reads KV once as well, and no kernel could be six times as fast. */
        if (shapes[i].group > 1 && token > 0 && (worst < 0 || ours / token < worst))
            worst = ours / token;
    }
    return worst;
}

static double versus_ggml_4k(struct bench *b)
{
    const struct shape shapes[] = {
        {64, 3, 3, 4096, 1, 1, KV_TYPE_F16},         {128, 8, 4, 4096, 1, 1, KV_TYPE_F16},
        {64, 3, 3, 4096, 1, b->n_cpus, KV_TYPE_F16}, {128, 8, 4, 4096, 1, b->n_cpus, KV_TYPE_F16},
        {64, 8, 1, 4096, 1, 1, KV_TYPE_F16},
    };

    return versus_ggml(b, shapes, sizeof shapes / sizeof shapes[0]);
}

static double versus_ggml_16k_g4(struct bench *b)
{
    const struct shape shapes[] = {
        {64, 8, 4, 16384, 1, 1, KV_TYPE_F16},
        {128, 8, 4, 16384, 1, 1, KV_TYPE_F16},
        {64, 8, 4, 16384, 1, b->n_cpus, KV_TYPE_F16},
        {128, 8, 4, 16384, 1, b->n_cpus, KV_TYPE_F16},
    };

    return versus_ggml(b, shapes, sizeof shapes / sizeof shapes[0]);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static bool same_line(const struct shape *a, const struct shape *b)
{
    return a->width == b->width && a->n_kv_heads == b->n_kv_heads && a->group == b->group &&
           a->n_jobs == b->n_jobs && a->n_threads == b->n_threads && a->type == b->type;
}

/* What the plot shows: share over context, a line per shape of 16 jobs, f16. */
static void write_series(const struct bench *b, FILE *f)
{
    const char *comma = "";

    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct shape *s = &b->results[i].shape;

        if (s->type != KV_TYPE_F16 || s->context != 256 || s->n_jobs != 16)
            continue;
        fprintf(f, "%s{\"name\": \"%u wide, groups of %u, %u threads\", \"x\": [", comma, s->width,
                s->group, s->n_threads);
        for (uint32_t k = i, first = 1; k < b->n_results; k++)
            if (same_line(s, &b->results[k].shape)) {
                fprintf(f, "%s%u", first ? "" : ", ", b->results[k].shape.context);
                first = 0;
            }
        fprintf(f, "], \"y\": [");
        for (uint32_t k = i, first = 1; k < b->n_results; k++)
            if (same_line(s, &b->results[k].shape)) {
                fprintf(f, "%s%.1f", first ? "" : ", ", 100 * b->results[k].share);
                first = 0;
            }
        fprintf(f, "]}");
        comma = ", ";
    }
}

static void write_json(const struct bench *b)
{
    FILE *f = fopen(b->json, "w");

    if (f == NULL) {
        fprintf(stderr, "cannot write %s: %s\n", b->json, strerror(errno));
        return;
    }
    fprintf(f,
            "{\"title\": \"decode attention (%s)\", \"x_label\": \"context\", \"y_label\": "
            "\"%% of the roofline\", \"log_x\": true, \"series\": [",
            isa_name(b->isa));
    write_series(b, f);
    fprintf(f, "],\n\"shapes\": [");
    for (uint32_t i = 0; i < b->n_results; i++) {
        const struct result *r = &b->results[i];
        const struct shape *s = &r->shape;

        fprintf(f,
                "%s\n{\"kv\": \"%s\", \"width\": %u, \"kv_heads\": %u, \"group\": %u, \"context\": "
                "%u, \"jobs\": %u, \"threads\": %u, \"us_per_job\": %.2f, \"gbs\": %.2f, "
                "\"share\": %.4f, \"bytes_bind\": %s}",
                i == 0 ? "" : ",", type_name(s->type), s->width, s->n_kv_heads, s->group,
                s->context, s->n_jobs, s->n_threads, r->us_per_job, r->gbs, r->share,
                r->bytes_bind ? "true" : "false");
    }
    fprintf(f, "]}\n");
    fclose(f);
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static void print_flags(void)
{
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "model name", 10) == 0 || strncmp(line, "flags", 5) == 0) {
            printf("%s", line);
            if (line[0] == 'f')
                break;
        }
    if (f != NULL)
        fclose(f);
}

/* The machine before anything else; medians. */
static void print_machine(struct bench *b)
{
    for (uint32_t many = 0; many < (b->n_cpus > 1 ? 2U : 1U); many++) {
        enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_I8};
        struct shape s = {.n_threads = many ? b->n_cpus : 1};
        double x[3][REPEAT_MAX], read[REPEAT_MAX], exps[REPEAT_MAX];
        struct rates rates;

        for (uint32_t i = 0; i < b->repeat; i++)
            for (uint32_t t = 0; t < 3; t++) {
                s.type = types[t];
                next_rates(b, &s, &rates);
                x[t][i] = rates.mac;
                read[i] = rates.read;
                exps[i] = rates.exp;
            }
        printf("%u threads: read %.1f GB/s; f32 multiply-adds %.0f G/s, for bf16 KV %.0f, for int8 "
               "%.0f; exponentials %.1f G/s\n",
               s.n_threads, median_of(read, b->repeat) * 1e-9, median_of(x[0], b->repeat) * 1e-9,
               median_of(x[1], b->repeat) * 1e-9, median_of(x[2], b->repeat) * 1e-9,
               median_of(exps, b->repeat) * 1e-9);
    }
}

/* Small numbers as f16 and bf16, positive ones as a float of two: any reading of the pool is of
 * ordinary values.  Shared and anonymous: pages as the arena has them. */
static void fill_pool(struct bench *b)
{
    uint16_t *p;
    uint32_t state = 1;

    b->pool = mmap(NULL, b->pool_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    invariant(b->pool != MAP_FAILED);
    p = (uint16_t *)(void *)b->pool;
    for (size_t i = 0; i < b->pool_bytes / 2; i++) {
        state = state * 1664525U + 1013904223U;
        p[i] = (uint16_t)((state >> 16 & (i % 2 ? 0x3ffU : 0x83ffU)) | 0x3000U);
    }
}

static void setup(struct bench *b)
{
    int cpus[TEAM_THREADS_MAX];

    b->n_cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    b->n_cpus = b->n_cpus > TEAM_THREADS_MAX ? TEAM_THREADS_MAX : b->n_cpus;
    for (uint32_t i = 0; i < b->n_cpus; i++)
        cpus[i] = (int)i;
    fill_pool(b);
    b->q = malloc(ROW_MAX * sizeof *b->q);
    b->out = malloc((size_t)JOBS_MAX * ROW_MAX * sizeof *b->out);
    invariant(b->q != NULL && b->out != NULL);
    for (uint32_t i = 0; i < ROW_MAX; i++)
        b->q[i] = (float)(i * 7 % 17) / 17.0f - 0.5f;
    invariant(team_create(&b->team[0], 1, NULL, 0) == 0);
    invariant(attn_scratch_create(&b->scratch[0], b->isa, 1, WIDTH_LIMIT, WIDTH_LIMIT) == 0);
    if (b->n_cpus > 1)
        invariant(
            team_create(&b->team[1], b->n_cpus, cpus, 50) == 0 &&
            attn_scratch_create(&b->scratch[1], b->isa, b->n_cpus, WIDTH_LIMIT, WIDTH_LIMIT) == 0);
}

/* KV:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS */
static bool parse_shape(struct bench *b, const char *text)
{
    struct shape s = {.type = KV_TYPE_F16};
    char type[8];

    if (b->n_only == SHAPES_MAX ||
        sscanf(text, "%7[^:]:%u:%u:%u:%u:%u:%u", type, &s.width, &s.n_kv_heads, &s.group,
               &s.context, &s.n_jobs, &s.n_threads) != 7)
        return false;
    while (strcmp(type, type_name(s.type)) != 0) {
        if (s.type == KV_TYPE_I8)
            return false;
        s.type++;
    }
    b->only[b->n_only++] = s;
    return s.width > 0 && s.width <= WIDTH_LIMIT && s.n_kv_heads > 0 && s.group > 0 &&
           (uint64_t)s.n_kv_heads * s.group * s.width <= ROW_MAX && s.context > 0 && s.n_jobs > 0 &&
           s.n_jobs <= JOBS_MAX &&
           (s.n_threads == 1 || s.n_threads == sysconf(_SC_NPROCESSORS_ONLN));
}

static bool parse(struct bench *b, int argc, char **argv)
{
    size_t mib = 512;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--full") == 0 || strcmp(argv[i], "--common") == 0) {
            b->full = b->full || argv[i][2] == 'f';
            b->common = b->common || argv[i][2] == 'c';
            continue;
        }
        if (value == NULL)
            return false;
        if (strcmp(argv[i], "--json") == 0)
            b->json = value;
        else if (strcmp(argv[i], "--shape") == 0 && parse_shape(b, value))
            ;
        else if (strcmp(argv[i], "--block") == 0)
            b->block_tokens = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--pool-mib") == 0)
            mib = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--repeat") == 0)
            b->repeat = (uint32_t)strtoul(value, NULL, 10);
        else
            return false;
        i++;
    }
    b->pool_bytes = mib << 20;
    return b->block_tokens > 0 && b->block_tokens % 32 == 0 && b->block_tokens <= 4096 &&
           mib >= 320 && mib <= 65536 && b->repeat > 0 && b->repeat <= REPEAT_MAX;
}

int main(int argc, char **argv)
{
    static struct bench b = {.block_tokens = 256, .repeat = 9};
    double spinning, asleep, ggml_4k, ggml_16k;

    b.peer = getenv("OMNI_GGML_PEER");
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "usage: bench_attention [--json FILE] [--full] [--block TOKENS] "
                "[--pool-mib 320..] [--repeat 1..31] "
                "[--shape f16|bf16|i8:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS]... [--common]\n");
        return 2;
    }
    if (isa_detect(&b.isa) != 0)
        return 1;
    print_flags();
    setup(&b);
    printf("instruction set %s; blocks of %u tokens scattered over %zu MiB; medians of %u\n",
           isa_name(b.isa), b.block_tokens, b.pool_bytes >> 20, b.repeat);
    print_machine(&b);
    run_grid(&b);
    if (b.n_only > 0)
        return 0;
    ggml_4k = versus_ggml_4k(&b);
    ggml_16k = versus_ggml_16k_g4(&b);
    team_destroy(b.team[1]); /* its threads must not spin beside what follows */
    spinning = attention_overhead_us(b.isa, false);
    asleep = attention_overhead_us(b.isa, true);
    printf("a job with one token of context, posted to visible: %.2f us spinning, %.1f us asleep\n",
           spinning, asleep);
    if (b.json != NULL)
        write_json(&b);
    printf("roof_bytes_min=%.0f roof_arith_min=%.0f roof_1k_min=%.0f vs_ggml_4k=%.1f "
           "vs_ggml_16k_g4=%.1f scale_2t=%.2f int8_ratio=%.2f overhead_us=%.2f\n",
           worst_share(&b, 4096, UINT32_MAX, true, false),
           worst_share(&b, 4096, UINT32_MAX, false, false), worst_share(&b, 1024, 1024, true, true),
           ggml_4k, ggml_16k, scale_threads(&b), int8_ratio(&b), spinning);
    return 0;
}
