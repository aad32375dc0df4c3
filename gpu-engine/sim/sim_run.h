/* sim_run.h - a simulation: the engine itself, over a simulated device, under a simulated load.
 *
 * DESIGN.  Nothing of the engine is copied: struct engine runs with device_sim, exchange_sim and a
 * sink that plays the router.  The driver moves the clock from event to event (an arrival, the end
 * of a sweep or copy, a finished job while no sweep is in flight) and calls engine_step; requests
 * come in through the engine's own admission.
 *
 * A run: warm-up, then the window that is measured, then as long as a request that arrived in the
 * window is still latency-sensitive and unanswered (at most grace_s); then all is cancelled and the
 * books are checked.  The load goes on until that.
 *
 * One thread; memory only grows with the number of requests. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_RUN_H
#define OMNI_GPU_ENGINE_SIM_SIM_RUN_H

#include "common/base/config.h"
#include "gpu-engine/engine.h"
#include "gpu-engine/sim/sim_group.h"
#include "gpu-engine/sim/sim_histogram.h"
#include "gpu-engine/sim/sim_load.h"
#include "gpu-engine/sim/sim_machine.h"
#include "gpu-engine/sim/sim_params.h"

struct sim_options {
    struct sim_machine machine; /* a named one, perhaps changed */
    const struct sim_model *model;
    const struct sim_group *group; /* not NULL: this one instead of machine, model and sizes */
    enum kv_type kv_type;
    const char *profile;  /* file for the device's times; NULL: first principles */
    struct sim_load load; /* borrowed lists */
    double warmup_s, duration_s, grace_s;
    double ttft_slo_s, tpot_slo_s;
    double noise;
    const char *policy; /* any of common/sched, on whatever device */
    struct sim_params params;
    uint32_t offload;      /* enum config_offload */
    uint32_t chunk_tokens; /* 0: what the TPOT objective admits */
    uint32_t p_max, slots; /* returned rows per layer; residents per worker */
    uint32_t max_seqs;     /* 0: as many as the workers' number calls for */
    bool prefilled;        /* device full of best effort at the beginning, and of the arenas: */
    double prefilled_pct;
    bool be_computed; /* best effort comes with its prompt computed, into the arenas */
    uint32_t auto_free_pct;
    uint32_t without;                /* enum sched_without */
    bool no_deadlines, newest_first; /* struct sim_timing */
    const char *sweep_log;           /* NULL: none */
    bool admit_all;                  /* slo.admission = no */
    const char *const *settings;     /* NULL, or further "section.key=value", ended by NULL */
    void (*progress)(void *arg, double share); /* NULL, or called some hundred times */
    void *progress_arg;
};

/* A request as its client sees it. */
struct sim_request {
    uint64_t arrival_ns, first_ns, last_ns, end_ns;
    uint32_t n_in, n_out, n_tokens;
    bool latency_sensitive, accepted, finished, failed;
};

/* What happened in the window. */
struct sim_class_result {
    uint32_t offered, admitted, finished, failed; /* that arrived in it */
    uint32_t ended;                               /* whose end was in it */
    uint32_t ttft_ok, tpot_ok, both_ok;           /* of the latency-sensitive */
    uint64_t n_tokens, n_prompt_tokens;           /* produced; prompts whose first token came */
    double ttft_s[3], tpot_s[3]; /* p50, p90, p99; over requests that arrived in it */
    double latency_s;            /* mean, arrival to end, of those that ended in it */
};

struct sim_result {
    struct sim_class_result ls, be;
    struct sim_histogram gaps; /* between tokens, latency-sensitive */
    uint64_t n_gaps_ok;
    double window_s;
    double gpu_busy, worker_busy[LATENCY_WORKERS_MAX]; /* shares */
    uint32_t n_workers;
    uint64_t stats[ENGINE_N_STATS];            /* of the whole run */
    double mean_sweep_s, residents, device_be; /* time averages in the window */
    double cpu_engine_busy, cpu_engine_rows;   /* `headroom`: share of its hosts' time; a mean */
    /* Output that best effort with a first token has still to make, at the window's edges: where
     * it falls, tokens came from prompts that the window did not pay for. */
    uint64_t stock_first, stock_last;
    double accuracy_mean, accuracy_p90;
    uint32_t chunk_tokens, kv_blocks;
    double wall_s; /* of this machine */
    uint64_t hash; /* of all requests' times: two equal runs have the same */
};

struct sim_run;

/* 0, or -errno with *err. */
int sim_run_create(struct sim_run **out, const struct sim_options *options, struct error *err);
void sim_run_destroy(struct sim_run *r);

/* Runs to the end and checks the books: 0, or -EUCLEAN with what does not agree. */
int sim_run_all(struct sim_run *r, struct sim_result *result, struct error *err);

/* For tests: after sim_run_all. */
const struct sim_request *sim_run_requests(const struct sim_run *r, uint32_t *n);
const struct sim_timing *sim_run_timing(const struct sim_run *r);

/* Adds a request before the run starts, beside the load. */
int sim_run_add(struct sim_run *r, double at_s, bool latency_sensitive, struct sim_pair lengths);
/* The same, of a tenant; its name is borrowed. */
int sim_run_add_for(struct sim_run *r, double at_s, const char *tenant, bool latency_sensitive,
                    struct sim_pair lengths);

#endif
