/* One sweep on the cpu device.
 *
 *   embed the common rows and the rows that enter
 *   begin(0)
 *   for each layer l: end(l), begin(l + 1)
 *   head and sampling: common rows that ask for it, and offloaded rows that got through
 *
 *   begin(l): norm, QKV, rotary embedding over all active rows at once; offloaded rows: their jobs
 *             of layer l go out, and they leave
 *   end(l):   attention of the common rows; the returned rows of layer l that the device picks now
 *             join; output projection, residual and MLP over all active rows at once
 *
 * Why the jobs go out before the attention of the common rows: that attention is the window in
 * which a worker may answer, so that the row rides along in the same sweep.
 *
 * Two batches take turns, so that each one's layer is the other one's window:
 *
 *   begin B(0), begin A(0)
 *   for each layer l: end B(l), begin B(l + 1), end A(l), begin A(l + 1)
 *
 * Batch A is what a sweep with one batch has.  Offloaded rows return to the batch with which they
 * entered, if that has any in this sweep, else to A.  Nothing of the batches runs side by side.
 *
 * Exactness: a row's values depend on its token, its position and its KV alone.  Dense products
 * and attention promise that; here rows are only gathered, and each row's residual is added to
 * in the order of the layers. */
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/device/cpu/cpu_device.h"
#include "gpu-engine/device/rouse.h"

/* ---- Active rows ----------------------------------------------------------------------------- */

uint32_t cpu_part_add(struct cpu_batch *b, uint32_t source, uint32_t pos, uint32_t n, float *x)
{
    struct cpu_part *part = &b->parts[b->n_parts];

    invariant(b->rows.n + n <= b->buffers.rows_max);
    *part = (struct cpu_part){.first = b->rows.n, .n_rows = n, .source = source, .pos = pos};
    for (uint32_t i = 0; i < n; i++) {
        b->rows.x[b->rows.n] = x + (size_t)i * b->buffers.n_embd;
        b->rows.pos[b->rows.n++] = pos + i;
    }
    return b->n_parts++;
}

static uint32_t token_resolve(const struct device *d, uint32_t token)
{
    if ((token & DEVICE_TOKEN_PREVIOUS) == 0)
        return token;
    uint32_t i = token & ~DEVICE_TOKEN_PREVIOUS;
    invariant(i < d->n_previous);
    return d->previous_tokens[i];
}

/* Rows of batch B lie behind those of batch A. */
static void embed_common(struct device *d, struct cpu_sweep *s)
{
    float *x = d->residual;

    for (uint32_t b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < s->in.batch[b].n_seqs; i++) {
            const struct device_seq *seq = &s->in.batch[b].seqs[i];

            for (uint32_t r = 0; r < seq->n_rows; r++)
                model_embed_ref(d->weights->model, token_resolve(d, seq->tokens[r]),
                                x + (size_t)r * d->buffers.n_embd);
            cpu_part_add(&d->batch[b], (uint32_t)(seq - s->seqs), seq->pos, seq->n_rows, x);
            x += (size_t)seq->n_rows * d->buffers.n_embd;
        }
        d->batch[b].n_common_parts = d->batch[b].n_parts;
    }
}

/* ---- Attention of the rows whose KV is on the device ----------------------------------------- */

static struct kv_view part_kv(struct device *d, struct cpu_sweep *s, const struct cpu_part *part,
                              uint32_t l)
{
    const struct kv_geometry *g = d->geometry;
    const struct kv_layer *layer = &g->layer[l];
    const uint32_t *tables;
    size_t stride;

    if (cpu_part_is_offloaded(part)) {
        tables = d->slots[part->source & ~DEVICE_TOKEN_OFFLOADED].tables;
        stride = d->table_max;
    } else {
        tables = s->seqs[part->source].tables;
        stride = s->seqs[part->source].table_stride;
    }
    return (struct kv_view){.base = d->kv,
                            .table = tables + layer->group * stride,
                            .block_bytes = g->block_bytes,
                            .block_tokens = g->block_tokens,
                            .n_blocks = (uint32_t)stride,
                            .type = g->type,
                            .layer = layer};
}

static void attend(struct device *d, struct cpu_sweep *s, const struct cpu_batch *batch, uint32_t l)
{
    const struct cpu_buffers *b = &batch->buffers;

    for (uint32_t i = 0; i < batch->n_parts; i++) {
        const struct cpu_part *part = &batch->parts[i];
        size_t first = part->first;

        d->attn_jobs[i] = (struct attn_job){.q = b->q + first * b->q_width,
                                            .out = b->a + first * b->a_width,
                                            .n_q = part->n_rows,
                                            .pos = part->pos,
                                            .kv = part_kv(d, s, part, l),
                                            .ldq = b->q_width,
                                            .ldo = b->a_width};
        attn_append(&d->attn_jobs[i].kv, part->pos, part->n_rows, b->k + first * b->k_width,
                    b->k_width, b->v + first * b->v_width, b->v_width);
    }
    attn_run(d->team, d->attn, d->attn_jobs, batch->n_parts);
}

/* ---- Layers ---------------------------------------------------------------------------------- */

static void begin(struct device *d, struct cpu_sweep *s, struct cpu_batch *b, uint32_t l)
{
    const struct cpu_layer *layer = &d->weights->layers[l];

    cpu_dense_run(d->weights, d->team, &b->buffers, layer->pre, layer->n_pre, &b->rows);
    cpu_slots_post(d, s, b, l);
}

/* From the batch's jobs to its next layer's input. */
static void end(struct device *d, struct cpu_sweep *s, struct cpu_batch *b, uint32_t l)
{
    const struct cpu_layer *layer = &d->weights->layers[l];

    cpu_slots_pick(d, s, b, l);
    if (b->rows.n > s->done.n_rows_max)
        s->done.n_rows_max = b->rows.n;
    cpu_dense_run(d->weights, d->team, &b->buffers, layer->post, layer->n_post, &b->rows);
}

static void begin_log(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    uint32_t first = l == 0 ? 0 : s->layers[l - 1].first + s->layers[l - 1].n_picked;
    uint64_t jobs_ns = s->layers[l].jobs_ns; /* its jobs are out already */

    s->layers[l] = (struct device_layer_log){.first = first, .jobs_ns = jobs_ns};
    d->layer_left = s->picks[l].p_max;
}

/* Batch B, from its attention of layer l to its jobs of layer l + 1. */
static void run_b(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    struct cpu_batch *b = &d->batch[1];
    struct device_layer_log *log = &s->layers[l];
    uint64_t start = clock_now_ns();

    attend(d, s, b, l);
    log->b_attention_ns = clock_now_ns() - start;
    end(d, s, b, l);
    if (l + 1 < d->n_layers)
        begin(d, s, b, l + 1);
    log->b_waited_ns = log->waited_ns;
    log->b_ns = clock_now_ns() - start - log->b_waited_ns;
}

static void begin_a(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    begin(d, s, &d->batch[0], l);
    s->layers[l].jobs_ns = clock_now_ns();
}

static void run_layers(struct device *d, struct cpu_sweep *s)
{
    bool two = s->in.batch[1].n_seqs > 0 || s->in.n_enter_b > 0;

    if (two)
        begin(d, s, &d->batch[1], 0);
    begin_a(d, s, 0);
    for (uint32_t l = 0; l < d->n_layers; l++) {
        begin_log(d, s, l);
        if (two)
            run_b(d, s, l);
        attend(d, s, &d->batch[0], l);
        s->layers[l].proj_ns = clock_now_ns();
        end(d, s, &d->batch[0], l);
        if (l + 1 < d->n_layers)
            begin_a(d, s, l + 1);
    }
}

/* ---- Head and sampling ----------------------------------------------------------------------- */

static const struct device_sampling *
part_sampling(const struct device *d, const struct cpu_sweep *s, const struct cpu_part *part)
{
    if (cpu_part_is_offloaded(part))
        return &d->slots[part->source & ~DEVICE_TOKEN_OFFLOADED].sampling;
    const struct device_seq *seq = &s->seqs[part->source];
    return seq->sample != 0 ? &seq->sampling : NULL;
}

/* Parts whose last rows go through the head together. */
struct outputs {
    const struct cpu_part *part[CPU_LOGIT_ROWS];
    float *x[CPU_LOGIT_ROWS];
    uint32_t pos[CPU_LOGIT_ROWS];
    uint32_t n;
};

static void tell_alternatives(struct device *d, struct cpu_sweep *s, struct device_token *out,
                              const struct device_sampling *how, const float *logits)
{
    struct device_logprob *top = s->top + (size_t)(out - s->out) * DEVICE_TOP_MAX;

    if (how->adjust == NULL || how->adjust->n_top == 0)
        return;
    out->n_top = sampler_top(&d->sampler, logits, how->adjust->n_top, top);
    out->top = top;
}

static void draw_token(struct device *d, struct cpu_sweep *s, const struct cpu_part *part,
                       float *logits)
{
    struct device_token *out = &s->out[s->done.n_out++];
    const struct device_sampling *how = part_sampling(d, s, part);
    uint32_t pos = part->pos + part->n_rows;

    memset(out, 0, sizeof *out);
    out->source = part->source;
    out->token = sampler_draw(&d->sampler, logits, how, pos, &out->logprob);
    tell_alternatives(d, s, out, how, logits);
    if (cpu_part_is_offloaded(part)) {
        const struct cpu_slot *slot = &d->slots[part->source & ~DEVICE_TOKEN_OFFLOADED];
        out->n_ridden = slot->n_ridden;
        out->n_parked = slot->n_parked;
        out->error = slot->error;
    }
}

static void draw_tokens(struct device *d, struct cpu_sweep *s, struct outputs *o)
{
    const struct cpu_rows rows = {.n = o->n, .x = o->x, .pos = o->pos};

    cpu_dense_run(d->weights, d->team, &d->buffers, d->weights->head, MODEL_HEAD_OPS, &rows);
    for (uint32_t i = 0; i < o->n; i++)
        draw_token(d, s, o->part[i], d->buffers.logits + (size_t)i * d->buffers.n_vocab);
    o->n = 0;
}

static void sample(struct device *d, struct cpu_sweep *s)
{
    struct outputs o = {.n = 0};

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < d->batch[b].n_parts; i++) {
            const struct cpu_part *part = &d->batch[b].parts[i];
            uint32_t last = part->first + part->n_rows - 1;

            if (part_sampling(d, s, part) == NULL)
                continue;
            o.part[o.n] = part;
            o.x[o.n] = d->batch[b].rows.x[last];
            o.pos[o.n++] = d->batch[b].rows.pos[last];
            if (o.n == CPU_LOGIT_ROWS)
                draw_tokens(d, s, &o);
        }
    }
    if (o.n > 0)
        draw_tokens(d, s, &o);
}

static void remember_tokens(struct device *d, const struct cpu_sweep *s)
{
    d->n_previous = s->done.n_out;
    for (uint32_t i = 0; i < s->done.n_out; i++)
        d->previous_tokens[i] = s->out[i].token;
}

/* One thread alone computes all the time that it has the core; the first of a team also waits.  A
 * funded wait is nobody's theft, whatever was computed in it. */
static uint64_t busy_ns(const struct device *d, const struct cpu_sweep *s, uint64_t cpu_ns)
{
    uint64_t total_ns = s->done.end_ns - s->done.start_ns;

    cpu_ns += d->waited_ns - d->waited_cpu_ns;
    return team_n_threads(d->team) > 1 || cpu_ns > total_ns ? total_ns : cpu_ns;
}

static void reset(struct device *d, const struct cpu_sweep *s)
{
    for (uint32_t b = 0; b < DEVICE_BATCHES; b++) {
        d->batch[b].rows.n = d->batch[b].n_parts = d->batch[b].n_common_parts = 0;
        d->batch[b].picks_from = UINT32_C(1) << b;
    }
    if (s->in.n_enter_b == 0) { /* batch B has no offloaded rows */
        d->batch[0].picks_from = PICK_ANY_BATCH;
        d->batch[1].picks_from = 0;
    }
    d->p_left = s->in.p_total;
    d->wait_left_ns = s->in.wait_total_ns;
    d->waited_ns = d->waited_cpu_ns = 0;
}

void cpu_sweep_run(struct device *d, struct cpu_sweep *s)
{
    uint64_t cpu_ns = cpu_thread_ns();

    s->done = (struct device_done){.seq = s->in.seq,
                                   .start_ns = clock_now_ns(),
                                   .layer = s->layers,
                                   .picked = s->picked,
                                   .out = s->out};
    reset(d, s);
    cpu_slots_leave(d, s->in.leave, s->in.n_leave);
    device_rouse(d->config.exchange, &s->in, d->pick_slots, d->n_slots, d->n_jobs_out);
    embed_common(d, s);
    cpu_slots_enter(d, s);
    run_layers(d, s);
    s->done.head_ns = clock_now_ns();
    sample(d, s);
    remember_tokens(d, s);
    s->done.end_ns = clock_now_ns();
    s->done.busy_ns = busy_ns(d, s, cpu_thread_ns() - cpu_ns);
}
