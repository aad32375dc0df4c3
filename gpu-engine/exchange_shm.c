#include "gpu-engine/exchange_shm.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "gpu-engine/exchange_memory.h"

enum { SETTLE_POLL_MS = 2, DRAIN_BATCH = 256 };

static struct exchange_shm *shm_of(struct exchange *x)
{
    return (struct exchange_shm *)x;
}

static uint32_t worker_of(const struct exchange *x, uint32_t slot)
{
    return slot / x->slots_per_worker;
}

static struct job_table *table_of(struct exchange *x, uint32_t slot, uint32_t *local)
{
    *local = slot % x->slots_per_worker;
    return &shm_of(x)->tables[worker_of(x, slot)];
}

/* ---- Device side ----------------------------------------------------------------------------- */

static void shm_payload(struct exchange *x, uint32_t slot, struct exchange_payload *out)
{
    uint32_t s;
    const struct job_table *t = table_of(x, slot, &s);

    invariant(t->layout.element == JOB_ELEMENT_F32);
    *out = (struct exchange_payload){.q = job_table_q(t, s),
                                     .k = job_table_k(t, s),
                                     .v = job_table_v(t, s),
                                     .out = job_table_out(t, s),
                                     .q_stride = t->layout.q_width,
                                     .k_stride = t->layout.k_width,
                                     .v_stride = t->layout.v_width,
                                     .out_stride = t->layout.out_width};
}

/* A job to a worker that has nothing else shows how soon it begins. */
static void note_post(struct exchange_shm *x, uint32_t slot, uint64_t now_ns)
{
    struct exchange_start *s = &x->starts[worker_of(&x->base, slot)];

    if (s->n_out++ > 0)
        return;
    s->alone = slot;
    s->posted_ns = now_ns;
}

static void note_take(struct exchange_shm *x, uint32_t slot, uint64_t start_ns)
{
    struct exchange_start *s = &x->starts[worker_of(&x->base, slot)];

    s->n_out -= s->n_out > 0;
    if (s->alone != slot || start_ns < s->posted_ns)
        return;
    s->alone = EXCHANGE_NO_SLOT;
    double median = latency_window_take(&s->window, (double)(start_ns - s->posted_ns));
    atomic_store_explicit(&s->median_ns, (uint64_t)median, memory_order_relaxed);
}

static int shm_post(struct exchange *x, const struct exchange_job *job, uint32_t *generation)
{
    uint32_t s;
    struct job_table *t = table_of(x, job->slot, &s);
    struct job_desc desc = {.seq_idx = job->seq_idx,
                            .seq_gen = job->seq_generation,
                            .layer = job->layer,
                            .n_q = job->n_q,
                            .pos = job->pos,
                            .ctx_len = job->pos + job->n_q,
                            .deadline_ns = job->deadline_ns,
                            .posted_ns = clock_now_ns(),
                            .sweep = job->sweep};

    /* We post free slots within the table's bounds: another answer is a worker's doing. */
    if (job_engine_post(t, s, &desc, generation) != 0)
        return -EIO;
    note_post(shm_of(x), job->slot, desc.posted_ns);
    shm_of(x)->to_flush |= UINT32_C(1) << worker_of(x, job->slot);
    return 0;
}

static void shm_announce(struct exchange *x, uint32_t slot, uint32_t generation)
{
    uint32_t s;
    struct job_table *t = table_of(x, slot, &s);

    job_engine_announce(t, s, generation);
    note_post(shm_of(x), slot, clock_now_ns());
    shm_of(x)->to_flush |= UINT32_C(1) << worker_of(x, slot);
}

static void shm_memory(struct exchange *x, uint32_t worker, struct exchange_memory *out)
{
    const struct job_table *t = &shm_of(x)->tables[worker];
    const struct job_table_layout *l = &t->layout;
    uint8_t *base = t->segment.base;

    *out = (struct exchange_memory){.base = base + l->done_off,
                                    .bytes = l->total_bytes - l->done_off,
                                    .slots = base + l->slots_off,
                                    .in = base + l->in_off,
                                    .out = base + l->out_off,
                                    .done = (const uint32_t *)(const void *)(base + l->done_off),
                                    .in_stride = l->in_stride,
                                    .out_stride = l->out_stride,
                                    .k_off = l->k_off,
                                    .v_off = l->v_off,
                                    .q_width = l->q_width,
                                    .k_width = l->k_width,
                                    .v_width = l->v_width,
                                    .out_width = l->out_width,
                                    .element = l->element,
                                    .epoch = t->epoch};
}

static uint32_t shm_generation(struct exchange *x, uint32_t slot)
{
    uint32_t s;
    const struct job_table *t = table_of(x, slot, &s);

    return job_word_generation(atomic_load_explicit(&t->slots[s].word, memory_order_acquire));
}

static void shm_flush(struct exchange *x)
{
    struct exchange_shm *shm = shm_of(x);

    for (uint32_t w = 0; w < x->n_workers; w++) {
        if ((shm->to_flush >> w & 1) != 0)
            job_engine_flush(&shm->tables[w]);
    }
    shm->to_flush = 0;
}

static void shm_rouse(struct exchange *x, uint32_t worker)
{
    job_engine_rouse(&shm_of(x)->tables[worker]);
}

static void shm_poll_done(struct exchange *x, uint32_t *done)
{
    for (uint32_t w = 0; w < x->n_workers; w++) {
        const struct job_table *t = &shm_of(x)->tables[w];
        for (uint32_t s = 0; s < x->slots_per_worker; s++)
            done[w * x->slots_per_worker + s] = job_engine_done_generation(t, s);
    }
}

/* The engine thread sleeps on this bell too, but never while a sweep is in flight. */
static void shm_await(struct exchange *x, const struct exchange_wait *wait)
{
    struct bell_shared *bell = &shm_of(x)->page.shared->done_bell;
    const struct bell_wait sleep = {.ready = wait->enough,
                                    .arg = wait->arg,
                                    .spin_until_ns = wait->spin_until_ns,
                                    .until_ns = wait->until_ns};

    bell_sleep(&bell, 1, &sleep);
}

static int shm_take(struct exchange *x, uint32_t slot, uint32_t generation)
{
    uint32_t s;
    struct job_table *t = table_of(x, slot, &s);
    struct job_times times = {.start_ns = 0};
    enum job_outcome outcome = job_engine_take(t, s, generation, &times);

    note_take(shm_of(x), slot, times.start_ns);
    return outcome == JOB_OK ? 0 : -EIO;
}

/* ---- Engine side ----------------------------------------------------------------------------- */

static void *shm_staging(struct exchange *x, uint32_t worker, uint32_t block)
{
    return arena_block(&shm_of(x)->arenas[worker], block);
}

/* Staging is the arena: what the device copied is there. */
static int shm_copy_is_done(struct exchange *x, uint32_t worker, const uint32_t *blocks, uint32_t n,
                            uint64_t *ticket)
{
    (void)x;
    (void)worker;
    (void)blocks;
    (void)n;
    *ticket = 0;
    return 1;
}

static int shm_copy_done(struct exchange *x, uint64_t ticket)
{
    (void)x;
    (void)ticket;
    return 1;
}

static enum exchange_peer shm_peer(struct exchange *x, uint32_t worker)
{
    switch (shm_of(x)->peers[worker].state) {
    case PEER_ALIVE:
        return EXCHANGE_PEER_ALIVE;
    case PEER_LATE:
        return EXCHANGE_PEER_LATE;
    case PEER_DEAD:
        return EXCHANGE_PEER_DEAD;
    case PEER_ABSENT:
        break;
    }
    return EXCHANGE_PEER_ABSENT;
}

static uint64_t shm_read_rate(struct exchange *x, uint32_t worker)
{
    return atomic_load_explicit(&shm_of(x)->tables[worker].shared->bytes_per_s,
                                memory_order_relaxed);
}

static uint64_t shm_start_ns(struct exchange *x, uint32_t worker)
{
    return atomic_load_explicit(&shm_of(x)->starts[worker].median_ns, memory_order_relaxed);
}

static uint32_t shm_peer_pid(struct exchange *x, uint32_t worker)
{
    const struct peer *peer = &shm_of(x)->peers[worker];

    return peer->state == PEER_ALIVE || peer->state == PEER_LATE ? (uint32_t)peer->pid : 0;
}

static int shm_slot_release(struct exchange *x, uint32_t slot)
{
    uint32_t s;
    struct job_table *t = table_of(x, slot, &s);
    enum job_state before = job_engine_state(t, s), state = before;

    if (state == JOB_DONE) {
        /* By the word: a worker that died before its done word has published all the same. */
        uint64_t word = atomic_load_explicit(&t->slots[s].word, memory_order_acquire);
        job_engine_take(t, s, job_word_generation(word), NULL);
        state = job_engine_state(t, s);
    }
    if (state == JOB_POSTED && job_engine_reclaim_begin(t) == 0) {
        job_engine_reclaim(t, s);
        job_engine_reclaim_end(t);
        state = job_engine_state(t, s);
    }
    if (before != JOB_FREE && state == JOB_FREE)
        note_take(shm_of(x), slot, 0);
    return state == JOB_FREE;
}

void exchange_shm_poll_peers(struct exchange_shm *x, uint64_t now_ns)
{
    for (uint32_t w = 0; w < x->base.n_workers; w++) {
        struct job_table_shared *t = x->tables[w].shared;
        enum peer_state before = x->peers[w].state;
        pid_t pid = (pid_t)atomic_load_explicit(&t->worker_pid, memory_order_acquire);

        peer_bind(&x->peers[w], pid, atomic_load_explicit(&t->start_ticks, memory_order_relaxed));
        enum peer_state after = peer_poll(&x->peers[w], now_ns,
                                          atomic_load_explicit(&t->alive_ns, memory_order_relaxed));
        if (before != after)
            log_info("worker_state", "worker=%u pid=%d from=%s to=%s", w, (int)pid,
                     peer_state_name(before), peer_state_name(after));
    }
}

bool exchange_shm_announced(struct exchange_shm *x)
{
    for (uint32_t w = 0; w < x->base.n_workers; w++) {
        if (ring_ready(&x->tables[w].done_ring))
            return true;
    }
    return false;
}

static void shm_drain(struct exchange *x)
{
    uint32_t slots[DRAIN_BATCH];

    for (uint32_t w = 0; w < x->n_workers; w++) {
        while (job_engine_poll(&shm_of(x)->tables[w], slots, DRAIN_BATCH) == DRAIN_BATCH)
            continue;
    }
}

static uint32_t shm_n_blocks(struct exchange *x, uint32_t worker)
{
    return shm_of(x)->arenas[worker].n_blocks;
}

static void shm_set_owner(struct exchange *x, uint32_t worker, uint32_t block, uint32_t seq_idx,
                          uint32_t seq_generation)
{
    arena_set_owner(&shm_of(x)->arenas[worker], block, seq_idx, seq_generation);
}

static void shm_beat(struct exchange *x, uint64_t now_ns, uint64_t progress)
{
    exchange_shm_poll_peers(shm_of(x), now_ns);
    engine_page_beat(&shm_of(x)->page, now_ns, progress);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void shm_destroy(struct exchange *x)
{
    struct exchange_shm *shm = shm_of(x);

    for (uint32_t w = 0; w < x->n_workers; w++) {
        job_table_detach(&shm->tables[w]);
        arena_detach(&shm->arenas[w]);
        peer_fini(&shm->peers[w]);
    }
    directory_detach(&shm->directory);
    engine_page_detach(&shm->page);
    free(shm);
}

static const struct exchange_ops shm_ops = {
    .name = "shm",
    .payload = shm_payload,
    .post = shm_post,
    .announce = shm_announce,
    .memory = shm_memory,
    .generation = shm_generation,
    .flush = shm_flush,
    .rouse = shm_rouse,
    .poll_done = shm_poll_done,
    .await = shm_await,
    .take = shm_take,
    .staging = shm_staging,
    .copy_out = shm_copy_is_done,
    .copy_in = shm_copy_is_done,
    .copy_done = shm_copy_done,
    .peer = shm_peer,
    .peer_pid = shm_peer_pid,
    .read_rate = shm_read_rate,
    .start_ns = shm_start_ns,
    .slot_release = shm_slot_release,
    .n_blocks = shm_n_blocks,
    .set_owner = shm_set_owner,
    .beat = shm_beat,
    .drain = shm_drain,
    .destroy = shm_destroy,
};

/* A segment of another layout or geometry is no error, but whoever wonders where its contents went
 * finds expected and found in the log. */
static void tell_replaced(const struct error *replaced)
{
    if (replaced->text[0] != '\0')
        log_warn("segment_replaced", "detail=\"%s\"", replaced->text);
}

static int open_worker(struct exchange_shm *x, const struct exchange_shm_config *c, uint32_t w,
                       struct error *err)
{
    struct job_table_config table = {
        .n_slots = c->slots_per_worker, .n_q_max = c->n_q_max, .element = c->element};
    struct peer_config peer = {.late_ns = c->late_ns, .kill_ns = c->kill_ns};
    uint32_t n_blocks = arena_blocks_for(c->geometry, c->arena_bytes);

    peer_init(&x->peers[w], &peer);
    if (n_blocks == 0)
        return error_set(err, -EINVAL,
                         "worker.arena_mb: %llu bytes hold no KV block of %u bytes; raise it",
                         (unsigned long long)c->arena_bytes, c->geometry->block_bytes);
    int rc = job_table_open(&x->tables[w], c->dir, c->engine_idx, w, &table, c->geometry,
                            c->node[w], err);
    /* Beside a new job table a worker of the old one may still write into the old arena. */
    if (rc == 0)
        rc = arena_open(&x->arenas[w], c->dir, c->engine_idx, w, c->geometry, n_blocks,
                        !x->tables[w].created, c->node[w], err);
    return rc;
}

/* The epoch of this engine: above all that the segments have seen. */
static uint32_t next_epoch(const struct exchange_shm *x)
{
    uint32_t epoch = engine_page_epoch(&x->page);

    for (uint32_t w = 0; w < x->base.n_workers; w++) {
        uint32_t last = job_engine_last_epoch(&x->tables[w]);
        epoch = last > epoch ? last : epoch;
    }
    return epoch + 1;
}

static bool all_settled(const struct exchange_shm *x)
{
    for (uint32_t w = 0; w < x->base.n_workers; w++) {
        if (!job_engine_epoch_settled(&x->tables[w]))
            return false;
    }
    return true;
}

/* Waits until no worker can touch a job of an older epoch, then frees all slots. */
static int settle(struct exchange_shm *x, uint64_t timeout_ns, struct error *err)
{
    uint64_t until = clock_now_ns() + timeout_ns;

    for (uint32_t w = 0; w < x->base.n_workers; w++)
        job_engine_raise_epoch(&x->tables[w], x->epoch);
    while (!all_settled(x)) {
        uint64_t now = clock_now_ns();
        if (now > until)
            return error_set(err, -ETIMEDOUT,
                             "a worker of an older engine neither acknowledged epoch %u nor ended",
                             x->epoch);
        exchange_shm_poll_peers(x, now);
        clock_sleep_ns(SETTLE_POLL_MS * NS_PER_MS);
    }
    for (uint32_t w = 0; w < x->base.n_workers; w++)
        job_engine_free_all(&x->tables[w]);
    return 0;
}

static int open_all(struct exchange_shm *x, const struct exchange_shm_config *c, struct error *err)
{
    struct directory_config directory = {.n_entries = c->n_sequences, .ctx_max = c->context_max};
    int rc = engine_page_open(&x->page, c->dir, c->engine_idx, err);

    if (rc == 0)
        rc = directory_open(&x->directory, c->dir, c->engine_idx, &directory, c->geometry, err);
    for (uint32_t w = 0; w < c->n_workers && rc == 0; w++)
        rc = open_worker(x, c, w, err);
    if (rc != 0)
        return rc;
    tell_replaced(&x->page.replaced);
    tell_replaced(&x->directory.replaced);
    for (uint32_t w = 0; w < c->n_workers; w++) {
        tell_replaced(&x->tables[w].replaced);
        tell_replaced(&x->arenas[w].replaced);
    }
    x->epoch = next_epoch(x);
    rc = settle(x, c->settle_timeout_ns, err);
    if (rc == 0) {
        directory_clear(&x->directory); /* recovery of resident sequences comes with the journal */
        engine_page_enter(&x->page, x->epoch, clock_now_ns());
    }
    return rc;
}

int exchange_shm_create(struct exchange_shm **out, const struct exchange_shm_config *config,
                        struct error *err)
{
    struct exchange_shm *x = calloc(1, sizeof *x);

    invariant(config->n_workers <= EXCHANGE_WORKERS_MAX);
    if (x == NULL)
        return error_set(err, -ENOMEM, "no memory for the exchange");
    x->base = (struct exchange){.ops = &shm_ops,
                                .n_workers = config->n_workers,
                                .slots_per_worker = config->slots_per_worker,
                                .n_q_max = config->n_q_max};
    x->page.segment = SEGMENT_NONE;
    x->directory = DIRECTORY_NONE;
    for (uint32_t w = 0; w < EXCHANGE_WORKERS_MAX; w++) {
        x->tables[w] = JOB_TABLE_NONE;
        x->arenas[w] = ARENA_NONE;
        x->starts[w].alone = EXCHANGE_NO_SLOT;
    }
    int rc = open_all(x, config, err);
    if (rc != 0) {
        shm_destroy(&x->base);
        return rc;
    }
    *out = x;
    return 0;
}
