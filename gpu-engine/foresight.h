/* foresight.h - how long the next sweep will take, and what a finished one teaches.
 *
 * Between batch and replay: batch fills e->batch.load while rows are added, predict turns it into
 * times and into the deadlines of its jobs before the sweep is submitted, observe compares and
 * corrects the latency model.  Engine thread, no sweep in flight. */
#ifndef OMNI_GPU_ENGINE_FORESIGHT_H
#define OMNI_GPU_ENGINE_FORESIGHT_H

#include "gpu-engine/engine.h"

/* Sets e->batch.predicted and e->batch.arrivals from e->batch.load. */
void foresight_predict(struct engine *e);

/* Takes in what the sweep's log says; once per sweep, before e->batch changes. */
void foresight_observe(struct engine *e, const struct device_done *done);

/* Share of an objective that a sweep may be predicted to take so that nearly all sweeps keep it, by
 * the last ones with common rows; 0 = too few of them. */
double foresight_sure_share(const struct engine *e);

/* Statistics, and the read rates of the workers; on the heartbeat. */
void foresight_report(struct engine *e);

#endif
