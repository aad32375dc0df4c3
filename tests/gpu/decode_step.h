/* decode_step.h - one decode sweep of a model's shape out of the device's own kernels, for timing: random
 * weights, every layer its own, a full context in the pool, greedy draws.  No engine, no host in it.
 *
 * What a sweep of the device has beyond this: what is copied in and out (some kilobytes), and, with
 * offloaded rows, jobs, picks and gathers. */
#ifndef OMNI_TESTS_GPU_DECODE_STEP_H
#define OMNI_TESTS_GPU_DECODE_STEP_H
#include "gpu-engine/device/cuda/cuda_dense.h"
#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/rotary_write.h"
#include "gpu-engine/device/cuda/sampling.h"
#include "tests/gpu/probe.h"

enum { STEP_LAYERS_MAX = 64, STEP_HEAD_DIM = 128, STEP_BLOCK_TOKENS = 64 };

struct step_shape {
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, n_ff, n_vocab;
    uint32_t batch, ctx; /* batch * ctx: a power of two */
    uint32_t split;      /* of decode attention */
};

struct decode_step {
    struct step_shape shape;
    struct cuda_dense *dense;
    struct cuda_matrix qkv[STEP_LAYERS_MAX], output[STEP_LAYERS_MAX], gate_up[STEP_LAYERS_MAX],
        down[STEP_LAYERS_MAX], head;
    struct cuda_kv kv;
    const struct rotary_row *row;
    const uint32_t *ctx_len, *slots, *token;
    float *angles, *norm, *residual, *partial, *logits, *logprobs;
    uint16_t *table, *n, *qkv_rows, *q, *a, *y, *h;
    uint32_t *tokens;
    struct sampling_row *how;
    void *scratch;
    double layer_bytes;  /* of weights, one layer */
    double weight_bytes; /* all that a step reads: layers and head */
    double kv_bytes;
};

/* The shape of Llama-3-8B. */
struct step_shape step_shape_8b(uint32_t batch, uint32_t ctx);

/* Memory is the probe's; 0 or -1, also where the card is too small. */
int decode_step_open(struct probe *p, struct decode_step *s, const struct step_shape *shape);
void decode_step_close(struct decode_step *s);

/* A whole step.  As a probe_work's launch: arg is the decode_step. */
cudaError_t decode_step_launch(void *arg, unsigned iteration, cudaStream_t stream);

/* The four products of layer iteration % n_layers over the step's batch. */
cudaError_t decode_step_products(void *arg, unsigned iteration, cudaStream_t stream);

#endif
