/* device.h - what the engine asks of a device.  Implemented by device/cpu, device/cuda, device/sim.
 *
 * The engine submits whole sweeps, never layers: who is in the batch, which offloaded rows enter
 * and leave, how many returned rows each layer may take and how long it may wait for them.  The
 * device picks the returned rows of a layer when the sweep reaches it (pick.h), since a host that
 * runs ahead of a GPU would have chosen before the jobs exist; it logs what it picked and when,
 * and the engine replays that log.
 *
 * Row state of offloaded requests (slot -> layer, generation, age) and their residuals belong to
 * the device.  Nothing outside the device's folder knows which device runs.
 *
 * All calls come from the engine thread.  None blocks but open, close, sync and measure.  The
 * device calls config.notify from threads of its own when a sweep or a copy has ended.  Errors: 0
 * or -errno. */
#ifndef OMNI_GPU_ENGINE_DEVICE_H
#define OMNI_GPU_ENGINE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/kv/geometry.h"

struct device;
struct exchange;
struct model;
struct sim_setup;

enum {
    DEVICE_BATCHES = 2,  /* A: decode rows; B: a chunk run between A's layers (two-batch sweeps) */
    DEVICE_TOP_MAX = 20, /* alternatives told with a token */
    DEVICE_N_Q_MAX = 8,  /* tokens of one offloaded row in one job */
    DEVICE_SWEEPS_IN_FLIGHT = 2,
};

#define DEVICE_TOKEN_PREVIOUS UINT32_C(0x80000000) /* | output index of the previous sweep */

struct device_bias {
    uint32_t token;
    float bias; /* added to its logit */
};

struct device_logprob {
    uint32_t token;
    float logprob; /* natural, under the unmodified distribution */
};

/* What is changed in the logits before a token is drawn, and what is told beside it: a function of
 * the token log alone, so that a token is the same wherever and whenever it is drawn.  The memory
 * is the sequence's; it stays until its rows have left the device. */
struct device_adjust {
    const uint32_t *log; /* the sequence's ids from position 0 on; read below the drawn one */
    uint32_t n_prompt;   /* of them, not output */
    float repetition;    /* of ids in prompt or output: logit / or * it; 1 = off */
    float presence;      /* taken from the logits of ids in the output ... */
    float frequency;     /* ... and this once for each time that they are there */
    uint32_t n_biases;
    const struct device_bias *biases;
    uint32_t min_tokens; /* before so many output tokens none of `stops` is drawn */
    uint32_t n_stops;
    const uint32_t *stops;
    uint32_t n_top; /* alternatives to be told, at most DEVICE_TOP_MAX */
};

/* How one token is drawn.  The generator is keyed by (seed, position): no state between tokens. */
struct device_sampling {
    uint64_t seed;
    float temperature;                  /* 0 = greedy */
    float top_p;                        /* 1 = off */
    float min_p;                        /* 0 = off */
    uint32_t top_k;                     /* 0 = off */
    const struct device_adjust *adjust; /* NULL: nothing; else needs caps.adjusts */
};

/* Common rows come as sequences: n_rows consecutive tokens whose attention is on the device.
 * A decode has one row, a prefill chunk many.  The last row is sampled if `sample` is set. */
struct device_seq {
    uint32_t n_rows;
    uint32_t pos;           /* position of the first row */
    const uint32_t *tokens; /* [n_rows] ids, or DEVICE_TOKEN_PREVIOUS | index */
    /* Block table of layer group g: tables[g * table_stride + pos / block_tokens]. */
    const uint32_t *tables;
    uint32_t table_stride;
    uint16_t sample;
    uint16_t class_idx;
    uint16_t adapter;
    uint16_t in_host; /* its KV lies in an arena and is read over the host link: caps.streams */
    struct device_sampling sampling;
};

struct device_batch {
    uint32_t n_seqs;
    const struct device_seq *seqs;
};

/* An offloaded row that starts a token at layer 0.  It keeps its slot until it leaves. */
struct device_enter {
    uint32_t slot; /* job slot = residual slot = worker * slots + i */
    uint32_t n_q;  /* 1..DEVICE_N_Q_MAX tokens, causal among themselves */
    uint32_t tokens[DEVICE_N_Q_MAX];
    uint32_t pos;     /* position of the first */
    uint32_t seq_idx; /* the sequence's entry in the directory: a job names it, not its blocks */
    uint32_t seq_generation;
    uint32_t
        arena_groups; /* bit g: layer group g lives in the worker's arena; else on the device */
    const uint32_t
        *tables; /* as in device_seq, read for groups on the device; NULL if there is none */
    uint32_t table_stride;
    uint16_t class_idx;
    uint16_t adapter;
    struct device_sampling sampling;
};

/* How the returned rows of a layer are decided. */
struct device_pick {
    uint16_t p_max;   /* returned rows at most */
    uint16_t want;    /* wait until so many of this layer's jobs are back ... */
    uint32_t wait_ns; /* ... at most so long; 0 = never wait (funded from slack) */
};

/* How fast a worker is predicted to be; ns_per_byte 0: not known. */
struct device_pace {
    double fixed_ns, ns_per_byte; /* per job; per KV byte that it reads */
};

struct device_sweep {
    uint64_t seq; /* 1, 2, ...: sweeps complete in this order */
    struct device_batch batch[DEVICE_BATCHES];
    const struct device_enter *enter;
    uint32_t n_enter;
    uint32_t n_enter_b;    /* the last so many of them alternate with all others as a second half
                           batch, each layer waiting for its jobs: caps.half_batches */
    const uint32_t *leave; /* slots given up before the sweep starts (cancel, swap-in) */
    uint32_t n_leave;
    const struct device_pick *pick; /* [n_layers], read when the sweep reaches the layer */
    bool no_riding;                 /* jobs of this sweep may not return in it */
    uint32_t p_total;               /* returned rows over all layers, at most */
    uint64_t wait_total_ns;         /* all layers' waits together, at most */
    bool checkpoint;                /* best-effort blocks go to host memory as they fill:
                                       caps.checkpoints */
    const uint64_t *arrival_ns;   /* [n_layers] predicted time from the sweep's start to the layer's
                                   output projection: the deadline written into its jobs */
    const uint64_t *arrival_b_ns; /* the same of batch B's; NULL: as batch A's */
    const struct device_pace *pace; /* [n_workers]; NULL: nothing is predicted of them, so nobody
                                       is waited for */
};

struct device_layer_log {
    uint16_t n_picked;  /* slots merged at this layer */
    uint16_t n_ridden;  /* of these, posted by this same sweep */
    uint32_t first;     /* index of the first in device_done.picked */
    uint64_t proj_ns;   /* when the output projection began, device clock */
    uint64_t jobs_ns;   /* when the layer's jobs were out */
    uint64_t waited_ns; /* funded wait spent, of both batches */
    /* Two batches: what batch B did between jobs_ns and proj_ns, which are batch A's. */
    uint64_t b_ns, b_attention_ns; /* its time without waits; of it, its attention */
    uint64_t b_waited_ns;          /* of waited_ns, what lay between them */
};

struct device_token {
    uint32_t source; /* index of the sequence in batch 0 then 1; or slot | DEVICE_TOKEN_OFFLOADED */
    uint32_t token;
    float logprob;     /* natural, of the sampled token under the unmodified distribution */
    uint32_t n_ridden; /* offloaded rows: jobs of this token that rode along ... */
    uint32_t n_parked; /* ... and jobs that waited for a later visit */
    int error;         /* 0, or -EIO: a job failed, the token is void */
    uint32_t n_top;    /* alternatives, most likely first; as long-lived as the log */
    const struct device_logprob *top;
};
#define DEVICE_TOKEN_OFFLOADED UINT32_C(0x80000000)

struct device_done {
    uint64_t seq;
    uint64_t start_ns, end_ns;
    uint64_t busy_ns; /* of the time from start to end, what others did not take away (a preempted
                         thread); all of it where the device cannot know */
    uint64_t head_ns; /* when the last layer was through: head and sampling */
    uint32_t n_rows_max;                  /* widest dense batch of the sweep */
    uint32_t n_posted;                    /* jobs written */
    const struct device_layer_log *layer; /* [n_layers] */
    const uint32_t *picked;               /* slots, layer after layer */
    uint32_t n_out;
    const struct device_token *out;
    int error; /* 0 or -errno: the sweep did not happen */
};

/* Offloaded rows by layer. */
struct device_offloaded {
    uint16_t back[KV_LAYERS_MAX]; /* whose job has returned */
    uint16_t out[KV_LAYERS_MAX];  /* whose job has not */
};

enum device_copy_direction { DEVICE_COPY_OUT, DEVICE_COPY_IN };

/* Blocks between the device's KV and staging memory, beside compute.  On the cpu device staging is
 * the arena itself. */
struct device_copy {
    enum device_copy_direction direction;
    uint32_t n_blocks;
    const uint32_t *blocks; /* device blocks */
    void *const *staging;   /* [n_blocks], block_bytes each */
};

/* What `measure` is asked for: one module on its own, for the latency model's profile. */
enum device_shape_kind {
    DEVICE_SHAPE_DENSE,   /* all dense operations of one layer over n rows */
    DEVICE_SHAPE_DECODES, /* attention of one layer: n decodes that see ctx tokens each */
    DEVICE_SHAPE_CHUNK,   /* attention of one layer: a chunk of n tokens behind ctx */
    DEVICE_SHAPE_HEAD,    /* final norm, LM head and greedy draw of n rows */
    DEVICE_SHAPE_EMBED,   /* what a sweep of n rows does before its first layer */
    DEVICE_SHAPE_KINDS
};

struct device_shape {
    enum device_shape_kind kind;
    const uint32_t
        *layers;       /* [n_layers] that cost the same: taken in turn, so that weights and KV */
    uint32_t n_layers; /* come from where they come from in a sweep; unused by HEAD, EMBED */
    uint32_t n, ctx;
    uint64_t budget_ns; /* repetitions end when it is spent; one is always made */
};

struct device_config {
    const struct model *model;
    const struct kv_geometry *geometry;
    struct exchange *exchange; /* NULL: no offloading */
    uint32_t n_kv_blocks;
    uint32_t rows_max;          /* common rows of one sweep */
    uint32_t returned_rows_max; /* p_l never exceeds it */
    uint32_t seqs_max;          /* common sequences of one sweep */
    uint32_t context_max;       /* tokens of a sequence */
    uint32_t n_threads;
    const int *cpus;     /* [n_threads], or NULL: not pinned */
    uint32_t spin_us;    /* idle threads of the team spin so long before they sleep */
    uint32_t copies_max; /* copies in flight */
    void (*notify)(void *);
    void *notify_arg;
    const struct sim_setup *sim; /* device/sim alone: its timing and its clock */
    bool dummy_weights;          /* device/cuda alone: random ones; the file gives the shapes */
};

struct device_caps {
    const char *name;
    const char *variant; /* what else makes timings differ: instruction set, card */
    uint32_t n_threads;
    uint32_t n_kv_blocks;
    uint32_t rows_max;
    uint32_t rank, n_ranks;
    int two_batch;            /* batch[1] may hold rows */
    int waits;                /* pick.wait_ns may be set */
    int half_batches;         /* n_enter_b may be set */
    int adjusts;              /* sampling.adjust may be set */
    int checkpoints;          /* what checkpoint says */
    double host_bytes_per_ns; /* reads of rows whose KV is in_host; 0 = it cannot */
    int picks_on_device;      /* the pick needs no host */
};

struct device_ops {
    const char *name;
    bool halves;   /* jobs carry rows of the KV's 16-bit type; else f32 */
    bool fills_kv; /* n_kv_blocks may be 0: as many as fit into the device's memory */
    /* 0, or -errno with why: it is built in, but what it runs on is not here.  NULL: it always is. */
    int (*present)(char *why, size_t n);
    int (*open)(struct device **out, const struct device_config *config);
    void (*close)(struct device *d);
    void (*caps)(const struct device *d, struct device_caps *out);
    /* Copies all it needs before it returns; -EAGAIN: DEVICE_SWEEPS_IN_FLIGHT are under way. */
    int (*submit)(struct device *d, const struct device_sweep *sweep);
    /* 1: a sweep ended (*out valid until the next poll); 0: none. */
    int (*poll)(struct device *d, struct device_done *out);
    /* Number of offloaded rows whose job has come back and that no sweep has merged: worth a sweep
     * although there is no common row.  *rows: where all offloaded rows wait; empty
     * while a sweep is in flight. */
    uint32_t (*n_returned)(struct device *d, struct device_offloaded *rows);
    /* -EAGAIN: copies_max are under way. */
    int (*copy)(struct device *d, const struct device_copy *copy, uint64_t *ticket);
    /* 1: the copy has ended; 0: not yet. */
    int (*copy_done)(struct device *d, uint64_t ticket);
    /* The device's clock: CLOCK_MONOTONIC, or virtual time. */
    uint64_t (*now)(const struct device *d);
    /* Waits until all sweeps and copies have ended. */
    void (*sync)(struct device *d);
    /* Runs the shape on the real weights and the KV pool, which it overwrites: before the first
     * sweep.  Blocks.  *ns: lower quartile of the repetitions, so that a neighbour counts little.
     * -EINVAL: more than a sweep may hold; -EBUSY: a sweep is in flight; -ENOMEM. */
    int (*measure)(struct device *d, const struct device_shape *shape, uint64_t *ns);
};

extern const struct device_ops device_cpu;

/* The device of that name, or NULL; *known lists the names ("cpu"). */
const struct device_ops *device_find(const char *name, const char **known);

#endif
