/* Offloaded rows on the cpu device: entering, posting jobs, picking returned ones. */
#include <errno.h>
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/cpu/cpu_device.h"
#include "gpu-engine/device/deadline.h"

static bool group_in_arena(const struct cpu_slot *slot, uint32_t group)
{
    return (slot->arena_groups >> group & 1) != 0;
}

/* ---- Leaving and entering -------------------------------------------------------------------- */

void cpu_slots_leave(struct device *d, const uint32_t *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (d->pick_slots[slots[i]].state == PICK_SLOT_POSTED)
            d->n_jobs_out--;
        d->pick_slots[slots[i]].state = PICK_SLOT_FREE;
        d->slots[slots[i]].occupied = false;
    }
}

static void slot_fill(struct device *d, const struct device_enter *e, uint32_t batch)
{
    struct cpu_slot *slot = &d->slots[e->slot];
    uint32_t n_groups = d->geometry->n_groups;

    slot->occupied = true;
    slot->batch = batch;
    slot->n_q = e->n_q;
    slot->pos = e->pos;
    slot->seq_idx = e->seq_idx;
    slot->seq_generation = e->seq_generation;
    slot->arena_groups = e->arena_groups;
    slot->sampling = e->sampling;
    slot->n_ridden = slot->n_parked = 0;
    slot->error = 0;
    for (uint32_t g = 0; e->tables != NULL && g < n_groups; g++)
        memcpy(slot->tables + (size_t)g * d->table_max, e->tables + (size_t)g * e->table_stride,
               e->table_stride * sizeof *slot->tables);
}

void cpu_slots_enter(struct device *d, struct cpu_sweep *s)
{
    for (uint32_t i = 0; i < s->in.n_enter; i++) {
        const struct device_enter *e = &s->in.enter[i];
        uint32_t batch = i >= s->in.n_enter - s->in.n_enter_b;
        float *x = cpu_slot_residual(d, e->slot);

        invariant(d->pick_slots[e->slot].state == PICK_SLOT_FREE);
        slot_fill(d, e, batch);
        for (uint32_t q = 0; q < e->n_q; q++)
            model_embed_ref(d->weights->model, e->tokens[q], x + (size_t)q * d->buffers.n_embd);
        cpu_part_add(&d->batch[batch], e->slot | DEVICE_TOKEN_OFFLOADED, e->pos, e->n_q, x);
    }
}

/* ---- Posting --------------------------------------------------------------------------------- */

static void copy_rows(float *to, uint32_t to_stride, const float *from, uint32_t from_stride,
                      uint32_t n, uint32_t width)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * to_stride, from + (size_t)i * from_stride, width * sizeof *to);
}

/* The row's token will never come: its slot is not ours to use any more. */
static void void_token(struct cpu_sweep *s, uint32_t source)
{
    s->out[s->done.n_out++] = (struct device_token){.source = source, .error = -EIO};
}

/* KV bytes of a layer that the slot's job reads. */
static double job_bytes(const struct device *d, const struct cpu_slot *slot, uint32_t l)
{
    const struct kv_layer *layer = &d->geometry->layer[l];
    uint32_t n = slot->pos + slot->n_q;

    if (layer->window != 0 && n > layer->window + layer->n_sinks)
        n = layer->window + layer->n_sinks;
    return (double)n * geometry_layer_token_bytes(d->geometry, l);
}

static void predict_job(struct device *d, const struct cpu_sweep *s, uint32_t slot_idx, uint32_t l)
{
    const struct device_pace *pace = s->in.pace;
    uint32_t worker = slot_idx / d->config.exchange->slots_per_worker;
    double bytes = job_bytes(d, &d->slots[slot_idx], l);

    wait_posted(&d->waits, slot_idx, pace != NULL ? wait_job_ns(&pace[worker], bytes) : 0);
}

static void copy_payload(struct device *d, const struct cpu_buffers *b, const struct cpu_part *part,
                         uint32_t l)
{
    const struct kv_layer *layer = &d->geometry->layer[l];
    struct exchange *x = d->config.exchange;
    struct exchange_payload to;
    size_t first = part->first;

    x->ops->payload(x, part->source & ~DEVICE_TOKEN_OFFLOADED, &to);
    copy_rows(to.q, to.q_stride, b->q + first * b->q_width, b->q_width, part->n_rows,
              kv_layer_q_width(layer));
    copy_rows(to.k, to.k_stride, b->k + first * b->k_width, b->k_width, part->n_rows,
              kv_layer_k_width(layer));
    copy_rows(to.v, to.v_stride, b->v + first * b->v_width, b->v_width, part->n_rows,
              kv_layer_v_width(layer));
}

static void post_part(struct device *d, struct cpu_sweep *s, const struct cpu_batch *batch,
                      const struct cpu_part *part, uint32_t l)
{
    struct exchange *x = d->config.exchange;
    uint32_t slot_idx = part->source & ~DEVICE_TOKEN_OFFLOADED;
    struct cpu_slot *slot = &d->slots[slot_idx];
    uint32_t b = cpu_batch_index(d, batch), generation;
    struct exchange_job job = {
        .slot = slot_idx,
        .seq_idx = slot->seq_idx,
        .seq_generation = slot->seq_generation,
        .layer = l,
        .n_q = slot->n_q,
        .pos = slot->pos,
        .deadline_ns = deadline_ns(s->done.start_ns, s->layers, s->arrivals,
                                   b == 0 ? s->arrivals : s->arrivals_b, l),
        .sweep = s->in.seq,
    };

    copy_payload(d, &batch->buffers, part, l);
    if (x->ops->post(x, &job, &generation) != 0) {
        void_token(s, part->source);
        return;
    }
    d->pick_slots[slot_idx] = (struct pick_slot){.generation = generation,
                                                 .layer = l,
                                                 .age = s->in.seq,
                                                 .state = PICK_SLOT_POSTED,
                                                 .n_q = (uint16_t)slot->n_q,
                                                 .batch = slot->batch};
    predict_job(d, s, slot_idx, l);
    d->n_jobs_out++;
    s->done.n_posted++;
}

/* Moves a part that stays in the batch down over the rows of parts that left. */
static void part_move(struct cpu_batch *batch, struct cpu_part *part, uint32_t first)
{
    struct cpu_buffers *b = &batch->buffers;

    for (uint32_t i = 0; i < part->n_rows && first != part->first; i++) {
        uint32_t from = part->first + i, to = first + i;
        batch->rows.x[to] = batch->rows.x[from];
        batch->rows.pos[to] = batch->rows.pos[from];
        memmove(b->q + (size_t)to * b->q_width, b->q + (size_t)from * b->q_width,
                b->q_width * sizeof(float));
        memmove(b->k + (size_t)to * b->k_width, b->k + (size_t)from * b->k_width,
                b->k_width * sizeof(float));
        memmove(b->v + (size_t)to * b->v_width, b->v + (size_t)from * b->v_width,
                b->v_width * sizeof(float));
    }
    part->first = first;
}

static void flush_jobs(struct device *d, bool predicted)
{
    struct exchange *x = d->config.exchange;

    x->ops->flush(x);
    if (!predicted)
        return;
    x->ops->poll_done(x, d->done_generation);
    wait_flushed(&d->waits, d->pick_slots, d->done_generation, clock_now_ns());
}

void cpu_slots_post(struct device *d, struct cpu_sweep *s, struct cpu_batch *batch, uint32_t l)
{
    uint32_t group = d->geometry->layer[l].group;
    uint32_t n_parts = batch->n_common_parts, n_posted = 0;

    if (batch->n_parts == batch->n_common_parts)
        return;
    uint32_t n_rows = batch->parts[batch->n_common_parts].first;
    for (uint32_t i = batch->n_common_parts; i < batch->n_parts; i++) {
        struct cpu_part part = batch->parts[i];
        if (group_in_arena(&d->slots[part.source & ~DEVICE_TOKEN_OFFLOADED], group)) {
            post_part(d, s, batch, &part, l);
            n_posted++;
            continue;
        }
        part_move(batch, &part, n_rows);
        n_rows += part.n_rows;
        batch->parts[n_parts++] = part;
    }
    batch->n_parts = n_parts;
    batch->rows.n = n_rows;
    if (n_posted > 0)
        flush_jobs(d, s->in.pace != NULL);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

struct look {
    struct device *d;
    uint32_t layer, batches;
    uint32_t n_back; /* jobs of the layer that are back */
};

static uint32_t count_back(const struct look *k)
{
    const struct device *d = k->d;
    uint32_t n = 0;

    for (uint32_t i = 0; i < d->n_slots; i++) {
        const struct pick_slot *slot = &d->pick_slots[i];
        n += slot->state == PICK_SLOT_POSTED && slot->layer == k->layer &&
             (k->batches >> slot->batch & 1) != 0 && slot->generation == d->done_generation[i];
    }
    return n;
}

static bool another_is_back(void *arg)
{
    struct look *k = arg;
    struct exchange *x = k->d->config.exchange;

    x->ops->poll_done(x, k->d->done_generation);
    return count_back(k) != k->n_back;
}

/* Sleeps until enough jobs of the layer are back, none is hoped for, or the time is spent. */
static void wait_for_jobs(struct device *d, struct wait_ask *ask)
{
    struct look look = {.d = d, .layer = ask->layer, .batches = ask->batches};
    uint64_t until;

    while ((until = wait_until(ask)) > ask->now_ns) {
        const struct exchange_wait wait = {
            .enough = another_is_back,
            .arg = &look,
            .spin_until_ns =
                d->config.spin_us > 0 ? ask->now_ns + d->config.spin_us * NS_PER_US : 0,
            .until_ns = until};

        look.n_back = count_back(&look);
        exchange_await(d->config.exchange, &wait);
        ask->now_ns = clock_now_ns();
    }
}

static void fund_wait(struct device *d, struct cpu_sweep *s, uint32_t l, uint32_t batches)
{
    const struct device_pick *pick = &s->picks[l];
    uint64_t most = pick->wait_ns < d->wait_left_ns ? pick->wait_ns : d->wait_left_ns;
    uint64_t from = clock_now_ns(), cpu_ns = cpu_thread_ns();
    struct wait_ask ask = {.book = &d->waits,
                           .slots = d->pick_slots,
                           .done = d->done_generation,
                           .layer = l,
                           .batches = batches,
                           .age_max = s->in.no_riding ? s->in.seq - 1 : UINT64_MAX,
                           .want = pick->want,
                           .now_ns = from,
                           .end_ns = from + most};

    wait_for_jobs(d, &ask);
    uint64_t waited = ask.now_ns - from;
    d->wait_left_ns -= waited < d->wait_left_ns ? waited : d->wait_left_ns;
    d->waited_ns += waited;
    d->waited_cpu_ns += waited > 0 ? cpu_thread_ns() - cpu_ns : 0;
    s->layers[l].waited_ns += waited;
}

/* ---- Picking --------------------------------------------------------------------------------- */

static void take_slot(struct device *d, struct cpu_sweep *s, struct cpu_batch *batch, uint32_t l,
                      uint32_t slot_idx)
{
    struct exchange *x = d->config.exchange;
    struct pick_slot *state = &d->pick_slots[slot_idx];
    struct cpu_slot *slot = &d->slots[slot_idx];
    struct exchange_payload from;
    bool ridden = state->age == s->in.seq;
    uint32_t part = cpu_part_add(batch, slot_idx | DEVICE_TOKEN_OFFLOADED, slot->pos, slot->n_q,
                                 cpu_slot_residual(d, slot_idx));

    x->ops->payload(x, slot_idx, &from);
    copy_rows(batch->buffers.a + (size_t)batch->parts[part].first * d->buffers.a_width,
              d->buffers.a_width, from.out, from.out_stride, slot->n_q,
              kv_layer_out_width(&d->geometry->layer[l]));
    int rc = x->ops->take(x, slot_idx, state->generation);
    slot->error = slot->error != 0 ? slot->error : rc;
    state->state = PICK_SLOT_FREE;
    d->n_jobs_out--;
    slot->n_ridden += ridden;
    slot->n_parked += !ridden;
    s->layers[l].n_ridden = (uint16_t)(s->layers[l].n_ridden + ridden);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Rows that may still join: those whose layer is on the device have stayed, and count too. */
static uint32_t room(const struct device *d, const struct cpu_batch *b)
{
    uint32_t n_stayed =
        b->n_parts > b->n_common_parts ? b->rows.n - b->parts[b->n_common_parts].first : 0;
    uint32_t n = d->config.returned_rows_max - n_stayed;

    return smaller(smaller(n, d->layer_left), d->p_left);
}

void cpu_slots_pick(struct device *d, struct cpu_sweep *s, struct cpu_batch *batch, uint32_t l)
{
    struct exchange *x = d->config.exchange;
    struct device_layer_log *log = &s->layers[l];
    uint32_t first = log->first + log->n_picked;

    if (d->n_jobs_out == 0 || batch->picks_from == 0)
        return;
    x->ops->poll_done(x, d->done_generation);
    if (s->picks[l].wait_ns > 0 && d->wait_left_ns > 0)
        fund_wait(d, s, l, batch->picks_from);
    uint32_t n = pick_rows(d->pick_slots, d->n_slots, l, d->done_generation, 1,
                           s->in.no_riding ? s->in.seq - 1 : UINT64_MAX, batch->picks_from,
                           room(d, batch), s->picked + first);
    log->n_picked = (uint16_t)(log->n_picked + n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_rows = d->slots[s->picked[first + i]].n_q;

        d->p_left -= n_rows;
        d->layer_left -= n_rows;
        take_slot(d, s, batch, l, s->picked[first + i]);
    }
}

uint32_t cpu_slots_n_returned(struct device *d, struct device_offloaded *rows)
{
    uint32_t n = 0;

    if (d->n_jobs_out == 0)
        return 0;
    d->config.exchange->ops->poll_done(d->config.exchange, d->done_generation);
    for (uint32_t i = 0; i < d->n_slots; i++) {
        const struct pick_slot *slot = &d->pick_slots[i];
        bool back = slot->generation == d->done_generation[i];

        if (slot->state != PICK_SLOT_POSTED)
            continue;
        n += back;
        (back ? rows->back : rows->out)[slot->layer]++;
    }
    return n;
}
