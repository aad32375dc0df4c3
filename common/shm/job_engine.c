#include "common/shm/job_engine.h"

#include <errno.h>

#include "common/base/fault.h"
#include "common/base/invariant.h"

uint32_t job_engine_last_epoch(const struct job_table *t)
{
    return atomic_load_explicit(&t->shared->requested_epoch, memory_order_acquire);
}

void job_engine_raise_epoch(struct job_table *t, uint32_t epoch)
{
    invariant(epoch > job_engine_last_epoch(t));
    t->epoch = epoch;
    atomic_store_explicit(&segment_header(&t->segment)->epoch, epoch, memory_order_relaxed);
    /* W2: before asking for the role lock; pairs with W1 in job_table_attach.  As a release it
     * pairs with W3 in job_worker.c: a worker at work sees the new epoch. */
    atomic_store_explicit(&t->shared->requested_epoch, epoch, memory_order_seq_cst);
    fault_point("job_engine.epoch_raised");
    bell_ring(&t->shared->posted_bell);
}

bool job_engine_epoch_settled(const struct job_table *t)
{
    /* The lock first: a worker that attaches after this look reads the new epoch. */
    bool held = segment_role_held(&t->segment, SEGMENT_ROLE_WORKER);

    /* E2: acquire, pairs with E3 in job_worker_ack_epoch: the worker's last writes are before it.
     */
    return !held || atomic_load_explicit(&t->shared->acked_epoch, memory_order_acquire) == t->epoch;
}

static void set_free(struct job_table *t, uint32_t slot)
{
    _Atomic uint64_t *word = &t->slots[slot].word;
    uint32_t generation = job_word_generation(atomic_load_explicit(word, memory_order_acquire));

    /* J5, as in job_engine_take; no worker is at work (E2). */
    atomic_store_explicit(word, job_word(JOB_FREE, generation, t->epoch), memory_order_release);
}

void job_engine_free_all(struct job_table *t)
{
    for (uint32_t i = 0; i < t->layout.n_slots; i++) {
        set_free(t, i);
        fault_point("job_engine.freed_one");
    }
    ring_skip_to_head(&t->done_ring);
    /* O4 */
    t->overflows_seen = atomic_load_explicit(&t->shared->done_overflow, memory_order_acquire);
    t->scan_next = t->layout.n_slots;
}

static bool desc_is_valid(const struct job_table *t, uint32_t slot, const struct job_desc *d)
{
    return slot < t->layout.n_slots && d->n_q >= 1 && d->n_q <= t->layout.n_q_max &&
           d->layer < t->layout.n_layers && d->ctx_len >= d->n_q && d->pos <= d->ctx_len - d->n_q;
}

static void write_fields(struct job_slot *s, const struct job_desc *d)
{
    s->seq_idx = d->seq_idx;
    s->seq_gen = d->seq_gen;
    s->layer = d->layer;
    s->n_q = d->n_q;
    s->pos = d->pos;
    s->ctx_len = d->ctx_len;
    s->deadline_ns = d->deadline_ns;
    s->posted_ns = d->posted_ns;
    s->sweep = d->sweep;
}

void job_engine_announce(struct job_table *t, uint32_t slot, uint32_t generation)
{
    /* O1: release, pairs with O2 in job_worker.c: the slot was POSTED before (J1). */
    if (!ring_push(&t->posted_ring, job_hint(slot, generation)))
        atomic_fetch_add_explicit(&t->shared->post_overflows, 1, memory_order_release);
    fault_point("job_engine.hinted");
    atomic_fetch_add_explicit(&t->shared->posted, 1, memory_order_relaxed);
}

int job_engine_post(struct job_table *t, uint32_t slot, const struct job_desc *desc,
                    uint32_t *generation)
{
    struct job_slot *s;
    uint64_t word;
    uint32_t gen;

    invariant(t->epoch != 0);
    if (!desc_is_valid(t, slot, desc))
        return -EINVAL;
    s = &t->slots[slot];
    word = atomic_load_explicit(&s->word, memory_order_acquire); /* J4, of the job before */
    if (job_word_state(word) != JOB_FREE)
        return -EBUSY;
    gen = job_word_generation(word) + 1;
    write_fields(s, desc);
    fault_point("job_engine.fields_written");
    /* J1: release, pairs with J2 in job_worker.c: input and fields are there. */
    atomic_store_explicit(&s->word, job_word(JOB_POSTED, gen, t->epoch), memory_order_release);
    fault_point("job_engine.posted");
    job_engine_announce(t, slot, gen);
    if (generation != NULL)
        *generation = gen;
    return 0;
}

void job_engine_flush(struct job_table *t)
{
    bell_ring(&t->shared->posted_bell);
}

void job_engine_rouse(struct job_table *t)
{
    /* A hint alone: a worker that misses it sleeps until the first job's flush. */
    atomic_fetch_add_explicit(&t->shared->roused, 1, memory_order_relaxed);
    bell_ring(&t->shared->posted_bell);
}

enum job_outcome job_engine_take(struct job_table *t, uint32_t slot, uint32_t generation,
                                 struct job_times *times)
{
    struct job_slot *s;
    uint64_t word;
    int32_t status;

    invariant(slot < t->layout.n_slots);
    s = &t->slots[slot];
    /* J4: acquire, pairs with J3 in job_worker_complete: the output is there. */
    word = atomic_load_explicit(&s->word, memory_order_acquire);
    if (job_word_generation(word) != generation || job_word_state(word) == JOB_FREE)
        return JOB_STALE;
    if (job_word_state(word) != JOB_DONE)
        return JOB_NOT_DONE;
    status = s->status;
    if (times != NULL)
        *times = (struct job_times){.start_ns = s->start_ns, .end_ns = s->end_ns};
    fault_point("job_engine.before_free");
    /* J5: release: whoever sees FREE may write the slot's input, and our reads of its output are
     * over.  The engine alone acquires it; a device that posts does so in the engine's process. */
    atomic_store_explicit(&s->word, job_word(JOB_FREE, generation, t->epoch), memory_order_release);
    fault_point("job_engine.taken");
    return status == 0 ? JOB_OK : JOB_FAILED;
}

/* Was an announcement dropped because the ring was full?  Then the slots are scanned.
 * O4: acquire, pairs with O3 in job_worker.c: the done word was there before. */
static bool announcement_was_lost(const struct job_table *t)
{
    return atomic_load_explicit(&t->shared->done_overflow, memory_order_acquire) !=
           t->overflows_seen;
}

static uint32_t scan_done(struct job_table *t, uint32_t *slots, uint32_t n)
{
    uint32_t found = 0;

    while (found < n && t->scan_next < t->layout.n_slots) {
        uint32_t slot = t->scan_next++;
        if (job_engine_state(t, slot) == JOB_DONE)
            slots[found++] = slot;
    }
    return found;
}

uint32_t job_engine_poll(struct job_table *t, uint32_t *slots, uint32_t n)
{
    uint64_t hint;
    uint32_t found;

    if (announcement_was_lost(t)) {
        /* O4: one that is counted from here on leads to another scan. */
        t->overflows_seen = atomic_load_explicit(&t->shared->done_overflow, memory_order_acquire);
        t->scan_next = 0;
    }
    found = scan_done(t, slots, n);
    while (found < n && ring_pop(&t->done_ring, &hint)) {
        uint32_t slot = (uint32_t)hint;
        if (slot < t->layout.n_slots) /* the other process wrote it: not an invariant */
            slots[found++] = slot;
    }
    return found;
}

struct wait_arg {
    struct job_table *const *tables;
    uint32_t n;
    const struct bell_wait *also;
};

static bool any_announced(void *arg)
{
    const struct wait_arg *w = arg;

    for (uint32_t i = 0; i < w->n; i++) {
        struct job_table *t = w->tables[i];
        if (ring_ready(&t->done_ring) || announcement_was_lost(t) ||
            t->scan_next < t->layout.n_slots)
            return true;
    }
    return w->also->ready != NULL && w->also->ready(w->also->arg);
}

bool job_engine_wait(struct engine_page *page, struct job_table *const *tables, uint32_t n,
                     const struct bell_wait *also_and_times)
{
    struct bell_shared *bell = &page->shared->done_bell;
    struct wait_arg arg = {.tables = tables, .n = n, .also = also_and_times};
    struct bell_wait wait = {.ready = any_announced,
                             .arg = &arg,
                             .spin_until_ns = also_and_times->spin_until_ns,
                             .until_ns = also_and_times->until_ns};

    return bell_sleep(&bell, 1, &wait);
}

enum peer_state job_engine_poll_peer(const struct job_table *t, struct peer *peer, uint64_t now_ns)
{
    struct job_table_shared *s = t->shared;
    pid_t pid = (pid_t)atomic_load_explicit(&s->worker_pid, memory_order_acquire); /* P1 */

    peer_bind(peer, pid, atomic_load_explicit(&s->start_ticks, memory_order_relaxed));
    return peer_poll(peer, now_ns, atomic_load_explicit(&s->alive_ns, memory_order_relaxed));
}

bool job_engine_worker_attached(const struct job_table *t)
{
    return segment_role_held(&t->segment, SEGMENT_ROLE_WORKER);
}

int job_engine_reclaim_begin(struct job_table *t)
{
    return segment_role_lock(&t->segment, SEGMENT_ROLE_WORKER);
}

void job_engine_reclaim(struct job_table *t, uint32_t slot)
{
    invariant(slot < t->layout.n_slots);
    set_free(t, slot);
    fault_point("job_engine.reclaimed");
}

void job_engine_reclaim_end(struct job_table *t)
{
    segment_role_unlock(&t->segment, SEGMENT_ROLE_WORKER);
}
