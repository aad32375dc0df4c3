/* cuda_device.h - the CUDA device's own state; included by its files alone.
 *
 * Threads.  The engine thread calls device_ops: it writes a sweep's frame, queues its launches on one
 * stream and, when CUDA says that they have ended, replays the log.  The hint thread tells workers of
 * jobs that the GPU has posted (cuda_slots.c).  Copy threads move KV blocks (cuda_copy.c).  CUDA's own
 * thread says that a sweep has ended (sweep_ended), and calls no CUDA.
 *
 * Memory.  All of it is taken at open.  The GPU's is reached by kernels and copies alone.  A sweep in
 * flight has a frame and a log in pinned memory of its own; on the GPU one of each is enough, because
 * sweeps and their copies follow each other on the stream.
 *
 * Offloaded rows.  Their state on the GPU (slots) is the truth that picks go by; the host keeps a
 * mirror, which it brings forward with each log that it replays. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_DEVICE_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_DEVICE_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>

#include "gpu-engine/device/cuda/cuda_adjust.h"
#include "gpu-engine/device/cuda/cuda_buffers.h"
#include "gpu-engine/device/cuda/cuda_clock.h"
#include "gpu-engine/device/cuda/cuda_copy.h"
#include "gpu-engine/device/cuda/cuda_dense.h"
#include "gpu-engine/device/cuda/cuda_error.h"
#include "gpu-engine/device/cuda/cuda_frame.h"
#include "gpu-engine/device/cuda/cuda_log.h"
#include "gpu-engine/device/cuda/cuda_slots.h"
#include "gpu-engine/device/cuda/cuda_weights.h"
#include "gpu-engine/device/device.h"

enum {
    CUDA_SWEEP_BUFFERS = DEVICE_SWEEPS_IN_FLIGHT + 1, /* the third is the one last polled */
    CUDA_LOGIT_ROWS = 64,      /* rows per LM-head product: bounds the logits */
    CUDA_SPLIT_TOKENS = 512,   /* of decode attention */
    CUDA_GRAPH_ROWS_MAX = 256, /* larger sweeps are plain launches, whose cost is hidden then */
    CUDA_GRAPH_CONTEXT = 1024, /* smallest context that graphs tell apart; then times 4 */
    CUDA_GRAPHS_MAX = 128,
};

/* A sweep from submit to the poll after the one that returned it. */
struct cuda_sweep {
    uint64_t seq, submitted_ns;
    uint8_t *frame; /* pinned */
    uint8_t *log;   /* pinned */
    bool offloads, two, adjusts;
    uint32_t n_enter, n_enter_rows, n_rows[SWEEP_BATCHES];
    uint32_t n_out;       /* sampled common rows ... */
    uint32_t *n_top;      /* [output_room] alternatives of each output */
    uint32_t *out_source; /* ... and which sequences they are of, in the order of the log */
    struct device_done done;
    struct device_layer_log *layers;
    uint32_t *picked;
    struct device_token *out;
    struct device_logprob *top; /* DEVICE_TOP_MAX for each of out */
};

struct cuda_graph {
    uint32_t rows, ctx_max;
    bool offloads;
    cudaGraphExec_t exec;
};

struct device {
    struct device_config config;
    const struct kv_geometry *geometry;
    uint32_t n_layers, n_slots, n_q_max;
    uint32_t table_max; /* blocks of a full context */
    uint32_t row_room;  /* of a batch: rows_max and what returns or enters */
    uint32_t seq_room, output_room;
    char card[64], variant[16]; /* for people; in names of files */
    struct cuda_weights *weights;
    struct cuda_dense *dense;
    struct cuda_kv kv[KV_LAYERS_MAX]; /* without tables */
    struct cuda_piece pieces[CUDA_MEMORY_PIECES_MAX];
    uint32_t n_pieces;
    struct cuda_buffers buffers;
    struct cuda_rows_state rows;
    uint8_t *pool;
    struct cuda_frame_sizes frame_sizes;
    struct cuda_log_sizes log_sizes;
    uint8_t *frame, *log; /* the GPU's */
    size_t frame_bytes;
    struct cuda_log log_at; /* the GPU's log, in pieces */
    cudaStream_t stream;
    struct cuda_graph graphs[CUDA_GRAPHS_MAX];
    uint32_t n_graphs;
    struct cuda_clock clock;
    uint64_t *clock_word; /* pinned */

    struct cuda_sweep sweeps[CUDA_SWEEP_BUFFERS];
    uint64_t n_submitted, n_polled; /* engine thread */
    _Atomic uint64_t n_ended;       /* CUDA's thread */
    int error;                      /* of a launch or a sweep: nothing runs any more */
    struct cuda_slots slots;
    struct cuda_adjusts adjusts;
    struct cuda_copies copies;
};

/* cuda_submit.c: the frame and its shape, from what the engine asks.  0, -EINVAL, -ENOTSUP: then
 * nothing has changed. */
struct cuda_submission {
    const struct cuda_graph *graph; /* NULL: plain launches */
    size_t frame_bytes;             /* of the frame, to be copied */
};
int cuda_submit_fill(struct device *d, struct cuda_sweep *s, const struct device_sweep *in,
                     struct cuda_shape *shape, struct cuda_submission *out);

/* cuda_sweep.c: queues all launches of a sweep of that shape; may be captured. */
int cuda_sweep_launch(struct device *d, const struct cuda_shape *shape);
/* Queues one module of batch A, for cuda_measure.c. */
int cuda_sweep_module(struct device *d, const struct cuda_shape *shape, enum device_shape_kind kind,
                      uint32_t layer);

/* cuda_graph.c: captures all graphs, once; the smallest that holds the shape, or NULL. */
int cuda_graphs_make(struct device *d);
void cuda_graphs_destroy(struct device *d);
const struct cuda_graph *cuda_graph_find(const struct device *d, uint32_t rows, uint32_t ctx_max,
                                         bool offloads);
/* The shape that the graph was captured for. */
void cuda_graph_shape(const struct device *d, const struct cuda_graph *g, struct cuda_shape *out);

/* cuda_replay.c: fills s->done from its log. */
void cuda_replay(struct device *d, struct cuda_sweep *s);

/* cuda_measure.c */
int cuda_measure(struct device *d, const struct device_shape *shape, uint64_t *ns);

static inline uint32_t cuda_residual_first(const struct device *d)
{
    return d->config.rows_max;
}

#endif
