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
 * twice; B's time is A's window. */
#include <math.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/invariant.h"
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

/* Dense time of layer l over batch A and the active offloaded rows. */
static double dense_ns(const struct device *d, uint32_t l)
{
    const struct latency_model *m = &d->timing->gpu;
    const struct sim_batch *a = &d->batch[0];

    if (d->n_active_rows == 0)
        return a->dense_ns[m->kind_of[l]];
    return d->dense_noise * latency_dense_ns(m, l, a->load.n_rows + d->n_active_rows);
}

static void layer_begin(struct device *d, uint32_t l)
{
    const struct latency_model *m = &d->timing->gpu;

    pass(d, m->kind[m->kind_of[l]].pre_share * dense_ns(d, l));
}

static void layer_end(struct device *d, uint32_t l)
{
    const struct latency_model *m = &d->timing->gpu;

    pass(d, (1 - m->kind[m->kind_of[l]].pre_share) * dense_ns(d, l));
}

static void walk_layer(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                       uint32_t l)
{
    uint32_t kind = d->timing->gpu.kind_of[l];

    layer_begin(d, l);
    sim_slots_post(d, s, in, l);
    s->layers[l].jobs_ns = d->clock->device_ns;
    if (d->batch[1].load.n_rows > 0)
        pass(d, d->batch[1].dense_ns[kind] + d->batch[1].attention_ns[kind]);
    pass(d, d->batch[0].attention_ns[kind]);
    s->layers[l].proj_ns = d->clock->device_ns;
    sim_slots_pick(d, s, in, l);
    if (d->batch[0].load.n_rows + d->n_active_rows > s->done.n_rows_max)
        s->done.n_rows_max = d->batch[0].load.n_rows + d->n_active_rows;
    layer_end(d, l);
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

static void put_token(struct device *d, struct sim_sweep *s, uint32_t source,
                      const struct sim_slot *slot)
{
    s->out[s->done.n_out++] =
        (struct device_token){.source = source,
                              .token = d->next_token++ & (DEVICE_TOKEN_PREVIOUS - 1),
                              .n_ridden = slot != NULL ? slot->n_ridden : 0,
                              .n_parked = slot != NULL ? slot->n_parked : 0};
}

static void put_tokens(struct device *d, struct sim_sweep *s, const struct device_sweep *in)
{
    uint32_t first = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        for (uint32_t i = 0; i < in->batch[b].n_seqs; i++) {
            if (in->batch[b].seqs[i].sample != 0)
                put_token(d, s, first + i, NULL);
        }
        first += in->batch[b].n_seqs;
    }
    for (uint32_t i = 0; i < d->n_active; i++)
        put_token(d, s, d->active[i] | DEVICE_TOKEN_OFFLOADED, &d->slots[d->active[i]]);
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
    d->p_left = in->p_total;
    sim_slots_leave(d, in);
    sim_slots_enter(d, in);
    pass(d, d->dense_noise * before_ns(d));
    for (uint32_t l = 0; l < d->n_layers; l++)
        walk_layer(d, s, in, l);
    walk_head(d, s, in);
    s->done.end_ns = d->clock->device_ns;
    s->done.busy_ns = s->done.end_ns - start;
}
