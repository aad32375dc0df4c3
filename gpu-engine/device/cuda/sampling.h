/* sampling.h - draws a token from each row of logits: what device/sampler.h does, on the device.
 *
 * The same generator (Philox4x32-10 of seed and position), adjustments, filters and order, so the same
 * token, but where the random number falls within some 1e-6 of the border between two tokens: the CPU
 * adds in double and in one order, here sums are in fixed point (44 bits below the best token's weight),
 * which no order of adding changes.
 *
 * With scratch, a row is surveyed by many blocks, and one finishes it over the few tokens that may still
 * be drawn: made for large vocabularies.  Without, one block a row does it all, in 2 (greedy) to 16
 * passes over its logits; adjustments and alternatives need scratch.
 *
 * Must move: 4 bytes of logits per vocabulary entry; they are read up to 3 times, from L2, with scratch.
 * Penalties: 8 more per entry, and the log. */
#ifndef OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_H
#define OMNI_GPU_ENGINE_DEVICE_CUDA_SAMPLING_H
#include "gpu-engine/device/cuda/cuda_kv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SAMPLING_TOP_MAX = 20, /* DEVICE_TOP_MAX */
    SAMPLING_SLICE = 4096, /* vocabulary entries that a block surveys */
    SAMPLING_SLICES_MAX = 128,
};

struct sampling_bias {
    uint32_t token;
    float bias;
};

/* device/device.h's device_adjust, in memory that the GPU reaches.  The log is the sequence's: it is read
 * below pos, and the token that is drawn is written at pos, so that the next draw of a sweep that was
 * queued before the host has seen this one counts it. */
struct sampling_adjust {
    uint32_t *log;
    uint32_t n_prompt;
    float repetition, presence, frequency;
    uint32_t n_biases, min_tokens, n_stops;
    const struct sampling_bias *biases;
    const uint32_t *stops;
};

struct sampling_row {
    uint64_t seed;
    uint32_t pos;      /* of the token that is drawn */
    float temperature; /* 0 = greedy */
    float top_p;       /* 1 = off */
    float min_p;       /* 0 = off */
    uint32_t top_k;    /* 0 = off */
    uint32_t n_top; /* alternatives told, at most SAMPLING_TOP_MAX; 0 unless sampling.tops is set */
    const struct sampling_adjust *adjust; /* NULL: nothing; also where sampling.adjusts is 0 */
};

struct sampling_top {
    uint32_t token;
    float logprob; /* natural, under the unmodified distribution */
};

struct sampling {
    uint32_t *tokens;               /* [rows] */
    float *logprobs;                /* [rows] natural, under the unmodified distribution */
    const float *logits;            /* [rows][n_vocab] */
    const struct sampling_row *row; /* [rows] */
    struct cuda_rows rows;
    uint32_t n_vocab;
    void *scratch; /* sampling_scratch() bytes, zeroed once, before its first use; or NULL */
    uint32_t scratch_rows;    /* that scratch was made for; 0: rows.n */
    uint32_t adjusts;         /* 1: rows may have adjustments, for which scratch was made */
    struct sampling_top *top; /* [rows][SAMPLING_TOP_MAX] most likely first; NULL: none are told */
};

/* Bytes of scratch for launches of up to n_rows rows. */
size_t sampling_scratch(uint32_t n_rows, uint32_t n_vocab, uint32_t adjusts);

int sampling(const struct sampling *a, cuda_stream stream);

#ifdef __cplusplus
}
#endif
#endif
