/* attention_report.h - what bench attention says at its end: a table per KV type and number of
 * threads, the stated targets, the same as JSON. */
#ifndef OMNI_TESTS_BENCH_ATTENTION_REPORT_H
#define OMNI_TESTS_BENCH_ATTENTION_REPORT_H

#include "tests/bench/attention_shape.h"

struct report {
    const struct shape_bench *bench;
    const struct result *results;
    uint32_t n_results;
    double vs_ggml_4k, vs_ggml_16k_g4;      /* -1: no peer */
    double overhead_us, overhead_asleep_us; /* negative: not measured */
};

void report_print_head(void);
void report_print_result(const struct result *r);

/* Worst shares per KV type and threads.  Disturbed shapes are in no figure, and are counted. */
void report_print_table(const struct report *r);

/* The last line: each target over all types, one thread and all; -1: there is no such shape. */
void report_print_targets(const struct report *r);

/* 0 or -errno. */
int report_write_json(const struct report *r, const char *path);

#endif
