/* sim_device.h - the simulated device's own state; included by this folder's files alone.
 *
 * A device without data, unless it is in a group (sim_live.h): it keeps what the engine can see of
 * one (who is where, what was picked, when) and takes the time that struct sim_timing says.  A sweep is walked in virtual time while
 * submit runs, layer by layer as the cpu device does it; poll returns it once the clock has come to
 * its end.  One thread, nothing is allocated after open. */
#ifndef OMNI_GPU_ENGINE_DEVICE_SIM_SIM_DEVICE_H
#define OMNI_GPU_ENGINE_DEVICE_SIM_SIM_DEVICE_H

#include <stdbool.h>

#include "common/kv/geometry.h"
#include "gpu-engine/device/device.h"
#include "gpu-engine/device/pick.h"
#include "gpu-engine/device/sim/exchange_sim.h"
#include "gpu-engine/device/sim/sim_live.h"

enum { SIM_SWEEP_BUFFERS = DEVICE_SWEEPS_IN_FLIGHT + 1 }; /* the third is the one last polled */

/* The log of a sweep, until the poll that returns the next one. */
struct sim_sweep {
    struct device_done done;
    struct device_layer_log *layers;
    uint32_t *picked;
    struct device_token *out;
    uint64_t idle_ns; /* of its time, waits for workers and for the host link */
};

/* An offloaded row: the token in work. */
struct sim_slot {
    uint32_t n_q, pos;
    uint32_t seq_idx, seq_generation;
    uint32_t n_ridden, n_parked;
    uint32_t half; /* of a sweep with half batches: 0 goes with the common rows */
    struct device_sampling sampling;
    int error; /* of one of the token's jobs */
};

enum { SIM_HALVES = 2 };

#define SIM_NO_SLOT UINT32_MAX

/* Offloaded rows that are in a batch now. */
struct sim_active {
    uint32_t *slots; /* [n_slots] */
    uint32_t n, n_rows;
};

/* What a sweep asks of every layer, priced once per kind of layer. */
struct sim_batch {
    struct latency_load load;
    double attention_ns[LATENCY_KINDS_MAX];
    double dense_ns[LATENCY_KINDS_MAX]; /* of its common rows alone */
};

struct device {
    struct device_config config;
    const struct sim_timing *timing;
    struct sim_clock *clock;
    struct sim_live *live; /* NULL: virtual time, no data */
    uint32_t n_layers, n_slots;

    struct sim_sweep sweeps[SIM_SWEEP_BUFFERS];
    uint64_t n_submitted, n_polled;
    uint64_t end_ns;  /* of the last sweep submitted */
    uint64_t busy_ns; /* computing: without waits for workers and for the host link */

    struct sim_slot *slots;
    struct pick_slot *pick_slots; /* [n_slots] */
    uint32_t *done_generation;    /* [n_slots], refreshed by exchange poll */
    uint32_t *n_jobs_at;          /* [n_layers] jobs that are out: layers without any are passed */
    uint32_t n_jobs_out;
    uint32_t *first_at;            /* [n_layers] lists of those jobs, the last posted first */
    uint32_t *next_at, *before_at; /* [n_slots] */
    struct sim_active active[SIM_HALVES]; /* the second one in sweeps with half batches alone */
    uint32_t p_left;                      /* returned rows that the sweep may still take */
    uint64_t wait_left_ns;                /* and time that it may still wait */

    struct sim_batch batch[DEVICE_BATCHES];
    double dense_noise, attention_noise; /* of the sweep that is walked */
    uint32_t next_token;

    uint64_t *copy_end_ns; /* [copies_max], ring by ticket */
    uint64_t n_copies;
    uint64_t link_ns[2]; /* the host link is free, each direction */
};

/* sim_sweep.c: walks one sweep; fills s->done.  Moves the clock's device hand. */
void sim_sweep_walk(struct device *d, struct sim_sweep *s, const struct device_sweep *in);

/* sim_slots.c: offloaded rows. */
void sim_slots_leave(struct device *d, const struct device_sweep *in);
void sim_slots_enter(struct device *d, const struct device_sweep *in);
/* Posts the half's active rows as jobs of layer l, at the device hand. */
void sim_slots_post(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l, uint32_t half);
/* Waits as in->pick[l] says, then picks; the picked become the first half's active rows.  Moves the
 * hand. */
void sim_slots_pick(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l);
/* In a sweep with half batches, in this order for each layer: waits for all of the half's jobs, as
 * far as in->pick[l] lets it; those that are back become its active rows. */
void sim_slots_pick_half(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                         uint32_t l, uint32_t half);
uint32_t sim_slots_n_returned(struct device *d, struct device_offloaded *rows);

#endif
