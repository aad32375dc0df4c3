/* Offloaded rows on the simulated device: entering, posting jobs, picking returned ones. */
#include <errno.h>
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/deadline.h"
#include "gpu-engine/device/sim/sim_device.h"

/* ---- Leaving and entering -------------------------------------------------------------------- */

static void forget_job(struct device *d, uint32_t slot)
{
    uint32_t l = d->pick_slots[slot].layer, next = d->next_at[slot], before = d->before_at[slot];

    if (before == SIM_NO_SLOT)
        d->first_at[l] = next;
    else
        d->next_at[before] = next;
    if (next != SIM_NO_SLOT)
        d->before_at[next] = before;
    d->pick_slots[slot].state = PICK_SLOT_FREE;
    d->n_jobs_at[l]--;
    d->n_jobs_out--;
}

static void activate(struct device *d, uint32_t slot)
{
    struct sim_active *a = &d->active[d->slots[slot].half];

    a->slots[a->n++] = slot;
    a->n_rows += d->slots[slot].n_q;
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
    for (int h = 0; h < SIM_HALVES; h++)
        d->active[h].n = d->active[h].n_rows = 0;
    for (uint32_t i = 0; i < in->n_enter; i++) {
        const struct device_enter *e = &in->enter[i];

        invariant(d->pick_slots[e->slot].state == PICK_SLOT_FREE);
        d->slots[e->slot] = (struct sim_slot){.n_q = e->n_q,
                                              .pos = e->pos,
                                              .seq_idx = e->seq_idx,
                                              .seq_generation = e->seq_generation,
                                              .sampling = e->sampling,
                                              .half = i >= in->n_enter - in->n_enter_b};
        if (d->live != NULL)
            sim_live_enter(d->live, e);
        activate(d, e->slot);
    }
}

/* ---- Posting --------------------------------------------------------------------------------- */

/* The row's token will never come: its slot is not ours to use any more. */
static void void_token(struct sim_sweep *s, uint32_t slot_idx)
{
    s->out[s->done.n_out++] =
        (struct device_token){.source = slot_idx | DEVICE_TOKEN_OFFLOADED, .error = -EIO};
}

static void post(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                 uint32_t slot_idx, uint32_t l, uint64_t deadline_ns)
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

    if (d->live != NULL)
        sim_live_write_job(d->live, slot_idx, slot->n_q, l);
    if (x->ops->post(x, &job, &generation) != 0) {
        void_token(s, slot_idx);
        return;
    }
    d->pick_slots[slot_idx] = (struct pick_slot){.generation = generation,
                                                 .layer = l,
                                                 .age = in->seq,
                                                 .state = PICK_SLOT_POSTED,
                                                 .n_q = (uint16_t)slot->n_q};
    if (d->first_at[l] != SIM_NO_SLOT)
        d->before_at[d->first_at[l]] = slot_idx;
    d->before_at[slot_idx] = SIM_NO_SLOT;
    d->next_at[slot_idx] = d->first_at[l];
    d->first_at[l] = slot_idx;
    d->n_jobs_at[l]++;
    d->n_jobs_out++;
    s->done.n_posted++;
}

void sim_slots_post(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l, uint32_t half)
{
    struct sim_active *a = &d->active[half];
    const uint64_t *arrival_ns =
        half == 1 && in->arrival_b_ns != NULL ? in->arrival_b_ns : in->arrival_ns;

    if (a->n == 0)
        return;
    d->clock->device_ns += (uint64_t)(d->timing->post_ns * a->n_rows);
    uint64_t deadline = deadline_ns(s->done.start_ns, s->layers, in->arrival_ns, arrival_ns, l);
    for (uint32_t i = 0; i < a->n; i++)
        post(d, s, in, a->slots[i], l, deadline);
    d->config.exchange->ops->flush(d->config.exchange);
    a->n = a->n_rows = 0;
}

/* ---- Picking --------------------------------------------------------------------------------- */

static bool has_returned(const struct device *d, uint32_t slot)
{
    return d->pick_slots[slot].state == PICK_SLOT_POSTED &&
           d->pick_slots[slot].generation == d->done_generation[slot];
}

enum { BOTH_HALVES = 3 }; /* bits */

static bool is_of(const struct device *d, uint32_t slot, uint32_t halves)
{
    return (halves >> d->slots[slot].half & 1) != 0;
}

/* Jobs of the layer that are out or back, and those that are back. */
static uint32_t count_at(const struct device *d, uint32_t l, uint32_t halves, uint32_t *n_back)
{
    uint32_t n = 0;

    *n_back = 0;
    for (uint32_t i = d->first_at[l]; i != SIM_NO_SLOT; i = d->next_at[i]) {
        n += is_of(d, i, halves);
        *n_back += is_of(d, i, halves) && has_returned(d, i);
    }
    return n;
}

/* Until `want` jobs of the layer are back, or all, or the time is spent. */
static void wait_for_jobs(struct device *d, const struct device_pick *pick, uint32_t l,
                          uint32_t halves)
{
    struct exchange *x = d->config.exchange;
    uint64_t most = pick->wait_ns < d->wait_left_ns ? pick->wait_ns : d->wait_left_ns;
    uint64_t from = d->clock->device_ns, until = from + most;
    uint32_t n_back, n = count_at(d, l, halves, &n_back), want = pick->want < n ? pick->want : n;

    while (n_back < want && d->clock->device_ns < until) {
        uint64_t next = exchange_sim_next_ns(x);
        d->clock->device_ns = next < until ? next : until;
        x->ops->poll_done(x, d->done_generation);
        count_at(d, l, halves, &n_back);
    }
    d->wait_left_ns -= d->clock->device_ns - from;
}

static void take(struct device *d, struct sim_sweep *s, const struct device_sweep *in, uint32_t l,
                 uint32_t slot_idx)
{
    struct exchange *x = d->config.exchange;
    struct sim_slot *slot = &d->slots[slot_idx];
    bool ridden = d->pick_slots[slot_idx].age == in->seq;

    if (d->live != NULL)
        sim_live_read_job(d->live, slot_idx, slot->n_q, l);
    int rc = x->ops->take(x, slot_idx, d->pick_slots[slot_idx].generation);
    if (rc != 0)
        slot->error = rc;
    forget_job(d, slot_idx);
    activate(d, slot_idx);
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

static void log_begin(struct sim_sweep *s, uint32_t l)
{
    struct device_layer_log *log = &s->layers[l];

    log->first = l == 0 ? 0 : s->layers[l - 1].first + s->layers[l - 1].n_picked;
    log->n_picked = log->n_ridden = 0;
    log->waited_ns = 0;
}

/* The slots that picked names behind those that the layer has. */
static void take_all(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                     uint32_t l, uint32_t n, uint32_t half)
{
    struct device_layer_log *log = &s->layers[l];
    uint32_t first = log->first + log->n_picked, n_rows = 0;

    log->n_picked = (uint16_t)(log->n_picked + n);
    for (uint32_t i = 0; i < n; i++) {
        n_rows += d->slots[s->picked[first + i]].n_q;
        d->slots[s->picked[first + i]].half = half;
        take(d, s, in, l, s->picked[first + i]);
    }
    d->clock->device_ns += (uint64_t)(d->timing->take_ns * n_rows);
}

/* For ablation: what was posted last goes first.  A list begins with it. */
static uint32_t pick_newest(const struct device *d, const struct device_sweep *in, uint32_t l,
                            uint32_t *picked)
{
    uint32_t n = 0, most = rows_allowed(d, &in->pick[l]);

    for (uint32_t i = d->first_at[l]; i != SIM_NO_SLOT && n < most; i = d->next_at[i]) {
        if (has_returned(d, i) && !(in->no_riding && d->pick_slots[i].age == in->seq))
            picked[n++] = i;
    }
    return n;
}

void sim_slots_pick(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                    uint32_t l)
{
    struct exchange *x = d->config.exchange;
    struct device_layer_log *log = &s->layers[l];
    uint64_t from = d->clock->device_ns;
    uint32_t n = 0;

    log_begin(s, l);
    if (d->n_jobs_at[l] > 0) {
        x->ops->poll_done(x, d->done_generation);
        if (in->pick[l].wait_ns > 0 && d->live == NULL)
            wait_for_jobs(d, &in->pick[l], l, BOTH_HALVES);
        if (d->timing->newest_first)
            n = pick_newest(d, in, l, s->picked + log->first);
        else
            n = pick_rows(d->pick_slots, d->n_slots, l, d->done_generation, 1,
                          in->no_riding ? in->seq - 1 : UINT64_MAX, PICK_ANY_BATCH,
                          rows_allowed(d, &in->pick[l]), s->picked + log->first);
    }
    log->waited_ns = d->clock->device_ns - from;
    take_all(d, s, in, l, n, 0);
}

void sim_slots_pick_half(struct device *d, struct sim_sweep *s, const struct device_sweep *in,
                         uint32_t l, uint32_t half)
{
    struct exchange *x = d->config.exchange;
    uint64_t from = d->clock->device_ns;
    uint32_t n = 0, most = rows_allowed(d, &in->pick[l]);

    if (half == 1) /* it comes first */
        log_begin(s, l);
    else /* both share the room that a layer's log has */
        most -= most < s->layers[l].n_picked ? most : s->layers[l].n_picked;
    if (d->n_jobs_at[l] == 0)
        return;
    x->ops->poll_done(x, d->done_generation);
    if (in->pick[l].wait_ns > 0 && d->live == NULL)
        wait_for_jobs(d, &in->pick[l], l, 1u << half);
    s->layers[l].waited_ns += d->clock->device_ns - from;
    uint32_t *picked = s->picked + s->layers[l].first + s->layers[l].n_picked;
    for (uint32_t i = d->first_at[l]; i != SIM_NO_SLOT && n < most; i = d->next_at[i]) {
        if (is_of(d, i, 1u << half) && has_returned(d, i))
            picked[n++] = i;
    }
    take_all(d, s, in, l, n, half);
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
