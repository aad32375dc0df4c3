/* The CUDA device: device_ops on a GPU. */
#include "gpu-engine/device/cuda/cuda_device.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "gpu-engine/device/cuda/cublaslt.h"
#include "gpu-engine/device/cuda/device_cuda.h"

/* What the products need besides a card. */
static int library_present(char *why, size_t n)
{
    struct cublaslt lt;
    struct error err;
    int rc = cublaslt_open(&lt, &err);

    if (rc == 0)
        cublaslt_close(&lt);
    else
        snprintf(why, n, "%.*s", n > 0 ? (int)n - 1 : 0, err.text); /* what fits */
    return rc;
}

int device_cuda_present(char *why, size_t n)
{
    int n_devices = 0;
    cudaError_t rc = cudaGetDeviceCount(&n_devices);

    if (rc == cudaSuccess && n_devices > 0)
        return library_present(why, n);
    (void)cudaGetLastError();
    snprintf(why, n, "%s", rc == cudaSuccess ? "no CUDA-capable device" : cudaGetErrorString(rc));
    return -ENODEV;
}

/* ---- Opening ------------------------------------------------------------------------------------- */

/* "NVIDIA H100 80GB HBM3" as "H100-80GB-HBM3". */
static void set_variant(struct device *d, const char *name)
{
    static const char maker[] = "NVIDIA ";
    size_t n = 0;

    if (strncmp(name, maker, sizeof maker - 1) == 0)
        name += sizeof maker - 1;
    for (; *name != '\0' && n + 1 < sizeof d->variant; name++)
        d->variant[n++] = isalnum((unsigned char)*name) ? *name : '-';
    d->variant[n] = '\0';
}

static int open_card(struct device *d)
{
    struct cudaDeviceProp p;
    char why[256];
    int rc = device_cuda_present(why, sizeof why);

    if (rc != 0) {
        log_error("device_open", "device=cuda reason=\"%s\"", why);
        return rc;
    }
    CUDA_TRY(cudaSetDevice(0));
    CUDA_TRY(cudaGetDeviceProperties(&p, 0));
    snprintf(d->card, sizeof d->card, "%.48s sm_%d%d", p.name, p.major, p.minor);
    set_variant(d, p.name);
    CUDA_TRY(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    return 0;
}

/* Rows are of the weights' type: the KV's, and f16 where that has 8 bits. */
static int open_weights(struct device *d)
{
    bool bf16 = d->geometry->type == KV_TYPE_BF16;
    const struct cuda_weights_options options = {.type = bf16 ? KV_TYPE_BF16 : KV_TYPE_F16,
                                                 .context_max = d->config.context_max,
                                                 .dummy = d->config.dummy_weights};
    struct error why;
    int rc = 0;

    for (uint32_t l = 0; l < d->n_layers && rc == 0; l++)
        rc = cuda_kv_layer(&d->kv[l], d->geometry, l);
    if (rc != 0)
        error_set(&why, rc,
                  "no kernel for this model's attention: engine.kv_type f16, bf16 or int8, head "
                  "widths 64, 80, 96, 128, 256, at most 16 heads per KV head");
    if (rc == 0)
        rc = cuda_weights_create(&d->weights, d->config.model, &options, &why);
    for (uint32_t l = 0; l < d->n_layers && rc == 0; l++)
        d->kv[l].row_type = d->weights->type;
    if (rc != 0)
        log_error("device_open", "device=cuda reason=\"%s\"", why.text);
    return rc;
}

static int open_dense(struct device *d)
{
    const struct cuda_dense_options options = {.type = d->weights->type, .rows_max = d->row_room};
    struct error why;
    int rc = cuda_dense_create(&d->dense, &options, &why);

    if (rc == 0)
        rc = cuda_dense_prepare_model(d->dense, d->weights, &why);
    if (rc != 0)
        log_error("device_open", "device=cuda reason=\"%s\"", why.text);
    return rc;
}

static void set_sizes(struct device *d)
{
    struct device_config *c = &d->config;

    d->geometry = c->geometry;
    d->n_layers = c->geometry->n_layers;
    d->n_slots = c->exchange != NULL ? exchange_n_slots(c->exchange) : 0;
    d->n_q_max = c->exchange != NULL ? c->exchange->n_q_max : 1;
    if (d->n_slots == 0)
        c->returned_rows_max = 0;
    d->table_max = geometry_blocks_for(c->geometry, c->context_max);
    d->row_room = c->rows_max + c->returned_rows_max;
    d->seq_room = c->seqs_max;
    d->output_room = c->seqs_max + c->returned_rows_max;
}

static int open_all(struct device *d)
{
    int rc = open_card(d);

    if (rc == 0)
        rc = open_weights(d);
    if (rc == 0)
        rc = open_dense(d);
    if (rc == 0)
        rc = cuda_slots_open(d);
    if (rc == 0)
        rc = cuda_buffers_take(d);
    if (rc == 0)
        rc = cuda_adjusts_open(d);
    if (rc == 0)
        rc = cuda_copies_open(d);
    if (rc == 0)
        rc = cuda_pool_take(d);
    if (rc == 0)
        rc = cuda_clock_measure(&d->clock, d->clock_word, d->stream);
    return rc == 0 ? cuda_graphs_make(d) : rc;
}

static void cuda_close(struct device *d)
{
    if (d->stream != NULL)
        CUDA_NOTE(cudaStreamSynchronize(d->stream));
    cuda_copies_close(d);
    cuda_slots_close(d);
    cuda_graphs_destroy(d);
    cuda_dense_destroy(d->dense);
    cuda_weights_destroy(d->weights);
    cuda_give_all(d);
    for (int i = 0; i < CUDA_SWEEP_BUFFERS; i++) {
        free(d->sweeps[i].out_source);
        free(d->sweeps[i].layers);
        free(d->sweeps[i].picked);
        free(d->sweeps[i].out);
        free(d->sweeps[i].top);
        free(d->sweeps[i].n_top);
    }
    if (d->stream != NULL)
        CUDA_NOTE(cudaStreamDestroy(d->stream));
    free(d);
}

static int cuda_open(struct device **out, const struct device_config *config)
{
    struct device *d = calloc(1, sizeof *d);

    if (d == NULL)
        return -ENOMEM;
    d->config = *config;
    set_sizes(d);
    int rc = open_all(d);
    if (rc != 0) {
        cuda_close(d);
        return rc;
    }
    log_info("device_open",
             "device=cuda card=\"%s\" weight_bytes=%llu kv_blocks=%u block_bytes=%u graphs=%u "
             "clock_error_ns=%llu",
             d->card, (unsigned long long)d->weights->bytes, d->config.n_kv_blocks,
             d->geometry->block_bytes, d->n_graphs, (unsigned long long)d->clock.error_ns);
    *out = d;
    return 0;
}

static void cuda_caps(const struct device *d, struct device_caps *out)
{
    *out = (struct device_caps){.name = device_cuda.name,
                                .variant = d->variant,
                                .n_threads = d->config.n_threads,
                                .n_kv_blocks = d->config.n_kv_blocks,
                                .rows_max = d->config.rows_max,
                                .rank = d->geometry->rank,
                                .n_ranks = d->geometry->n_ranks,
                                .two_batch = 1,
                                .waits = 1,
                                .adjusts = 1,
                                .picks_on_device = 1};
}

/* ---- Sweeps -------------------------------------------------------------------------------------- */

/* On CUDA's thread, behind the copy of the log. */
static void sweep_ended(void *arg)
{
    struct device *d = arg;

    atomic_fetch_add_explicit(&d->n_ended, 1, memory_order_release);
    d->config.notify(d->config.notify_arg);
}

static int queue(struct device *d, struct cuda_sweep *s, const struct cuda_shape *shape,
                 const struct cuda_submission *how)
{
    CUDA_TRY(
        cudaMemcpyAsync(d->frame, s->frame, how->frame_bytes, cudaMemcpyHostToDevice, d->stream));
    if (how->graph != NULL) {
        CUDA_TRY(cudaGraphLaunch(how->graph->exec, d->stream));
    } else {
        int rc = cuda_sweep_launch(d, shape);
        if (rc != 0)
            return rc;
    }
    size_t log_bytes = s->adjusts    ? d->log_at.bytes
                       : s->offloads ? d->log_at.offload_bytes
                                     : d->log_at.plain_bytes;
    CUDA_TRY(cudaMemcpyAsync(s->log, d->log, log_bytes, cudaMemcpyDeviceToHost, d->stream));
    CUDA_TRY(cudaLaunchHostFunc(d->stream, sweep_ended, d));
    return 0;
}

static int cuda_submit(struct device *d, const struct device_sweep *sweep)
{
    struct cuda_sweep *s = &d->sweeps[d->n_submitted % CUDA_SWEEP_BUFFERS];
    struct cuda_submission how;
    struct cuda_shape shape;

    if (d->error != 0)
        return d->error;
    if (d->n_submitted - d->n_polled == DEVICE_SWEEPS_IN_FLIGHT)
        return -EAGAIN;
    int rc = cuda_submit_fill(d, s, sweep, &shape, &how);
    if (rc != 0)
        return rc;
    if (s->offloads && d->n_slots > 0)
        cuda_slots_sweep_begins(&d->slots);
    s->submitted_ns = clock_now_ns();
    d->n_submitted++;
    d->error = queue(d, s, &shape, &how);
    return d->error;
}

/* A sweep that CUDA gave up never calls sweep_ended: whoever asks finds out. */
static bool stream_failed(struct device *d)
{
    cudaError_t rc = cudaStreamQuery(d->stream);

    if (rc == cudaSuccess || rc == cudaErrorNotReady)
        return false;
    d->error = cuda_error_tell((int)rc, "a sweep", __FILE__, __LINE__);
    return true;
}

static int cuda_poll(struct device *d, struct device_done *out)
{
    struct cuda_sweep *s = &d->sweeps[d->n_polled % CUDA_SWEEP_BUFFERS];
    uint64_t n_ended;

    if (d->n_polled == d->n_submitted)
        return 0;
    n_ended = atomic_load_explicit(&d->n_ended, memory_order_acquire);
    bool ended = n_ended > d->n_polled;
    if (!ended && d->error == 0 && !stream_failed(d))
        return 0;
    if (s->offloads && d->n_slots > 0)
        cuda_slots_sweep_ended(&d->slots);
    d->n_polled++;
    if (!ended) {
        *out = (struct device_done){.seq = s->seq, .error = d->error};
        return 1;
    }
    cuda_replay(d, s);
    *out = s->done;
    return 1;
}

static uint32_t cuda_n_returned(struct device *d, struct device_offloaded *rows)
{
    memset(rows, 0, sizeof *rows);
    /* With a sweep in flight its picks answer the question. */
    return d->n_polled != d->n_submitted ? 0 : cuda_slots_n_returned(&d->slots, rows);
}

static uint64_t cuda_now(const struct device *d)
{
    (void)d;
    return clock_now_ns();
}

static void cuda_sync(struct device *d)
{
    cudaError_t rc = cudaStreamSynchronize(d->stream);

    if (rc != cudaSuccess && d->error == 0)
        d->error = cuda_error_tell((int)rc, "cudaStreamSynchronize", __FILE__, __LINE__);
    cuda_copies_sync(d);
}

const struct device_ops device_cuda = {
    .name = "cuda",
    .halves = true,
    .fills_kv = true,
    .present = device_cuda_present,
    .open = cuda_open,
    .close = cuda_close,
    .caps = cuda_caps,
    .submit = cuda_submit,
    .poll = cuda_poll,
    .n_returned = cuda_n_returned,
    .copy = cuda_copy_submit,
    .copy_done = cuda_copy_done,
    .now = cuda_now,
    .sync = cuda_sync,
    .measure = cuda_measure,
};
