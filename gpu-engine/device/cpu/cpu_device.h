/* cpu_device.h - the cpu device's own state; included by this folder's files alone.
 *
 * Threads.  The engine thread calls device_ops.  The sweep thread (thread 0 of the team) runs
 * sweeps one after the other and owns everything under "sweep thread" below.  The copy thread
 * moves KV blocks.  `lock` guards the counters that tie them together; a sweep's input is copied
 * into one of CPU_SWEEP_BUFFERS before submit returns, and its log stays there until the poll that
 * returns the next one, so no other memory is shared.
 *
 * KV blocks need no lock: the engine never names a block in a sweep and in a copy that writes it
 * (or frees it) at the same time. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CPU_DEVICE_H
#define OMNI_GPU_ENGINE_DEVICE_CPU_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/clock.h"
#include "common/compute/attention.h"
#include "common/compute/team.h"
#include "gpu-engine/device/cpu/cpu_dense.h"
#include "gpu-engine/device/device.h"
#include "gpu-engine/device/pick.h"
#include "gpu-engine/device/sampler.h"
#include "gpu-engine/device/wait.h"
#include "gpu-engine/exchange.h"

enum {
    CPU_SWEEP_BUFFERS = DEVICE_SWEEPS_IN_FLIGHT + 1, /* the third is the one last polled */
    CPU_LOGIT_ROWS = 16, /* rows per LM-head call: bounds the logits buffer */
};

/* A submitted sweep, copied, and the log of its run. */
struct cpu_sweep {
    struct device_sweep in; /* its pointers point into the arrays below */
    struct device_seq *seqs;
    uint32_t *tokens; /* [rows_max] */
    uint32_t *tables; /* [seqs_max][n_groups * table_max] */
    struct device_enter *enters;
    uint32_t *enter_tables; /* [returned_rows_max][n_groups * table_max] */
    uint32_t *leaves;
    struct device_pick *picks;
    uint64_t *arrivals, *arrivals_b;
    struct device_pace *pace;
    struct device_done done;
    struct device_layer_log *layers;
    uint32_t *picked;
    struct device_token *out;
    struct device_logprob *top; /* DEVICE_TOP_MAX for each of out */
};

/* The rows of one batch that are active at the layer it has come to. */
struct cpu_batch {
    struct cpu_buffers buffers; /* q, k, v of its own; all else is the device's */
    struct cpu_rows rows;
    struct cpu_part *parts; /* common ones first */
    uint32_t n_parts, n_common_parts;
    uint32_t picks_from; /* PICK_*: whose rows join it in this sweep */
};

/* An offloaded row: what pick_rows needs, and what the token in work needs. */
struct cpu_slot {
    bool occupied;
    uint32_t batch; /* with which it entered */
    uint32_t n_q, pos;
    uint32_t seq_idx, seq_generation;
    uint32_t arena_groups;
    uint32_t *tables; /* [n_groups * table_max]: device blocks of groups that are on the device */
    struct device_sampling sampling;
    uint32_t n_ridden, n_parked; /* jobs of the token in work */
    int error;                   /* of one of these jobs */
};

/* Consecutive active rows of one sequence or slot. */
struct cpu_part {
    uint32_t first, n_rows;
    uint32_t source; /* as in device_token */
    uint32_t pos;
};

struct cpu_copy {
    enum device_copy_direction direction;
    uint32_t n_blocks;
    uint32_t *blocks;
    void **staging;
};

/* A shape to be measured by the sweep thread. */
struct cpu_measurement {
    struct device_shape shape;
    uint32_t *tables; /* [seqs][n_groups * table_max] made-up block tables */
    uint64_t ns;      /* the answer */
    bool done;
};

struct device {
    struct device_config config;
    const struct kv_geometry *geometry;
    uint32_t n_layers, n_slots, n_q_max, table_max; /* table_max: blocks of a full context */
    uint32_t residual_rows;                         /* common rows, then n_slots * n_q_max */
    struct cpu_weights *weights;
    uint8_t *kv; /* [n_kv_blocks][block_bytes] */
    size_t kv_bytes;

    /* shared, under lock */
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    uint64_t n_submitted, n_completed, n_polled;
    uint64_t copies_submitted, copies_completed;
    bool stopping;
    int start_error; /* of the sweep thread; valid once started */
    bool started;
    pthread_t sweep_thread, copy_thread;
    bool sweep_thread_up, copy_thread_up;
    struct cpu_measurement *measurement; /* asked of the sweep thread; NULL: none */
    struct cpu_sweep sweeps[CPU_SWEEP_BUFFERS];
    struct cpu_copy *copies; /* [copies_max], ring by ticket */

    /* sweep thread (engine thread while no sweep is in flight) */
    struct team *team;
    struct attn_scratch *attn;
    struct cpu_buffers buffers;
    struct sampler sampler;
    float *residual; /* [residual_rows][n_embd]: rows never move */
    struct cpu_slot *slots;
    uint32_t *slot_tables;
    struct pick_slot *pick_slots; /* [n_slots] */
    uint32_t *done_generation;    /* [n_slots], refreshed by exchange poll */
    uint32_t n_jobs_out;
    uint32_t p_left;        /* returned rows that the sweep may still take ... */
    uint32_t layer_left;    /* ... and that the layer may */
    uint64_t wait_left_ns;  /* of the sweep's funded waits */
    uint64_t waited_ns;     /* spent of it so far ... */
    uint64_t waited_cpu_ns; /* ... and computed while waiting: spins and looks */
    struct wait_book waits;
    struct cpu_batch batch[DEVICE_BATCHES];
    struct attn_job *attn_jobs;
    uint32_t *previous_tokens; /* of the last sweep's outputs */
    uint32_t n_previous;
};

/* cpu_submit.c */
int cpu_sweep_alloc(struct device *d, struct cpu_sweep *s);
void cpu_sweep_free(struct cpu_sweep *s);
/* 0, or -EINVAL when the sweep exceeds the configured bounds; -ENOTSUP for what it cannot do. */
int cpu_sweep_copy(struct device *d, struct cpu_sweep *to, const struct device_sweep *from);

/* cpu_sweep.c: runs one sweep on the calling thread and its team; fills s->done. */
void cpu_sweep_run(struct device *d, struct cpu_sweep *s);

/* cpu_slots.c: offloaded rows. */
void cpu_slots_leave(struct device *d, const uint32_t *slots, uint32_t n);
void cpu_slots_enter(struct device *d, struct cpu_sweep *s);
/* Posts the batch's arena-bound offloaded parts of layer l and drops them from its rows. */
void cpu_slots_post(struct device *d, struct cpu_sweep *s, struct cpu_batch *batch, uint32_t l);
/* Waits for the layer's jobs as far as that is funded, picks returned rows of layer l and appends
 * them to the batch. */
void cpu_slots_pick(struct device *d, struct cpu_sweep *s, struct cpu_batch *batch, uint32_t l);
uint32_t cpu_slots_n_returned(struct device *d, struct device_offloaded *rows);

/* Appends a part of n rows to the batch; returns its index. */
uint32_t cpu_part_add(struct cpu_batch *b, uint32_t source, uint32_t pos, uint32_t n, float *x);

static inline float *cpu_slot_residual(struct device *d, uint32_t slot)
{
    uint32_t row = d->config.rows_max + slot * d->n_q_max;

    return d->residual + (size_t)row * d->buffers.n_embd;
}

static inline uint32_t cpu_batch_index(const struct device *d, const struct cpu_batch *b)
{
    return (uint32_t)(b - d->batch);
}

static inline bool cpu_part_is_offloaded(const struct cpu_part *p)
{
    return (p->source & DEVICE_TOKEN_OFFLOADED) != 0;
}

/* What this thread has computed, preemption left out. */
static inline uint64_t cpu_thread_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* cpu_measure.c: the device's measure, and its part on the sweep thread. */
int cpu_measure(struct device *d, const struct device_shape *shape, uint64_t *ns);
void cpu_measure_run(struct device *d, struct cpu_measurement *m);

/* cpu_copy.c: the copy thread. */
int cpu_copy_start(struct device *d);
void *cpu_copy_main(void *device);
int cpu_copy_submit(struct device *d, const struct device_copy *copy, uint64_t *ticket);
int cpu_copy_done(struct device *d, uint64_t ticket);
void cpu_copy_free(struct device *d);

#endif
