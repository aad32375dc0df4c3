/* report.h - what the engine says of itself: state messages to the router, gauges in its page. */
#ifndef OMNI_GPU_ENGINE_REPORT_H
#define OMNI_GPU_ENGINE_REPORT_H

#include "gpu-engine/engine.h"

/* Refreshes the gauges; sends engine_state if it differs from the last one sent, or if the router
 * is a new one. */
void report_state(struct engine *e);

/* Rows of the statistics page. */
const struct stats_row *report_stats_rows(void);

#endif
