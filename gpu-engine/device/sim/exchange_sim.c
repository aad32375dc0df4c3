#include "gpu-engine/device/sim/exchange_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/sched/job_order.h"

/* A job on its way to a worker, or an output on its way back; a slot has one of them at most. */
struct transit {
    uint64_t visible_ns;
    struct job_order_item item;
};

struct transit_queue { /* first in first out: a link keeps the order */
    struct transit *ring;
    uint32_t cap, head, n;
};

struct sim_worker {
    struct sim_worker_timing timing;
    struct job_order order;
    struct transit_queue coming, going;
    uint64_t free_ns;                 /* its last job ends */
    uint64_t awake_ns;                /* it has been roused, and is up from then on */
    uint64_t out_ns, back_ns;         /* its link is free for jobs, each direction */
    uint64_t copy_out_ns, copy_in_ns; /* the same for copies */
    uint64_t busy_ns, n_jobs;
};

struct exchange_sim {
    struct exchange base; /* first */
    const struct sim_clock *clock;
    struct kv_geometry geometry;
    uint32_t payload_value_bytes;
    bool no_deadlines;
    uint32_t *posted, *done; /* [n_slots] generations */
    uint32_t *news;          /* [n_slots] slots whose done changed since the last poll ... */
    uint32_t n_news;         /* more than slots: the list is too short */
    const uint32_t *told;    /* ... which filled this array */
    uint32_t token_bytes[KV_LAYERS_MAX];
    uint32_t block_bytes;
    struct sim_worker worker[LATENCY_WORKERS_MAX];
};

static struct exchange_sim *sim_of(struct exchange *x)
{
    return (struct exchange_sim *)x;
}

/* ---- Links ----------------------------------------------------------------------------------- */

static void queue_push(struct transit_queue *q, const struct transit *t)
{
    invariant(q->n < q->cap);
    q->ring[(q->head + q->n++) % q->cap] = *t;
}

static const struct transit *queue_first(const struct transit_queue *q)
{
    return q->n > 0 ? &q->ring[q->head] : NULL;
}

static void queue_drop(struct transit_queue *q)
{
    q->head = (q->head + 1) % q->cap;
    q->n--;
}

/* When bytes that leave at `at` are on the other side. */
static uint64_t pass_link(const struct sim_worker_timing *w, uint64_t *link_ns, uint64_t at,
                          double bytes)
{
    if (w->net_bytes_per_ns <= 0)
        return at;
    uint64_t from = *link_ns > at ? *link_ns : at;
    *link_ns = from + (uint64_t)(bytes / w->net_bytes_per_ns);
    return *link_ns + (uint64_t)w->hop_ns;
}

static double payload_bytes(const struct exchange_sim *x, const struct job *job, int outputs)
{
    const struct kv_layer *l = &x->geometry.layer[job->layer];
    uint32_t width = outputs ? kv_layer_out_width(l)
                             : kv_layer_q_width(l) + kv_layer_k_width(l) + kv_layer_v_width(l);

    return (double)width * job->n_q * x->payload_value_bytes;
}

/* ---- A worker -------------------------------------------------------------------------------- */

static uint64_t job_ns(const struct exchange_sim *x, const struct sim_worker *w,
                       const struct job *job)
{
    const struct kv_layer *l = &x->geometry.layer[job->layer];
    uint32_t n = job->ctx_len;

    if (l->window != 0 && n > l->window + l->n_sinks)
        n = l->window + l->n_sinks;
    double bytes = (double)n * x->token_bytes[job->layer];
    return (uint64_t)(w->timing.fixed_ns + bytes / w->timing.bytes_per_ns);
}

/* The jobs that have reached it by then. */
static void take_coming(struct sim_worker *w, uint64_t by_ns)
{
    const struct transit *t;

    while ((t = queue_first(&w->coming)) != NULL && t->visible_ns <= by_ns) {
        bool pushed = job_order_push(&w->order, &t->item);
        invariant(pushed);
        queue_drop(&w->coming);
    }
}

/* When an idle worker takes what it sees at at_ns: at once while it spins, else when it is up. */
static uint64_t up_at(const struct sim_worker *w, uint64_t at_ns)
{
    uint64_t last = w->awake_ns > w->free_ns ? w->awake_ns : w->free_ns;
    bool asleep = at_ns > last + (uint64_t)w->timing.spin_ns;

    if (asleep)
        return at_ns + (uint64_t)w->timing.wake_ns;
    return at_ns > last ? at_ns : last;
}

/* When it will take its next job; NEVER: there is none. */
static uint64_t next_start(const struct sim_worker *w)
{
    const struct transit *first = queue_first(&w->coming);

    if (w->order.n > 0)
        return w->free_ns;
    return first != NULL ? up_at(w, first->visible_ns) : EXCHANGE_SIM_NEVER;
}

static void run_next(struct exchange_sim *x, struct sim_worker *w, uint64_t start_ns)
{
    struct transit back;

    take_coming(w, start_ns);
    bool popped = job_order_pop(&w->order, start_ns, &back.item);
    invariant(popped);
    uint64_t ns = job_ns(x, w, &back.item.job);
    w->free_ns = start_ns + ns;
    w->busy_ns += ns;
    w->n_jobs++;
    back.visible_ns =
        pass_link(&w->timing, &w->back_ns, w->free_ns, payload_bytes(x, &back.item.job, 1));
    queue_push(&w->going, &back);
}

/* All that it begins by then, and all outputs that are there by then. */
static void advance(struct exchange_sim *x, struct sim_worker *w, uint64_t by_ns)
{
    const struct transit *t;
    uint64_t start;

    while ((start = next_start(w)) <= by_ns)
        run_next(x, w, start);
    while ((t = queue_first(&w->going)) != NULL && t->visible_ns <= by_ns) {
        x->done[t->item.job.slot] = t->item.job.generation;
        if (x->n_news < exchange_n_slots(&x->base))
            x->news[x->n_news] = t->item.job.slot;
        x->n_news++;
        queue_drop(&w->going);
    }
}

/* ---- exchange_ops ---------------------------------------------------------------------------- */

static struct sim_worker *worker_of_slot(struct exchange_sim *x, uint32_t slot)
{
    return &x->worker[slot / x->base.slots_per_worker];
}

static void sim_payload(struct exchange *x, uint32_t slot, struct exchange_payload *out)
{
    (void)x;
    (void)slot;
    memset(out, 0, sizeof *out);
}

static int sim_post(struct exchange *base, const struct exchange_job *job, uint32_t *generation)
{
    struct exchange_sim *x = sim_of(base);
    struct sim_worker *w = worker_of_slot(x, job->slot);
    uint64_t now = x->clock->device_ns;
    struct transit t = {.item.job = {.slot = job->slot,
                                     .generation = ++x->posted[job->slot],
                                     .layer = job->layer,
                                     .n_q = job->n_q,
                                     .pos = job->pos,
                                     .ctx_len = job->pos + job->n_q,
                                     .deadline_ns = x->no_deadlines ? 0 : job->deadline_ns,
                                     .posted_ns = now,
                                     .sweep = job->sweep}};

    /* Only what it began before: jobs of one flush reach it together. */
    if (now > 0)
        advance(x, w, now - 1);
    t.visible_ns = pass_link(&w->timing, &w->out_ns, now, payload_bytes(x, &t.item.job, 0));
    t.item.predicted_ns = job_ns(x, w, &t.item.job) + (uint64_t)w->timing.hop_ns;
    queue_push(&w->coming, &t);
    *generation = t.item.job.generation;
    return 0;
}

static void sim_nothing(struct exchange *x)
{
    (void)x;
}

static void sim_rouse(struct exchange *base, uint32_t worker)
{
    struct exchange_sim *x = sim_of(base);
    struct sim_worker *w = &x->worker[worker];
    uint64_t now = x->clock->device_ns;

    if (w->timing.wake_ns <= 0)
        return;
    if (now > 0)
        advance(x, w, now - 1);
    if (w->order.n == 0 && w->coming.n == 0 && now >= w->free_ns)
        w->awake_ns = up_at(w, now);
}

static void sim_poll_done(struct exchange *base, uint32_t *done)
{
    struct exchange_sim *x = sim_of(base);

    for (uint32_t w = 0; w < base->n_workers; w++)
        advance(x, &x->worker[w], x->clock->device_ns);
    if (done != x->told || x->n_news > exchange_n_slots(base)) {
        memcpy(done, x->done, exchange_n_slots(base) * sizeof *done);
    } else {
        for (uint32_t i = 0; i < x->n_news; i++)
            done[x->news[i]] = x->done[x->news[i]];
    }
    x->told = done;
    x->n_news = 0;
}

static int sim_take(struct exchange *x, uint32_t slot, uint32_t generation)
{
    invariant(sim_of(x)->done[slot] == generation);
    return 0;
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* There is no memory: an address that is not NULL. */
static void *sim_staging(struct exchange *base, uint32_t worker, uint32_t block)
{
    invariant(block < base->ops->n_blocks(base, worker));
    return sim_of(base);
}

/* On this host staging is the arena.  To another one the blocks share its link with the jobs, which
 * are small and go between: the copies get what one half of the link carries. */
static int copy(struct exchange_sim *x, uint32_t worker, uint64_t *link_ns, uint32_t n,
                uint64_t *ticket)
{
    const struct sim_worker_timing *w = &x->worker[worker].timing;
    uint64_t now = x->clock->now_ns, from = *link_ns > now ? *link_ns : now;

    if (w->net_bytes_per_ns <= 0)
        return 1;
    *link_ns = from + (uint64_t)(2.0 * n * x->block_bytes / w->net_bytes_per_ns);
    *ticket = *link_ns + (uint64_t)w->hop_ns;
    return 0;
}

static int sim_copy_out(struct exchange *base, uint32_t worker, const uint32_t *blocks, uint32_t n,
                        uint64_t *ticket)
{
    struct exchange_sim *x = sim_of(base);

    (void)blocks;
    return copy(x, worker, &x->worker[worker].copy_out_ns, n, ticket);
}

static int sim_copy_in(struct exchange *base, uint32_t worker, const uint32_t *blocks, uint32_t n,
                       uint64_t *ticket)
{
    struct exchange_sim *x = sim_of(base);

    (void)blocks;
    return copy(x, worker, &x->worker[worker].copy_in_ns, n, ticket);
}

/* A ticket is the time at which the copy ends. */
static int sim_copy_done(struct exchange *base, uint64_t ticket)
{
    return ticket <= sim_of(base)->clock->now_ns;
}

/* ---- The rest -------------------------------------------------------------------------------- */

static enum exchange_peer sim_peer(struct exchange *x, uint32_t worker)
{
    (void)x;
    (void)worker;
    return EXCHANGE_PEER_ALIVE;
}

static int sim_slot_release(struct exchange *base, uint32_t slot)
{
    struct exchange_sim *x = sim_of(base);

    advance(x, worker_of_slot(x, slot), x->clock->now_ns);
    return x->posted[slot] == x->done[slot];
}

static uint32_t sim_n_blocks(struct exchange *base, uint32_t worker)
{
    const struct exchange_sim *x = sim_of(base);

    return (uint32_t)(x->worker[worker].timing.arena_bytes / x->block_bytes);
}

static void sim_set_owner(struct exchange *x, uint32_t worker, uint32_t block, uint32_t seq_idx,
                          uint32_t seq_generation)
{
    (void)x;
    (void)worker;
    (void)block;
    (void)seq_idx;
    (void)seq_generation;
}

static void sim_beat(struct exchange *x, uint64_t now_ns, uint64_t progress)
{
    (void)x;
    (void)now_ns;
    (void)progress;
}

static void sim_destroy(struct exchange *base)
{
    struct exchange_sim *x = sim_of(base);

    for (uint32_t w = 0; w < base->n_workers; w++) {
        job_order_fini(&x->worker[w].order);
        free(x->worker[w].coming.ring);
        free(x->worker[w].going.ring);
    }
    free(x->posted);
    free(x->done);
    free(x->news);
    free(x);
}

/* Device and arena are one step apart: the device's copy is the whole way. */

static const struct exchange_ops sim_ops = {
    .name = "sim",
    .payload = sim_payload,
    .post = sim_post,
    .flush = sim_nothing,
    .rouse = sim_rouse,
    .poll_done = sim_poll_done,
    .take = sim_take,
    .staging = sim_staging,
    .copy_out = sim_copy_out,
    .copy_in = sim_copy_in,
    .copy_done = sim_copy_done,
    .peer = sim_peer,
    .slot_release = sim_slot_release,
    .n_blocks = sim_n_blocks,
    .set_owner = sim_set_owner,
    .beat = sim_beat,
    .drain = sim_nothing,
    .destroy = sim_destroy,
};

/* ---- Life ------------------------------------------------------------------------------------ */

static int init_worker(struct sim_worker *w, const struct sim_worker_timing *timing, uint32_t slots)
{
    w->timing = *timing;
    w->coming.cap = w->going.cap = slots;
    w->coming.ring = calloc(slots, sizeof *w->coming.ring);
    w->going.ring = calloc(slots, sizeof *w->going.ring);
    int rc = job_order_init(&w->order, slots);
    return w->coming.ring == NULL || w->going.ring == NULL ? -ENOMEM : rc;
}

int exchange_sim_create(struct exchange **out, const struct sim_timing *timing,
                        const struct kv_geometry *geometry, const struct sim_clock *clock,
                        uint32_t slots_per_worker)
{
    struct exchange_sim *x = calloc(1, sizeof *x);
    int rc = 0;

    if (x == NULL)
        return -ENOMEM;
    x->base = (struct exchange){.ops = &sim_ops,
                                .n_workers = timing->n_workers,
                                .slots_per_worker = slots_per_worker,
                                .n_q_max = 1};
    x->clock = clock;
    x->geometry = *geometry;
    x->payload_value_bytes = timing->payload_value_bytes;
    x->no_deadlines = timing->no_deadlines;
    x->block_bytes = geometry->block_bytes;
    for (uint32_t l = 0; l < geometry->n_layers; l++)
        x->token_bytes[l] = geometry_layer_token_bytes(geometry, l);
    x->posted = calloc(exchange_n_slots(&x->base) + 1, sizeof *x->posted);
    x->done = calloc(exchange_n_slots(&x->base) + 1, sizeof *x->done);
    x->news = calloc(exchange_n_slots(&x->base) + 1, sizeof *x->news);
    if (x->posted == NULL || x->done == NULL || x->news == NULL)
        rc = -ENOMEM;
    for (uint32_t w = 0; w < timing->n_workers && rc == 0; w++)
        rc = init_worker(&x->worker[w], &timing->worker[w], slots_per_worker);
    if (rc != 0) {
        sim_destroy(&x->base);
        return rc;
    }
    *out = &x->base;
    return 0;
}

uint64_t exchange_sim_next_ns(struct exchange *base)
{
    const struct exchange_sim *x = sim_of(base);
    uint64_t next = EXCHANGE_SIM_NEVER;

    for (uint32_t w = 0; w < base->n_workers; w++) {
        const struct transit *first = queue_first(&x->worker[w].going);
        uint64_t at = first != NULL ? first->visible_ns : next_start(&x->worker[w]);
        next = at < next ? at : next;
    }
    return next;
}

uint64_t exchange_sim_busy_ns(const struct exchange *base, uint32_t worker, uint64_t *n_jobs)
{
    const struct exchange_sim *x = (const struct exchange_sim *)base;

    *n_jobs = x->worker[worker].n_jobs;
    return x->worker[worker].busy_ns;
}
