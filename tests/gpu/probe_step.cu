/* probe_step.cu - a whole decode step of Llama-3-8B's shape in one graph, its products alone, and what a
 * KV copy out beside it costs either.
 *
 * Ratios are to the bytes that must be read (weights but the embedding table; at batch 64 the KV as well)
 * over the larger of copy and read bandwidth. */
#include "tests/gpu/decode_step.h"
#include "tests/gpu/probe_data.h"

#include <math.h>

static cudaError_t graph_launch(void *arg, unsigned, cudaStream_t stream)
{
    return cudaGraphLaunch((cudaGraphExec_t)arg, stream);
}

/* A step as a graph; us of one launch. */
static int step_time(struct probe *p, struct decode_step *s, double *us)
{
    cudaGraphExec_t exec;
    PROBE_DO(probe_graph(p, {decode_step_launch, s}, 1, &exec));
    const int rc = probe_time(p, {graph_launch, (void *)exec}, 4, 9, us);
    (void)cudaStreamSynchronize(p->stream);
    (void)cudaGraphExecDestroy(exec);
    return rc;
}

/* The best of the cuts of attention: which one is a figure of its own. */
static int step_best(struct probe *p, struct decode_step *s, double *best_us)
{
    static const uint32_t splits[] = {64, 128, 256, 512};
    *best_us = 0.0;
    for (uint32_t split : splits) {
        double us;
        if (split >= 2 * s->shape.ctx)
            continue;
        s->shape.split = split;
        PROBE_DO(step_time(p, s, &us));
        probe_number(p, us, "step_b%u_split%u_us", s->shape.batch, split);
        *best_us = *best_us == 0.0 || us < *best_us ? us : *best_us;
    }
    return 0;
}

static int step_measure(struct probe *p, uint32_t batch, uint32_t ctx)
{
    const struct step_shape shape = step_shape_8b(batch, ctx);
    struct decode_step s;
    double us = 0.0, gbps;
    PROBE_DO(probe_bandwidth(p, &gbps));
    const int rc = decode_step_open(p, &s, &shape) == 0 && step_best(p, &s, &us) == 0 ? 0 : -1;
    decode_step_close(&s);
    PROBE_DO(rc);
    const double bytes = s.weight_bytes + (batch > 1 ? s.kv_bytes : 0.0);
    probe_number(p, us, "step_b%u_us", batch);
    probe_number(p, us / (bytes / gbps / 1e3), "tpot_b%u_ratio", batch);
    return 0;
}

static int measure_b1(struct probe *p)
{
    return step_measure(p, 1, 512);
}
static int measure_b16(struct probe *p)
{
    return step_measure(p, 16, 1024);
}
static int measure_b64(struct probe *p)
{
    return step_measure(p, 64, 2048);
}

/* ---- Products alone ------------------------------------------------------------------------------------ */

static int products_measure(struct probe *p, struct decode_step *s, double gbps)
{
    static const uint32_t rows[] = {1, 2, 4, 8, 9, 16, 32, 64, 128, 256};
    for (uint32_t n : rows) {
        double us;
        s->shape.batch = n;
        PROBE_DO(probe_time_in_graph(p, {decode_step_products, s}, 32, &us));
        probe_number(p, us, "dense_rows%u_us", n);
        probe_number(p, 100.0 * probe_gbps(s->layer_bytes, us) / gbps, "dense_rows%u_pct", n);
    }
    return 0;
}

/* The four products of a layer, layer after layer: gemv up to 8 rows, cuBLASLt beyond. */
static int measure_products(struct probe *p)
{
    struct step_shape shape = step_shape_8b(256, 64);
    struct decode_step s;
    double gbps;
    PROBE_DO(probe_bandwidth(p, &gbps));
    const int rc =
        decode_step_open(p, &s, &shape) == 0 && products_measure(p, &s, gbps) == 0 ? 0 : -1;
    decode_step_close(&s);
    return rc;
}

/* ---- KV copy out beside steps -------------------------------------------------------------------------- */

enum { COPY_PIECE = 8 << 20, COPY_PIECES = 128 }; /* 1 GiB */

struct beside {
    cudaGraphExec_t step;
    cudaStream_t copies;
    uint8_t *device, *pinned;
};

static int copies_queue(struct probe *p, const struct beside *b, int n_pieces)
{
    for (int i = 0; i < n_pieces; i++) {
        const size_t at = (size_t)(i % COPY_PIECES) * COPY_PIECE;
        PROBE_TRY(p, cudaMemcpyAsync(b->pinned + at, b->device + at, COPY_PIECE,
                                     cudaMemcpyDeviceToHost, b->copies));
    }
    return 0;
}

static int steps_queue(struct probe *p, const struct beside *b, int n)
{
    for (int i = 0; i < n; i++)
        PROBE_TRY(p, cudaGraphLaunch(b->step, p->stream));
    return 0;
}

/* Copies and steps at once; us of all of the one that `timed_copies` names, which must end first. */
static int both_time(struct probe *p, const struct beside *b, int n_pieces, int n_steps,
                     bool timed_copies, double *us)
{
    cudaEvent_t event[2];
    const cudaStream_t timed = timed_copies ? b->copies : p->stream;
    float ms;
    *us = 0.0;
    PROBE_DO(probe_event(p, &event[0]));
    PROBE_DO(probe_event(p, &event[1]));
    PROBE_TRY(p, cudaDeviceSynchronize());
    if (timed_copies) /* the other first, so that it is under way */
        PROBE_DO(steps_queue(p, b, n_steps));
    else
        PROBE_DO(copies_queue(p, b, n_pieces));
    PROBE_TRY(p, cudaEventRecord(event[0], timed));
    if (timed_copies)
        PROBE_DO(copies_queue(p, b, n_pieces));
    else
        PROBE_DO(steps_queue(p, b, n_steps));
    PROBE_TRY(p, cudaEventRecord(event[1], timed));
    PROBE_TRY(p, cudaDeviceSynchronize());
    PROBE_TRY(p, cudaEventElapsedTime(&ms, event[0], event[1]));
    *us = (double)ms * 1e3;
    return 0;
}

static int beside_measure(struct probe *p, const struct beside *b)
{
    const double bytes = (double)COPY_PIECE * COPY_PIECES;
    const int n = 10;
    double step_us, copy_us, steps_us, copies_us;
    PROBE_DO(both_time(p, b, 0, n, false, &step_us));
    step_us /= n;
    PROBE_DO(both_time(p, b, COPY_PIECES, 0, true, &copy_us));
    PROBE_DO(both_time(p, b, COPY_PIECES, (int)(2.0 * copy_us / step_us) + 2, true, &copies_us));
    const int pieces = (int)(2.0 * n * step_us / copy_us * COPY_PIECES) + COPY_PIECES;
    PROBE_DO(both_time(p, b, pieces, n, false, &steps_us));
    probe_number(p, probe_gbps(bytes, copy_us), "copyout_alone_gbps");
    probe_number(p, probe_gbps(bytes, copies_us), "copyout_gbps");
    probe_number(p, 100.0 * copy_us / copies_us, "copyout_pct");
    probe_number(p, 100.0 * (steps_us / n / step_us - 1.0), "copyout_step_pct");
    return 0;
}

static int beside_open(struct probe *p, struct beside *b, struct decode_step *s)
{
    const struct step_shape shape = step_shape_8b(16, 1024);
    PROBE_DO(decode_step_open(p, s, &shape));
    PROBE_DO(probe_stream(p, &b->copies));
    PROBE_DO(probe_device_alloc(p, (void **)&b->device, (size_t)COPY_PIECE * COPY_PIECES));
    PROBE_DO(probe_pinned_alloc(p, (void **)&b->pinned, (size_t)COPY_PIECE * COPY_PIECES));
    return probe_graph(p, {decode_step_launch, s}, 1, &b->step);
}

static int measure_copyout(struct probe *p)
{
    struct decode_step s;
    struct beside b = {};
    const int rc = beside_open(p, &b, &s) == 0 && beside_measure(p, &b) == 0 ? 0 : -1;
    (void)cudaDeviceSynchronize();
    if (b.step != NULL)
        (void)cudaGraphExecDestroy(b.step);
    decode_step_close(&s);
    return rc;
}

static const struct probe_measurement measurements[] = {
    {"tpot_b1_ratio", measure_b1},    {"tpot_b16_ratio", measure_b16},
    {"tpot_b64_ratio", measure_b64},  {"dense_rows", measure_products},
    {"copyout_pct", measure_copyout},
};

const struct probe_part part_step = {
    "step", "a decode step of Llama-3-8B's shape, copies beside it", 90, 5, measurements};
