/* One module on its own, timed by events on the stream: what the latency model's profile is fitted to.
 *
 * It runs on the buffers of a sweep, the real weights and the pool; layers are taken in turn, so that
 * weights and KV come from memory and not from L2.  All repetitions are queued behind each other, and
 * each is timed by itself. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "gpu-engine/device/cuda/cuda_device.h"
#include "gpu-engine/device/shape.h"

enum { SAMPLES_MAX = 20 };

/* The sweep whose frame the shape's modules find: n decodes, or a chunk. */
static void shape_of(const struct device_shape *s, struct cuda_shape *out)
{
    bool chunk = s->kind == DEVICE_SHAPE_CHUNK;
    bool decodes = s->kind == DEVICE_SHAPE_DECODES || s->kind == DEVICE_SHAPE_HEAD;

    *out = (struct cuda_shape){.ctx_max = s->kind == DEVICE_SHAPE_DECODES ? s->ctx : 0};
    out->batch[0] = (struct cuda_batch_shape){.rows = s->n,
                                              .decodes = decodes ? s->n : 0,
                                              .chunks = chunk,
                                              .chunk_rows_max = chunk ? s->n : 0,
                                              .outputs = decodes ? s->n : 0};
}

/* Different sequences lie in different blocks, as far as the pool goes round. */
static void fill_frame(struct device *d, const struct device_shape *s,
                       const struct cuda_shape *shape, struct cuda_frame *f)
{
    struct cuda_batch_frame *b = &f->batch[0];
    const struct cuda_batch_shape *a = &shape->batch[0];
    size_t words = (size_t)(a->decodes + a->chunks) * d->frame_sizes.seq_tables;

    *f->head = (struct sweep_head){.n_rows = s->n, .n_out = {a->outputs}};
    for (uint32_t l = 0; l <= d->n_layers; l++)
        f->arrival_ns[l] = 0;
    for (uint32_t r = 0; r < s->n; r++) {
        b->token[r] = r * 37 % d->weights->n_vocab;
        b->row_slot[r] = r;
        b->row[r] = (struct rotary_row){.pos = a->chunks > 0 ? s->ctx + r
                                               : s->ctx > 0  ? s->ctx - 1
                                                             : 0,
                                        .table = a->chunks > 0 ? 0 : r,
                                        .slot = CUDA_SLOT_NONE,
                                        .n_q = 1};
    }
    for (uint32_t i = 0; i < a->decodes; i++)
        b->ctx_len[i] = s->kind == DEVICE_SHAPE_DECODES ? s->ctx : 0;
    if (a->chunks > 0)
        b->chunk[0] = (struct prefill_chunk){.n_rows = s->n, .pos = s->ctx};
    for (uint32_t i = 0; i < a->outputs; i++) {
        b->out_row[i] = i;
        b->out_how[i] = (struct sampling_row){.pos = i, .top_p = 1};
    }
    for (size_t i = 0; i < words; i++)
        b->tables[i] = (uint32_t)(i % d->config.n_kv_blocks);
}

static int put_frame(struct device *d, const struct device_shape *s, struct cuda_shape *shape)
{
    struct cuda_frame f;

    shape_of(s, shape);
    cuda_frame_place(&f, d->sweeps[0].frame, &d->frame_sizes, shape);
    fill_frame(d, s, shape, &f);
    CUDA_TRY(cudaMemcpyAsync(d->frame, d->sweeps[0].frame, cuda_frame_bytes(&d->frame_sizes, shape),
                             cudaMemcpyHostToDevice, d->stream));
    return 0;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Lower quartile of repetitions, each between two events. */
static int time_module(struct device *d, const struct device_shape *s,
                       const struct cuda_shape *shape, cudaEvent_t from, cudaEvent_t to,
                       uint64_t *ns)
{
    uint64_t end = clock_now_ns() + s->budget_ns;
    float ms[SAMPLES_MAX];
    uint32_t n = 0;

    do {
        uint32_t layer = s->n_layers > 0 ? s->layers[n % s->n_layers] : 0;

        CUDA_TRY(cudaEventRecord(from, d->stream));
        int rc = cuda_sweep_module(d, shape, s->kind, layer);
        if (rc != 0)
            return rc;
        CUDA_TRY(cudaEventRecord(to, d->stream));
        CUDA_TRY(cudaEventSynchronize(to));
        CUDA_TRY(cudaEventElapsedTime(&ms[n], from, to));
        n++;
    } while (n < SAMPLES_MAX && clock_now_ns() < end);
    qsort(ms, n, sizeof *ms, compare);
    *ns = (uint64_t)((double)ms[n / 4] * 1e6);
    return 0;
}

int cuda_measure(struct device *d, const struct device_shape *s, uint64_t *ns)
{
    struct cuda_shape shape;
    cudaEvent_t from, to;

    if (!device_shape_fits(s, &d->config, d->n_layers))
        return -EINVAL;
    if (d->n_submitted != d->n_polled)
        return -EBUSY;
    int rc = put_frame(d, s, &shape);
    if (rc != 0)
        return rc;
    CUDA_TRY(cudaEventCreateWithFlags(&from, cudaEventDefault));
    CUDA_TRY(cudaEventCreateWithFlags(&to, cudaEventDefault));
    rc = cuda_sweep_module(d, &shape, DEVICE_SHAPE_EMBED, 0); /* rows, and code, are there */
    if (rc == 0)
        rc = time_module(d, s, &shape, from, to, ns);
    CUDA_NOTE(cudaEventDestroy(from));
    CUDA_NOTE(cudaEventDestroy(to));
    return rc;
}
