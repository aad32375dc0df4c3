#include "common/shm/job_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/invariant.h"
#include "common/base/process.h"
#include "common/base/round.h"

enum { EPOCH_MAX = 0xffffff }; /* what a job's word can hold */

#define JOBS_BYTES_MAX (UINT64_C(1) << 40)

static uint32_t element_bytes(uint32_t element)
{
    switch (element) {
    case JOB_ELEMENT_F32:
        return 4;
    case JOB_ELEMENT_BF16:
    case JOB_ELEMENT_F16:
        return 2;
    default:
        return 0;
    }
}

/* Twice the slots: room for stale hints between two looks of the other side. */
static uint32_t ring_capacity(uint32_t n_slots)
{
    uint32_t capacity = 16;

    while (capacity < 2 * n_slots)
        capacity *= 2;
    return capacity;
}

static bool bounds_are_valid(const struct job_table_layout *l)
{
    const uint32_t width_max = 1 << 20; /* 1,024 heads of 1,024 elements (geometry.h) */

    return l->n_slots >= 1 && l->n_slots <= JOB_SLOTS_MAX && l->n_q_max >= 1 &&
           l->n_q_max <= JOB_QUERIES_MAX && element_bytes(l->element) != 0 && l->n_layers >= 1 &&
           l->n_layers <= KV_LAYERS_MAX && l->q_width <= width_max && l->k_width <= width_max &&
           l->v_width <= width_max && l->out_width <= width_max;
}

/* All offsets from the counts and widths: the one place, for creator and attacher alike. */
static int place(struct job_table_layout *l)
{
    uint64_t row_bytes, ring, in_stride, out_stride;

    if (!bounds_are_valid(l))
        return -EINVAL;
    row_bytes = (uint64_t)l->n_q_max * element_bytes(l->element);
    ring = ring_bytes(ring_capacity(l->n_slots));
    l->posted_ring_off = sizeof(struct job_table_shared);
    l->done_ring_off = (uint32_t)(l->posted_ring_off + ring);
    l->done_off = (uint32_t)round_up(l->done_ring_off + ring, SHM_PAGE);
    l->slots_off =
        (uint32_t)round_up(l->done_off + (uint64_t)l->n_slots * sizeof(uint32_t), SHM_PAGE);
    l->in_off = round_up(l->slots_off + (uint64_t)l->n_slots * sizeof(struct job_slot), SHM_PAGE);
    l->k_off = (uint32_t)round_up(row_bytes * l->q_width, SHM_LINE);
    l->v_off = (uint32_t)(l->k_off + round_up(row_bytes * l->k_width, SHM_LINE));
    in_stride = l->v_off + round_up(row_bytes * l->v_width, SHM_LINE);
    out_stride = round_up(row_bytes * l->out_width, SHM_LINE);
    l->in_stride = (uint32_t)in_stride;
    l->out_stride = (uint32_t)out_stride;
    l->out_off = round_up(l->in_off + l->n_slots * in_stride, SHM_PAGE);
    l->total_bytes = round_up(l->out_off + l->n_slots * out_stride, SHM_PAGE);
    return in_stride > UINT32_MAX || l->total_bytes > JOBS_BYTES_MAX ? -EOVERFLOW : 0;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

int job_table_layout(struct job_table_layout *l, const struct job_table_config *c,
                     const struct kv_geometry *g)
{
    memset(l, 0, sizeof *l);
    l->n_slots = c->n_slots;
    l->n_q_max = c->n_q_max;
    l->element = (uint32_t)c->element;
    l->n_layers = g->n_layers;
    for (uint32_t i = 0; i < g->n_layers && i < KV_LAYERS_MAX; i++) {
        l->q_width = max_u32(l->q_width, kv_layer_q_width(&g->layer[i]));
        l->k_width = max_u32(l->k_width, kv_layer_k_width(&g->layer[i]));
        l->v_width = max_u32(l->v_width, kv_layer_v_width(&g->layer[i]));
        l->out_width = max_u32(l->out_width, kv_layer_out_width(&g->layer[i]));
    }
    return place(l);
}

static void fill_spec(struct segment_spec *spec, char name[64], const char *dir,
                      uint32_t engine_idx, uint32_t worker_idx)
{
    snprintf(name, 64, "jobs-e%u-w%u", engine_idx, worker_idx);
    *spec = (struct segment_spec){.dir = dir,
                                  .name = name,
                                  .kind = SEGMENT_JOBS,
                                  .layout_version = JOBS_LAYOUT_VERSION,
                                  .numa_node = SEGMENT_ANY_NODE};
}

static void set_addresses(struct job_table *t)
{
    uint8_t *base = t->segment.base;

    t->shared = (struct job_table_shared *)(void *)base;
    t->slots = (struct job_slot *)(void *)(base + t->layout.slots_off);
    t->done = (_Atomic uint32_t *)(void *)(base + t->layout.done_off);
    t->scan_next = t->layout.n_slots;
}

static int attach_rings(struct job_table *t)
{
    uint32_t capacity = ring_capacity(t->layout.n_slots);

    if (ring_attach(&t->posted_ring, t->segment.base + t->layout.posted_ring_off, capacity) != 0)
        return -EINVAL;
    return ring_attach(&t->done_ring, t->segment.base + t->layout.done_ring_off, capacity);
}

/* Copies the layout out of the segment and believes it only if it is the one that its own counts
 * and widths lead to, and fits into the file. */
static int adopt_layout(struct job_table *t, struct error *err)
{
    struct job_table_layout expected;

    if (t->segment.bytes < sizeof(struct job_table_shared))
        return error_set(err, -ESTALE, "%s: too short for a job table", t->segment.path);
    t->layout = ((struct job_table_shared *)(void *)t->segment.base)->layout;
    expected = t->layout;
    if (place(&expected) != 0 || memcmp(&expected, &t->layout, sizeof expected) != 0)
        return error_set(err, -ESTALE, "%s: the layout contradicts itself", t->segment.path);
    if (t->layout.total_bytes > t->segment.bytes)
        return error_set(err, -ESTALE, "%s: layout of %llu bytes, file of %llu", t->segment.path,
                         (unsigned long long)t->layout.total_bytes,
                         (unsigned long long)t->segment.bytes);
    set_addresses(t);
    if (attach_rings(t) != 0)
        return error_set(err, -ESTALE, "%s: a ring is damaged", t->segment.path);
    return 0;
}

static int attach_segment(struct job_table *t, const struct segment_spec *spec, bool writable,
                          struct error *err)
{
    int rc = segment_attach(&t->segment, spec, writable, err);

    if (rc != 0)
        return rc;
    rc = adopt_layout(t, err);
    if (rc != 0)
        segment_detach(&t->segment);
    return rc;
}

static int take_over(struct job_table *t, const struct segment_spec *spec,
                     const struct job_table_layout *wanted, struct error *err)
{
    int rc = attach_segment(t, spec, true, err);

    if (rc != 0)
        return rc;
    if (memcmp(&t->layout, wanted, sizeof *wanted) != 0)
        rc = error_set(err, -ESTALE,
                       "%s: expected %u slots of %u queries, widths %u %u %u %u; found %u of %u, "
                       "widths %u %u %u %u",
                       t->segment.path, wanted->n_slots, wanted->n_q_max, wanted->q_width,
                       wanted->k_width, wanted->v_width, wanted->out_width, t->layout.n_slots,
                       t->layout.n_q_max, t->layout.q_width, t->layout.k_width, t->layout.v_width,
                       t->layout.out_width);
    else if (atomic_load_explicit(&t->shared->requested_epoch, memory_order_acquire) >= EPOCH_MAX)
        rc = error_set(err, -ESTALE, "%s: epochs are used up", t->segment.path);
    if (rc != 0)
        segment_detach(&t->segment);
    return rc;
}

static int create(struct job_table *t, const struct segment_spec *spec,
                  const struct job_table_layout *layout, struct error *err)
{
    int rc = segment_create(&t->segment, spec, err);

    if (rc != 0)
        return rc;
    t->layout = *layout;
    t->created = true;
    set_addresses(t);
    t->shared->layout = *layout;
    ring_init(t->segment.base + layout->posted_ring_off, ring_capacity(layout->n_slots));
    ring_init(t->segment.base + layout->done_ring_off, ring_capacity(layout->n_slots));
    rc = attach_rings(t);
    invariant(rc == 0);
    rc = segment_publish(&t->segment, err);
    if (rc != 0)
        segment_detach(&t->segment);
    return rc;
}

int job_table_open(struct job_table *t, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                   const struct job_table_config *c, const struct kv_geometry *g, int numa_node,
                   struct error *err)
{
    struct job_table_layout layout;
    struct segment_spec spec;
    struct error found;
    char name[64];
    int rc;

    *t = JOB_TABLE_NONE;
    fill_spec(&spec, name, dir, engine_idx, worker_idx);
    rc = job_table_layout(&layout, c, g);
    if (rc != 0)
        return error_set(err, rc, "%s: %u slots of %u queries: out of bounds", name, c->n_slots,
                         c->n_q_max);
    spec.geometry_hash = g->hash;
    rc = take_over(t, &spec, &layout, &found);
    if (rc != 0) {
        rc = segment_make_room(&spec, rc, &found, &t->replaced, err);
        if (rc != 0)
            return rc;
        spec.bytes = layout.total_bytes;
        spec.numa_node = numa_node;
        rc = create(t, &spec, &layout, err);
    }
    if (rc == 0)
        t->overflows_seen = atomic_load_explicit(&t->shared->done_overflow, memory_order_acquire);
    return rc;
}

static int take_worker_role(struct job_table *t, struct error *err)
{
    int rc = segment_role_lock(&t->segment, SEGMENT_ROLE_WORKER);

    if (rc == -EBUSY)
        return error_set(err, rc, "%s: another worker serves it, pid %u", t->segment.path,
                         atomic_load_explicit(&t->shared->worker_pid, memory_order_acquire));
    return rc == 0 ? 0 : error_set(err, rc, "%s: role lock: %s", t->segment.path, strerror(-rc));
}

/* Says who serves the table, then learns the epoch.
 * W1: the role lock was taken before requested_epoch is read; a new engine stores requested_epoch
 * before it asks whether the lock is held.  So either it sees a worker and waits for the
 * acknowledgement, or this load sees the new epoch. */
static void announce_worker(struct job_table *t)
{
    struct job_table_shared *s = t->shared;
    uint64_t ticks = 0;

    process_start_ticks(getpid(), &ticks);
    atomic_store_explicit(&s->worker_pid, 0, memory_order_release);
    atomic_store_explicit(&s->start_ticks, ticks, memory_order_relaxed);
    atomic_store_explicit(&s->alive_ns, clock_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&s->posted_bell.sleeping, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->attaches, 1, memory_order_relaxed);
    /* P1: release: whoever acquires the pid sees its start time. */
    atomic_store_explicit(&s->worker_pid, (uint32_t)getpid(), memory_order_release);
    bell_fence();
    t->epoch = atomic_load_explicit(&s->requested_epoch, memory_order_acquire);
    atomic_store_explicit(&s->acked_epoch, t->epoch, memory_order_release); /* as E3 */
}

int job_table_attach(struct job_table *t, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                     struct bell_shared *done_bell, struct error *err)
{
    struct segment_spec spec;
    char name[64];
    int rc;

    *t = JOB_TABLE_NONE;
    fill_spec(&spec, name, dir, engine_idx, worker_idx);
    rc = attach_segment(t, &spec, true, err);
    if (rc == 0)
        rc = take_worker_role(t, err);
    if (rc == 0 && attach_rings(t) != 0) /* the predecessor may have moved them until it let go */
        rc = error_set(err, -ESTALE, "%s: a ring is damaged", t->segment.path);
    if (rc == 0) {
        t->started = calloc(t->layout.n_slots, sizeof *t->started);
        rc = t->started != NULL ? 0 : error_set(err, -ENOMEM, "%s: out of memory", name);
    }
    if (rc != 0) {
        segment_detach(&t->segment);
        return rc;
    }
    t->done_bell = done_bell;
    fault_point("job_table.role_taken");
    announce_worker(t);
    fault_point("job_table.worker_announced");
    /* Index to head first, then the scan: what is posted in between is found by both.  O2 */
    t->overflows_seen = atomic_load_explicit(&t->shared->post_overflows, memory_order_acquire);
    ring_skip_to_head(&t->posted_ring);
    fault_point("job_table.ring_skipped");
    t->scan_next = 0;
    t->first_scan = true;
    bell_ring(done_bell); /* an engine that sleeps wakes, beats, and sees the new worker then */
    return 0;
}

int job_table_inspect(struct job_table *t, const char *dir, uint32_t engine_idx,
                      uint32_t worker_idx, struct error *err)
{
    struct segment_spec spec;
    char name[64];

    *t = JOB_TABLE_NONE;
    fill_spec(&spec, name, dir, engine_idx, worker_idx);
    return attach_segment(t, &spec, false, err);
}

void job_table_detach(struct job_table *t)
{
    if (t->started != NULL) { /* a worker that leaves in order: nobody is there, nobody has died */
        atomic_store_explicit(&t->shared->worker_pid, 0, memory_order_release);
        free(t->started);
    }
    segment_detach(&t->segment);
    *t = JOB_TABLE_NONE;
}
