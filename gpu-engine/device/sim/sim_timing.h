/* sim_timing.h - what a simulated machine takes its time from, and the clock that it moves.
 *
 * Plain data, made by a simulation (gpu-engine/sim/sim_machine.h) and copied by the sim device and
 * its exchange.  `gpu` is the truth of the simulated device; the engine has a latency model of its
 * own, which may be wrong.
 *
 * The clock has two hands, because a whole sweep is walked when it is submitted: nothing that the
 * engine does can reach a sweep in flight, so its end is known at once.  `now_ns` is the engine's
 * and the load's; `device_ns` is where the device's walk has come to, and what its workers see. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_TIMING_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_TIMING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sched/latency.h"

struct sim_clock {
    uint64_t now_ns;
    uint64_t device_ns;
};

/* One attention worker: a NUMA node of the host, or another host. */
struct sim_worker_timing {
    double bytes_per_ns; /* KV read bandwidth */
    double fixed_ns;     /* per job */
    double spin_ns,
        wake_ns;   /* idle for longer than spin_ns it sleeps: the next job waits wake_ns */
    double hop_ns; /* network, one way; 0 = shared memory */
    double net_bytes_per_ns; /* of its link, each way; 0 = shared memory */
    uint64_t arena_bytes;
};

struct sim_timing {
    struct latency_model gpu; /* collectives are part of its dense staircases */
    double post_ns, take_ns;  /* per offloaded row: q, k, v out; the output in */
    double between_ns;        /* of the engine, between a sweep that was asked for and its begin */
    double copy_bytes_per_ns; /* KV copies over the host link, each direction */
    double copy_fixed_ns;     /* per copy */
    double noise;             /* standard deviation of the logarithm of a sweep's modules */
    uint64_t seed;            /* of that noise */
    bool two_batch;           /* says that it can alternate two batches */
    /* Ideas that are taken out, to see what they bring. */
    bool no_deadlines;            /* workers run jobs in the order of posting */
    bool newest_first;            /* a layer takes the returned rows that were posted last */
    uint32_t payload_value_bytes; /* of q, k, v and outputs on the network */
    uint32_t n_workers;
    struct sim_worker_timing worker[LATENCY_WORKERS_MAX];
};

/* What device_config.sim points at; borrowed by the device until it is closed. */
struct sim_setup {
    const struct sim_timing *timing;
    struct sim_clock *clock;
};

#endif
