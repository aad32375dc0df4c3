/* probe_copies.cu - copy engines between pinned host memory and the device.
 *
 * Large pieces give the link's rate, small ones the cost per copy; many queued copies of one row's
 * size show what draining rows one by one would cost.  Both directions at once shows whether
 * copying KV out slows what comes in. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"

#include <string.h>

enum { SEED_OUT = 21 };

static const size_t BUFFER_BYTES = 256 * MIB;

struct engine_work {
    char *to, *from;
    size_t bytes;
    enum cudaMemcpyKind kind;
};

/* Walks through the buffer, so that small pieces do not hit the same lines each time. */
static cudaError_t engine_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    const struct engine_work *w = (const struct engine_work *)arg;
    const size_t at = iteration % (BUFFER_BYTES / w->bytes) * w->bytes;
    return cudaMemcpyAsync(w->to + at, w->from + at, w->bytes, w->kind, stream);
}

static int buffers(struct probe *p, char **host, char **device)
{
    PROBE_DO(probe_pinned_alloc(p, (void **)host, BUFFER_BYTES));
    PROBE_DO(probe_device_alloc(p, (void **)device, BUFFER_BYTES));
    PROBE_TRY(p, fill((uint4 *)*device, BUFFER_BYTES / 16, SEED_OUT, p->stream));
    PROBE_TRY(p, cudaMemcpyAsync(*host, *device, BUFFER_BYTES, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    const uint32_t *word = (const uint32_t *)*host;
    for (uint32_t i = 0; i < BUFFER_BYTES / 4; i += 1021)
        if (word[i] != data_word(SEED_OUT, i))
            return probe_fail(p, "word %u of the copy is wrong", i);
    return 0;
}

static int direction(struct probe *p, const char *name, struct engine_work w)
{
    static const struct {
        size_t bytes;
        int n_inner;
    } sizes[] = {{4 * KIB, 400}, {8 * KIB, 400}, {64 * KIB, 200},
                 {MIB, 50},      {16 * MIB, 8},  {256 * MIB, 1}};
    char size[PROBE_SIZE_TEXT];
    double us = 0.0;
    for (const auto &s : sizes) {
        w.bytes = s.bytes;
        PROBE_DO(probe_time(p, {engine_launch, &w}, s.n_inner, 9, &us));
        probe_number(p, us, "%s_%s_us", name, probe_size(size, s.bytes));
        probe_number(p, probe_gbps((double)s.bytes, us), "%s_%s_gbps", name, size);
    }
    probe_number(p, probe_gbps((double)w.bytes, us), "%s_gbps", name); /* the largest */
    return 0;
}

static int measure_h2d(struct probe *p)
{
    char *host, *device;
    PROBE_DO(buffers(p, &host, &device));
    return direction(p, "h2d", {device, host, 0, cudaMemcpyHostToDevice});
}

static int measure_d2h(struct probe *p)
{
    char *host, *device;
    PROBE_DO(buffers(p, &host, &device));
    return direction(p, "d2h", {host, device, 0, cudaMemcpyDeviceToHost});
}

struct duplex_work {
    struct engine_work in, out;
    cudaStream_t side;
    cudaEvent_t fork, join;
};

/* The second direction runs on a side stream that starts and ends inside the timed one. */
static cudaError_t duplex_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    struct duplex_work *w = (struct duplex_work *)arg;
    cudaError_t e = cudaEventRecord(w->fork, stream);
    if (e == cudaSuccess)
        e = cudaStreamWaitEvent(w->side, w->fork, 0);
    for (unsigned i = 0; e == cudaSuccess && i < 4; i++) {
        e = engine_launch(&w->in, 4 * iteration + i, stream);
        if (e == cudaSuccess)
            e = engine_launch(&w->out, 4 * iteration + i, w->side);
    }
    if (e == cudaSuccess)
        e = cudaEventRecord(w->join, w->side);
    return e == cudaSuccess ? cudaStreamWaitEvent(stream, w->join, 0) : e;
}

static int measure_duplex(struct probe *p)
{
    struct duplex_work w = {};
    char *host[2], *device[2];
    double us;
    for (int i = 0; i < 2; i++)
        PROBE_DO(buffers(p, &host[i], &device[i]));
    PROBE_DO(probe_stream(p, &w.side));
    PROBE_DO(probe_event(p, &w.fork));
    PROBE_DO(probe_event(p, &w.join));
    w.in = {device[0], host[0], 64 * MIB, cudaMemcpyHostToDevice};
    w.out = {host[1], device[1], 64 * MIB, cudaMemcpyDeviceToHost};
    PROBE_DO(probe_time(p, {duplex_launch, &w}, 1, 7, &us));
    /* Both directions together; half of it each when they end at the same time. */
    probe_number(p, probe_gbps(2.0 * 4.0 * (double)w.in.bytes, us), "duplex_gbps");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"h2d_gbps", measure_h2d},
    {"d2h_gbps", measure_d2h},
    {"duplex_gbps", measure_duplex},
};

const struct probe_part part_copies = {"copies", "pinned host memory by copy engine", 30, 3,
                                       measurements};
