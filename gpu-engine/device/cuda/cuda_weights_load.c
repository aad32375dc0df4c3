/* cuda_weights_load.c - carries the plan of a load out.
 *
 * DESIGN.  Matrices are cut into pieces of whole storage units, CHUNK bytes at most, which go through a
 * ring of DEPTH slots, each with a pinned buffer, one on the device for raw bytes, and an event:
 *
 *     read into the pinned buffer     READ_AHEAD pieces at a time
 *     copy to the device              to its place where the type fits, else to the slot's raw buffer
 *     convert                         from there to its place
 *     event                           the slot is free again
 *
 * The other DEPTH - READ_AHEAD slots are on their way over the link meanwhile, so disk and link are both
 * kept busy, and the host waits for the slower one. */
#include "gpu-engine/device/cuda/cuda_weights_private.h"

#include <cuda_runtime_api.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "gpu-engine/device/cuda/cuda_weights_read.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/weight_convert.h"
#include "gpu-engine/device/cuda/weight_fill.h"

enum { DEPTH = 8, READ_AHEAD = 4, CHUNK = 8 << 20 };

struct chunk {
    const struct weights_piece *piece;
    uint64_t first, n; /* values */
    size_t bytes;      /* of the file */
};

struct load_slot {
    void *pinned, *raw;
    cudaEvent_t free;
    bool used; /* the event was recorded */
    struct chunk chunk;
};

struct load {
    const struct weights_plan *plan;
    cudaStream_t stream;
    struct weights_reader *reader;
    struct load_slot slots[DEPTH];
    uint32_t piece; /* the next chunk to be read */
    uint64_t at;
    uint64_t n_read, n_copied; /* chunks */
    uint64_t done_bytes, total_bytes;
    cuda_weights_progress *progress;
    void *progress_arg;
};

static bool is_direct(const struct weights_plan *p, enum weight_type type)
{
    return type == (p->type == KV_TYPE_BF16 ? WEIGHT_BF16 : WEIGHT_F16);
}

static void tell(struct load *l, uint64_t bytes)
{
    l->done_bytes += bytes;
    l->progress(l->progress_arg, l->done_bytes, l->total_bytes);
}

/* ---- Chunks through the ring -------------------------------------------------------------------- */

/* The next chunk; false after the last. */
static bool chunk_next(struct load *l, struct chunk *out)
{
    const struct weights_plan *p = l->plan;

    if (l->piece == p->n_pieces)
        return false;
    const struct weights_piece *piece = &p->pieces[l->piece];
    uint32_t unit = weight_block_values(piece->view.type);
    uint32_t unit_bytes = weight_block_bytes(piece->view.type);
    uint64_t n = CHUNK / unit_bytes / WEIGHT_BLOCK * WEIGHT_BLOCK * unit;

    if (n > piece->n_values - l->at)
        n = piece->n_values - l->at;
    *out = (struct chunk){piece, l->at, n, (size_t)(n / unit * unit_bytes)};
    l->at += n;
    if (l->at == piece->n_values) {
        l->piece++;
        l->at = 0;
    }
    return true;
}

/* Asks for the next chunk; 0 also where there is none. */
static int read_ahead(struct load *l)
{
    struct load_slot *s = &l->slots[l->n_read % DEPTH];
    struct chunk *c = &s->chunk;

    if (s->used) {
        cudaError_t rc = cudaEventSynchronize(s->free);
        if (rc != cudaSuccess)
            return cuda_weights_error(l->plan->err, "a copy of weights", rc);
        s->used = false;
    }
    if (!chunk_next(l, c))
        return 0;
    const struct weight_view *v = &c->piece->view;
    const char *data = (const char *)v->data +
                       c->first / weight_block_values(v->type) * weight_block_bytes(v->type);
    struct weights_read read = {.to = s->pinned, .data = data, .bytes = c->bytes};
    read.fd = gguf_file(l->plan->model->gguf, data, &read.file_off);
    int rc = weights_reader_ask(l->reader, &read);
    if (rc != 0)
        return error_set(l->plan->err, rc, "%s: %s", v->name, strerror(-rc));
    l->n_read++;
    return 0;
}

static int chunk_queue(struct load *l, const struct load_slot *s)
{
    const struct chunk *c = &s->chunk;
    const struct weight_view *v = &c->piece->view;
    uint16_t *to = c->piece->to + c->first;
    bool direct = is_direct(l->plan, v->type);
    int rc = cudaMemcpyAsync(direct ? (void *)to : s->raw, s->pinned, c->bytes,
                             cudaMemcpyHostToDevice, l->stream);

    if (rc != 0 || direct)
        return rc;
    const struct weight_convert convert = {
        .out = to, .in = s->raw, .n_values = c->n, .weight_type = v->type, .type = l->plan->type};
    return weight_convert(&convert, l->stream);
}

/* Waits for the oldest read and sends it on. */
static int chunk_send(struct load *l)
{
    struct load_slot *s = &l->slots[l->n_copied % DEPTH];
    int rc = weights_reader_wait(l->reader);

    if (rc != 0)
        return error_set(l->plan->err, rc == -EIO ? -EIO : rc, "%s: %s", s->chunk.piece->view.name,
                         rc == -EIO ? "the file is shorter than it was" : strerror(-rc));
    rc = chunk_queue(l, s);
    if (rc == 0)
        rc = cudaEventRecord(s->free, l->stream);
    if (rc != 0)
        return cuda_weights_error(l->plan->err, s->chunk.piece->view.name, rc);
    s->used = true;
    l->n_copied++;
    tell(l, s->chunk.bytes);
    return 0;
}

static int pieces_read(struct load *l)
{
    int rc = 0;

    do {
        uint64_t n_read = l->n_read;

        if (n_read - l->n_copied < READ_AHEAD)
            rc = read_ahead(l);
        if (rc == 0 && l->n_read == n_read && l->n_copied < n_read)
            rc = chunk_send(l);
        else if (rc == 0 && l->n_read == n_read)
            return 0;
    } while (rc == 0);
    return rc;
}

/* ---- Without a file ----------------------------------------------------------------------------- */

static int pieces_fill(struct load *l)
{
    uint64_t first = 0;

    for (uint32_t i = 0; i < l->plan->n_pieces; i++) {
        const struct weights_piece *piece = &l->plan->pieces[i];
        const struct weight_fill fill = {.out = piece->to,
                                         .n_values = piece->n_values,
                                         .first = first,
                                         .seed = l->plan->options->seed,
                                         .span = piece->span,
                                         .type = l->plan->type};
        int rc = weight_fill(&fill, l->stream);

        if (rc == 0) /* or the bar would be full before the GPU has begun */
            rc = cudaStreamSynchronize(l->stream);
        if (rc != 0)
            return cuda_weights_error(l->plan->err, piece->view.name, rc);
        first += piece->n_values;
        tell(l, piece->n_values * sizeof *piece->to);
    }
    return 0;
}

/* ---- Floats ------------------------------------------------------------------------------------- */

static int copy_bias16(const struct load *l, const struct weights_floats *f)
{
    uint16_t *rounded = calloc(f->n, sizeof *rounded);

    if (rounded == NULL)
        return cudaErrorMemoryAllocation;
    for (uint64_t i = 0; i < f->n; i++)
        rounded[i] = element_from_float(l->plan->type, f->values[i]);
    int rc = cudaMemcpy(f->to16, rounded, f->n * sizeof *rounded, cudaMemcpyHostToDevice);
    free(rounded);
    return rc;
}

static int floats_copy(const struct load *l)
{
    for (uint32_t i = 0; i < l->plan->n_floats; i++) {
        const struct weights_floats *f = &l->plan->floats[i];
        int rc = cudaMemcpy(f->to, f->values, f->n * sizeof *f->values, cudaMemcpyHostToDevice);

        if (rc == 0 && f->to16 != NULL)
            rc = copy_bias16(l, f);
        if (rc != 0)
            return cuda_weights_error(l->plan->err, "copying norms, biases or angles", rc);
    }
    return 0;
}

/* ---- Life --------------------------------------------------------------------------------------- */

static uint64_t bytes_to_load(const struct weights_plan *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->n_pieces; i++)
        bytes += p->options->dummy ? p->pieces[i].n_values * sizeof(uint16_t)
                                   : weight_bytes(&p->pieces[i].view);
    return bytes;
}

static bool converts(const struct weights_plan *p)
{
    for (uint32_t i = 0; i < p->n_pieces; i++) {
        if (!is_direct(p, p->pieces[i].view.type))
            return true;
    }
    return false;
}

static int slots_open(struct load *l)
{
    bool raw = converts(l->plan);
    int rc = weights_reader_create(&l->reader, READ_AHEAD, l->plan->options->no_uring) == 0
                 ? 0
                 : cudaErrorMemoryAllocation;

    for (int i = 0; i < DEPTH && rc == 0; i++) {
        struct load_slot *s = &l->slots[i];

        rc = cudaHostAlloc(&s->pinned, CHUNK, cudaHostAllocDefault);
        if (rc == 0 && raw)
            rc = cudaMalloc(&s->raw, CHUNK);
        if (rc == 0)
            rc = cudaEventCreateWithFlags(&s->free, cudaEventDisableTiming);
    }
    return rc == 0 ? 0 : cuda_weights_error(l->plan->err, "staging buffers", rc);
}

static void load_close(struct load *l)
{
    weights_reader_destroy(l->reader); /* nothing is read into buffers that go */
    if (l->stream != NULL)
        (void)cudaStreamSynchronize(l->stream);
    for (int i = 0; i < DEPTH; i++) {
        if (l->slots[i].free != NULL)
            (void)cudaEventDestroy(l->slots[i].free);
        if (l->slots[i].raw != NULL)
            (void)cudaFree(l->slots[i].raw);
        if (l->slots[i].pinned != NULL)
            (void)cudaFreeHost(l->slots[i].pinned);
    }
    if (l->stream != NULL)
        (void)cudaStreamDestroy(l->stream);
}

static int load_run(struct load *l)
{
    const struct cuda_weights_options *o = l->plan->options;
    int rc = cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking);

    if (rc != 0)
        return cuda_weights_error(l->plan->err, "a stream", rc);
    tell(l, 0);
    rc = floats_copy(l);
    if (rc == 0 && !o->dummy)
        rc = slots_open(l);
    if (rc == 0)
        rc = o->dummy ? pieces_fill(l) : pieces_read(l);
    if (rc != 0)
        return rc;
    rc = cudaStreamSynchronize(l->stream);
    return rc == 0 ? 0 : cuda_weights_error(l->plan->err, "loading weights", rc);
}

int cuda_weights_load(const struct weights_plan *plan)
{
    struct cuda_weights_shown shown = {0};
    struct load l = {.plan = plan,
                     .total_bytes = bytes_to_load(plan),
                     .progress = plan->options->progress,
                     .progress_arg = plan->options->progress_arg};
    uint64_t start_ns = clock_now_ns();

    if (l.progress == NULL) {
        l.progress = cuda_weights_show;
        l.progress_arg = &shown;
    }
    int rc = load_run(&l);
    if (rc == 0)
        log_info("weights_loaded", "source=%s bytes=%" PRIu64 " seconds=%.2f",
                 plan->options->dummy ? "dummy" : weights_reader_name(l.reader), l.total_bytes,
                 (double)(clock_now_ns() - start_ns) / 1e9);
    load_close(&l);
    return rc;
}
