/* One sweep in virtual time: the walk of device/cpu/cpu_sweep.c, without data.
 *
 *   what comes before the first layer; the first part of layer 0 over common and entering rows
 *   for each layer l:
 *       jobs of layer l go out; batch B runs all its layer; attention of batch A's common rows
 *       returned rows of layer l are picked
 *       the rest of layer l, and the first part of layer l + 1, over batch A and the picked rows
 *   head and sampling
 *
 * A layer that no row reaches costs nothing.  Two batches in one sweep read every layer's weights
 * twice; B's time is A's window.
 *
 * With half batches (struct device_sweep.n_enter_b) the second half has offloaded rows alone, and
 * both wait for their jobs:
 *
 *   the first part of layer 0 over each half, the second one first; its jobs go out
 *   for each layer l:
 *       for each half: its jobs of layer l are awaited, behind the attention of the common rows;
 *       the rest of layer l, the first part of layer l + 1 over its rows; its jobs of layer l + 1
 *       go out
 *
 * so that one half's jobs run while the device is at the other's products.
 *
 * Rows whose KV is in host memory cross the host link once per sweep, a layer ahead of the compute:
 * the sweep takes the longer of the two.  Checkpoints of best-effort blocks take the link in the
 * other direction, beside everything. */
#include <math.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/invariant.h"
#include "gpu-engine/device/rouse.h"
#include "gpu-engine/device/sim/sim_device.h"

/* ---- What the sweep asks for ----------------------------------------------------------------- */

static void add_seq(const struct latency_model *m, struct latency_load *load,
                    const struct device_seq *q)
{
    if (q->n_rows == 1)
        latency_load_add_decode(m, load, q->pos + 1, q->sample != 0);
    else
        latency_load_add_chunk(m, load, q->pos, q->n_rows, q->sample != 0);
}

/* First layer of a kind: all layers of it cost the same. */
static uint32_t layer_of_kind(const struct latency_model *m, uint32_t kind)
{
    uint32_t l = 0;

    while (l + 1 < m->n_layers && m->kind_of[l] != kind)
        l++;
    return l;
}

static void price_batch(struct device *d, struct sim_batch *b, const struct device_batch *in)
{
    const struct latency_model *m = &d->timing->gpu;

    b->load = (struct latency_load){.n_rows = 0};
    for (uint32_t i = 0; i < in->n_seqs; i++)
        add_seq(m, &b->load, &in->seqs[i]);
    for (uint32_t k = 0; k < m->n_kinds; k++) {
        uint32_t l = layer_of_kind(m, k);
        b->attention_ns[k] = d->attention_noise * latency_attention_ns(m, l, &b->load);
        b->dense_ns[k] = d->dense_noise * latency_dense_ns(m, l, b->load.n_rows);
    }
}

/* Normal by the sum of twelve, keyed by sweep and module: no state, so that what one sweep draws
 * does not depend on others. */
static double draw_noise(const struct device *d, uint64_t sweep, uint64_t module)
{
    double sum = -6;

    if (d->timing->noise <= 0)
        return 1;
    for (uint64_t i = 0; i < 12; i++) {
        uint64_t key[4] = {d->timing->seed, sweep, module, i};
        uint64_t h = hash_bytes(HASH_SEED, key, sizeof key);
        h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd); /* FNV's high bits mix late */
        sum += (double)((h ^ h >> 29) >> 11) / 9007199254740992.0;
    }
    return exp(d->timing->noise * sum);
}

/* ---- The walk -------------------------------------------------------------------------------- */

static void pass(struct device *d, double ns)
{
    d->clock->device_ns += (uint64_t)ns;
}

/* Dense time of layer l over a half's active offloaded rows; batch A goes with the first half. */
static double dense_ns(const struct device *d, uint32_t l, uint32_t half)
{
    const struct latency_model *m = &d->timing->gpu;
    const struct sim_batch *a = &d->batch[0];
    uint32_t n_common = half == 0 ? a->load.n_rows : 0, n_active = d->active[half].n_rows;

    if (half == 0 && n_active == 0)
        return a->dense_ns[m->kind_of[l]];
    return n_common + n_active > 0 ? d->dense_noise * latency_dense_ns(m, l, n_common + n_active)
                                   : 0;
}

static void layer_begin(struct device *d, uint32_t l, uint32_t half)
{
    const struct latency_model *m = &d->timing->gpu;

    pass(d, m->kind[m->kind_of[l]].pre_share * dense_ns(d, l, half));
}

static void layer_end(struct device *d, struct sim_sweep *s, uint32_t l, uint32_t half)
{
    const struct latency_model *m = &d->timing->gpu;
    uint32_t n_rows = (half == 0 ? d->batch[0].load.n_rows : 0) + d->active[half].n_rows;

    s->done.n_rows_max = n_rows > s->done.n_rows_max ? n_rows : s->done.n_rows_max;
    pass(d, (1 - m->kind[m->kind_of[l]].pre_share) * dense_ns(d, l, half));
}

static void attend(struct device *d, const struct device_sweep *in, uint32_t l)
{
    for (uint32_t b = 0; d->live != NULL && b < DEVICE_BATCHES; b++)
        sim_live_attend(d->live, in, b, l);
}

static void walk_b(struct device *d, struct sim_sweep *s, uint32_t l)
{
    uint32_t kind = d->timing->gpu.kind_of[l];
    uint64_t start = d->clock->device_ns;

    s->layers[l].b_waited_ns = 0;
    pass(d, d->batch[1].attention_ns[kind]);
    s->layers[l].b_attention_ns = d->clock->device_ns - start;
    pass(d, d->batch[1].dense_ns[kind]);
    s->layers[l].b_ns = d->clock->device_ns - start;
}

static void walk_layer(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                       uint32_t l)
{
    uint32_t kind = d->timing->gpu.kind_of[l];

    layer_begin(d, l, 0);
    sim_slots_post(d, s, in, l, 0);
    s->layers[l].jobs_ns = d->clock->device_ns;
    walk_b(d, s, l);
    pass(d, d->batch[0].attention_ns[kind]);
    attend(d, in, l);
    s->layers[l].proj_ns = d->clock->device_ns;
    sim_slots_pick(d, s, in, l);
    layer_end(d, s, l, 0);
    s->idle_ns += s->layers[l].waited_ns;
}

/* A half gets to the jobs of layer l. */
static void begin_half(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                       uint32_t l, uint32_t half)
{
    layer_begin(d, l, half);
    sim_slots_post(d, s, in, l, half);
    if (half == 0)
        s->layers[l].jobs_ns = d->clock->device_ns;
}

static void end_half(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                     uint32_t l, uint32_t half)
{
    sim_slots_pick_half(d, s, in, l, half);
    layer_end(d, s, l, half);
    if (l + 1 < d->n_layers)
        begin_half(d, s, in, l + 1, half);
}

static void walk_halves(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    begin_half(d, s, in, 0, 1);
    begin_half(d, s, in, 0, 0);
    for (uint32_t l = 0; l < d->n_layers; l++) {
        struct device_layer_log *log = &s->layers[l];
        uint64_t start = d->clock->device_ns;

        end_half(d, s, in, l, 1);
        log->b_waited_ns = log->waited_ns;
        log->b_ns = d->clock->device_ns - start - log->waited_ns;
        log->b_attention_ns = 0;
        pass(d, d->batch[0].attention_ns[d->timing->gpu.kind_of[l]]);
        attend(d, in, l);
        log->proj_ns = d->clock->device_ns;
        end_half(d, s, in, l, 0);
        s->idle_ns += log->waited_ns;
    }
}

/* ---- The host link --------------------------------------------------------------------------- */

static uint64_t cross_link(struct device *d, enum device_copy_direction direction, uint64_t from_ns,
                           double bytes)
{
    uint64_t *link_ns = &d->link_ns[direction];

    *link_ns = *link_ns > from_ns ? *link_ns : from_ns;
    *link_ns += (uint64_t)(bytes / d->timing->copy_bytes_per_ns);
    return *link_ns;
}

static double token_bytes(const struct device *d)
{
    const struct kv_geometry *g = d->config.geometry;
    double bytes = 0;

    for (uint32_t l = 0; l < d->n_layers; l++)
        bytes += geometry_layer_token_bytes(g, l);
    return bytes;
}

/* KV that rows of the sweep read from host memory; the sweep goes on when all of it is there. */
static void await_streams(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    uint64_t positions = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++)
            positions += in->batch[b].seqs[i].in_host ? in->batch[b].seqs[i].pos : 0;
    }
    if (positions == 0)
        return;
    uint64_t end =
        cross_link(d, DEVICE_COPY_IN, s->done.start_ns, (double)positions * token_bytes(d));
    if (end <= d->clock->device_ns)
        return;
    s->layers[d->n_layers - 1].waited_ns += end - d->clock->device_ns;
    s->idle_ns += end - d->clock->device_ns;
    d->clock->device_ns = end;
}

/* Blocks of best effort that this sweep fills. */
static void send_checkpoints(struct device *d, const struct sim_sweep *s,
                             const struct device_sweep *in)
{
    uint32_t bt = d->config.geometry->block_tokens, n = 0;

    for (int b = 0; b < DEVICE_BATCHES && in->checkpoint; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++) {
            const struct device_seq *q = &in->batch[b].seqs[i];
            n += q->class_idx > 0 ? (q->pos + q->n_rows) / bt - q->pos / bt : 0;
        }
    }
    if (n > 0)
        cross_link(d, DEVICE_COPY_OUT, s->done.start_ns, (double)n * bt * token_bytes(d));
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

/* Without data a token only differs from the others. */
static struct device_token *put_token(struct device *d, struct sim_sweep *s, uint32_t source)
{
    struct device_token *out = &s->out[s->done.n_out++];

    *out = (struct device_token){.source = source,
                                 .token = d->next_token++ & (DEVICE_TOKEN_PREVIOUS - 1)};
    return out;
}

static void put_common(struct device *d, struct sim_sweep *s, const struct device_seq *q,
                       uint32_t source, uint32_t row)
{
    struct device_token *out = put_token(d, s, source);

    if (d->live != NULL)
        sim_live_draw_common(d->live, row, q->pos + q->n_rows, &q->sampling, out);
}

static void put_offloaded(struct device *d, struct sim_sweep *s, uint32_t slot_idx)
{
    const struct sim_slot *slot = &d->slots[slot_idx];
    struct device_token *out = put_token(d, s, slot_idx | DEVICE_TOKEN_OFFLOADED);

    out->n_ridden = slot->n_ridden;
    out->n_parked = slot->n_parked;
    out->error = slot->error;
    if (d->live != NULL)
        sim_live_draw_offloaded(d->live, slot_idx, slot->n_q, slot->pos + slot->n_q,
                                &slot->sampling, out);
}

static void put_tokens(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    uint32_t source = 0, n_rows = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++, source++) {
            const struct device_seq *q = &in->batch[b].seqs[i];
            n_rows += q->n_rows;
            if (q->sample != 0)
                put_common(d, s, q, source, n_rows - 1);
        }
    }
    for (int h = 0; h < SIM_HALVES; h++) {
        for (uint32_t i = 0; i < d->active[h].n; i++)
            put_offloaded(d, s, d->active[h].slots[i]);
    }
    if (d->live != NULL)
        sim_live_remember(d->live, &s->done);
}

/* Head and sampling over all that comes out. */
static void walk_head(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    const struct latency_model *m = &d->timing->gpu;

    s->done.head_ns = d->clock->device_ns;
    put_tokens(d, s, in);
    pass(d, d->dense_noise * m->correction[LATENCY_HEAD].factor *
                latency_stairs_at(&m->head, s->done.n_out));
}

static double before_ns(const struct device *d)
{
    const struct latency_model *m = &d->timing->gpu;

    return m->fixed_ns + m->row_ns * (d->batch[0].load.n_rows + d->batch[1].load.n_rows);
}

void sim_sweep_walk(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    uint64_t start = d->clock->now_ns > d->end_ns ? d->clock->now_ns : d->end_ns;

    start += (uint64_t)d->timing->between_ns;

    d->clock->device_ns = start;
    d->dense_noise = draw_noise(d, in->seq, 0);
    d->attention_noise = draw_noise(d, in->seq, 1);
    for (int b = 0; b < DEVICE_BATCHES; b++)
        price_batch(d, &d->batch[b], &in->batch[b]);
    s->done = (struct device_done){.seq = in->seq,
                                   .start_ns = start,
                                   .n_rows_max = d->batch[1].load.n_rows,
                                   .layer = s->layers,
                                   .picked = s->picked,
                                   .out = s->out};
    for (uint32_t l = 0; l < d->n_layers; l++)
        s->layers[l].proj_ns = 0;
    s->idle_ns = 0;
    d->p_left = in->p_total;
    d->wait_left_ns = in->wait_total_ns;
    sim_slots_leave(d, in);
    device_rouse(d->config.exchange, in, d->pick_slots, d->n_slots, d->n_jobs_out);
    if (d->live != NULL)
        sim_live_embed(d->live, in);
    sim_slots_enter(d, in);
    pass(d, d->dense_noise * before_ns(d));
    if (in->n_enter_b > 0)
        walk_halves(d, s, in);
    else
        for (uint32_t l = 0; l < d->n_layers; l++)
            walk_layer(d, s, in, l);
    await_streams(d, s, in);
    send_checkpoints(d, s, in);
    walk_head(d, s, in);
    s->done.end_ns = d->clock->device_ns;
    s->done.busy_ns = s->done.end_ns - start;
}
