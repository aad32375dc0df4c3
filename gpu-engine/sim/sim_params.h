/* sim_params.h - a policy's free parameters by name, for those who search for good ones.
 *
 * "use_pct=90,free_pct=5": what is not named stays as the engine's configuration has it.  Which
 * policy reads which one is said in its own file (common/sched/policy_*.c).  Pure functions. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_PARAMS_H
#define OMNI_GPU_ENGINE_SIM_SIM_PARAMS_H

#include "common/base/error.h"
#include "common/sched/scheduler_state.h"

enum { SIM_PARAMS_MAX = 16 };

struct sim_params {
    uint32_t given; /* bit i: value[i] was */
    uint32_t value[SIM_PARAMS_MAX];
};

/* Adds what the text names; NULL or "": nothing.  0, or -EINVAL with *err, which lists the names. */
int sim_params_parse(struct sim_params *p, const char *text, struct error *err);

void sim_params_apply(const struct sim_params *p, struct sched_params *out);

#endif
