/* plot.h - draws what a subcommand reports, by the script that draws the benchmarks' figures.
 *
 * tests/bench/plot.py ($OMNI_PLOT, or found above this program) needs python3 with matplotlib.  It reads
 * the report's JSON, with `series` or `panels`, from a file that lives only meanwhile.  Blocks. */
#ifndef OMNI_GPU_ENGINE_SIM_PLOT_H
#define OMNI_GPU_ENGINE_SIM_PLOT_H

#include <stdio.h>

#include "common/base/error.h"

/* Writes the JSON; not 0: it could not. */
typedef int plot_write(FILE *out, const void *arg);

/* 0, or -errno with *err: what could not be written, found or run. */
int plot_draw(plot_write *write, const void *arg, const char *target, struct error *err);

#endif
