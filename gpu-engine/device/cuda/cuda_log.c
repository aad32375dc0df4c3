#include "gpu-engine/device/cuda/cuda_log.h"

enum { ALIGN = 16 };

static void *take(uint8_t *base, size_t *at, size_t n, size_t size)
{
    void *p = base + *at;

    *at += (n * size + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

void cuda_log_place(struct cuda_log *log, void *base, const struct cuda_log_sizes *s)
{
    size_t at = 0;

    log->start_ns = take(base, &at, 1, sizeof(uint64_t));
    log->head_ns = take(base, &at, 1, sizeof(uint64_t));
    log->end_ns = take(base, &at, 1, sizeof(uint64_t));
    log->stamp = take(base, &at, (size_t)s->n_layers * CUDA_STAMPS, sizeof *log->stamp);
    log->tokens = take(base, &at, s->outputs_max, sizeof *log->tokens);
    log->logprobs = take(base, &at, s->outputs_max, sizeof *log->logprobs);
    log->n_outputs = take(base, &at, s->groups, sizeof *log->n_outputs);
    log->plain_bytes = at;
    log->pick = take(base, &at, s->n_layers, sizeof *log->pick);
    log->out_slot = take(base, &at, s->returned_max, sizeof *log->out_slot);
    log->picked = take(base, &at, (size_t)s->n_layers * s->returned_max, sizeof *log->picked);
    log->offload_bytes = at;
    log->top = take(base, &at, (size_t)s->outputs_max * SAMPLING_TOP_MAX, sizeof *log->top);
    log->bytes = at;
}
