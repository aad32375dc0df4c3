/* attention_shape.h - one shape of decode attention beside the machine's limits, for bench attention.
 *
 * Every repetition measures the machine (attention_rates.h) and then the kernel, so that both see
 * the same moment of a shared machine; a shape's share of the roofline is the median of these
 * ratios.  The roofline is the larger of the shape's KV bytes over the bandwidth and of
 * (multiply-adds + one exponential per score) over their rates.
 *
 * KV comes from memory: blocks are scattered over a pool many times the caches, and every call
 * takes the next sequences of it.  One thread is timed by its processor time, several by the wall. */
#ifndef OMNI_TESTS_BENCH_ATTENTION_SHAPE_H
#define OMNI_TESTS_BENCH_ATTENTION_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/compute/attention.h"
#include "tests/bench/attention_rates.h"

enum {
    SHAPE_REPEAT_MAX = 31,
    SHAPE_JOBS_MAX = 64,
    SHAPE_WIDTH_MAX = 256,
    SHAPE_ROW_MAX = 8192 /* elements of a query */
};

struct shape {
    uint32_t width, n_kv_heads, group, context, n_jobs, n_threads;
    enum kv_type type;
};

struct result {
    struct shape shape;
    double us_per_job, gbs, share;
    double roof_us; /* per job */
    bool bytes_bind;
    bool disturbed; /* some repetition lost a core, though it was made again many times */
};

struct shape_bench {
    enum isa isa;
    uint32_t block_tokens, repeat;
    bool common; /* all jobs of a call have the same KV */
    bool huge;   /* the pool has pages of 2 MiB, as an arena has where they are set up */
    size_t pool_bytes;
    /* What shape_bench_init makes: */
    uint32_t n_cpus; /* cores, one thread each */
    uint8_t *pool;
    size_t read_at;
    struct team *team[2]; /* of one thread, of all */
    struct attn_scratch *scratch[2];
    float *q, *out;
};

/* One thread per core that this process may use.  0 or -errno. */
int shape_bench_init(struct shape_bench *b);

/* The teams end: their threads must not spin beside what follows. */
void shape_bench_fini(struct shape_bench *b);

void shape_run(struct shape_bench *b, const struct shape *s, struct result *out);

/* The machine's rates with the shape's threads and KV type. */
void shape_rates(struct shape_bench *b, const struct shape *s, struct rates *rates);

const char *shape_type_name(enum kv_type type);

#endif
