/* One sweep on the cpu device.
 *
 *   embed the common rows and the rows that enter; pre(0); jobs and attention of layer 0
 *   for each layer l:
 *       append the returned rows of layer l that the device picks now
 *       post(l) over all active rows at once: output projection, residual, MLP
 *       pre(l + 1) over all of them: norm, QKV, rotary embedding
 *       offloaded rows: jobs of layer l + 1, and they leave; common rows: attention
 *   head and sampling: common rows that ask for it, and offloaded rows that got through
 *
 * Why the jobs go out before the attention of the common rows: that attention is the window in
 * which a worker may answer, so that the row rides along in the same sweep.
 *
 * Exactness: a row's values depend on its token, its position and its KV alone.  Dense products
 * and attention promise that; here rows are only gathered, and each row's residual is added to
 * in the order of the layers. */
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/device/cpu/cpu_device.h"

/* ---- Active rows ----------------------------------------------------------------------------- */

uint32_t cpu_part_add(struct device *d, uint32_t source, uint32_t pos, uint32_t n, float *x)
{
    struct cpu_part *part = &d->parts[d->n_parts];

    invariant(d->rows.n + n <= d->buffers.rows_max);
    *part = (struct cpu_part){.first = d->rows.n, .n_rows = n, .source = source, .pos = pos};
    for (uint32_t i = 0; i < n; i++) {
        d->rows.x[d->rows.n] = x + (size_t)i * d->buffers.n_embd;
        d->rows.pos[d->rows.n++] = pos + i;
    }
    return d->n_parts++;
}

static uint32_t token_resolve(const struct device *d, uint32_t token)
{
    if ((token & DEVICE_TOKEN_PREVIOUS) == 0)
        return token;
    uint32_t i = token & ~DEVICE_TOKEN_PREVIOUS;
    invariant(i < d->n_previous);
    return d->previous_tokens[i];
}

static void embed_common(struct device *d, struct cpu_sweep *s)
{
    const struct device_batch *batch = &s->in.batch[0];

    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const struct device_seq *seq = &batch->seqs[i];
        float *x = d->residual + (size_t)d->rows.n * d->buffers.n_embd;

        for (uint32_t r = 0; r < seq->n_rows; r++)
            model_embed_ref(d->weights->model, token_resolve(d, seq->tokens[r]),
                            x + (size_t)r * d->buffers.n_embd);
        cpu_part_add(d, i, seq->pos, seq->n_rows, x);
    }
    d->n_common_parts = d->n_parts;
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
        tables = s->in.batch[0].seqs[part->source].tables;
        stride = s->in.batch[0].seqs[part->source].table_stride;
    }
    return (struct kv_view){.base = d->kv,
                            .table = tables + layer->group * stride,
                            .block_bytes = g->block_bytes,
                            .block_tokens = g->block_tokens,
                            .n_blocks = (uint32_t)stride,
                            .type = g->type,
                            .layer = layer};
}

static void attend(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    struct cpu_buffers *b = &d->buffers;

    for (uint32_t i = 0; i < d->n_parts; i++) {
        const struct cpu_part *part = &d->parts[i];
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
    attn_run(d->team, d->attn, d->attn_jobs, d->n_parts);
}

/* From a layer's input to its attention output (device) or its jobs (arena). */
static void layer_begin(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    const struct cpu_layer *layer = &d->weights->layers[l];

    cpu_dense_run(d->weights, d->team, &d->buffers, layer->pre, layer->n_pre, &d->rows);
    cpu_slots_post(d, s, l);
    s->layers[l].jobs_ns = clock_now_ns();
    attend(d, s, l);
}

/* From the attention output to the next layer's input, with the returned rows. */
static void layer_end(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    const struct cpu_layer *layer = &d->weights->layers[l];

    s->layers[l].proj_ns = clock_now_ns();
    cpu_slots_pick(d, s, l);
    if (d->rows.n > s->done.n_rows_max)
        s->done.n_rows_max = d->rows.n;
    cpu_dense_run(d->weights, d->team, &d->buffers, layer->post, layer->n_post, &d->rows);
}

/* ---- Head and sampling ----------------------------------------------------------------------- */

static const struct device_sampling *
part_sampling(const struct device *d, const struct cpu_sweep *s, const struct cpu_part *part)
{
    if (cpu_part_is_offloaded(part))
        return &d->slots[part->source & ~DEVICE_TOKEN_OFFLOADED].sampling;
    const struct device_seq *seq = &s->in.batch[0].seqs[part->source];
    return seq->sample != 0 ? &seq->sampling : NULL;
}

/* Draws for the parts in parts[0..n), whose last rows' logits are ready. */
static void draw_tokens(struct device *d, struct cpu_sweep *s, const uint32_t *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct cpu_part *part = &d->parts[parts[i]];
        struct device_token *out = &s->out[s->done.n_out++];
        uint32_t pos = part->pos + part->n_rows - 1;

        memset(out, 0, sizeof *out);
        out->source = part->source;
        out->token = sampler_draw(&d->sampler, d->buffers.logits + (size_t)i * d->buffers.n_vocab,
                                  part_sampling(d, s, part), pos + 1, &out->logprob);
        if (cpu_part_is_offloaded(part)) {
            const struct cpu_slot *slot = &d->slots[part->source & ~DEVICE_TOKEN_OFFLOADED];
            out->n_ridden = slot->n_ridden;
            out->n_parked = slot->n_parked;
            out->error = slot->error;
        }
    }
}

static void sample(struct device *d, struct cpu_sweep *s)
{
    float *x[CPU_LOGIT_ROWS];
    uint32_t pos[CPU_LOGIT_ROWS], parts[CPU_LOGIT_ROWS];
    struct cpu_rows rows = {.n = 0, .x = x, .pos = pos};

    for (uint32_t i = 0; i < d->n_parts; i++) {
        const struct cpu_part *part = &d->parts[i];
        uint32_t last = part->first + part->n_rows - 1;

        if (part_sampling(d, s, part) != NULL) {
            x[rows.n] = d->rows.x[last];
            pos[rows.n] = d->rows.pos[last];
            parts[rows.n++] = i;
        }
        if (rows.n == CPU_LOGIT_ROWS || (i + 1 == d->n_parts && rows.n > 0)) {
            cpu_dense_run(d->weights, d->team, &d->buffers, d->weights->head, MODEL_HEAD_OPS,
                          &rows);
            draw_tokens(d, s, parts, rows.n);
            rows.n = 0;
        }
    }
}

static void remember_tokens(struct device *d, const struct cpu_sweep *s)
{
    d->n_previous = s->done.n_out;
    for (uint32_t i = 0; i < s->done.n_out; i++)
        d->previous_tokens[i] = s->out[i].token;
}

/* One thread alone computes all the time that it has the core; the first of a team also waits. */
static uint64_t busy_ns(const struct device *d, const struct cpu_sweep *s, uint64_t cpu_ns)
{
    uint64_t total_ns = s->done.end_ns - s->done.start_ns;

    return team_n_threads(d->team) > 1 || cpu_ns > total_ns ? total_ns : cpu_ns;
}

void cpu_sweep_run(struct device *d, struct cpu_sweep *s)
{
    uint64_t cpu_ns = cpu_thread_ns();

    s->done = (struct device_done){.seq = s->in.seq,
                                   .start_ns = clock_now_ns(),
                                   .layer = s->layers,
                                   .picked = s->picked,
                                   .out = s->out};
    d->rows.n = d->n_parts = d->n_common_parts = 0;
    d->p_left = s->in.p_total;
    cpu_slots_leave(d, s->in.leave, s->in.n_leave);
    cpu_slots_rouse(d, s);
    embed_common(d, s);
    cpu_slots_enter(d, s);
    layer_begin(d, s, 0);
    for (uint32_t l = 0; l < d->n_layers; l++) {
        layer_end(d, s, l);
        if (l + 1 < d->n_layers)
            layer_begin(d, s, l + 1);
    }
    s->done.head_ns = clock_now_ns();
    sample(d, s);
    remember_tokens(d, s);
    s->done.end_ns = clock_now_ns();
    s->done.busy_ns = busy_ns(d, s, cpu_thread_ns() - cpu_ns);
}
