/* lengths.h - how much output requests make: a moving window of those that ended, and its quantiles.
 *
 * A client says how much it allows, which is mostly far more than it gets; memory that is kept for
 * all of it is memory that admits nobody.  What ended lately tells more: of a request that has made
 * n tokens the outputs longer than n are looked at, so that one which outlives most others is
 * expected to go on for as long as the few like it did.
 *
 * Plain data, no clock; copied as a whole.  One writer. */
#ifndef OMNI_COMMON_SCHED_LENGTHS_H
#define OMNI_COMMON_SCHED_LENGTHS_H

#include <stdint.h>

enum {
    LENGTHS_MAX = 256,  /* some minutes of chats */
    LENGTHS_ENOUGH = 16 /* fewer are an accident, not a distribution */
};

struct lengths {
    uint32_t n, next;
    uint32_t by_age[LENGTHS_MAX];   /* a ring */
    uint32_t by_value[LENGTHS_MAX]; /* the same, ascending */
};

/* One more output of that many tokens; the oldest makes room.  O(LENGTHS_MAX). */
void lengths_add(struct lengths *l, uint32_t n_output);

/* Output, of at most n_max tokens, of a request that has made n_made of them: what pct percent of
 * those stayed below that got further than n_made.  pct 0, or too few that did: n_max. */
uint32_t lengths_predict(const struct lengths *l, uint32_t n_made, uint32_t n_max, uint32_t pct);

#endif
