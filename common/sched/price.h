/* price.h - the latency model, evaluated fast: what a decision asks dozens of times.
 *
 * Layers of a kind cost the same, so a sweep is priced per kind instead of per layer: the same sum
 * as latency_predict, for 100 layers about 50 times sooner.  Without a model everything costs 0 and
 * every budget holds. */
#ifndef OMNI_COMMON_SCHED_PRICE_H
#define OMNI_COMMON_SCHED_PRICE_H

#include "common/sched/latency.h"

struct price {
    const struct latency_model *m; /* NULL: nothing is priced */
    uint32_t n_kinds;
    uint32_t layer[LATENCY_KINDS_MAX]; /* one layer of each kind that has any ... */
    double count[LATENCY_KINDS_MAX];   /* ... and how many there are */
};

void price_init(struct price *p, const struct latency_model *m);

/* The whole sweep: latency_predict(...).total_ns; of nothing, 0. */
double price_ns(const struct price *p, const struct latency_load *load);

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
