/* Writes a sweep's frame: what the engine asks, as the kernels read it.
 *
 * Of a batch, sequences of one row come first (they are one launch of decode attention), then chunks,
 * then rows that enter; returned rows follow where the GPU puts them.  What is sampled is listed in the
 * order in which the engine gave its sequences, so that its output index means the same on every
 * device. */
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "gpu-engine/device/cuda/cuda_device.h"

/* ---- What may be asked --------------------------------------------------------------------------- */

static bool seq_fits(const struct device *d, const struct device_seq *q)
{
    return q->n_rows > 0 && q->table_stride <= d->table_max &&
           (uint64_t)q->pos + q->n_rows <= (uint64_t)q->table_stride * d->geometry->block_tokens &&
           (uint64_t)q->pos + q->n_rows <= d->config.context_max;
}

/* A log that the host does not have yet cannot be counted. */
static int seq_adjust_check(const struct device_seq *q)
{
    bool previous = (q->tokens[q->n_rows - 1] & DEVICE_TOKEN_PREVIOUS) != 0;

    return q->sampling.adjust != NULL && previous ? -ENOTSUP : cuda_adjust_check(&q->sampling);
}

static int batches_check(const struct device *d, const struct device_sweep *in)
{
    uint64_t n_rows = 0, n_seqs = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++) {
            const struct device_seq *q = &in->batch[b].seqs[i];

            if (!seq_fits(d, q))
                return -EINVAL;
            if (q->in_host || (q->sample && seq_adjust_check(q) != 0))
                return -ENOTSUP;
            n_rows += q->n_rows;
        }
        n_seqs += in->batch[b].n_seqs;
    }
    return n_rows <= d->config.rows_max && n_seqs <= d->config.seqs_max ? 0 : -EINVAL;
}

static int enters_check(const struct device *d, const struct device_sweep *in)
{
    uint32_t n_rows = 0;

    for (uint32_t i = 0; i < in->n_enter; i++) {
        const struct device_enter *e = &in->enter[i];

        if (e->slot >= d->n_slots || e->n_q == 0 || e->n_q > d->n_q_max ||
            (uint64_t)e->pos + e->n_q > d->config.context_max)
            return -EINVAL;
        if (cuda_adjust_check(&e->sampling) != 0)
            return -ENOTSUP;
        n_rows += e->n_q;
    }
    for (uint32_t i = 0; i < in->n_leave; i++) {
        if (in->leave[i] >= d->n_slots)
            return -EINVAL;
    }
    return n_rows <= d->config.returned_rows_max && in->n_leave <= d->n_slots ? 0 : -EINVAL;
}

static int sweep_check(const struct device *d, const struct device_sweep *in)
{
    int rc = batches_check(d, in);

    if (in->checkpoint || in->n_enter_b > 0)
        return -ENOTSUP;
    return rc == 0 ? enters_check(d, in) : rc;
}

/* ---- Its shape ----------------------------------------------------------------------------------- */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void batch_shape(const struct device_batch *in, struct cuda_batch_shape *s,
                        uint32_t *ctx_max)
{
    *s = (struct cuda_batch_shape){.rows = 0};
    for (uint32_t i = 0; i < in->n_seqs; i++) {
        const struct device_seq *q = &in->seqs[i];

        s->rows += q->n_rows;
        s->outputs += q->sample != 0;
        if (q->n_rows == 1) {
            s->decodes++;
            *ctx_max = larger(*ctx_max, q->pos + 1);
        } else {
            s->chunks++;
            s->chunk_rows_max = larger(s->chunk_rows_max, q->n_rows);
        }
    }
}

/* Rows that may return at a layer. */
static uint32_t returned_most(const struct device *d, const struct device_sweep *in)
{
    uint32_t most = 0;

    for (uint32_t l = 0; l < d->n_layers; l++)
        most = larger(most, in->pick[l].p_max);
    return smaller(smaller(most, in->p_total), d->config.returned_rows_max);
}

/* Jobs may be out: of rows that the mirror knows, or of a sweep that is not replayed yet. */
static bool may_return(const struct device *d)
{
    bool any = d->slots.n_jobs_out > 0;

    for (uint64_t i = d->n_polled; i < d->n_submitted; i++)
        any |= d->sweeps[i % CUDA_SWEEP_BUFFERS].offloads;
    return any;
}

/* The graph's shape where one fits, else what the sweep has, exactly.  s->n_rows and the rest of s must
 * be there. */
static const struct cuda_graph *shape_choose(struct device *d, const struct cuda_sweep *s,
                                             const struct device_sweep *in,
                                             struct cuda_shape *shape)
{
    struct cuda_batch_shape *a = &shape->batch[0];
    const struct cuda_graph *graph = NULL;
    uint32_t returned = s->offloads ? larger(s->n_enter_rows, returned_most(d, in)) : 0;
    uint32_t rows = larger(a->rows + returned, 1);

    shape->adjusts = s->adjusts;
    if (a->chunks == 0 && shape->batch[1].rows == 0 && !s->adjusts)
        graph = cuda_graph_find(d, rows, shape->ctx_max, s->offloads);
    if (graph != NULL) {
        cuda_graph_shape(d, graph, shape);
        return graph;
    }
    shape->offloads = s->offloads;
    shape->counted = s->offloads || a->rows == 0;
    shape->enters = in->n_enter;
    shape->leaves = in->n_leave;
    a->rows = rows;
    a->outputs += s->offloads ? smaller(returned, d->config.returned_rows_max) : 0;
    return NULL;
}

/* ---- Its contents -------------------------------------------------------------------------------- */

/* Where the next sequence of a batch goes. */
struct place {
    struct cuda_batch_frame *frame;
    uint32_t row, table; /* in the batch */
    uint32_t residual;   /* of its first row */
};

static void put_rows(const struct device *d, const struct device_seq *q, const struct place *at)
{
    const size_t stride = d->table_max, words = d->frame_sizes.seq_tables;
    struct cuda_batch_frame *f = at->frame;

    for (uint32_t r = 0; r < q->n_rows; r++) {
        f->token[at->row + r] = q->tokens[r];
        f->row_slot[at->row + r] = at->residual + r;
        f->row[at->row + r] = (struct rotary_row){
            .pos = q->pos + r, .table = at->table, .slot = CUDA_SLOT_NONE, .n_q = 1};
    }
    for (uint32_t g = 0; g < d->geometry->n_groups; g++)
        memcpy(f->tables + at->table * words + g * stride, q->tables + (size_t)g * q->table_stride,
               q->table_stride * sizeof *f->tables);
}

/* Fills a batch; residual: of its first row. */
static void put_batch(struct device *d, const struct device_batch *in,
                      const struct cuda_batch_shape *shape, struct cuda_batch_frame *f,
                      uint32_t residual, struct cuda_sweep *s, uint32_t source)
{
    struct place decode = {.frame = f, .residual = residual}, chunk = decode;
    size_t first_area = (size_t)(s - d->sweeps) * d->config.seqs_max;
    uint32_t n_out = 0;

    for (uint32_t i = 0; i < in->n_seqs; i++)
        chunk.row += in->seqs[i].n_rows == 1;
    chunk.table = chunk.row;
    chunk.residual += chunk.row;
    for (uint32_t i = 0; i < in->n_seqs; i++) {
        const struct device_seq *q = &in->seqs[i];
        struct place *at = q->n_rows == 1 ? &decode : &chunk;

        put_rows(d, q, at);
        if (q->n_rows == 1)
            f->ctx_len[at->table] = q->pos + 1;
        else
            f->chunk[at->table - shape->decodes] = (struct prefill_chunk){
                .first_row = at->row, .n_rows = q->n_rows, .pos = q->pos, .table = at->table};
        at->row += q->n_rows;
        at->residual += q->n_rows;
        at->table++;
        if (q->sample == 0)
            continue;
        f->out_row[n_out] = at->row - 1;
        s->n_top[s->n_out] = q->sampling.adjust != NULL ? q->sampling.adjust->n_top : 0;
        f->out_how[n_out++] = cuda_adjust_row(d, &d->adjusts.rows, first_area + s->n_out,
                                              &q->sampling, q->pos + q->n_rows);
        s->out_source[s->n_out++] = source + i;
    }
    for (uint32_t i = decode.table; i < shape->decodes; i++)
        f->ctx_len[i] = 0;
}

/* Rows that enter stand behind the common ones, in batch A. */
static void put_enters(struct device *d, const struct device_sweep *in, struct cuda_sweep *s,
                       struct cuda_frame *f)
{
    uint32_t row = s->n_rows[0];

    for (uint32_t i = 0; i < in->n_enter; i++) {
        const struct device_enter *e = &in->enter[i];
        uint32_t generation = cuda_slots_next_generation(&d->slots, e->slot);

        f->enter[i] =
            (struct sweep_enter){.owner = {.seq_idx = e->seq_idx,
                                           .seq_gen = e->seq_generation,
                                           .pos = e->pos,
                                           .n_q = e->n_q},
                                 .sampling = cuda_adjust_row(d, &d->adjusts.slots, e->slot,
                                                             &e->sampling, e->pos + e->n_q),
                                 .slot = e->slot,
                                 .generation = generation};
        cuda_slots_enter(&d->slots, e, generation, in->seq);
        for (uint32_t q = 0; q < e->n_q; q++, row++) {
            f->batch[0].token[row] = e->tokens[q];
            f->batch[0].row_slot[row] = cuda_residual_first(d) + e->slot * d->n_q_max + q;
            f->batch[0].row[row] =
                (struct rotary_row){.pos = e->pos, .slot = e->slot, .n_q = q == 0 ? e->n_q : 0};
        }
    }
}

/* Room for returned rows is what the shape leaves. */
static void put_asks(struct device *d, const struct device_sweep *in, const struct cuda_sweep *s,
                     const struct cuda_shape *shape, struct cuda_frame *f)
{
    uint32_t room = smaller(shape->batch[0].rows - s->n_rows[0], d->config.returned_rows_max);

    for (uint32_t l = 0; l < d->n_layers; l++) {
        f->ask[l] = (struct pick_ask){.sweep = in->seq,
                                      .age_max = in->no_riding ? in->seq - 1 : UINT64_MAX,
                                      .n_common = s->n_rows[0],
                                      .p_max = smaller(in->pick[l].p_max, room),
                                      .want = in->pick[l].want,
                                      .wait_ns = in->pace != NULL ? in->pick[l].wait_ns : 0,
                                      .batches = PICK_ANY_BATCH};
        f->arrival_ns[l] = in->arrival_ns[l];
    }
    f->arrival_ns[d->n_layers] = f->arrival_ns[d->n_layers - 1];
}

static void put_head(struct device *d, const struct device_sweep *in, struct cuda_sweep *s,
                     struct cuda_frame *f)
{
    uint32_t n_out_b = 0;

    for (uint32_t i = 0; i < in->batch[1].n_seqs; i++)
        n_out_b += in->batch[1].seqs[i].sample != 0;
    *f->head = (struct sweep_head){.sweep = in->seq,
                                   .wait_ns = in->wait_total_ns,
                                   .clock_ns = d->clock.offset_ns,
                                   .p = in->p_total,
                                   .n_rows = s->n_rows[0] + s->n_enter_rows,
                                   .n_enter = in->n_enter,
                                   .n_leave = in->n_leave,
                                   .n_out = {s->n_out - n_out_b, n_out_b}};
}

/* Of a row that may be sampled in this sweep. */
static bool any_adjusts(const struct device *d, const struct device_sweep *in)
{
    bool any = d->slots.n_adjusts > 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++)
            any |= in->batch[b].seqs[i].sample && in->batch[b].seqs[i].sampling.adjust != NULL;
    }
    for (uint32_t i = 0; i < in->n_enter; i++)
        any |= in->enter[i].sampling.adjust != NULL;
    return any;
}

/* What is known before the shape. */
static void sweep_begin_fill(struct device *d, struct cuda_sweep *s, const struct device_sweep *in,
                             struct cuda_shape *shape)
{
    *shape = (struct cuda_shape){.ctx_max = 0};
    s->seq = in->seq;
    s->n_enter = in->n_enter;
    s->n_out = s->n_enter_rows = 0;
    s->two = in->batch[1].n_seqs > 0;
    for (uint32_t i = 0; i < in->n_enter; i++)
        s->n_enter_rows += in->enter[i].n_q;
    for (int b = 0; b < DEVICE_BATCHES; b++) {
        batch_shape(&in->batch[b], &shape->batch[b], &shape->ctx_max);
        s->n_rows[b] = shape->batch[b].rows;
    }
    for (uint32_t i = 0; i < in->n_leave; i++)
        cuda_slots_leave(&d->slots, in->leave[i]);
    s->adjusts = any_adjusts(d, in);
    s->offloads = in->n_enter > 0 || in->n_leave > 0 || may_return(d);
}

int cuda_submit_fill(struct device *d, struct cuda_sweep *s, const struct device_sweep *in,
                     struct cuda_shape *shape, struct cuda_submission *out)
{
    struct cuda_frame f;
    int rc = sweep_check(d, in);

    if (rc != 0)
        return rc;
    sweep_begin_fill(d, s, in, shape);
    out->graph = shape_choose(d, s, in, shape);
    cuda_frame_place(&f, s->frame, &d->frame_sizes, shape);
    put_batch(d, &in->batch[0], &shape->batch[0], &f.batch[0], 0, s, 0);
    put_batch(d, &in->batch[1], &shape->batch[1], &f.batch[1], s->n_rows[0], s,
              in->batch[0].n_seqs);
    put_enters(d, in, s, &f);
    for (uint32_t i = 0; i < in->n_leave; i++)
        f.leave[i] = in->leave[i];
    put_asks(d, in, s, shape, &f);
    put_head(d, in, s, &f);
    const struct cuda_batch_frame *last = &f.batch[s->two];
    out->frame_bytes = (size_t)((const uint8_t *)(last->tables + (size_t)in->batch[s->two].n_seqs *
                                                                     d->frame_sizes.seq_tables) -
                                s->frame);
    return 0;
}
