/* sim_report.h - a run's result as a table, and as one JSON object. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_REPORT_H
#define OMNI_GPU_ENGINE_SIM_SIM_REPORT_H

#include <stdio.h>

#include "gpu-engine/sim/sim_bounds.h"
#include "gpu-engine/sim/sim_run.h"

struct sim_report {
    const struct sim_options *options;
    const struct sim_result *result;
    struct sim_bounds bounds;
    const char *timing; /* where the device's times come from */
    const char *be_name, *policy, *offload;
};

/* What the bounds need, from the options and the timing of a run. */
void sim_report_supply(struct sim_supply *s, const struct sim_options *options,
                       const struct sim_timing *timing);

void sim_report_table(FILE *out, const struct sim_report *r);

/* 0 or -ENOMEM. */
int sim_report_json(FILE *out, const struct sim_report *r);

#endif
