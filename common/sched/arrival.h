/* arrival.h - when will a sweep reach the output projection of each layer?
 *
 * The deadline of a job is that moment of the sweep which posts it: back by then, its row rides
 * along.  Until the latency model prices sweeps, this is a moving average of what was measured:
 * for each layer the dense time from one attention to the next, and for all layers together the
 * attention time per KV token that the common rows read.
 *
 *   arrival(l) = start..jobs(0) + sum over i < l of dense(i) + (l + 1) * (fixed + per_token * kv)
 *
 * Plain data, one thread; no clock of its own. */
#ifndef OMNI_COMMON_SCHED_ARRIVAL_H
#define OMNI_COMMON_SCHED_ARRIVAL_H

#include <stdint.h>

enum { ARRIVAL_LAYERS_MAX = 128 };

/* What a finished sweep showed of one layer. */
struct arrival_layer {
    uint64_t jobs_ns; /* its jobs were out: attention of the common rows begins */
    uint64_t proj_ns; /* its output projection begins */
};

struct arrival_model {
    uint32_t n_layers;
    uint32_t n_observed;
    double head_ns; /* sweep start to layer 0's jobs, per row and fixed mixed */
    double dense_ns[ARRIVAL_LAYERS_MAX]; /* proj of layer l to jobs of layer l + 1 */
    double attention_ns;                 /* per layer, when the rows read few KV tokens */
    double attention_ns_per_token;       /* per layer and KV token read by the common rows */
};

/* n_layers <= ARRIVAL_LAYERS_MAX.  Until the first observation every arrival is 0: no deadline can
 * be met, and jobs run oldest first. */
void arrival_init(struct arrival_model *m, uint32_t n_layers);

/* Takes a finished sweep in: layers[n_layers], the sum of context lengths over its common rows. */
void arrival_observe(struct arrival_model *m, uint64_t start_ns, const struct arrival_layer *layers,
                     uint64_t kv_tokens);

/* Predicts [n_layers] times from the sweep's start. */
void arrival_predict(const struct arrival_model *m, uint64_t kv_tokens, uint64_t *arrival_ns);

#endif
