/* cuda_frame.h - what a sweep reads on the GPU, in one piece of memory that one copy fills.
 *
 * The host writes it in pinned memory, at the same offsets as the kernels find it in the device's.
 * Where what lies follows from the shape of the sweep alone (how many rows, sequences and outputs there
 * may be), so a graph that was captured for a shape finds everything again.  Tables come last: only
 * those in use are copied.
 *
 *   head | ask [layers] | arrival [layers + 1] | enter | leave |
 *   of batch A, then B: token, row_slot, row [rows] | ctx_len [decodes] | chunk | out_row, out_how |
 *   tables [sequences of A, of B][groups][table_stride]
 *
 * Plain offsets; owned by whoever owns the memory. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_FRAME_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_FRAME_H

#include <stdbool.h>

#include "gpu-engine/device/cuda/prefill_attention.h"
#include "gpu-engine/device/cuda/sweep_steps.h"

/* Room of a batch: the grids of its launches. */
struct cuda_batch_shape {
    uint32_t rows;    /* common, entering and returned ones */
    uint32_t decodes; /* sequences of one row, the first of the batch */
    uint32_t chunks, chunk_rows_max;
    uint32_t outputs;
};

struct cuda_shape {
    struct cuda_batch_shape batch[SWEEP_BATCHES];
    uint32_t enters, leaves;
    uint32_t ctx_max; /* no decode sees more tokens */
    bool offloads;    /* rows may enter, return, leave */
    bool adjusts;     /* logits may be changed, alternatives told */
    bool counted;     /* how many rows batch A has is read on the device */
};

/* Pointers into a frame: host or device memory, as its base. */
struct cuda_batch_frame {
    uint32_t *token, *row_slot;
    struct rotary_row *row;
    uint32_t *ctx_len;
    struct prefill_chunk *chunk;
    uint32_t *out_row;
    struct sampling_row *out_how;
    uint32_t *tables;
};

struct cuda_frame {
    struct sweep_head *head;
    struct pick_ask *ask;
    uint64_t *arrival_ns;
    struct sweep_enter *enter;
    uint32_t *leave;
    struct cuda_batch_frame batch[SWEEP_BATCHES];
    size_t fixed_bytes; /* up to the tables */
};

/* What all frames of a device have in common. */
struct cuda_frame_sizes {
    uint32_t n_layers;
    uint32_t seq_tables; /* words of a sequence's tables: groups * table_stride */
};

/* Places a frame of that shape at base (256-byte aligned). */
void cuda_frame_place(struct cuda_frame *f, void *base, const struct cuda_frame_sizes *sizes,
                      const struct cuda_shape *shape);

/* Bytes of a frame of that shape with all tables. */
size_t cuda_frame_bytes(const struct cuda_frame_sizes *sizes, const struct cuda_shape *shape);

#endif
