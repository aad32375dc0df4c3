/* bench_attention.c - decode attention over paged KV in memory: GB/s of KV read, one thread
 *
 *   bench_attention [--json FILE] [--context TOKENS]
 *
 * Each case decodes one query of many sequences whose KV together (256 MiB) exceeds the caches;
 * GB/s counts the bytes of K and V once.  `read` is a plain sum over the same amount of memory:
 * what one thread can read at all.  Processor time of the thread; medians of 7. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/invariant.h"
#include "common/compute/attention.h"

enum { REPEAT = 7, POOL_MIB = 256, BLOCK_TOKENS = 64, JOBS_MAX = 512, N_CASES = 6 };

struct attention_case {
    const char *name;
    uint32_t n_heads, n_kv_heads, width;
    enum kv_type type;
};

static const struct attention_case cases[N_CASES] = {
    {"9/3 heads x 64, f16 (SmolLM2)", 9, 3, 64, KV_TYPE_F16},
    {"32/8 heads x 128, f16 (Llama-3-8B)", 32, 8, 128, KV_TYPE_F16},
    {"64/8 heads x 128, f16 (Llama-2-70B)", 64, 8, 128, KV_TYPE_F16},
    {"8/8 heads x 128, f16 (no groups)", 8, 8, 128, KV_TYPE_F16},
    {"32/8 heads x 128, i8", 32, 8, 128, KV_TYPE_I8},
    {"32/8 heads x 128, bf16", 32, 8, 128, KV_TYPE_BF16},
};

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *x)
{
    qsort(x, REPEAT, sizeof *x, compare_doubles);
    return x[REPEAT / 2];
}

/* GB/s of summing the pool: eight independent sums, so that it is not bound by additions. */
static double bench_read(const uint8_t *pool, size_t bytes)
{
    const uint64_t *p = (const uint64_t *)(const void *)pool;
    static volatile uint64_t sink; /* keeps the sums alive */
    double times[REPEAT];

    for (int i = 0; i < REPEAT; i++) {
        uint64_t sum[8] = {0};
        double start = thread_seconds();

        for (size_t j = 0; j < bytes / 64; j++)
            for (size_t l = 0; l < 8; l++)
                sum[l] += p[8 * j + l];
        times[i] = thread_seconds() - start;
        for (size_t l = 0; l < 8; l++)
            sink += sum[l];
    }
    return (double)bytes / median(times) * 1e-9;
}

struct bench {
    enum isa isa;
    struct team *team;
    struct attn_scratch *scratch;
    uint8_t *pool;
    size_t pool_bytes;
    uint32_t context;
};

/* Fills all blocks' KV with small values of the type, scattered over the range. */
static void fill_kv(const struct bench *b, const struct kv_geometry *g, uint32_t n_blocks)
{
    uint32_t width = kv_layer_k_width(&g->layer[0]);
    float *rows = malloc((size_t)BLOCK_TOKENS * width * sizeof *rows);
    uint32_t table = 0, state = 1;
    struct kv_view view = {.base = b->pool,
                           .table = &table,
                           .block_bytes = g->block_bytes,
                           .block_tokens = BLOCK_TOKENS,
                           .n_blocks = 1,
                           .type = g->type,
                           .layer = &g->layer[0]};

    invariant(rows != NULL);
    for (size_t i = 0; i < (size_t)BLOCK_TOKENS * width; i++) {
        state = state * 1664525U + 1013904223U;
        rows[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    attn_append(&view, 0, BLOCK_TOKENS, rows, width, rows, width);
    for (uint32_t i = 1; i < n_blocks; i++)
        memcpy(b->pool + (size_t)i * g->block_bytes, b->pool, g->block_bytes);
    free(rows);
}

static double bench_case(const struct bench *b, const struct attention_case *c)
{
    struct kv_layer_spec spec = {.attention = KV_ATTENTION_FULL,
                                 .n_heads = c->n_heads,
                                 .n_kv_heads = c->n_kv_heads,
                                 .dk = c->width,
                                 .dv = c->width,
                                 .scale = 0.1f};
    struct kv_geometry_config config = {
        .type = c->type, .block_tokens = BLOCK_TOKENS, .n_groups = 1, .n_ranks = 1};
    struct kv_geometry *g = malloc(sizeof *g);
    const char *field;
    uint32_t per_sequence = (b->context - 1) / BLOCK_TOKENS + 1, n_blocks, n_jobs;
    uint32_t *table;
    float *q, *out;
    static struct attn_job jobs[JOBS_MAX];
    double times[REPEAT], bytes;

    invariant(g != NULL && geometry_init(g, &config, &spec, 1, &field) == 0);
    n_jobs = (uint32_t)(b->pool_bytes / g->block_bytes / per_sequence);
    n_jobs = n_jobs < JOBS_MAX ? n_jobs : JOBS_MAX;
    n_blocks = n_jobs * per_sequence;
    table = malloc(n_blocks * sizeof *table);
    q = calloc(kv_layer_q_width(&g->layer[0]), sizeof *q);
    out = malloc(kv_layer_out_width(&g->layer[0]) * sizeof *out);
    invariant(n_jobs > 0 && table != NULL && q != NULL && out != NULL);
    fill_kv(b, g, n_blocks);
    for (uint32_t i = 0; i < kv_layer_q_width(&g->layer[0]); i++)
        q[i] = (float)(i % 17) / 17.0f - 0.5f;
    for (uint32_t i = 0; i < n_blocks; i++)
        table[i] = (uint32_t)((uint64_t)i * 7919 % n_blocks);
    for (uint32_t i = 0; i < n_jobs; i++)
        jobs[i] = (struct attn_job){.q = q,
                                    .out = out,
                                    .n_q = 1,
                                    .pos = b->context - 1,
                                    .ldq = 0,
                                    .ldo = 0,
                                    .kv = {.base = b->pool,
                                           .table = table + i * per_sequence,
                                           .block_bytes = g->block_bytes,
                                           .block_tokens = BLOCK_TOKENS,
                                           .n_blocks = per_sequence,
                                           .type = c->type,
                                           .layer = &g->layer[0]}};
    for (int i = 0; i < REPEAT; i++) {
        double start = thread_seconds();

        attn_run(b->team, b->scratch, jobs, n_jobs);
        times[i] = thread_seconds() - start;
    }
    bytes = (double)n_jobs * b->context * geometry_layer_token_bytes(g, 0);
    free(table);
    free(q);
    free(out);
    free(g);
    return bytes / median(times) * 1e-9;
}

static void write_json(const char *path, const double *gbs, double read)
{
    FILE *f = fopen(path, "w");

    if (f == NULL) {
        fprintf(stderr, "cannot write %s: %s\n", path, strerror(errno));
        return;
    }
    fprintf(f, "{\"title\": \"decode attention, one thread\", \"x_label\": \"\", \"y_label\": "
               "\"GB/s of KV\", \"log_x\": false, \"series\": [{\"name\": \"attention\", \"x\": [");
    for (int i = 0; i < N_CASES; i++)
        fprintf(f, "\"%s\", ", cases[i].name);
    fprintf(f, "\"read\"], \"y\": [");
    for (int i = 0; i < N_CASES; i++)
        fprintf(f, "%.2f, ", gbs[i]);
    fprintf(f, "%.2f]}]}\n", read);
    fclose(f);
}

int main(int argc, char **argv)
{
    struct bench b = {.context = 4096, .pool_bytes = (size_t)POOL_MIB << 20};
    const char *json = NULL;
    double gbs[N_CASES], read;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--json") == 0)
            json = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--context") == 0)
            b.context = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else
            b.context = 0;
    }
    if (b.context == 0 || b.context > 16384) {
        fprintf(stderr, "usage: bench_attention [--json FILE] [--context 1..16384]\n");
        return 2;
    }
    if (isa_detect(&b.isa) != 0)
        return 1;
    b.pool = aligned_alloc(4096, b.pool_bytes);
    invariant(b.pool != NULL);
    memset(b.pool, 0, b.pool_bytes);
    invariant(team_create(&b.team, 1, NULL, 0) == 0);
    invariant(attn_scratch_create(&b.scratch, b.isa, 1, 128, 128) == 0);
    read = bench_read(b.pool, b.pool_bytes);
    printf("instruction set %s; one thread; context %u; blocks of %u tokens, scattered\n",
           isa_name(b.isa), b.context, BLOCK_TOKENS);
    printf("%-38s %6.1f GB/s\n", "read (plain sum)", read);
    for (int i = 0; i < N_CASES; i++) {
        gbs[i] = bench_case(&b, &cases[i]);
        printf("%-38s %6.1f GB/s  %3.0f %% of read\n", cases[i].name, gbs[i],
               100.0 * gbs[i] / read);
    }
    if (json != NULL)
        write_json(json, gbs, read);
    printf("attention_64_gbs=%.1f attention_128_gbs=%.1f read_gbs=%.1f\n", gbs[0], gbs[1], read);
    attn_scratch_destroy(b.scratch);
    team_destroy(b.team);
    free(b.pool);
    return 0;
}
