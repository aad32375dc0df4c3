/* load_report.h - what a load measured, as one JSON object on a file.
 *
 *   seconds, wall_s, generator_cpu_pct
 *   lateness_ms      {n, p50, p99, max}: sent after its own schedule, over all arrivals
 *   books            per class: offered, done, refused, failed, cancelled, unfinished, over all
 *                    requests; and the same of the measured ones under "ls_measured"
 *   window           be_decode_tokens, be_prefill_tokens, and where BE attended
 *   requests         the measured arrivals, one object each; times in ms from the begin
 *   ls_gaps_ms       every gap of a measured LS request
 *   per_second       lists, one value per second of the run
 */
#ifndef OMNI_TESTS_BENCH_LOAD_REPORT_H
#define OMNI_TESTS_BENCH_LOAD_REPORT_H

#include <stdio.h>

#include "tests/bench/load_run.h"

/* 0 or -ENOMEM. */
int load_report(const struct load *l, FILE *out);

#endif
