/* sim_cpu_engine.h - CPU-only engines beside a group, in virtual time: what `headroom` hands to.
 *
 * DESIGN.  One engine per host, over all its sockets: the weights and the KV lie in its DRAM, and
 * everything runs on its cores.  Continuous batching with chunked prompts: a step has all decodes
 * and a chunk of the oldest prompt, and takes
 *
 *   max(weights / bandwidth, 2 * weights * rows / arithmetic)       dense
 *   + KV of the decodes / bandwidth + pairs of the chunk / arithmetic
 *
 * with the bandwidth that the workers have and the arithmetic of struct sim_machine.  A host takes a
 * prompt when it has none to compute, and the KV for all of it.
 *
 * One thread; no memory after create. */
#ifndef OMNI_GPU_ENGINE_SIM_SIM_CPU_ENGINE_H
#define OMNI_GPU_ENGINE_SIM_SIM_CPU_ENGINE_H

#include "gpu-engine/sim/sim_load.h"
#include "gpu-engine/sim/sim_machine.h"

#define SIM_CPU_ENGINE_NEVER UINT64_MAX

struct sim_cpu_engine;

struct sim_cpu_sink {
    void (*token)(void *arg, uint32_t request, uint64_t at_ns, bool last);
    void *arg;
};

/* 0 or -ENOMEM.  Where the weights do not fit a host's DRAM it takes nothing. */
int sim_cpu_engine_create(struct sim_cpu_engine **out, const struct sim_machine *machine,
                          const struct sim_model *model, enum kv_type type,
                          const struct sim_cpu_sink *sink);
void sim_cpu_engine_destroy(struct sim_cpu_engine *x);

/* Requests that would be taken now. */
uint32_t sim_cpu_engine_room(const struct sim_cpu_engine *x);

/* n_done < n_out tokens of the output are there already; computed: their KV, and the prompt's, is
 * too, else all of it is a prompt here. */
struct sim_cpu_request {
    uint32_t request;
    struct sim_pair lengths;
    uint32_t n_done;
    bool computed;
};

/* One of those there is room for. */
void sim_cpu_engine_take(struct sim_cpu_engine *x, uint64_t now_ns,
                         const struct sim_cpu_request *q);

/* When the next step ends; NEVER: all are idle. */
uint64_t sim_cpu_engine_next_ns(const struct sim_cpu_engine *x);
/* Ends the steps that are over by then and begins the next ones; the sink gets their tokens. */
void sim_cpu_engine_advance(struct sim_cpu_engine *x, uint64_t now_ns);

/* Sums over the hosts. */
uint64_t sim_cpu_engine_busy_ns(const struct sim_cpu_engine *x);
uint32_t sim_cpu_engine_n_hosts(const struct sim_cpu_engine *x);
uint32_t sim_cpu_engine_n_running(const struct sim_cpu_engine *x);

/* Calls back for each request that is held, and forgets all. */
void sim_cpu_engine_drop_all(struct sim_cpu_engine *x, void (*drop)(void *arg, uint32_t request),
                             void *arg);

#endif
