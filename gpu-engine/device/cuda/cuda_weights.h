/* cuda_weights.h - a model's weights in the GPU's memory, in the form in which its kernels and
 * cuBLASLt read them.
 *
 * Matrices are 16-bit, bf16 or f16 for the whole model, row-major [n_out][n_in]: a row is an output
 * feature.  What is multiplied by the same rows is one matrix, so that one product serves: q, k, v
 * (qkv), and gate and up (gate_up).  Other types of the file are dequantised to that one at load;
 * norms and biases are f32.  Everything lies in one allocation, each piece 256-byte aligned.
 *
 * The file's bytes go through a ring of pinned buffers: io_uring reads ahead (pread where a container
 * forbids it), copies and conversions follow on a stream.  A dummy load reads nothing of the file but
 * its shapes and fills matrices by a kernel, a function of seed and place alone.
 *
 * Built once at open, immutable afterwards; used by whoever launches.  One host thread. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_CUDA_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/model/model.h"

/* y = x W^T + bias.  Device pointers. */
struct cuda_matrix {
    const uint16_t *w;      /* [n_out][n_in] */
    const float *bias;      /* [n_out], or NULL */
    const uint16_t *bias16; /* the same in 16 bits, for cuBLASLt; NULL where bias is */
    uint32_t n_out, n_in;   /* n_in: a multiple of 32 */
};

/* Rotary angles of every position below context_max, in the form of struct rotary_write. */
struct cuda_rope {
    const float *angles; /* [context_max][n_dims / 2][2]: cosine, sine, times the magnitude */
    uint32_t n_dims;     /* 0: no rotation, and angles is NULL */
    uint32_t is_neox;
};

struct cuda_layer_weights {
    const float *attn_norm, *ffn_norm; /* [n_embd] */
    const float *q_norm, *k_norm;      /* [k_width] of each head's norm, or NULL */
    float attn_eps, ffn_eps, head_eps; /* of these norms */
    struct cuda_matrix qkv;            /* rows: q, k, v, each head by head */
    struct cuda_matrix output;         /* [n_embd][n_heads * v_width] */
    struct cuda_matrix gate_up;        /* [2 n_ff][n_embd]: gate, then up */
    struct cuda_matrix down;           /* [n_embd][n_ff] */
    struct cuda_rope rope;             /* layers that agree share a table */
};

struct cuda_weights {
    uint32_t type; /* KV_TYPE_BF16 or KV_TYPE_F16: of matrices and table, hence of activations */
    uint32_t n_layers, n_embd, n_vocab;
    const uint16_t *token_embd; /* [n_vocab][n_embd] */
    const float *output_norm;   /* [n_embd] */
    float output_eps;
    struct cuda_matrix head;           /* [n_vocab][n_embd]; token_embd's memory where tied */
    struct cuda_layer_weights *layers; /* [n_layers] */
    uint64_t bytes;                    /* of device memory, all of it */
    uint64_t swept_bytes; /* that one sweep of one row must read: all but the table, angles */
    void *memory;         /* the allocation; owned */
};

/* How much is there: called from the loading thread, first with 0, last with done = total. */
typedef void cuda_weights_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes);

struct cuda_weights_options {
    uint32_t type;        /* as above; 0: f16 where all matrices of the file are, else bf16 */
    uint32_t context_max; /* positions that need angles */
    bool dummy;           /* random weights: nothing of the file's data is read */
    uint64_t seed;        /* of a dummy load */
    bool no_uring;        /* pread, as where io_uring is forbidden */
    cuda_weights_progress *progress; /* NULL: cuda_weights_show */
    void *progress_arg;
};

/* Bytes of device memory that a load will take, before anything is taken.  0, or -ENOTSUP with err:
 * the layer and what no kernel covers (experts, widths no multiple of 32, K and V of unlike width). */
int cuda_weights_bytes(const struct model *model, const struct cuda_weights_options *options,
                       uint64_t *bytes, struct error *err);

/* Loads; blocks until all is there.  0, -ENOTSUP as above, -ENOMEM (needed and free in err), -EIO (a
 * read or a CUDA call), with err.  The model stays the caller's and is not needed afterwards. */
int cuda_weights_create(struct cuda_weights **out, const struct model *model,
                        const struct cuda_weights_options *options, struct error *err);

/* Nothing may be running that reads them.  NULL is allowed. */
void cuda_weights_destroy(struct cuda_weights *w);

/* A bar on stderr where that is a terminal, else a log line per tenth, at most one a second:
 * the default.  arg: a zeroed
 * struct cuda_weights_shown. */
struct cuda_weights_shown {
    uint64_t start_ns, told_ns;
    uint32_t tenths;
};
cuda_weights_progress cuda_weights_show;

#endif
