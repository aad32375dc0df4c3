/* plan_trace.h - recorded arrivals: when each request came, its prompt's and its output's tokens.
 *
 * Two forms, told apart by the first byte:
 *
 *   CSV with a heading that names the columns, in any order, others beside them:
 *     time     TIMESTAMP, arrival_s, issue_s, time: a date with time of day, or seconds
 *     prompt   ContextTokens, input_length, input_tokens, num_prefill_tokens, prompt_len
 *     output   GeneratedTokens, output_length, output_tokens, num_decode_tokens, output_len
 *   JSON lines with timestamp (ms), input_length and output_length.
 *
 * So published traces (Azure LLM inference 2023, Mooncake) are read as they are.  Rows that ask for
 * no token are left out and counted.  Owned memory; one thread. */
#ifndef OMNI_GPU_ENGINE_SIM_PLAN_TRACE_H
#define OMNI_GPU_ENGINE_SIM_PLAN_TRACE_H

#include <stdint.h>
#include <stdio.h>

#include "common/base/error.h"
#include "gpu-engine/sim/sim_load.h"

struct plan_arrival {
    double at_s;
    struct sim_pair lengths;
};

struct plan_trace {
    struct plan_arrival *arrivals; /* ascending from 0 */
    uint32_t n, cap, n_left_out;
    double begin_s; /* of the first, where times are numbers; a date begins anywhere: 0 */
    double span_s;  /* until one mean gap after the last: a trace may be gone through again */
};

/* path "-": standard input.  0, or -errno; -EINVAL names file, line and field. */
int plan_trace_read(struct plan_trace *t, const char *path, struct error *err);
/* The same from an open file; name is for the errors. */
int plan_trace_parse(struct plan_trace *t, FILE *f, const char *name, struct error *err);
void plan_trace_fini(struct plan_trace *t);

/* The i-th arrival of a trace that is gone through again and again, `scale` times as fast. */
struct plan_arrival plan_trace_at(const struct plan_trace *t, uint64_t i, double scale);

/* Requests/s. */
double plan_trace_rate(const struct plan_trace *t);

#endif
