#include "common/shm/job_worker.h"

#include <errno.h>

#include "common/base/fault.h"
#include "common/base/invariant.h"

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void publish_done(struct job_table *t, uint32_t slot, uint32_t generation)
{
    /* D1: release, pairs with the acquire in job_engine_done_generation (and a device's). */
    atomic_store_explicit(&t->done[slot], generation, memory_order_release);
    fault_point("job_worker.done_word");
    /* O3: release, pairs with O4 in job_engine.c: the done word is there. */
    if (!ring_push(&t->done_ring, job_hint(slot, generation)))
        atomic_fetch_add_explicit(&t->shared->done_overflow, 1, memory_order_release);
    fault_point("job_worker.announced");
}

static void read_fields(struct job *job, const struct job_slot *s, uint32_t slot, uint64_t word)
{
    *job = (struct job){.slot = slot,
                        .generation = job_word_generation(word),
                        .seq_idx = s->seq_idx,
                        .seq_gen = s->seq_gen,
                        .layer = s->layer,
                        .n_q = s->n_q,
                        .pos = s->pos,
                        .ctx_len = s->ctx_len,
                        .deadline_ns = s->deadline_ns,
                        .posted_ns = s->posted_ns,
                        .sweep = s->sweep};
}

static bool fields_are_valid(const struct job_table *t, const struct job *j)
{
    return j->n_q >= 1 && j->n_q <= t->layout.n_q_max && j->layer < t->layout.n_layers &&
           j->ctx_len >= j->n_q && j->pos <= j->ctx_len - j->n_q;
}

/* Hands the slot's job out if it is POSTED, of this epoch, and was not handed out before. */
static bool hand_out(struct job_table *t, uint32_t slot, uint64_t word, struct job *job)
{
    uint64_t mark = UINT64_C(1) << 32 | job_word_generation(word);

    if (job_word_state(word) != JOB_POSTED || job_word_epoch(word) != (t->epoch & 0xffffff) ||
        t->started[slot] == mark)
        return false;
    t->started[slot] = mark;
    read_fields(job, &t->slots[slot], slot, word);
    if (fields_are_valid(t, job))
        return true;
    count(&t->shared->jobs_refused, 1);
    job_worker_complete(t, job, 0, 0, -EPROTO);
    return false;
}

static uint64_t slot_word(const struct job_table *t, uint32_t slot)
{
    /* J2: acquire, pairs with J1 in job_engine_post. */
    return atomic_load_explicit(&t->slots[slot].word, memory_order_acquire);
}

/* The truth, slot by slot: POSTED = run, DONE = announce again. */
static bool scan_next(struct job_table *t, struct job *job)
{
    while (t->scan_next < t->layout.n_slots) {
        uint32_t slot = t->scan_next++;
        uint64_t word = slot_word(t, slot);

        if (job_word_state(word) == JOB_DONE && job_word_epoch(word) == (t->epoch & 0xffffff))
            publish_done(t, slot, job_word_generation(word));
        if (hand_out(t, slot, word, job)) {
            count(&t->shared->jobs_rerun, t->first_scan);
            return true;
        }
        if (t->scan_next == t->layout.n_slots) {
            t->first_scan = false;
            bell_ring(t->done_bell);
        }
    }
    return false;
}

/* O2: acquire, pairs with O1 in job_engine.c: the slot whose hint did not fit is POSTED before, and
 * the scan finds it. */
static bool hint_was_lost(const struct job_table *t)
{
    return atomic_load_explicit(&t->shared->post_overflows, memory_order_acquire) !=
           t->overflows_seen;
}

bool job_worker_next(struct job_table *t, struct job *job)
{
    uint64_t hint;

    if (hint_was_lost(t)) {
        t->overflows_seen = atomic_load_explicit(&t->shared->post_overflows, memory_order_acquire);
        t->scan_next = 0;
    }
    if (scan_next(t, job))
        return true;
    while (ring_pop(&t->posted_ring, &hint)) {
        uint32_t slot = (uint32_t)hint;
        uint64_t word;

        if (slot < t->layout.n_slots) {
            word = slot_word(t, slot);
            if (job_word_generation(word) == (uint32_t)(hint >> 32) && hand_out(t, slot, word, job))
                return true;
        }
        count(&t->shared->hints_stale, 1);
    }
    return false;
}

static uint64_t posted_word(const struct job_table *t, const struct job *job)
{
    return job_word(JOB_POSTED, job->generation, t->epoch);
}

bool job_worker_still_posted(const struct job_table *t, const struct job *job)
{
    return slot_word(t, job->slot) == posted_word(t, job);
}

int job_worker_complete(struct job_table *t, const struct job *job, uint64_t start_ns,
                        uint64_t end_ns, int status)
{
    struct job_slot *s = &t->slots[job->slot];
    uint64_t expected = posted_word(t, job);
    uint64_t done = job_word(JOB_DONE, job->generation, t->epoch);

    fault_point("job_worker.output");
    if (!job_worker_still_posted(t, job))
        return -ESTALE;
    s->start_ns = start_ns;
    s->end_ns = end_ns;
    s->status = status;
    /* J3: release, pairs with J4 in job_engine_take: output and times are there.  Compare-exchange:
     * a slot that is not this job's any more is never changed. */
    if (!atomic_compare_exchange_strong_explicit(&s->word, &expected, done, memory_order_release,
                                                 memory_order_relaxed))
        return -ESTALE;
    fault_point("job_worker.done");
    publish_done(t, job->slot, job->generation);
    count(&t->shared->jobs_done, 1);
    count(&t->shared->busy_ns, end_ns - start_ns);
    job_worker_progress(t);
    bell_ring(t->done_bell);
    fault_point("job_worker.woken");
    return 0;
}

bool job_worker_epoch_raised(const struct job_table *t)
{
    /* W3: acquire, pairs with W2 in job_engine_raise_epoch. */
    return atomic_load_explicit(&t->shared->requested_epoch, memory_order_acquire) != t->epoch;
}

bool job_worker_ack_epoch(struct job_table *t)
{
    uint32_t epoch =
        atomic_load_explicit(&t->shared->requested_epoch, memory_order_acquire); /* W3 */

    if (epoch == t->epoch)
        return false;
    t->epoch = epoch;
    t->scan_next = 0; /* the new engine may have posted already */
    fault_point("job_worker.before_ack");
    /* E3: release, pairs with E2: all that was done for older epochs is before it. */
    atomic_store_explicit(&t->shared->acked_epoch, epoch, memory_order_release);
    bell_ring(t->done_bell);
    return true;
}

void job_worker_beat(struct job_table *t, uint64_t now_ns)
{
    atomic_store_explicit(&t->shared->alive_ns, now_ns, memory_order_relaxed);
}

void job_worker_progress(struct job_table *t)
{
    count(&t->shared->progress, 1);
}

struct wait_arg {
    struct job_table *const *tables;
    uint32_t n;
};

static bool was_roused(const struct job_table *t)
{
    return atomic_load_explicit(&t->shared->roused, memory_order_relaxed) != t->roused_seen;
}

static bool any_posted(void *arg)
{
    const struct wait_arg *w = arg;

    for (uint32_t i = 0; i < w->n; i++) {
        struct job_table *t = w->tables[i];
        if (ring_ready(&t->posted_ring) || hint_was_lost(t) || job_worker_epoch_raised(t) ||
            t->scan_next < t->layout.n_slots || was_roused(t))
            return true;
    }
    return false;
}

bool job_worker_roused(struct job_table *t)
{
    bool roused = was_roused(t);

    t->roused_seen = atomic_load_explicit(&t->shared->roused, memory_order_relaxed);
    return roused;
}

bool job_worker_wait(struct job_table *const *tables, uint32_t n, uint64_t spin_until_ns,
                     uint64_t until_ns)
{
    struct bell_shared *bells[FUTEX_WORDS_MAX];
    struct wait_arg arg = {.tables = tables, .n = n};
    struct bell_wait wait = {
        .ready = any_posted, .arg = &arg, .spin_until_ns = spin_until_ns, .until_ns = until_ns};

    invariant(n <= FUTEX_WORDS_MAX);
    for (uint32_t i = 0; i < n; i++)
        bells[i] = &tables[i]->shared->posted_bell;
    return bell_sleep(bells, n, &wait);
}
