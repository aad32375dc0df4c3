/* accuracy.h - how good the last predictions were: mean, and what 90 % of them reach or exceed.
 *
 * A ring of the last ACCURACY_WINDOW accuracies (1 - |predicted - measured| / measured), kept in
 * steps of 0.1 % with a count per step, so that adding is O(1) and a quantile needs no sorting.
 * Plain data, zero is empty; one thread. */
#ifndef OMNI_COMMON_SCHED_ACCURACY_H
#define OMNI_COMMON_SCHED_ACCURACY_H

#include <stdint.h>

enum { ACCURACY_WINDOW = 1024, ACCURACY_STEPS = 1000 };

struct accuracy {
    uint16_t ring[ACCURACY_WINDOW]; /* in steps */
    uint32_t count[ACCURACY_STEPS + 1];
    uint32_t n, next;
    uint64_t sum; /* of the ring */
};

/* value is cut to 0..1. */
void accuracy_add(struct accuracy *a, double value);

/* 0..1; 0 of nothing. */
double accuracy_mean(const struct accuracy *a);

/* The largest value that at least `share` (0..1) of the window reach or exceed; 0 of nothing. */
double accuracy_reached_by(const struct accuracy *a, double share);

#endif
