/* price.h - the latency model as decisions ask it, dozens of times each.  Without a model
 * everything costs 0 and every budget holds. */
#ifndef OMNI_COMMON_SCHED_PRICE_H
#define OMNI_COMMON_SCHED_PRICE_H

#include "common/sched/latency.h"

struct price {
    const struct latency_model *m; /* NULL: nothing is priced */
};

void price_init(struct price *p, const struct latency_model *m);

/* The whole sweep: latency_predict(...).total_ns; of nothing, 0. */
double price_ns(const struct price *p, const struct latency_load *load);

/* Of two batches that take turns; what they pass once (the beginning, the head) counts once. */
double price_two_ns(const struct price *p, const struct latency_load *a,
                    const struct latency_load *b);

/* All layers' attention. */
double price_attention_ns(const struct price *p, const struct latency_load *load);

/* Returned rows of a sweep, spread over its layers by chance. */
void price_set_returned(const struct price *p, struct latency_load *load, double per_layer);

/* n rows behind `before` positions: one is a decode, more are a chunk. */
void price_add(const struct price *p, struct latency_load *load, uint32_t before, uint32_t n,
               bool sampled);

/* Most rows, at most n of the todo that are left, that keep load and rows within budget_ns.  The
 * last of todo is sampled from.  Binary search: the price grows with the rows. */
uint32_t price_rows_within(const struct price *p, const struct latency_load *load, uint32_t before,
                           uint32_t n, uint32_t todo, double budget_ns);

#endif
