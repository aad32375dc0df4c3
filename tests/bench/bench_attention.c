/* bench_attention.c - decode attention against the machine's limits, and against ggml's
 *
 *   bench_attention [--json FILE] [--full] [--block TOKENS] [--huge] [--pool-mib N] [--repeat N]
 *                   [--shape KV:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS]... [--common]
 *
 * What is measured and how: attention_shape.h.  Blocks have the engine's default size unless
 * --block says another; --huge: on pages of 2 MiB.  OMNI_GGML_PEER names the program that
 * tests/bench/peer_ggml.sh builds: then ggml runs the same shapes in between.  With --shape only
 * those shapes run, and nothing else: for work on a kernel.  With --common all jobs of a call share
 * their KV, as behind a common prefix; bytes are still counted once per job. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/config.h"
#include "common/base/log.h"
#include "tests/bench/attention_overhead.h"
#include "tests/bench/attention_report.h"
#include "tests/bench/attention_shape.h"
#include "tests/bench/median.h"

enum { RESULTS_MAX = 8192, SHAPES_MAX = 64 };
static const double BYTES_PER_CALL_MAX = 2e9; /* shapes beyond are left out */

struct bench {
    cpu_set_t at_start; /* the team pins the thread that calls it */
    struct shape_bench run;
    bool full;
    const char *json, *peer;
    struct result results[RESULTS_MAX];
    uint32_t n_results;
    struct shape only[SHAPES_MAX]; /* --shape */
    uint32_t n_only;
};

/* ---- The grid -------------------------------------------------------------------------------- */

static void add_shape(struct bench *b, const struct shape *s)
{
    double bytes = (double)s->context * s->n_jobs * s->n_kv_heads * 4 * s->width;

    if (bytes > BYTES_PER_CALL_MAX || b->n_results == RESULTS_MAX)
        return;
    shape_run(&b->run, s, &b->results[b->n_results]);
    report_print_result(&b->results[b->n_results++]);
}

/* By default one number of KV heads per width, 1 and 16 jobs, and the other types at 1k, 4k, 16k. */
static bool is_usual(const struct shape *s)
{
    return s->n_kv_heads == (s->width == 64 ? 3U : 8U) && (s->n_jobs == 1 || s->n_jobs == 16) &&
           (s->type == KV_TYPE_F16 || (s->context >= 1024 && s->context <= 16384));
}

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

                        if (b->full || is_usual(&s))
                            add_shape(b, &s);
                    }
}

static void run_grid(struct bench *b)
{
    report_print_head();
    for (uint32_t i = 0; i < b->n_only; i++)
        add_shape(b, &b->only[i]);
    if (b->n_only > 0)
        return;
    for (uint32_t many = 0; many < (b->run.n_cpus > 1 ? 2U : 1U); many++) {
        uint32_t n_threads = many ? b->run.n_cpus : 1;

        run_type(b, KV_TYPE_F16, n_threads);
        run_type(b, KV_TYPE_BF16, n_threads);
        run_type(b, KV_TYPE_I8, n_threads);
    }
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

        shape_run(&b->run, &shapes[i], &before);
        token = peer_gbs(b, &shapes[i], "token");
        head = peer_gbs(b, &shapes[i], "head");
        shape_run(&b->run, &shapes[i], &after);
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
    const uint32_t all = b->run.n_cpus;
    const struct shape shapes[] = {
        {64, 3, 3, 4096, 1, 1, KV_TYPE_F16},   {128, 8, 4, 4096, 1, 1, KV_TYPE_F16},
        {64, 3, 3, 4096, 1, all, KV_TYPE_F16}, {128, 8, 4, 4096, 1, all, KV_TYPE_F16},
        {64, 8, 1, 4096, 1, 1, KV_TYPE_F16},
    };

    return versus_ggml(b, shapes, sizeof shapes / sizeof shapes[0]);
}

static double versus_ggml_16k_g4(struct bench *b)
{
    const uint32_t all = b->run.n_cpus;
    const struct shape shapes[] = {
        {64, 8, 4, 16384, 1, 1, KV_TYPE_F16},
        {128, 8, 4, 16384, 1, 1, KV_TYPE_F16},
        {64, 8, 4, 16384, 1, all, KV_TYPE_F16},
        {128, 8, 4, 16384, 1, all, KV_TYPE_F16},
    };

    return versus_ggml(b, shapes, sizeof shapes / sizeof shapes[0]);
}

/* ---- The machine ----------------------------------------------------------------------------- */

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
    const uint32_t repeat = b->run.repeat;

    for (uint32_t many = 0; many < (b->run.n_cpus > 1 ? 2U : 1U); many++) {
        enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_I8};
        struct shape s = {.n_threads = many ? b->run.n_cpus : 1};
        double x[3][SHAPE_REPEAT_MAX], read[SHAPE_REPEAT_MAX], exps[SHAPE_REPEAT_MAX];
        struct rates rates;

        for (uint32_t i = 0; i < repeat; i++)
            for (uint32_t t = 0; t < 3; t++) {
                s.type = types[t];
                shape_rates(&b->run, &s, &rates);
                x[t][i] = rates.mac;
                read[i] = rates.read;
                exps[i] = rates.exp;
            }
        printf("%u threads: read %.1f GB/s; f32 multiply-adds %.0f G/s, for bf16 KV %.0f, for int8 "
               "%.0f; exponentials %.1f G/s\n",
               s.n_threads, median_of(read, repeat) * 1e-9, median_of(x[0], repeat) * 1e-9,
               median_of(x[1], repeat) * 1e-9, median_of(x[2], repeat) * 1e-9,
               median_of(exps, repeat) * 1e-9);
    }
}

/* ---- Options --------------------------------------------------------------------------------- */

/* KV:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS */
static bool parse_shape(struct bench *b, const char *text)
{
    struct shape s = {.type = KV_TYPE_F16};
    char type[8];

    if (b->n_only == SHAPES_MAX ||
        sscanf(text, "%7[^:]:%u:%u:%u:%u:%u:%u", type, &s.width, &s.n_kv_heads, &s.group,
               &s.context, &s.n_jobs, &s.n_threads) != 7)
        return false;
    while (strcmp(type, shape_type_name(s.type)) != 0) {
        if (s.type == KV_TYPE_I8)
            return false;
        s.type++;
    }
    b->only[b->n_only++] = s;
    return s.width > 0 && s.width <= SHAPE_WIDTH_MAX && s.n_kv_heads > 0 && s.group > 0 &&
           (uint64_t)s.n_kv_heads * s.group * s.width <= SHAPE_ROW_MAX && s.context > 0 &&
           s.n_jobs > 0 && s.n_jobs <= SHAPE_JOBS_MAX && s.n_threads > 0;
}

/* An option without a value. */
static bool parse_flag(struct bench *b, const char *name)
{
    bool *flag = strcmp(name, "--full") == 0     ? &b->full
                 : strcmp(name, "--common") == 0 ? &b->run.common
                 : strcmp(name, "--huge") == 0   ? &b->run.huge
                                                 : NULL;

    if (flag != NULL)
        *flag = true;
    return flag != NULL;
}

static bool parse_value(struct bench *b, const char *name, const char *value)
{
    if (strcmp(name, "--json") == 0)
        b->json = value;
    else if (strcmp(name, "--shape") == 0)
        return parse_shape(b, value);
    else if (strcmp(name, "--block") == 0)
        b->run.block_tokens = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(name, "--pool-mib") == 0)
        b->run.pool_bytes = strtoul(value, NULL, 10) << 20;
    else if (strcmp(name, "--repeat") == 0)
        b->run.repeat = (uint32_t)strtoul(value, NULL, 10);
    else
        return false;
    return true;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (parse_flag(b, argv[i]))
            continue;
        if (i + 1 == argc || !parse_value(b, argv[i], argv[i + 1]))
            return false;
        i++;
    }
    return b->run.block_tokens > 0 && b->run.block_tokens % 32 == 0 &&
           b->run.block_tokens <= 4096 && b->run.pool_bytes >= (size_t)320 << 20 &&
           b->run.pool_bytes <= (size_t)65536 << 20 && b->run.repeat > 0 &&
           b->run.repeat <= SHAPE_REPEAT_MAX;
}

/* Only known once the cores are counted. */
static bool threads_fit(const struct bench *b)
{
    for (uint32_t i = 0; i < b->n_only; i++)
        if (b->only[i].n_threads != 1 && b->only[i].n_threads != b->run.n_cpus) {
            fprintf(stderr, "--shape: threads are 1, or %u: all\n", b->run.n_cpus);
            return false;
        }
    return true;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static int finish(struct bench *b)
{
    struct report r = {.bench = &b->run,
                       .results = b->results,
                       .n_results = b->n_results,
                       .vs_ggml_4k = -1,
                       .vs_ggml_16k_g4 = -1,
                       .overhead_us = -1,
                       .overhead_asleep_us = -1};
    int rc = 0;

    if (b->n_only == 0) {
        r.vs_ggml_4k = versus_ggml_4k(b);
        r.vs_ggml_16k_g4 = versus_ggml_16k_g4(b);
    }
    shape_bench_fini(&b->run);
    sched_setaffinity(0, sizeof b->at_start, &b->at_start);
    if (b->n_only == 0) {
        r.overhead_us = attention_overhead_us(false);
        r.overhead_asleep_us = attention_overhead_us(true);
        report_print_table(&r);
    }
    if (b->json != NULL)
        rc = report_write_json(&r, b->json);
    if (rc != 0)
        fprintf(stderr, "cannot write %s: %s\n", b->json, strerror(-rc));
    if (b->n_only == 0)
        report_print_targets(&r);
    return rc == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct bench b = {.run = {.repeat = 9, .pool_bytes = (size_t)512 << 20}};
    static struct omni_config defaults;
    int rc;

    sched_getaffinity(0, sizeof b.at_start, &b.at_start);
    log_init("bench_attention", LOG_LEVEL_WARN);
    config_defaults(&defaults);
    b.run.block_tokens = (uint32_t)defaults.engine_block_tokens;
    b.peer = getenv("OMNI_GGML_PEER");
    if (!parse(&b, argc, argv)) {
        fprintf(stderr,
                "usage: bench_attention [--json FILE] [--full] [--block TOKENS] [--huge] "
                "[--pool-mib 320..] [--repeat 1..31] "
                "[--shape f16|bf16|i8:WIDTH:KV_HEADS:GROUP:CONTEXT:JOBS:THREADS]... [--common]\n");
        return 2;
    }
    if (isa_detect(&b.run.isa) != 0)
        return 1;
    print_flags();
    rc = shape_bench_init(&b.run);
    if (rc != 0) {
        fprintf(stderr, "bench_attention: %s\n", strerror(-rc));
        return 1;
    }
    if (!threads_fit(&b))
        return 2;
    printf("instruction set %s; blocks of %u tokens scattered over %zu MiB%s; medians of %u\n",
           isa_name(b.run.isa), b.run.block_tokens, b.run.pool_bytes >> 20,
           b.run.huge ? " of 2 MiB pages" : "", b.run.repeat);
    print_machine(&b);
    run_grid(&b);
    return finish(&b);
}
