#include "gpu-engine/device/cuda/cuda_adjust.h"

#include <errno.h>
#include <string.h>

#include "gpu-engine/device/cuda/cuda_device.h"

static_assert(sizeof(struct device_bias) == sizeof(struct sampling_bias), "biases are copied");
static_assert((int)DEVICE_TOP_MAX == (int)SAMPLING_TOP_MAX, "alternatives are copied");

/* An area's parts, at their offsets. */
struct area {
    struct sampling_adjust what;
    struct sampling_bias biases[CUDA_ADJUST_BIASES_MAX];
    uint32_t stops[CUDA_ADJUST_STOPS_MAX];
    uint32_t log[]; /* [context_max + 1] */
};

static int open_areas(struct device *d, struct cuda_areas *a, size_t n)
{
    void *device;
    int rc = cuda_take_pinned(d, &a->here, n, d->adjusts.area_bytes);

    if (rc != 0)
        return rc;
    CUDA_TRY(cudaHostGetDevicePointer(&device, a->here, 0));
    a->device = device;
    return 0;
}

int cuda_adjusts_open(struct device *d)
{
    size_t log = ((size_t)d->config.context_max + 1) * sizeof(uint32_t);
    int rc;

    d->adjusts.area_bytes = (sizeof(struct area) + log + 15) / 16 * 16;
    rc = open_areas(d, &d->adjusts.rows, (size_t)CUDA_SWEEP_BUFFERS * d->config.seqs_max);
    return rc == 0 ? open_areas(d, &d->adjusts.slots, d->n_slots) : rc;
}

int cuda_adjust_check(const struct device_sampling *how)
{
    const struct device_adjust *a = how->adjust;

    return a == NULL || (a->n_biases <= CUDA_ADJUST_BIASES_MAX &&
                         a->n_stops <= CUDA_ADJUST_STOPS_MAX && a->n_top <= DEVICE_TOP_MAX)
               ? 0
               : -ENOTSUP;
}

static bool has_penalties(const struct device_adjust *a)
{
    return a->repetition != 1.0f || a->presence != 0.0f || a->frequency != 0.0f;
}

static void area_fill(struct area *here, uint8_t *device, const struct device_adjust *a,
                      uint32_t pos)
{
    here->what = (struct sampling_adjust){
        .log = (uint32_t *)(void *)(device + offsetof(struct area, log)),
        .n_prompt = a->n_prompt,
        .repetition = a->repetition,
        .presence = a->presence,
        .frequency = a->frequency,
        .n_biases = a->n_biases,
        .min_tokens = a->min_tokens,
        .n_stops = a->n_stops,
        .biases = (const struct sampling_bias *)(void *)(device + offsetof(struct area, biases)),
        .stops = (const uint32_t *)(void *)(device + offsetof(struct area, stops))};
    if (a->n_biases > 0)
        memcpy(here->biases, a->biases, a->n_biases * sizeof *here->biases);
    if (a->n_stops > 0)
        memcpy(here->stops, a->stops, a->n_stops * sizeof *here->stops);
    if (has_penalties(a))
        memcpy(here->log, a->log, pos * sizeof *here->log);
}

struct sampling_row cuda_adjust_row(const struct device *d, const struct cuda_areas *areas,
                                    size_t i, const struct device_sampling *how, uint32_t pos)
{
    size_t at = i * d->adjusts.area_bytes;
    struct sampling_row row = {.seed = how->seed,
                               .pos = pos,
                               .temperature = how->temperature,
                               .top_p = how->top_p,
                               .min_p = how->min_p,
                               .top_k = how->top_k};

    if (how->adjust == NULL)
        return row;
    area_fill((struct area *)(void *)(areas->here + at), areas->device + at, how->adjust, pos);
    row.n_top = how->adjust->n_top;
    row.adjust = (const struct sampling_adjust *)(void *)(areas->device + at);
    return row;
}
