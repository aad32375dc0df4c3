/* latency_fit.h - from measured samples to the latency model's coefficients and staircases.
 *
 * Fits minimise the sum of squared *relative* errors: accuracy is relative, and a plain fit would
 * sacrifice short sweeps, which are the many, to the long ones.  Coefficients are never negative:
 * one that would be is left out and the others are fitted anew, so that predictions grow with
 * every kind of load, which the search for a chunk's size relies on.  Pure functions. */
#ifndef OMNI_COMMON_SCHED_LATENCY_FIT_H
#define OMNI_COMMON_SCHED_LATENCY_FIT_H

#include "common/sched/latency.h"

enum { LATENCY_FIT_TERMS = 3 };

struct latency_sample {
    double x[LATENCY_FIT_TERMS]; /* unused terms 0 */
    double ns;                   /* > 0 */
};

/* ns = sum of coef[i] * x[i], all coef >= 0.  A term that is 0 in all samples, or that the samples
 * cannot tell from the others, gets 0. */
void latency_fit(const struct latency_sample *samples, uint32_t n, double coef[LATENCY_FIT_TERMS]);

/* Adds a step, in order; a row count that is there already takes the new time.  False: full. */
bool latency_stairs_add(struct latency_stairs *s, uint32_t rows, double ns);

/* Makes the steps ascend in time as well: neighbours that fall are set to their mean (pooling of
 * adjacent violators, the closest ascending staircase). */
void latency_stairs_smooth(struct latency_stairs *s);

/* Where the staircase should be measured next: the middle of the two neighbours that differ most,
 * if they differ by more than tolerance_ns and are not close already (a sixteenth of their rows);
 * 0: nowhere. */
uint32_t latency_stairs_next(const struct latency_stairs *s, double tolerance_ns);

#endif
