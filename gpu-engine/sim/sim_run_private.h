/* sim_run_private.h - the state of a simulation; included by sim_run*.c alone. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_RUN_PRIVATE_H
#define OMNI_GPU_ENGINE_SIM_SIM_RUN_PRIVATE_H

#include "gpu-engine/device/sim/device_sim.h"
#include "gpu-engine/device/sim/exchange_sim.h"
#include "gpu-engine/sim/sim_cpu_engine.h"
#include "gpu-engine/sim/sim_run.h"

enum { STREAM_LS = 1, STREAM_BE = 2, STREAM_BEGIN = 3 };

/* Share of the sequences, 1 of so many, that best effort leaves to latency-sensitive requests. */
enum { SIM_RESERVE_SHARE = 4 };

/* Values at the window's edges, to tell what lies between. */
struct sim_mark {
    uint64_t gpu_busy_ns, worker_busy_ns[LATENCY_WORKERS_MAX];
    uint64_t n_sweeps, cpu_engine_busy_ns;
    uint64_t stock; /* output that is still to be made */
};

/* A request with a time of its own, beside the load. */
struct sim_extra {
    uint64_t at_ns;
    const char *tenant; /* or NULL */
    bool latency_sensitive;
    struct sim_pair lengths;
};

struct sim_run {
    struct sim_options options;
    struct omni_config config;
    struct sim_clock clock;
    struct sim_timing timing;
    struct sim_setup setup;
    struct engine engine;
    _Atomic uint64_t values[ENGINE_N_STATS]; /* under engine.stats */
    bool engine_up;
    struct sim_cpu_engine *cpu_engine; /* NULL: the policy hands nothing over */

    struct sim_request *requests;
    uint32_t n_requests, requests_cap;
    struct sim_extra *extras; /* ascending in time */
    uint32_t n_extras, next_extra;
    uint32_t *prompt; /* scratch of one submit */
    struct sim_arrivals ls_arrivals, be_arrivals;
    uint64_t n_ls, n_be;  /* drawn so far */
    uint64_t n_drawn;     /* of those that are there at the beginning */
    struct sim_pair next; /* of best effort that is put into arenas */
    bool has_next, begun;
    uint32_t be_open;           /* best-effort requests that have not ended */
    uint32_t be_before_first;   /* best-effort requests that have no token yet */
    uint32_t ls_open;           /* of the window, not ended */
    uint64_t from_ns, until_ns; /* the window */
    bool load_off;
    uint64_t progress_ns; /* when it is next spoken of */

    struct sim_mark first, last;
    bool marked_first, marked_last;
    uint64_t resident_ns, device_be_ns; /* sums over time in the window */
    uint64_t cpu_engine_rows_ns;
    uint64_t averaged_ns; /* up to here */
    struct sim_result *result;
};

/* sim_run_load.c: requests that are due at the clock's time, and the backlog. */
void sim_run_submit_due(struct sim_run *r);
uint64_t sim_run_next_arrival_ns(const struct sim_run *r);
/* Notes a request, which is the next index; then offers it to the engine: is it accepted? */
void sim_run_note_request(struct sim_run *r, uint64_t arrival_ns, bool latency_sensitive,
                          struct sim_pair lengths);
bool sim_run_submit(struct sim_run *r, uint64_t arrival_ns, bool latency_sensitive,
                    struct sim_pair lengths);

/* sim_run_begin.c: what is there at the beginning; computed prompts for arenas with room. */
void sim_run_begin(struct sim_run *r);
void sim_run_feed(struct sim_run *r);

/* sim_run_sink.c: the router's part. */
struct engine_sink sim_run_sink(struct sim_run *r);
struct engine_elsewhere sim_run_elsewhere(struct sim_run *r);
struct sim_cpu_sink sim_run_cpu_sink(struct sim_run *r);
/* What the CPU-only engines hold is cancelled. */
void sim_run_drop_elsewhere(struct sim_run *r);

/* sim_run_result.c */
void sim_run_average(struct sim_run *r); /* before the clock moves on */
void sim_run_take_mark(struct sim_run *r, struct sim_mark *mark);
void sim_run_summarise(struct sim_run *r);
int sim_run_check_books(struct sim_run *r, struct error *err);

static inline bool sim_run_in_window(const struct sim_run *r, uint64_t at_ns)
{
    return at_ns >= r->from_ns && at_ns < r->until_ns;
}

#endif
