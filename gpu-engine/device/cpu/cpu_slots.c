/* Offloaded rows on the cpu device: entering, posting jobs, picking returned ones. */
#include <errno.h>
#include <string.h>

#include "common/base/invariant.h"
#include "gpu-engine/device/cpu/cpu_device.h"

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

static void slot_fill(struct device *d, const struct device_enter *e)
{
    struct cpu_slot *slot = &d->slots[e->slot];
    uint32_t n_groups = d->geometry->n_groups;

    slot->occupied = true;
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
        float *x = cpu_slot_residual(d, e->slot);

        invariant(d->pick_slots[e->slot].state == PICK_SLOT_FREE);
        slot_fill(d, e);
        for (uint32_t q = 0; q < e->n_q; q++)
            model_embed_ref(d->weights->model, e->tokens[q], x + (size_t)q * d->buffers.n_embd);
        cpu_part_add(d, e->slot | DEVICE_TOKEN_OFFLOADED, e->pos, e->n_q, x);
    }
}

void cpu_slots_rouse(struct device *d, const struct cpu_sweep *s)
{
    struct exchange *x = d->config.exchange;
    uint64_t workers = 0;

    if (s->in.n_enter == 0 && d->n_jobs_out == 0)
        return;
    for (uint32_t i = 0; i < s->in.n_enter; i++)
        workers |= UINT64_C(1) << s->in.enter[i].slot / x->slots_per_worker;
    for (uint32_t i = 0; i < d->n_slots; i++) {
        if (d->pick_slots[i].state == PICK_SLOT_POSTED)
            workers |= UINT64_C(1) << i / x->slots_per_worker;
    }
    for (uint32_t w = 0; w < x->n_workers; w++) {
        if ((workers >> w & 1) != 0)
            exchange_rouse(x, w);
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

static void post_part(struct device *d, struct cpu_sweep *s, const struct cpu_part *part,
                      uint32_t l)
{
    const struct kv_layer *layer = &d->geometry->layer[l];
    const struct cpu_buffers *b = &d->buffers;
    struct exchange *x = d->config.exchange;
    uint32_t slot_idx = part->source & ~DEVICE_TOKEN_OFFLOADED;
    struct cpu_slot *slot = &d->slots[slot_idx];
    struct exchange_payload to;
    uint32_t generation;
    struct exchange_job job = {
        .slot = slot_idx,
        .seq_idx = slot->seq_idx,
        .seq_generation = slot->seq_generation,
        .layer = l,
        .n_q = slot->n_q,
        .pos = slot->pos,
        .deadline_ns = s->done.start_ns + s->arrivals[l],
        .sweep = s->in.seq,
    };

    x->ops->payload(x, slot_idx, &to);
    copy_rows(to.q, to.q_stride, b->q + (size_t)part->first * b->q_width, b->q_width, slot->n_q,
              kv_layer_q_width(layer));
    copy_rows(to.k, to.k_stride, b->k + (size_t)part->first * b->k_width, b->k_width, slot->n_q,
              kv_layer_k_width(layer));
    copy_rows(to.v, to.v_stride, b->v + (size_t)part->first * b->v_width, b->v_width, slot->n_q,
              kv_layer_v_width(layer));
    if (x->ops->post(x, &job, &generation) != 0) {
        void_token(s, part->source);
        return;
    }
    d->pick_slots[slot_idx] = (struct pick_slot){.generation = generation,
                                                 .layer = l,
                                                 .age = s->in.seq,
                                                 .state = PICK_SLOT_POSTED,
                                                 .n_q = (uint16_t)slot->n_q};
    d->n_jobs_out++;
    s->done.n_posted++;
}

/* Moves a part that stays in the batch down over the rows of parts that left. */
static void part_move(struct device *d, struct cpu_part *part, uint32_t first)
{
    struct cpu_buffers *b = &d->buffers;

    for (uint32_t i = 0; i < part->n_rows && first != part->first; i++) {
        uint32_t from = part->first + i, to = first + i;
        d->rows.x[to] = d->rows.x[from];
        d->rows.pos[to] = d->rows.pos[from];
        memmove(b->q + (size_t)to * b->q_width, b->q + (size_t)from * b->q_width,
                b->q_width * sizeof(float));
        memmove(b->k + (size_t)to * b->k_width, b->k + (size_t)from * b->k_width,
                b->k_width * sizeof(float));
        memmove(b->v + (size_t)to * b->v_width, b->v + (size_t)from * b->v_width,
                b->v_width * sizeof(float));
    }
    part->first = first;
}

void cpu_slots_post(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    uint32_t group = d->geometry->layer[l].group;
    uint32_t n_parts = d->n_common_parts, n_posted = 0;

    if (d->n_parts == d->n_common_parts)
        return;
    uint32_t n_rows = d->parts[d->n_common_parts].first;
    for (uint32_t i = d->n_common_parts; i < d->n_parts; i++) {
        struct cpu_part part = d->parts[i];
        if (group_in_arena(&d->slots[part.source & ~DEVICE_TOKEN_OFFLOADED], group)) {
            post_part(d, s, &part, l);
            n_posted++;
            continue;
        }
        part_move(d, &part, n_rows);
        n_rows += part.n_rows;
        d->parts[n_parts++] = part;
    }
    d->n_parts = n_parts;
    d->rows.n = n_rows;
    if (n_posted > 0)
        d->config.exchange->ops->flush(d->config.exchange);
}

/* ---- Picking --------------------------------------------------------------------------------- */

static void take_slot(struct device *d, struct cpu_sweep *s, uint32_t l, uint32_t slot_idx)
{
    struct exchange *x = d->config.exchange;
    struct pick_slot *state = &d->pick_slots[slot_idx];
    struct cpu_slot *slot = &d->slots[slot_idx];
    struct exchange_payload from;
    bool ridden = state->age == s->in.seq;
    uint32_t part = cpu_part_add(d, slot_idx | DEVICE_TOKEN_OFFLOADED, slot->pos, slot->n_q,
                                 cpu_slot_residual(d, slot_idx));

    x->ops->payload(x, slot_idx, &from);
    copy_rows(d->buffers.a + (size_t)d->parts[part].first * d->buffers.a_width, d->buffers.a_width,
              from.out, from.out_stride, slot->n_q, kv_layer_out_width(&d->geometry->layer[l]));
    int rc = x->ops->take(x, slot_idx, state->generation);
    slot->error = slot->error != 0 ? slot->error : rc;
    state->state = PICK_SLOT_FREE;
    d->n_jobs_out--;
    slot->n_ridden += ridden;
    slot->n_parked += !ridden;
    s->layers[l].n_ridden = (uint16_t)(s->layers[l].n_ridden + ridden);
}

/* Rows that may still join: those whose layer is on the device have stayed, and count too. */
static uint32_t room(const struct device *d, uint32_t p_max)
{
    uint32_t n_stayed =
        d->n_parts > d->n_common_parts ? d->rows.n - d->parts[d->n_common_parts].first : 0;
    uint32_t n = d->config.returned_rows_max - n_stayed;

    return p_max < n ? p_max : n;
}

void cpu_slots_pick(struct device *d, struct cpu_sweep *s, uint32_t l)
{
    struct exchange *x = d->config.exchange;
    struct device_layer_log *log = &s->layers[l];
    uint32_t n = 0;

    log->first = l == 0 ? 0 : s->layers[l - 1].first + s->layers[l - 1].n_picked;
    log->n_ridden = 0;
    log->waited_ns = 0;
    if (d->n_jobs_out > 0) {
        x->ops->poll_done(x, d->done_generation);
        uint32_t p_max = room(d, s->picks[l].p_max);
        n = pick_rows(d->pick_slots, d->n_slots, l, d->done_generation, 1,
                      s->in.no_riding ? s->in.seq - 1 : UINT64_MAX,
                      p_max < d->p_left ? p_max : d->p_left, s->picked + log->first);
    }
    log->n_picked = (uint16_t)n;
    d->p_left -= n < d->p_left ? n : d->p_left;
    for (uint32_t i = 0; i < n; i++)
        take_slot(d, s, l, s->picked[log->first + i]);
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
