/* host.h - an engine in its group: the resources it works with, and how it sleeps and wakes.
 *
 * Opens model, shared memory, device, profile and control socket, and runs engine_step whenever
 * something happened.  The engine itself (engine.h) knows nothing of sockets and segments, so that
 * a simulation runs the same one.
 *
 * The engine thread sleeps on two bells: a private one (device, copies, control) and, when no sweep
 * is in flight, the shared one that workers ring. */
#ifndef OMNI_GPU_ENGINE_HOST_H
#define OMNI_GPU_ENGINE_HOST_H

#include "common/model/model.h"
#include "common/topology/topology.h"
#include "gpu-engine/control.h"
#include "gpu-engine/engine.h"
#include "gpu-engine/exchange_shm.h"

struct host {
    struct engine engine;
    struct topology topology;
    struct topology_plan plan;
    uint32_t n_claimed; /* of its cpus, by another group */
    struct model *model;
    struct exchange_shm *shm; /* engine.exchange is this, or a wrapper around it */
    struct control *control;
    struct held_request *held; /* [max_seqs] of the last introduction; control thread */
    uint64_t identity; /* epoch in messages: changes with every start, whatever became of shm */
    struct bell_shared bell; /* private memory */
    /* Grows with each ring of the bell.  H1: release in host_ring, H2: acquire in host_tick:
     * what was queued before the ring is seen by the step behind it. */
    _Atomic uint32_t events;
    uint32_t events_seen;
};

/* 0, or -errno with *err.  A failed init is safe to shut down. */
int host_init(struct host *h, const struct omni_config *config, uint32_t index, struct error *err);

/* One round; sleeps when there is nothing to do, but no longer than a heartbeat. */
void host_tick(struct host *h);

/* Tells the router, stops the device, detaches; segments stay. */
void host_shutdown(struct host *h);

/* Wakes the engine thread; any thread. */
void host_ring(void *host);

#endif
