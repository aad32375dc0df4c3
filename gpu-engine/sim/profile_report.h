/* profile_report.h - a profile's predictions beside fresh measurements: a table, and JSON.
 *
 * Times are of one layer of a kind; of the head, of the sweep.  JSON has `panels` as tests/bench/plot.py
 * draws them, one per module. */
#ifndef OMNI_GPU_ENGINE_SIM_PROFILE_REPORT_H
#define OMNI_GPU_ENGINE_SIM_PROFILE_REPORT_H

#include <stdio.h>

#include "gpu-engine/profile.h"

struct profile_row {
    enum device_shape_kind module;
    uint32_t kind; /* of layer */
    uint32_t n, ctx;
    double measured_ns, predicted_ns;
};

struct profile_report {
    const struct profile *profile;
    const struct profile_row *rows;
    uint32_t n;
};

void profile_report_table(FILE *out, const struct profile_report *r);

/* report: a struct profile_report.  0, or not: it could not be written (a plot_write). */
int profile_report_json(FILE *out, const void *report);

#endif
