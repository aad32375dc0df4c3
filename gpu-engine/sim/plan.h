/* plan.h - an operator's question: beside this latency-sensitive load, how much best effort fits on
 * this machine, what stands in its way, and what would one more of something buy?
 *
 * DESIGN.  A plan is a list of cases: the machine as it is without best effort, as it is with it,
 * and with one thing more each (a CPU socket, a host, 8-bit KV).  Every case is a whole simulation
 * (sim_run.h: the engine's own code in virtual time) of the same arrivals, for some seeds, and the
 * joint bound of the four supplies (sim_bounds.h).  Best effort is without end unless a rate is
 * given, so what it decodes is what fits; where latency-sensitive requests then miss the target
 * that they meet alone, the rate at which they do not is searched for.
 *
 * One thread; a plan lives on its command's stack. */
#ifndef OMNI_GPU_ENGINE_SIM_PLAN_H
#define OMNI_GPU_ENGINE_SIM_PLAN_H

#include "gpu-engine/sim/plan_trace.h"
#include "gpu-engine/sim/sim_bounds.h"
#include "gpu-engine/sim/sim_run.h"

enum { PLAN_CASES_MAX = 8 };

enum { PLAN_SEEDS_MAX = 20 };

/* What the command line asks for. */
struct plan_question {
    struct sim_options options; /* the machine as it is; load.ls: lengths of the trace */
    struct sim_gpu gpu;         /* options.machine.gpu, where it was changed */
    struct plan_trace trace;    /* n 0: Poisson, in options.load */
    const char *trace_name, *be_name, *profile;
    double ls_rate;   /* requests/s, scaled */
    double ls_scale;  /* times faster than recorded */
    double target;    /* share of requests that must meet their objectives */
    uint32_t n_seeds; /* runs of each case, options.load.seed onwards */
    const char *json, *plot;
    bool quiet;
};

/* -EINVAL with *err: the command line is wrong; 1: --help was answered; 0: go on.  Empties *q
 * first; a failed parse is safe to fini. */
int plan_question_parse(struct plan_question *q, int argc, char **argv, struct error *err);
void plan_question_fini(struct plan_question *q);

enum plan_case_kind {
    PLAN_ALONE,
    PLAN_AS_IS,
    PLAN_FITTED, /* only so much best effort that the target is met; where as it is misses it */
    PLAN_SOCKET,
    PLAN_HOST,
    PLAN_INT8
};

struct plan_case {
    enum plan_case_kind kind;
    const char *name;
    struct sim_options options;
    struct sim_bounds bounds;
    struct sim_result *results; /* [n_results] owned, one per seed; NULL until it has run */
    uint32_t n_results;
};

struct plan {
    const struct plan_question *question;
    uint32_t n_cases;
    struct plan_case cases[PLAN_CASES_MAX];
};

/* Which cases there are. */
void plan_init(struct plan *p, const struct plan_question *q);
/* Runs them all, with progress on stderr.  0, or -errno with *err. */
int plan_run(struct plan *p, struct error *err);
void plan_fini(struct plan *p);

const struct plan_case *plan_find(const struct plan *p, enum plan_case_kind kind);
/* Means over the seeds.  Attainment: share of the offered requests that met both objectives, 0..1;
 * 1 if there were none. */
double plan_mean(const struct plan_case *c, double (*of)(const struct sim_result *));
double plan_attainment(const struct plan_case *c);
double plan_be_tokens_s(const struct plan_case *c);

/* plan_report.c: the table and the answers; all as JSON, with `series` as tests/bench/plot.py draws
 * them.  0 or -errno. */
void plan_report_table(FILE *out, const struct plan *p);
int plan_report_json(FILE *out, const struct plan *p);

#endif
