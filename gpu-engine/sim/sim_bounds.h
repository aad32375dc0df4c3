/* sim_bounds.h - how much best effort a machine could decode at most beside a load, and why no
 * more.
 *
 * A fluid estimate, blind to any policy: sweeps of equal length T, in which everything flows
 * evenly. A sweep holds the latency-sensitive decodes and prefill that arrive in T, d best-effort
 * decodes on the device, r tokens from workers (each one row in every layer), and the prefill of as
 * many new prompts as these tokens use up.  Four supplies:
 *
 *   P  device time that the latency-sensitive load leaves, spent on prefill alone
 *   K  the device's decodes: its KV memory beside the latency-sensitive one
 *   W  the workers' read bandwidth
 *   D  rows that the dense budget within the TPOT objective admits, if all came from workers
 *
 * Each alone is a bound with the other three free; the joint optimum is over d, r and T together.
 * Which supply binds is told by giving 5 % more of each.  Pure functions. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_BOUNDS_H
#define OMNI_GPU_ENGINE_SIM_SIM_BOUNDS_H

#include "common/sched/latency.h"

struct sim_supply {
    const struct latency_model *gpu;
    double kv_tokens;                            /* positions that the device's KV holds */
    double worker_bytes_per_ns, worker_fixed_ns; /* sum of bandwidths; per job */
    uint32_t n_workers;
    double token_bytes;            /* KV of a position in one layer */
    double ls_rate, ls_in, ls_out; /* requests/s, mean tokens */
    double be_in, be_out;
    double be_rate; /* requests/s that arrive; 0 = without end */
    double tpot_slo_s;
};

struct sim_bounds {
    double p, k, w, d;              /* tokens/s, each supply alone */
    double joint;                   /* tokens/s */
    double device, worker, sweep_s; /* of the joint optimum: tokens/s on either side, T */
    char binds;                     /* 'P', 'K', 'W', 'D'; 'A': as many as arrive */
};

void sim_bounds_find(const struct sim_supply *s, struct sim_bounds *b);

#endif
