#include "gpu-engine/device/cuda/cuda_slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "common/shm/layout_jobs.h"
#include "gpu-engine/device/cuda/cuda_device.h"
#include "gpu-engine/exchange_memory.h"

enum { LOOK_US = 20 }; /* a futex wake takes twice that */

/* ---- Announcing: the hint thread ----------------------------------------------------------------- */

/* A3: acquire, pairs with R3 in rotary_write: the slot's word says POSTED. */
static uint32_t posted_load(const struct cuda_slots *s, uint32_t slot)
{
    return __atomic_load_n(&s->posted[slot], __ATOMIC_ACQUIRE);
}

/* Whether any job was new. */
static bool announce_new(struct cuda_slots *s)
{
    struct exchange *x = s->exchange;
    bool any = false;

    pthread_mutex_lock(&s->exchange_lock);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        uint32_t generation = posted_load(s, i);

        if (generation == s->announced[i])
            continue;
        s->announced[i] = generation;
        x->ops->announce(x, i, generation);
        any = true;
    }
    if (any)
        x->ops->flush(x);
    pthread_mutex_unlock(&s->exchange_lock);
    return any;
}

static void *hint_main(void *arg)
{
    struct cuda_slots *s = arg;

    pthread_mutex_lock(&s->lock);
    while (!s->stopping) {
        if (s->n_in_flight == 0) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        if (!announce_new(s) && s->spin_us == 0)
            clock_sleep_ns(LOOK_US * NS_PER_US);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void cuda_slots_sweep_begins(struct cuda_slots *s)
{
    pthread_mutex_lock(&s->lock);
    s->n_in_flight++;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void cuda_slots_sweep_ended(struct cuda_slots *s)
{
    announce_new(s); /* what the thread has not come to: nobody looks again before the next sweep */
    pthread_mutex_lock(&s->lock);
    invariant(s->n_in_flight > 0);
    s->n_in_flight--;
    pthread_mutex_unlock(&s->lock);
}

/* ---- Opening ------------------------------------------------------------------------------------- */

static enum job_element element_of(const struct device *d)
{
    return d->weights->type == KV_TYPE_BF16 ? JOB_ELEMENT_BF16 : JOB_ELEMENT_F16;
}

static void *on_device(void *base_host, void *base_device, const void *p)
{
    return (uint8_t *)base_device + ((const uint8_t *)p - (const uint8_t *)base_host);
}

/* Addresses of all workers, to be copied to the GPU. */
struct addresses {
    uint8_t *slots[64], *in[64], *out[64];
    const uint32_t *done[64];
};

static int pin_worker(struct device *d, uint32_t w, struct addresses *a)
{
    struct cuda_slots *s = &d->slots;
    struct exchange_memory m;
    void *base;

    s->exchange->ops->memory(s->exchange, w, &m);
    if (m.element != element_of(d)) {
        log_error("device_open",
                  "device=cuda reason=\"worker %u: jobs of element type %u, that of rows is %u\"",
                  w, m.element, (unsigned)element_of(d));
        return -ENOTSUP;
    }
    CUDA_TRY(cudaHostRegister(m.base, m.bytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
    s->registered[w] = m.base;
    CUDA_TRY(cudaHostGetDevicePointer(&base, m.base, 0));
    a->slots[w] = on_device(m.base, base, m.slots);
    a->in[w] = on_device(m.base, base, m.in);
    a->out[w] = on_device(m.base, base, m.out);
    a->done[w] = on_device(m.base, base, m.done);
    s->jobs = (struct cuda_jobs){.slots_per_worker = s->exchange->slots_per_worker,
                                 .in_stride = m.in_stride,
                                 .out_stride = m.out_stride,
                                 .k_off = m.k_off,
                                 .v_off = m.v_off,
                                 .q_width = m.q_width,
                                 .k_width = m.k_width,
                                 .v_width = m.v_width,
                                 .out_width = m.out_width,
                                 .epoch = m.epoch};
    return 0;
}

static int put_addresses(struct device *d, const struct addresses *a)
{
    struct cuda_slots *s = &d->slots;
    const void *from[] = {a->slots, a->in, a->out, a->done};
    const size_t bytes = s->n_workers * sizeof a->slots[0];
    void *to[4];

    for (int i = 0; i < 4; i++) {
        int rc = cuda_take_device(d, &to[i], s->n_workers, sizeof a->slots[0]);
        if (rc != 0)
            return rc;
        CUDA_TRY(cudaMemcpy(to[i], from[i], bytes, cudaMemcpyHostToDevice));
    }
    s->jobs.slots = to[0];
    s->jobs.in = to[1];
    s->jobs.out = to[2];
    s->done_words = to[3];
    return 0;
}

static int open_memory(struct device *d)
{
    struct cuda_slots *s = &d->slots;
    struct addresses a;
    void *posted;
    int rc = 0;

    for (uint32_t w = 0; w < s->n_workers && rc == 0; w++)
        rc = pin_worker(d, w, &a);
    if (rc == 0)
        rc = put_addresses(d, &a);
    if (rc == 0)
        rc = cuda_take_pinned(d, &s->posted, s->n_slots, sizeof *s->posted);
    if (rc != 0)
        return rc;
    CUDA_TRY(cudaHostGetDevicePointer(&posted, s->posted, 0));
    s->posted_device = posted;
    s->mirror = calloc(s->n_slots, sizeof *s->mirror);
    s->done = calloc(s->n_slots, sizeof *s->done);
    s->announced = calloc(s->n_slots, sizeof *s->announced);
    return s->mirror == NULL || s->done == NULL || s->announced == NULL ? -ENOMEM : 0;
}

/* Why this exchange, or this model, cannot be offloaded from a GPU; NULL: it can. */
static const char *refusal(const struct device *d)
{
    const struct exchange *x = d->config.exchange;

    if (x->ops->memory == NULL)
        return "its exchange's slots cannot be reached by a GPU";
    if (d->geometry->n_groups > 1)
        return "engine.layer_groups > 1: offloaded rows would stay in the batch";
    if (d->n_slots > PICK_STEP_SLOTS_MAX || d->config.returned_rows_max > PICK_STEP_ROWS_MAX)
        return "more job slots, or returned rows, than its pick step takes";
    if (x->n_workers > 64)
        return "more than 64 workers";
    return NULL;
}

int cuda_slots_open(struct device *d)
{
    struct cuda_slots *s = &d->slots;

    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->exchange_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    if (d->n_slots == 0)
        return 0;
    s->exchange = d->config.exchange;
    s->n_slots = d->n_slots;
    s->n_workers = s->exchange->n_workers;
    s->spin_us = d->config.spin_us;
    if (refusal(d) != NULL) {
        log_error("device_open", "device=cuda reason=\"%s\"", refusal(d));
        return -ENOTSUP;
    }
    int rc = open_memory(d);
    if (rc == 0)
        rc = -pthread_create(&s->thread, NULL, hint_main, s);
    s->thread_up = rc == 0;
    return rc;
}

void cuda_slots_close(struct device *d)
{
    struct cuda_slots *s = &d->slots;

    if (s->thread_up) {
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    for (uint32_t w = 0; w < s->n_workers; w++) {
        if (s->registered[w] != NULL)
            CUDA_NOTE(cudaHostUnregister(s->registered[w]));
    }
    free(s->mirror);
    free(s->done);
    free(s->announced);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->exchange_lock);
    pthread_cond_destroy(&s->work);
}

/* ---- The mirror ---------------------------------------------------------------------------------- */

uint32_t cuda_slots_next_generation(struct cuda_slots *s, uint32_t slot)
{
    return s->exchange->ops->generation(s->exchange, slot) + 1;
}

/* Its row is not under way any more. */
static void slot_forget(struct cuda_slots *s, uint32_t slot)
{
    s->mirror[slot].state.state = PICK_SLOT_FREE;
    s->n_jobs_out--;
    s->n_adjusts -= s->mirror[slot].adjusts;
}

void cuda_slots_leave(struct cuda_slots *s, uint32_t slot)
{
    const struct pick_slot *state = &s->mirror[slot].state;

    if (state->state == PICK_SLOT_POSTED)
        slot_forget(s, slot);
}

void cuda_slots_enter(struct cuda_slots *s, const struct device_enter *e, uint32_t generation,
                      uint64_t sweep)
{
    struct cuda_slot *slot = &s->mirror[e->slot];

    invariant(slot->state.state == PICK_SLOT_FREE);
    *slot = (struct cuda_slot){.state = {.generation = generation,
                                         .age = sweep,
                                         .state = PICK_SLOT_POSTED,
                                         .n_q = (uint16_t)e->n_q},
                               .adjusts = e->sampling.adjust != NULL};
    if (slot->adjusts)
        slot->n_top = e->sampling.adjust->n_top;
    s->n_jobs_out++;
    s->n_adjusts += slot->adjusts;
    exchange_rouse(s->exchange, e->slot / s->exchange->slots_per_worker);
}

/* The token is through: the slot's last job is taken, so that it is free for the next. */
static void slot_end(struct cuda_slots *s, uint32_t slot, uint32_t generation)
{
    struct exchange *x = s->exchange;

    pthread_mutex_lock(&s->exchange_lock);
    int rc = x->ops->take(x, slot, generation);
    pthread_mutex_unlock(&s->exchange_lock);
    if (rc != 0)
        s->mirror[slot].error = rc;
    slot_forget(s, slot);
}

bool cuda_slots_picked(struct cuda_slots *s, uint32_t slot, uint64_t sweep, bool failed,
                       bool is_last)
{
    struct cuda_slot *m = &s->mirror[slot];
    bool ridden = m->state.age == sweep;

    if (m->state.state != PICK_SLOT_POSTED)
        return ridden; /* it has left meanwhile: its row went on in a sweep that was under way */
    m->n_ridden += ridden;
    m->n_parked += !ridden;
    if (failed)
        m->error = -EIO;
    if (is_last)
        slot_end(s, slot, m->state.generation);
    m->state.generation++;
    m->state.layer++;
    m->state.age = sweep;
    return ridden;
}

uint32_t cuda_slots_n_returned(struct cuda_slots *s, struct device_offloaded *rows)
{
    uint32_t n = 0;

    if (s->n_jobs_out == 0)
        return 0;
    s->exchange->ops->poll_done(s->exchange, s->done);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const struct pick_slot *slot = &s->mirror[i].state;
        bool back = slot->generation == s->done[i];

        if (slot->state != PICK_SLOT_POSTED)
            continue;
        n += back;
        (back ? rows->back : rows->out)[slot->layer]++;
    }
    return n;
}
