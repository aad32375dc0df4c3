/* context.cu - see probe.h: ownership, timing, errors. */
#include "tests/gpu/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int probe_fail(struct probe *probe, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(probe->why, sizeof probe->why, format, args);
    va_end(args);
    return -1;
}

int probe_fail_cuda(struct probe *probe, const char *call, cudaError_t error)
{
    const int name = (int)strcspn(call, "(");
    (void)cudaGetLastError(); /* an error that is not sticky must not be found by the next
                                 measurement */
    return probe_fail(probe, "%.*s: %s (%s)", name, call, cudaGetErrorName(error),
                      cudaGetErrorString(error));
}

int probe_open(struct probe *probe, struct report *report)
{
    size_t total = 0;
    memset(probe, 0, sizeof *probe);
    probe->report = report;
    /* Spinning waits: a blocked host thread adds tens of microseconds to everything timed on the
     * host. Before cudaSetDevice, which initialises the device. */
    PROBE_TRY(probe, cudaSetDeviceFlags(cudaDeviceScheduleSpin | cudaDeviceMapHost));
    PROBE_TRY(probe, cudaSetDevice(0));
    PROBE_TRY(probe, cudaDeviceGetAttribute(&probe->n_sm, cudaDevAttrMultiProcessorCount, 0));
    PROBE_TRY(probe, cudaMemGetInfo(&probe->free_bytes, &total));
    PROBE_TRY(probe, cudaStreamCreateWithFlags(&probe->stream, cudaStreamNonBlocking));
    return 0;
}

static int own(struct probe *probe, enum probe_kind kind, void *handle)
{
    if (probe->n_owned == PROBE_OWNED_MAX)
        return probe_fail(probe, "PROBE_OWNED_MAX is too small");
    probe->owned[probe->n_owned].kind = kind;
    probe->owned[probe->n_owned++].handle = handle;
    return 0;
}

/* Errors are not looked at: a context broken by the measurement is reported by the measurement. */
void probe_release(struct probe *probe)
{
    (void)cudaDeviceSynchronize();
    while (probe->n_owned > 0) {
        const struct probe_owned *owned = &probe->owned[--probe->n_owned];
        switch (owned->kind) {
        case PROBE_DEVICE_MEMORY:
            (void)cudaFree(owned->handle);
            break;
        case PROBE_PINNED_MEMORY:
            (void)cudaFreeHost(owned->handle);
            break;
        case PROBE_STREAM:
            (void)cudaStreamDestroy((cudaStream_t)owned->handle);
            break;
        case PROBE_EVENT:
            (void)cudaEventDestroy((cudaEvent_t)owned->handle);
            break;
        }
    }
    (void)cudaGetLastError();
}

int probe_device_alloc(struct probe *probe, void **out, size_t bytes)
{
    PROBE_TRY(probe, cudaMalloc(out, bytes));
    return own(probe, PROBE_DEVICE_MEMORY, *out);
}

int probe_pinned_alloc(struct probe *probe, void **out, size_t bytes)
{
    PROBE_TRY(probe, cudaHostAlloc(out, bytes, cudaHostAllocMapped | cudaHostAllocPortable));
    memset(*out, 0, bytes);
    return own(probe, PROBE_PINNED_MEMORY, *out);
}

int probe_stream(struct probe *probe, cudaStream_t *out)
{
    PROBE_TRY(probe, cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
    return own(probe, PROBE_STREAM, (void *)*out);
}

int probe_event(struct probe *probe, cudaEvent_t *out)
{
    PROBE_TRY(probe, cudaEventCreate(out));
    return own(probe, PROBE_EVENT, (void *)*out);
}

size_t probe_fit(const struct probe *probe, size_t want, int share)
{
    const size_t most = probe->free_bytes / (size_t)share & ~(MIB - 1);
    return want < most ? want : most;
}

static int time_sample(struct probe *probe, struct probe_work work, int n_inner,
                       unsigned *iteration, const cudaEvent_t event[2], double *us)
{
    float ms = 0.0f;
    PROBE_TRY(probe, cudaEventRecord(event[0], probe->stream));
    for (int i = 0; i < n_inner; i++)
        PROBE_TRY(probe, work.launch(work.arg, (*iteration)++, probe->stream));
    PROBE_TRY(probe, cudaEventRecord(event[1], probe->stream));
    PROBE_TRY(probe, cudaEventSynchronize(event[1]));
    PROBE_TRY(probe, cudaEventElapsedTime(&ms, event[0], event[1]));
    *us = (double)ms * 1e3 / n_inner;
    return 0;
}

int probe_time(struct probe *probe, struct probe_work work, int n_inner, int n_samples, double *us)
{
    double sample[PROBE_SAMPLES_MAX];
    cudaEvent_t event[2];
    unsigned iteration = 0;
    const int n_owned = probe->n_owned;
    if (n_samples > PROBE_SAMPLES_MAX)
        return probe_fail(probe, "too many samples");
    PROBE_DO(probe_event(probe, &event[0]));
    PROBE_DO(probe_event(probe, &event[1]));
    PROBE_DO(time_sample(probe, work, n_inner, &iteration, event, &sample[0])); /* warm-up */
    for (int i = 0; i < n_samples; i++)
        PROBE_DO(time_sample(probe, work, n_inner, &iteration, event, &sample[i]));
    /* Many timings share one measurement, so the events go back at once. */
    (void)cudaEventDestroy(event[0]);
    (void)cudaEventDestroy(event[1]);
    probe->n_owned = n_owned;
    *us = stats_median(sample, (size_t)n_samples);
    return 0;
}

uint64_t probe_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

const char *probe_size(char text[PROBE_SIZE_TEXT], size_t bytes)
{
    if (bytes >= GIB && bytes % GIB == 0)
        snprintf(text, PROBE_SIZE_TEXT, "%zug", bytes / GIB);
    else if (bytes >= MIB && bytes % MIB == 0)
        snprintf(text, PROBE_SIZE_TEXT, "%zum", bytes / MIB);
    else
        snprintf(text, PROBE_SIZE_TEXT, "%zuk", bytes / KIB);
    return text;
}

void probe_number(struct probe *probe, double value, const char *format, ...)
{
    char key[REPORT_KEY_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(key, sizeof key, format, args);
    va_end(args);
    report_number(probe->report, key, value);
}
