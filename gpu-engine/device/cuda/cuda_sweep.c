/* The launches of a sweep: layer by layer, on one stream.
 *
 *   begin: rows leave and enter
 *   enter(0): embed, norm, QKV, rotary embedding; k and v go to the pool, jobs to their slots
 *   for each layer l: leave(l), enter(l + 1)
 *   head and sampling, CUDA_LOGIT_ROWS rows at a time
 *
 *   leave(l): attention of the common rows; the pick step, the gather of what it picked; output
 *             projection, MLP
 *
 * Two batches take turns, so that each one's layer is the other's window, and no product of one runs
 * beside one of the other (as device/cpu):
 *
 *   enter B(0), enter A(0); for each layer l: leave B(l), enter B(l + 1), leave A(l), enter A(l + 1)
 *
 * A residual is added to by the norm that follows; so the last one's norm is the head's.  Between
 * enter and leave of A only its q must last, of which each batch has its own.
 *
 * Nothing here reads what differs from sweep to sweep: that is in the frame, on the GPU.  So the same
 * code is captured into graphs. */
#include <errno.h>

#include "gpu-engine/device/cuda/cuda_device.h"
#include "gpu-engine/device/cuda/decode_attention.h"
#include "gpu-engine/device/cuda/embedding.h"
#include "gpu-engine/device/cuda/gather.h"
#include "gpu-engine/device/cuda/prefill_attention.h"
#include "gpu-engine/device/cuda/rms_norm.h"

struct launch {
    struct device *d;
    const struct cuda_shape *shape;
    struct cuda_frame f; /* on the GPU */
};

static struct cuda_rows rows_of(const struct launch *k, uint32_t b)
{
    bool counted = b == 0 && k->shape->counted;

    return (struct cuda_rows){.n = k->shape->batch[b].rows,
                              .n_live = counted ? k->d->rows.n_live : NULL};
}

static struct cuda_kv kv_of(const struct launch *k, uint32_t b, uint32_t l)
{
    const struct device *d = k->d;
    struct cuda_kv kv = d->kv[l];

    kv.pool = d->pool;
    kv.tables = k->f.batch[b].tables + (size_t)d->geometry->layer[l].group * d->table_max;
    kv.table_stride = d->frame_sizes.seq_tables;
    return kv;
}

static int product(struct launch *k, const struct cuda_matrix *m, enum cuda_dense_output output,
                   uint32_t n_rows, const uint16_t *in, void *out)
{
    const struct cuda_dense_job job = {
        .matrix = m, .output = output, .n_rows = n_rows, .in = in, .out = out};

    if (n_rows == 0)
        return 0;
    CUDA_TRY(cuda_dense_run(k->d->dense, &job, k->d->stream));
    return 0;
}

/* ---- Into a layer -------------------------------------------------------------------------------- */

static int norm(struct launch *k, uint32_t b, const float *weight, float epsilon,
                const uint16_t *delta)
{
    struct device *d = k->d;
    const struct rms_norm a = {.out = d->buffers.n,
                               .residual = d->buffers.residual,
                               .delta = delta,
                               .slots = k->f.batch[b].row_slot,
                               .weight = weight,
                               .rows = rows_of(k, b),
                               .width = d->weights->n_embd,
                               .type = d->weights->type,
                               .epsilon = epsilon};

    CUDA_TRY(rms_norm(&a, d->stream));
    return 0;
}

static int rotate_and_write(struct launch *k, uint32_t b, uint32_t l)
{
    struct device *d = k->d;
    const struct cuda_layer_weights *w = &d->weights->layers[l];
    const struct cuda_rope *rope = &w->rope;
    const struct rotary_write a = {
        .q = d->buffers.q[b],
        .qkv = d->buffers.qkv,
        .q_norm = w->q_norm,
        .k_norm = w->k_norm,
        .angles = rope->angles,
        .row = k->f.batch[b].row,
        .rows = rows_of(k, b),
        .kv = kv_of(k, b, l),
        .jobs = d->slots.jobs,
        .owner = d->rows.owner,
        .generation = d->rows.generation,
        .deadline_ns = d->rows.deadline_ns + l,
        .clock_ns = &k->f.head->clock_ns,
        .sweep = &k->f.head->sweep,
        .posted = d->slots.posted_device,
        .stamp_ns = b == 0 ? d->log_at.stamp + (size_t)l * CUDA_STAMPS + CUDA_STAMP_JOBS : NULL,
        .layer = l,
        .n_heads = d->geometry->layer[l].n_heads,
        .n_dims = rope->n_dims,
        .is_neox = rope->is_neox,
        .head_eps = w->head_eps};

    CUDA_TRY(rotary_write(&a, d->stream));
    return 0;
}

/* delta: what the layer before leaves to be added; NULL for the first. */
static int layer_enter(struct launch *k, uint32_t b, uint32_t l, const uint16_t *delta)
{
    struct device *d = k->d;
    const struct cuda_layer_weights *w = &d->weights->layers[l];
    int rc = norm(k, b, w->attn_norm, w->attn_eps, delta);

    if (rc == 0)
        rc = product(k, &w->qkv, CUDA_DENSE_ROWS, k->shape->batch[b].rows, d->buffers.n,
                     d->buffers.qkv);
    return rc == 0 ? rotate_and_write(k, b, l) : rc;
}

static int embed_rows(struct launch *k, uint32_t b)
{
    struct device *d = k->d;
    const struct embedding a = {.residual = d->buffers.residual,
                                .table = d->weights->token_embd,
                                .tokens = k->f.batch[b].token,
                                .previous = d->log_at.tokens,
                                .slots = k->f.batch[b].row_slot,
                                .rows = rows_of(k, b),
                                .width = d->weights->n_embd,
                                .n_vocab = d->weights->n_vocab,
                                .type = d->weights->type};

    CUDA_TRY(embedding(&a, d->stream));
    return 0;
}

static int embed(struct launch *k, uint32_t b)
{
    int rc = embed_rows(k, b);

    return rc == 0 ? layer_enter(k, b, 0, NULL) : rc;
}

/* ---- Attention ----------------------------------------------------------------------------------- */

static int attend_decodes(struct launch *k, uint32_t b, uint32_t l)
{
    struct device *d = k->d;
    const struct kv_layer *layer = &d->geometry->layer[l];
    const struct decode_attention a = {.out = d->buffers.a,
                                       .q = d->buffers.q[b],
                                       .partial = d->buffers.partial,
                                       .ctx_len = k->f.batch[b].ctx_len,
                                       .kv = kv_of(k, b, l),
                                       .n_seqs = k->shape->batch[b].decodes,
                                       .n_heads = layer->n_heads,
                                       .ctx_max = k->shape->ctx_max,
                                       .split_tokens = CUDA_SPLIT_TOKENS,
                                       .window = layer->window,
                                       .n_sinks = layer->n_sinks,
                                       .softcap = layer->softcap,
                                       .scale = layer->scale};

    CUDA_TRY(decode_attention(&a, d->stream));
    return 0;
}

static int attend_chunks(struct launch *k, uint32_t b, uint32_t l)
{
    struct device *d = k->d;
    const struct kv_layer *layer = &d->geometry->layer[l];
    const struct prefill_attention a = {.out = d->buffers.a,
                                        .q = d->buffers.q[b],
                                        .chunk = k->f.batch[b].chunk,
                                        .kv = kv_of(k, b, l),
                                        .n_chunks = k->shape->batch[b].chunks,
                                        .rows_max = k->shape->batch[b].chunk_rows_max,
                                        .n_heads = layer->n_heads,
                                        .window = layer->window,
                                        .n_sinks = layer->n_sinks,
                                        .softcap = layer->softcap,
                                        .scale = layer->scale};

    CUDA_TRY(prefill_attention(&a, d->stream));
    return 0;
}

static int attend(struct launch *k, uint32_t b, uint32_t l)
{
    int rc = attend_decodes(k, b, l);

    return rc == 0 ? attend_chunks(k, b, l) : rc;
}

/* ---- Returned rows ------------------------------------------------------------------------------- */

static int pick(struct launch *k, uint32_t l)
{
    struct device *d = k->d;
    const struct pick_step a = {.slots = d->rows.slots,
                                .done = d->slots.done_words,
                                .owner = d->rows.owner,
                                .ask = &k->f.ask[l],
                                .budget = d->rows.budget,
                                .log = &d->log_at.pick[l],
                                .picked =
                                    d->log_at.picked + (size_t)l * d->config.returned_rows_max,
                                .n_live = d->rows.n_live,
                                .row_slot = k->f.batch[0].row_slot,
                                .row = k->f.batch[0].row,
                                .source = d->rows.source,
                                .generation = d->rows.generation,
                                .deadline_ns = d->rows.deadline_ns + l + 1,
                                .arrival_ns = k->f.arrival_ns + l,
                                .clock_ns = &k->f.head->clock_ns,
                                .job_slots = (const uint8_t *const *)d->slots.jobs.slots,
                                .slots_per_worker = d->slots.jobs.slots_per_worker,
                                .n_slots = d->n_slots,
                                .layer = l,
                                .is_last = l + 1 == d->n_layers,
                                .n_q_max = d->n_q_max,
                                .residual_first = cuda_residual_first(d)};

    CUDA_TRY(pick_step(&a, d->stream));
    return 0;
}

static int gather_picked(struct launch *k, uint32_t l)
{
    struct device *d = k->d;
    uint32_t room = k->shape->batch[0].rows;
    const struct gather a = {
        .out = d->buffers.a,
        .source = d->rows.source,
        .n_live = d->rows.n_live,
        .n_common = &k->f.ask[l].n_common,
        .jobs = d->slots.jobs,
        .rows_max = room < d->config.returned_rows_max ? room : d->config.returned_rows_max,
        .width = kv_layer_out_width(&d->geometry->layer[l])};

    CUDA_TRY(gather(&a, d->stream));
    return 0;
}

static int stamp(struct launch *k, uint32_t l, enum cuda_stamp which)
{
    CUDA_TRY(sweep_stamp(k->d->log_at.stamp + (size_t)l * CUDA_STAMPS + which, k->d->stream));
    return 0;
}

/* The pick step says when it began the projection; without it a stamp does. */
static int rejoin(struct launch *k, uint32_t b, uint32_t l)
{
    if (b != 0)
        return stamp(k, l, CUDA_STAMP_B_ATTENDED);
    if (!k->shape->offloads)
        return stamp(k, l, CUDA_STAMP_PROJ);
    int rc = pick(k, l);

    return rc == 0 ? gather_picked(k, l) : rc;
}

/* ---- Out of a layer ------------------------------------------------------------------------------ */

/* From the attention's output to what the next norm adds. */
static int layer_dense(struct launch *k, uint32_t b, uint32_t l)
{
    const struct cuda_buffers *r = &k->d->buffers;
    const struct cuda_layer_weights *w = &k->d->weights->layers[l];
    uint32_t n = k->shape->batch[b].rows;
    int rc = product(k, &w->output, CUDA_DENSE_ROWS, n, r->a, r->y);

    if (rc == 0)
        rc = norm(k, b, w->ffn_norm, w->ffn_eps, r->y);
    if (rc == 0)
        rc = product(k, &w->gate_up, CUDA_DENSE_SWIGLU, n, r->n, r->h);
    return rc == 0 ? product(k, &w->down, CUDA_DENSE_ROWS, n, r->h, r->y) : rc;
}

static int layer_leave(struct launch *k, uint32_t b, uint32_t l)
{
    int rc = attend(k, b, l);

    if (rc == 0)
        rc = rejoin(k, b, l);
    return rc == 0 ? layer_dense(k, b, l) : rc;
}

/* Rows of the batch that are sampled, normed for the head. */
static int select_outputs(struct launch *k, uint32_t b)
{
    struct device *d = k->d;
    uint32_t last = d->n_layers - 1;
    bool picks = b == 0 && k->shape->offloads;
    const struct sweep_outputs a = {.out = d->buffers.head_in,
                                    .row = d->buffers.out_row,
                                    .in = d->buffers.n,
                                    .head = k->f.head,
                                    .out_row = k->f.batch[b].out_row,
                                    .out_how = k->f.batch[b].out_how,
                                    .n_live = picks ? d->rows.n_live : NULL,
                                    .n_common = &k->f.ask[last].n_common,
                                    .source = d->rows.source,
                                    .owner = d->rows.owner,
                                    .slot_sampling = d->rows.sampling,
                                    .out_slot = d->log_at.out_slot,
                                    .n_outputs = d->log_at.n_outputs,
                                    .stamp_ns = d->log_at.head_ns,
                                    .batch = b,
                                    .outputs_max = k->shape->batch[b].outputs,
                                    .groups = d->log_sizes.groups,
                                    .group_rows = CUDA_LOGIT_ROWS,
                                    .width = d->weights->n_embd};
    int rc = norm(k, b, d->weights->output_norm, d->weights->output_eps, d->buffers.y);

    if (rc != 0)
        return rc;
    CUDA_TRY(sweep_outputs(&a, d->stream));
    return 0;
}

/* To the next layer, or to the head. */
static int layer_next(struct launch *k, uint32_t b, uint32_t l)
{
    int rc = layer_leave(k, b, l);

    if (rc != 0)
        return rc;
    return l + 1 < k->d->n_layers ? layer_enter(k, b, l + 1, k->d->buffers.y)
                                  : select_outputs(k, b);
}

static int layer_next_b(struct launch *k, uint32_t l)
{
    int rc = stamp(k, l, CUDA_STAMP_B_BEGIN);

    if (rc == 0)
        rc = layer_next(k, 1, l);
    return rc == 0 ? stamp(k, l, CUDA_STAMP_B_END) : rc;
}

/* ---- Head ---------------------------------------------------------------------------------------- */

static int draw(struct launch *k, uint32_t group, uint32_t n)
{
    struct device *d = k->d;
    uint32_t first = group * CUDA_LOGIT_ROWS;
    const struct sampling a = {
        .tokens = d->log_at.tokens + first,
        .logprobs = d->log_at.logprobs + first,
        .logits = d->buffers.logits,
        .row = d->buffers.out_row + first,
        .rows = {.n = n, .n_live = d->log_at.n_outputs + group},
        .n_vocab = d->weights->n_vocab,
        .scratch = d->buffers.sampling,
        .adjusts = k->shape->adjusts,
        .top = k->shape->adjusts ? d->log_at.top + (size_t)first * SAMPLING_TOP_MAX : NULL,
        .scratch_rows = CUDA_LOGIT_ROWS};
    int rc = product(k, &d->weights->head, CUDA_DENSE_F32, n,
                     d->buffers.head_in + (size_t)first * d->weights->n_embd, d->buffers.logits);

    if (rc != 0)
        return rc;
    CUDA_TRY(sampling(&a, d->stream));
    return 0;
}

static int head(struct launch *k)
{
    uint32_t n = k->shape->batch[0].outputs + k->shape->batch[1].outputs;
    int rc = 0;

    for (uint32_t first = 0; first < n && rc == 0; first += CUDA_LOGIT_ROWS)
        rc = draw(k, first / CUDA_LOGIT_ROWS,
                  n - first < CUDA_LOGIT_ROWS ? n - first : (uint32_t)CUDA_LOGIT_ROWS);
    if (rc != 0)
        return rc;
    CUDA_TRY(sweep_stamp(k->d->log_at.end_ns, k->d->stream));
    return 0;
}

static int begin(struct launch *k)
{
    struct device *d = k->d;
    const struct sweep_begin a = {.head = k->f.head,
                                  .enter = k->f.enter,
                                  .leave = k->f.leave,
                                  .arrival_ns = k->f.arrival_ns,
                                  .slots = d->rows.slots,
                                  .owner = d->rows.owner,
                                  .generation = d->rows.generation,
                                  .slot_sampling = d->rows.sampling,
                                  .budget = d->rows.budget,
                                  .deadline_ns = d->rows.deadline_ns,
                                  .n_live = d->rows.n_live,
                                  .start_ns = d->log_at.start_ns};

    CUDA_TRY(sweep_begin(&a, d->stream));
    return 0;
}

int cuda_sweep_launch(struct device *d, const struct cuda_shape *shape)
{
    struct launch k = {.d = d, .shape = shape};
    bool two = shape->batch[1].rows > 0;

    cuda_frame_place(&k.f, d->frame, &d->frame_sizes, shape);
    int rc = begin(&k);
    if (rc == 0 && two)
        rc = embed(&k, 1);
    if (rc == 0)
        rc = embed(&k, 0);
    for (uint32_t l = 0; l < d->n_layers && rc == 0; l++) {
        if (two)
            rc = layer_next_b(&k, l);
        if (rc == 0)
            rc = layer_next(&k, 0, l);
    }
    return rc == 0 ? head(&k) : rc;
}

/* ---- One module ---------------------------------------------------------------------------------- */

/* Both halves of a layer's dense operations, the second of which stands for the next layer's. */
static int dense_module(struct launch *k, uint32_t l)
{
    struct device *d = k->d;
    const struct cuda_layer_weights *w = &d->weights->layers[l];
    int rc = layer_dense(k, 0, l);

    if (rc == 0)
        rc = norm(k, 0, w->attn_norm, w->attn_eps, d->buffers.y);
    return rc == 0 ? product(k, &w->qkv, CUDA_DENSE_ROWS, k->shape->batch[0].rows, d->buffers.n,
                             d->buffers.qkv)
                   : rc;
}

int cuda_sweep_module(struct device *d, const struct cuda_shape *shape, enum device_shape_kind kind,
                      uint32_t layer)
{
    struct launch k = {.d = d, .shape = shape};
    int rc;

    cuda_frame_place(&k.f, d->frame, &d->frame_sizes, shape);
    switch (kind) {
    case DEVICE_SHAPE_DENSE:
        return dense_module(&k, layer);
    case DEVICE_SHAPE_DECODES:
        rc = rotate_and_write(&k, 0, layer);
        return rc == 0 ? attend_decodes(&k, 0, layer) : rc;
    case DEVICE_SHAPE_CHUNK:
        rc = rotate_and_write(&k, 0, layer);
        return rc == 0 ? attend_chunks(&k, 0, layer) : rc;
    case DEVICE_SHAPE_HEAD:
        rc = select_outputs(&k, 0);
        return rc == 0 ? head(&k) : rc;
    case DEVICE_SHAPE_EMBED:
        rc = begin(&k);
        return rc == 0 ? embed_rows(&k, 0) : rc;
    case DEVICE_SHAPE_KINDS:
        break;
    }
    return -EINVAL;
}
