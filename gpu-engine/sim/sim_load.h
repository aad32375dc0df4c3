/* sim_load.h - who arrives when, and with how many tokens.
 *
 * Everything is drawn by a counter-based generator keyed by (seed, stream, index): request i is the
 * same whatever happened before it, so that two policies are given the same load.
 *
 * Plain data; one thread. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_LOAD_H
#define OMNI_GPU_ENGINE_SIM_SIM_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

/* A length: lognormal, cut at `cap` (what is longer becomes cap), with that mean after the cut;
 * sigma 0 = always the mean. */
struct sim_length {
    double mean, sigma, mu;
    uint32_t cap;
};

struct sim_pair {
    uint32_t n_in, n_out;
};

/* Lengths of a kind of request: two distributions, or a list from a file, from which is drawn. */
struct sim_lengths {
    struct sim_length in, out;
    struct sim_pair *pairs; /* owned; NULL: the distributions */
    uint32_t n_pairs;
};

/* Times of arrival that were recorded: ascending from 0, gone through again and again. */
struct sim_times {
    double *at_s; /* owned */
    uint32_t n;
    double span_s; /* one mean gap longer than to the last */
};

struct sim_load {
    uint64_t seed;
    double ls_rate; /* requests/s */
    double burst_s; /* the rate is redrawn so often, between 0.25 and 1.75 times; 0 = steady */
    double be_rate; /* requests/s; 0: so many are always waiting: */
    uint32_t be_backlog;
    uint32_t be_in_flight; /* not 0: a closed loop of so many instead, of the list in its order */
    struct sim_lengths ls, be;
    struct sim_times be_times; /* n 0: Poisson; else at be_rate all the same, faster or slower */
};

/* Arrivals of one stream: Poisson, or at recorded times. */
struct sim_arrivals {
    uint64_t seed, stream;
    double rate, burst_s;
    const struct sim_times *times; /* NULL: Poisson */
    uint64_t n_drawn;
    double at_s; /* of the next one */
};

/* Uniform in [0, 1). */
double sim_draw(uint64_t seed, uint64_t stream, uint64_t index, uint64_t what);

void sim_length_set(struct sim_length *l, double mean, double sigma, uint32_t cap);
uint32_t sim_length_draw(const struct sim_length *l, uint64_t seed, uint64_t stream,
                         uint64_t index);

/* "NAME" (SHAREGPT, LONGBENCH, DAILYMAIL), "IN/OUT" means, or a file of "in out" lines.  sigma is
 * that of the named ones and of the means.  0, or -errno with *err. */
int sim_lengths_parse(struct sim_lengths *l, const char *text, double sigma, struct error *err);
void sim_lengths_fini(struct sim_lengths *l);
struct sim_pair sim_lengths_draw(const struct sim_lengths *l, uint64_t seed, uint64_t stream,
                                 uint64_t index);
double sim_lengths_mean_in(const struct sim_lengths *l);
double sim_lengths_mean_out(const struct sim_lengths *l);
/* Longest prompt plus longest output. */
uint32_t sim_lengths_max(const struct sim_lengths *l);
uint32_t sim_lengths_max_out(const struct sim_lengths *l);

/* A file with a number of seconds per line, ascending.  0, or -errno with *err. */
int sim_times_read(struct sim_times *t, const char *path, struct error *err);
void sim_times_fini(struct sim_times *t);

/* rate 0: never.  times is borrowed; n 0: Poisson. */
void sim_arrivals_init(struct sim_arrivals *a, uint64_t seed, uint64_t stream, double rate,
                       double burst_s, const struct sim_times *times);
/* Time of the next arrival; UINT64_MAX: never.  _pop goes on to the one after it. */
uint64_t sim_arrivals_next_ns(const struct sim_arrivals *a);
void sim_arrivals_pop(struct sim_arrivals *a);

#endif
