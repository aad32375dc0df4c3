/* cuda_buffers.h - memory of the CUDA device, all of it taken at open and given back at close.
 *
 * Every piece is noted in the device, so that a failed open gives back what it has got. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_BUFFERS_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_BUFFERS_H

#include <stdbool.h>

#include "gpu-engine/device/cuda/sweep_steps.h"

struct device;

enum { CUDA_MEMORY_PIECES_MAX = 64 };

/* A piece of memory that close gives back. */
struct cuda_piece {
    void *memory;
    bool is_pinned;
};

/* Row buffers, on the GPU; 16-bit, of the weights' type, unless said. */
struct cuda_buffers {
    float *residual;              /* [rows_max + slots * n_q_max][n_embd] */
    uint16_t *n;                  /* [rows][n_embd] normed */
    uint16_t *qkv;                /* [rows][widest qkv] */
    uint16_t *q[SWEEP_BATCHES];   /* [rows][widest q] rotated */
    uint16_t *a;                  /* [rows][widest output] attention */
    uint16_t *y;                  /* [rows][n_embd] */
    uint16_t *h;                  /* [rows][widest n_ff] */
    float *partial;               /* of decode attention */
    uint16_t *head_in;            /* [outputs][n_embd] */
    struct sampling_row *out_row; /* [outputs] */
    float *logits;                /* [CUDA_LOGIT_ROWS][n_vocab] */
    void *sampling;               /* scratch */
};

/* State of offloaded rows on the GPU. */
struct cuda_rows_state {
    struct pick_slot *slots; /* [n_slots], as all to the budget */
    struct cuda_job_owner *owner;
    uint32_t *generation;
    struct sampling_row *sampling;
    struct pick_budget *budget;
    uint64_t *deadline_ns; /* [n_layers + 1] */
    uint32_t *n_live;      /* rows of batch A */
    uint32_t *source;      /* [returned_max] of the last pick */
};

/* n elements of that size, on the GPU (not zeroed) or pinned (zeroed); *out is a pointer to them.  0 or
 * -errno. */
int cuda_take_device(struct device *d, void *out, size_t n, size_t size);
int cuda_take_pinned(struct device *d, void *out, size_t n, size_t size);
void cuda_give_all(struct device *d);
int cuda_buffers_take(struct device *d);
/* KV blocks: as many as configured, or, for 0, as fit into what is free but a reserve. */
int cuda_pool_take(struct device *d);

#endif
