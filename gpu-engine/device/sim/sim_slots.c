/* Offloaded rows on the simulated device: entering, posting jobs, picking returned ones. */
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/sim/sim_device.h"

/* ---- Leaving and entering -------------------------------------------------------------------- */

static void forget_job(struct device *d, uint32_t slot)
{
    d->pick_slots[slot].state = PICK_SLOT_FREE;
    d->n_jobs_at[d->pick_slots[slot].layer]--;
    d->n_jobs_out--;
}

void sim_slots_leave(struct device *d, const struct device_sweep *in)
{
    for (uint32_t i = 0; i < in->n_leave; i++) {
        if (d->pick_slots[in->leave[i]].state == PICK_SLOT_POSTED)
            forget_job(d, in->leave[i]);
    }
}

void sim_slots_enter(struct device *d, const struct device_sweep *in)
{
    d->n_active = d->n_active_rows = 0;
    for (uint32_t i = 0; i < in->n_enter; i++) {
        const struct device_enter *e = &in->enter[i];

        invariant(d->pick_slots[e->slot].state == PICK_SLOT_FREE);
        d->slots[e->slot] = (struct sim_slot){.n_q = e->n_q,
                                              .pos = e->pos,
                                              .seq_idx = e->seq_idx,
                                              .seq_generation = e->seq_generation};
        d->active[d->n_active++] = e->slot;
        d->n_active_rows += e->n_q;
    }
}

/* ---- Posting --------------------------------------------------------------------------------- */

static void post(struct device *d, const struct device_sweep *in, uint32_t slot_idx, uint32_t l,
                 uint64_t deadline_ns)
{
    struct exchange *x = d->config.exchange;
    const struct sim_slot *slot = &d->slots[slot_idx];
    const struct exchange_job job = {.slot = slot_idx,
                                     .seq_idx = slot->seq_idx,
                                     .seq_generation = slot->seq_generation,
                                     .layer = l,
                                     .n_q = slot->n_q,
                                     .pos = slot->pos,
                                     .deadline_ns = deadline_ns,
                                     .sweep = in->seq};

    uint32_t generation;

    if (x->ops->post(x, &job, &generation) != 0)
        return; /* simulated workers keep the protocol */
    d->pick_slots[slot_idx] = (struct pick_slot){.generation = generation,
                                                 .layer = l,
                                                 .age = in->seq,
                                                 .state = PICK_SLOT_POSTED,
                                                 .n_q = (uint16_t)slot->n_q};
}

void sim_slots_post(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l)
{
    if (d->n_active == 0)
        return;
    d->clock->device_ns += (uint64_t)(d->timing->post_ns * d->n_active_rows);
    for (uint32_t i = 0; i < d->n_active; i++)
        post(d, in, d->active[i], l, s->done.start_ns + in->arrival_ns[l]);
    d->config.exchange->ops->flush(d->config.exchange);
    d->n_jobs_at[l] += d->n_active;
    d->n_jobs_out += d->n_active;
    s->done.n_posted += d->n_active;
    d->n_active = d->n_active_rows = 0;
}

/* ---- Picking --------------------------------------------------------------------------------- */

static bool has_returned(const struct device *d, uint32_t slot)
{
    return d->pick_slots[slot].state == PICK_SLOT_POSTED &&
           d->pick_slots[slot].generation == d->done_generation[slot];
}

static uint32_t n_returned_at(const struct device *d, uint32_t l)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < d->n_slots; i++)
        n += d->pick_slots[i].layer == l && has_returned(d, i);
    return n;
}

/* A funded wait: until `want` jobs of the layer are back, or all, or the time is spent. */
static void wait_for_jobs(struct device *d, const struct device_pick *pick, uint32_t l)
{
    struct exchange *x = d->config.exchange;
    uint32_t want = pick->want < d->n_jobs_at[l] ? pick->want : d->n_jobs_at[l];
    uint64_t until = d->clock->device_ns + pick->wait_ns;

    while (n_returned_at(d, l) < want && d->clock->device_ns < until) {
        uint64_t next = exchange_sim_next_ns(x);
        d->clock->device_ns = next < until ? next : until;
        x->ops->poll_done(x, d->done_generation);
    }
}

static void take(struct device *d, struct sim_sweep *s, const struct device_sweep *in, uint32_t l,
                 uint32_t slot_idx)
{
    struct exchange *x = d->config.exchange;
    struct sim_slot *slot = &d->slots[slot_idx];
    bool ridden = d->pick_slots[slot_idx].age == in->seq;
    int rc = x->ops->take(x, slot_idx, d->pick_slots[slot_idx].generation);

    invariant(rc == 0); /* a simulated worker computes every job */
    forget_job(d, slot_idx);
    d->active[d->n_active++] = slot_idx;
    d->n_active_rows += slot->n_q;
    d->p_left -= slot->n_q;
    slot->n_ridden += ridden;
    slot->n_parked += !ridden;
    s->layers[l].n_ridden = (uint16_t)(s->layers[l].n_ridden + ridden);
}

static uint32_t rows_allowed(const struct device *d, const struct device_pick *pick)
{
    uint32_t n = d->p_left < d->config.returned_rows_max ? d->p_left : d->config.returned_rows_max;

    return pick->p_max < n ? pick->p_max : n;
}

void sim_slots_pick(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l)
{
    struct exchange *x = d->config.exchange;
    struct device_layer_log *log = &s->layers[l];
    uint64_t from = d->clock->device_ns;
    uint32_t n = 0;

    log->first = l == 0 ? 0 : s->layers[l - 1].first + s->layers[l - 1].n_picked;
    log->n_ridden = 0;
    if (d->n_jobs_at[l] > 0) {
        x->ops->poll_done(x, d->done_generation);
        if (in->pick[l].wait_ns > 0)
            wait_for_jobs(d, &in->pick[l], l);
        n = pick_rows(d->pick_slots, d->n_slots, l, d->done_generation, 1,
                      in->no_riding ? in->seq - 1 : UINT64_MAX, rows_allowed(d, &in->pick[l]),
                      s->picked + log->first);
    }
    log->waited_ns = d->clock->device_ns - from;
    log->n_picked = (uint16_t)n;
    for (uint32_t i = 0; i < n; i++)
        take(d, s, in, l, s->picked[log->first + i]);
    d->clock->device_ns += (uint64_t)(d->timing->take_ns * d->n_active_rows);
}

uint32_t sim_slots_n_returned(struct device *d, struct device_offloaded *rows)
{
    uint32_t n = 0;

    memset(rows, 0, sizeof *rows);
    if (d->n_jobs_out == 0)
        return 0;
    d->config.exchange->ops->poll_done(d->config.exchange, d->done_generation);
    for (uint32_t i = 0; i < d->n_slots; i++) {
        bool back = has_returned(d, i);

        if (d->pick_slots[i].state != PICK_SLOT_POSTED)
            continue;
        n += back;
        (back ? rows->back : rows->out)[d->pick_slots[i].layer]++;
    }
    return n;
}
