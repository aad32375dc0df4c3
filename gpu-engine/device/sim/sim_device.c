/* The simulated device: device_ops in virtual time, or in a group in the machine's (sim_live.h). */
#include "gpu-engine/device/sim/sim_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "gpu-engine/device/sim/device_sim.h"

/* ---- Life ------------------------------------------------------------------------------------ */

static int alloc_sweep(struct device *d, struct sim_sweep *s)
{
    size_t picked = (size_t)d->n_layers * d->config.returned_rows_max + 1;

    s->layers = calloc(d->n_layers, sizeof *s->layers);
    s->picked = calloc(picked, sizeof *s->picked);
    s->out = calloc(d->config.seqs_max + d->n_slots + 1, sizeof *s->out);
    return s->layers == NULL || s->picked == NULL || s->out == NULL ? -ENOMEM : 0;
}

static int alloc_all(struct device *d)
{
    int rc = 0;

    d->slots = calloc(d->n_slots + 1, sizeof *d->slots);
    d->pick_slots = calloc(d->n_slots + 1, sizeof *d->pick_slots);
    d->done_generation = calloc(d->n_slots + 1, sizeof *d->done_generation);
    d->n_jobs_at = calloc(d->n_layers, sizeof *d->n_jobs_at);
    d->first_at = calloc(d->n_layers, sizeof *d->first_at);
    d->next_at = calloc(d->n_slots + 1, sizeof *d->next_at);
    d->before_at = calloc(d->n_slots + 1, sizeof *d->before_at);
    for (int h = 0; h < SIM_HALVES; h++)
        d->active[h].slots = calloc(d->n_slots + 1, sizeof *d->active[h].slots);
    d->copy_end_ns = calloc(d->config.copies_max, sizeof *d->copy_end_ns);
    if (d->slots == NULL || d->pick_slots == NULL || d->done_generation == NULL ||
        d->n_jobs_at == NULL || d->active[0].slots == NULL || d->active[1].slots == NULL ||
        d->first_at == NULL || d->next_at == NULL || d->before_at == NULL || d->copy_end_ns == NULL)
        return -ENOMEM;
    memset(d->first_at, 0xff, d->n_layers * sizeof *d->first_at); /* all SIM_NO_SLOT */
    for (int i = 0; i < SIM_SWEEP_BUFFERS && rc == 0; i++)
        rc = alloc_sweep(d, &d->sweeps[i]);
    return rc;
}

static void sim_close(struct device *d)
{
    if (d == NULL)
        return;
    for (int i = 0; i < SIM_SWEEP_BUFFERS; i++) {
        free(d->sweeps[i].layers);
        free(d->sweeps[i].picked);
        free(d->sweeps[i].out);
    }
    free(d->slots);
    free(d->pick_slots);
    free(d->done_generation);
    free(d->n_jobs_at);
    free(d->first_at);
    free(d->next_at);
    free(d->before_at);
    for (int h = 0; h < SIM_HALVES; h++)
        free(d->active[h].slots);
    free(d->copy_end_ns);
    sim_live_destroy(d->live);
    free(d);
}

/* With a simulation that drives it and has these layers, or with a model. */
static int check_config(const struct device_config *c)
{
    if (c->sim != NULL ? c->geometry->n_layers != c->sim->timing->gpu.n_layers : c->model == NULL)
        return -EINVAL;
    return c->copies_max == 0 || c->n_kv_blocks == 0 ? -EINVAL : 0;
}

static int open_live(struct device *d)
{
    int rc = sim_live_create(&d->live, &d->config);

    if (rc == 0) {
        d->timing = sim_live_timing(d->live);
        d->clock = sim_live_clock(d->live);
    }
    return rc;
}

static int sim_open(struct device **out, const struct device_config *config)
{
    int rc = check_config(config);
    struct device *d = rc == 0 ? calloc(1, sizeof *d) : NULL;

    if (rc != 0 || d == NULL)
        return rc != 0 ? rc : -ENOMEM;
    d->config = *config;
    d->n_layers = config->geometry->n_layers;
    d->n_slots = config->exchange != NULL ? exchange_n_slots(config->exchange) : 0;
    if (config->sim != NULL) {
        d->timing = config->sim->timing;
        d->clock = config->sim->clock;
    } else {
        rc = open_live(d);
    }
    if (rc == 0)
        rc = alloc_all(d);
    if (rc != 0)
        sim_close(d);
    else
        *out = d;
    return rc;
}

static void sim_caps(const struct device *d, struct device_caps *out)
{
    *out = (struct device_caps){.name = "sim",
                                .variant = d->live != NULL ? "live" : "virtual",
                                .n_threads = 1,
                                .n_kv_blocks = d->config.n_kv_blocks,
                                .rows_max = d->config.rows_max,
                                .n_ranks = 1,
                                .two_batch = d->timing->two_batch,
                                .waits = d->live == NULL,
                                .half_batches = d->timing->two_batch,
                                .checkpoints = d->live == NULL,
                                .host_bytes_per_ns =
                                    d->live == NULL ? d->timing->copy_bytes_per_ns : 0,
                                .picks_on_device = 1};
}

/* ---- Time in a group ------------------------------------------------------------------------- */

static void look_at_clock(struct device *d)
{
    if (d->live != NULL)
        d->clock->now_ns = clock_now_ns();
}

/* After each look: what had not ended then will be told of. */
static void set_alarm(struct device *d)
{
    if (d->live != NULL)
        sim_live_wake_at(d->live, device_sim_next_ns(d));
}

/* ---- Sweeps ---------------------------------------------------------------------------------- */

static bool batch_fits(const struct device *d, const struct device_batch *b, uint32_t *n_rows,
                       uint32_t *n_seqs)
{
    *n_seqs += b->n_seqs;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct device_seq *q = &b->seqs[i];

        if (q->n_rows == 0 || q->n_rows > d->config.rows_max - *n_rows ||
            (uint64_t)q->pos + q->n_rows > d->config.context_max)
            return false;
        *n_rows += q->n_rows;
    }
    return *n_seqs <= d->config.seqs_max;
}

/* The bounds that a real device has too; that groups of one row lie apart is not simulated. */
static int check_sweep(const struct device *d, const struct device_sweep *sweep)
{
    uint32_t all = (UINT32_C(1) << d->config.geometry->n_groups) - 1;
    uint32_t n_rows = 0, n_seqs = 0, n_enter = 0;

    for (int b = 0; b < DEVICE_BATCHES; b++) {
        if (!batch_fits(d, &sweep->batch[b], &n_rows, &n_seqs))
            return -EINVAL;
    }
    for (uint32_t i = 0; i < sweep->n_enter; i++) {
        n_enter += sweep->enter[i].n_q;
        if (sweep->enter[i].slot >= d->n_slots || n_enter > d->config.returned_rows_max)
            return -EINVAL;
        if (sweep->enter[i].arena_groups != all)
            return -ENOTSUP;
    }
    /* Half batches have their chunks with the first one. */
    if (sweep->n_enter_b > sweep->n_enter || (sweep->n_enter_b > 0 && sweep->batch[1].n_seqs > 0))
        return -EINVAL;
    for (uint32_t i = 0; i < sweep->n_leave; i++) {
        if (sweep->leave[i] >= d->n_slots)
            return -EINVAL;
    }
    return 0;
}

static int sim_submit(struct device *d, const struct device_sweep *sweep)
{
    int rc = check_sweep(d, sweep);

    look_at_clock(d);
    if (d->n_submitted - d->n_polled == DEVICE_SWEEPS_IN_FLIGHT)
        return -EAGAIN;
    if (rc != 0)
        return rc;
    struct sim_sweep *s = &d->sweeps[d->n_submitted++ % SIM_SWEEP_BUFFERS];
    sim_sweep_walk(d, s, sweep);
    d->end_ns = s->done.end_ns;
    d->busy_ns += s->done.busy_ns - s->idle_ns;
    set_alarm(d);
    return 0;
}

static int sim_poll(struct device *d, struct device_done *out)
{
    const struct sim_sweep *s = &d->sweeps[d->n_polled % SIM_SWEEP_BUFFERS];

    look_at_clock(d);
    set_alarm(d);
    if (d->n_polled == d->n_submitted || s->done.end_ns > d->clock->now_ns)
        return 0;
    d->n_polled++;
    *out = s->done;
    return 1;
}

/* Between sweeps the device looks at its slots when the engine does. */
static uint32_t sim_n_returned(struct device *d, struct device_offloaded *rows)
{
    memset(rows, 0, sizeof *rows);
    look_at_clock(d);
    if (d->n_polled < d->n_submitted)
        return 0; /* with a sweep in flight its picks answer the question */
    if (d->clock->device_ns < d->clock->now_ns)
        d->clock->device_ns = d->clock->now_ns;
    return sim_slots_n_returned(d, rows);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

static int sim_copy(struct device *d, const struct device_copy *copy, uint64_t *ticket)
{
    look_at_clock(d);
    uint64_t *link_ns = &d->link_ns[copy->direction];
    uint64_t at = *link_ns > d->clock->now_ns ? *link_ns : d->clock->now_ns;
    double bytes = (double)copy->n_blocks * d->config.geometry->block_bytes;
    /* The slot of the ring may be taken once its last copy has ended. */
    uint64_t *end_ns = &d->copy_end_ns[d->n_copies % d->config.copies_max];

    if (*end_ns > d->clock->now_ns)
        return -EAGAIN;
    if (copy->n_blocks > 0)
        *link_ns = at + (uint64_t)(d->timing->copy_fixed_ns + bytes / d->timing->copy_bytes_per_ns);
    *end_ns = copy->n_blocks > 0 ? *link_ns : at;
    *ticket = ++d->n_copies;
    if (d->live != NULL)
        sim_live_copy(d->live, copy);
    set_alarm(d);
    return 0;
}

static int sim_copy_done(struct device *d, uint64_t ticket)
{
    invariant(ticket >= 1 && ticket <= d->n_copies);
    if (d->n_copies - ticket >= d->config.copies_max)
        return 1; /* its place was taken by a later one, so it has ended */
    look_at_clock(d);
    set_alarm(d);
    return d->copy_end_ns[(ticket - 1) % d->config.copies_max] <= d->clock->now_ns;
}

/* ---- The rest -------------------------------------------------------------------------------- */

static uint64_t sim_now(const struct device *d)
{
    return d->live != NULL ? clock_now_ns() : d->clock->now_ns;
}

static void sim_sync(struct device *d)
{
    uint64_t next;

    look_at_clock(d);
    while ((next = device_sim_next_ns(d)) != UINT64_MAX) {
        if (d->live != NULL)
            clock_sleep_ns(next - d->clock->now_ns);
        d->clock->now_ns = next;
    }
}

/* What the model says: a profile taken from a simulated device is its timing. */
static int sim_measure(struct device *d, const struct device_shape *shape, uint64_t *ns)
{
    const struct latency_model *m = &d->timing->gpu;
    struct latency_load load = {.n_rows = 0};

    switch (shape->kind) {
    case DEVICE_SHAPE_DENSE:
        *ns = (uint64_t)latency_dense_ns(m, shape->layers[0], shape->n);
        return 0;
    case DEVICE_SHAPE_DECODES:
        for (uint32_t i = 0; i < shape->n; i++)
            latency_load_add_decode(m, &load, shape->ctx, true);
        break;
    case DEVICE_SHAPE_CHUNK:
        latency_load_add_chunk(m, &load, shape->ctx, shape->n, true);
        break;
    case DEVICE_SHAPE_HEAD:
        *ns = (uint64_t)latency_stairs_at(&m->head, shape->n);
        return 0;
    case DEVICE_SHAPE_EMBED:
        *ns = (uint64_t)(m->fixed_ns + m->row_ns * shape->n);
        return 0;
    case DEVICE_SHAPE_KINDS:
        return -EINVAL;
    }
    *ns = (uint64_t)latency_attention_ns(m, shape->layers[0], &load);
    return 0;
}

const struct device_ops device_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .caps = sim_caps,
    .submit = sim_submit,
    .poll = sim_poll,
    .n_returned = sim_n_returned,
    .copy = sim_copy,
    .copy_done = sim_copy_done,
    .now = sim_now,
    .sync = sim_sync,
    .measure = sim_measure,
};

/* ---- For the simulation ---------------------------------------------------------------------- */

uint64_t device_sim_busy_ns(const struct device *d)
{
    return d->busy_ns;
}

uint64_t device_sim_next_ns(const struct device *d)
{
    uint64_t now = d->clock->now_ns, next = UINT64_MAX;

    for (uint64_t i = d->n_polled; i < d->n_submitted; i++) {
        uint64_t end = d->sweeps[i % SIM_SWEEP_BUFFERS].done.end_ns;
        next = end > now && end < next ? end : next;
    }
    for (uint32_t i = 0; i < d->config.copies_max; i++) {
        if (d->copy_end_ns[i] > now && d->copy_end_ns[i] < next)
            next = d->copy_end_ns[i];
    }
    return next;
}
