/* A sweep's log, told as the engine wants to hear it: times by its clock, picks, tokens.  The mirror of
 * the slots follows. */
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/device/cuda/cuda_device.h"

static uint64_t span(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

static void tell_times(const struct device *d, const struct cuda_sweep *s,
                       const struct cuda_log *log, uint32_t l)
{
    const uint64_t *stamp = log->stamp + (size_t)l * CUDA_STAMPS;
    const struct pick_log *pick = &log->pick[l];
    struct device_layer_log *out = &s->layers[l];
    uint64_t proj = s->offloads ? pick->proj_ns : stamp[CUDA_STAMP_PROJ];

    out->jobs_ns = cuda_clock_of(&d->clock, stamp[CUDA_STAMP_JOBS]);
    out->waited_ns = s->offloads ? pick->waited_ns : 0;
    /* The engine counts the wait as behind the projection's beginning. */
    out->proj_ns = cuda_clock_of(&d->clock, proj) - out->waited_ns;
    if (!s->two)
        return;
    out->b_ns = span(stamp[CUDA_STAMP_B_BEGIN], stamp[CUDA_STAMP_B_END]);
    out->b_attention_ns = span(stamp[CUDA_STAMP_B_BEGIN], stamp[CUDA_STAMP_B_ATTENDED]);
}

static void tell_picks(struct device *d, struct cuda_sweep *s, const struct cuda_log *log,
                       uint32_t l)
{
    const uint32_t *picked = log->picked + (size_t)l * d->config.returned_rows_max;
    struct device_layer_log *out = &s->layers[l];
    uint32_t n = s->offloads ? log->pick[l].n_picked : 0;
    bool is_last = l + 1 == d->n_layers;

    invariant(n <= d->config.returned_rows_max);
    out->first = l == 0 ? 0 : s->layers[l - 1].first + s->layers[l - 1].n_picked;
    out->n_picked = (uint16_t)n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = picked[i] & ~PICK_LOG_FAILED;

        s->picked[out->first + i] = slot;
        out->n_ridden = (uint16_t)(out->n_ridden +
                                   cuda_slots_picked(&d->slots, slot, s->seq,
                                                     (picked[i] & PICK_LOG_FAILED) != 0, is_last));
    }
    s->done.n_posted += is_last ? 0 : n;
    uint32_t rows = s->n_rows[0] + (s->offloads ? log->pick[l].n_rows : 0);
    if (rows > s->done.n_rows_max)
        s->done.n_rows_max = rows;
}

static void tell_offloaded(const struct device *d, struct device_token *out, uint32_t slot)
{
    const struct cuda_slot *from = &d->slots.mirror[slot];

    out->source = slot | DEVICE_TOKEN_OFFLOADED;
    out->n_ridden = from->n_ridden;
    out->n_parked = from->n_parked;
    out->error = from->error;
    out->n_top = from->n_top;
}

static void tell_alternatives(struct cuda_sweep *s, const struct cuda_log *log, uint32_t i)
{
    const struct sampling_top *from = log->top + (size_t)i * SAMPLING_TOP_MAX;
    struct device_logprob *to = s->top + (size_t)i * DEVICE_TOP_MAX;

    for (uint32_t k = 0; k < s->out[i].n_top; k++)
        to[k] = (struct device_logprob){.token = from[k].token, .logprob = from[k].logprob};
    s->out[i].top = to;
}

static void tell_tokens(const struct device *d, struct cuda_sweep *s, const struct cuda_log *log)
{
    uint32_t n = 0;

    for (uint32_t g = 0; g < d->log_sizes.groups; g++)
        n += log->n_outputs[g];
    invariant(n >= s->n_out && n <= d->output_room);
    for (uint32_t i = 0; i < n; i++) {
        struct device_token *out = &s->out[i];

        *out = (struct device_token){.token = log->tokens[i], .logprob = log->logprobs[i]};
        if (i < s->n_out) {
            out->source = s->out_source[i];
            out->n_top = s->n_top[i];
        } else {
            tell_offloaded(d, out, log->out_slot[i - s->n_out]);
        }
        if (s->adjusts)
            tell_alternatives(s, log, i);
    }
    s->done.n_out = n;
}

void cuda_replay(struct device *d, struct cuda_sweep *s)
{
    struct cuda_log log;

    cuda_log_place(&log, s->log, &d->log_sizes);
    cuda_clock_bound(&d->clock, s->submitted_ns, *log.start_ns, *log.end_ns, clock_now_ns());
    s->done = (struct device_done){.seq = s->seq,
                                   .start_ns = cuda_clock_of(&d->clock, *log.start_ns),
                                   .head_ns = cuda_clock_of(&d->clock, *log.head_ns),
                                   .end_ns = cuda_clock_of(&d->clock, *log.end_ns),
                                   .n_rows_max = s->n_rows[0] + s->n_enter_rows,
                                   .n_posted = s->n_enter,
                                   .layer = s->layers,
                                   .picked = s->picked,
                                   .out = s->out};
    if (s->n_rows[1] > s->done.n_rows_max)
        s->done.n_rows_max = s->n_rows[1];
    s->done.busy_ns = s->done.end_ns - s->done.start_ns;
    memset(s->layers, 0, d->n_layers * sizeof *s->layers);
    for (uint32_t l = 0; l < d->n_layers; l++) {
        tell_times(d, s, &log, l);
        tell_picks(d, s, &log, l);
    }
    tell_tokens(d, s, &log);
}
