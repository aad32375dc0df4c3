#include "cpu-attnd/batch.h"

#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "cpu-attnd/link.h"

/* A run costs some microseconds beside the work: in 100 they are lost.  Jobs that share blocks save
 * more than that, and may make up a batch that beats of the heart still find short. */
static const uint64_t batch_ns = 100 * NS_PER_US, batch_sharing_ns = 5 * NS_PER_MS;

/* ---- What a job names ------------------------------------------------------------------------ */

/* Ids of the blocks that the job's context fills.  Each is read once, so that what is checked is
 * what the kernels use, whatever the directory says by then. */
static int copy_blocks(const struct link *l, const struct directory_table *table, uint32_t n,
                       uint32_t *out)
{
    const volatile uint32_t *ids = table->blocks;

    if (n > table->n_blocks) /* a directory of other blocks than the arena's */
        return -EPROTO;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = ids[i];

        if (id >= l->arena.n_blocks)
            return -EPROTO;
        out[i] = id;
    }
    return 0;
}

/* The KV that the job names, everything checked: this is another process's memory. */
static int job_kv(const struct link *l, const struct job *job, uint32_t *blocks, struct kv_view *kv)
{
    struct sequence_ref ref = {.idx = job->seq_idx, .gen = job->seq_gen};
    const struct kv_geometry *g = &l->arena.geometry;
    struct directory_table table;

    if (job->layer >= g->n_layers || job->ctx_len != job->pos + job->n_q)
        return -EPROTO;
    int rc = directory_table(&l->directory, ref, g->layer[job->layer].group, job->ctx_len, &table);
    if (rc != 0)
        return rc;
    if (table.worker != l->worker_idx)
        return -EPROTO;
    uint32_t n_blocks = geometry_blocks_for(g, job->ctx_len);

    rc = copy_blocks(l, &table, n_blocks, blocks);
    if (rc == 0)
        *kv = arena_view(&l->arena, job->layer, blocks, n_blocks);
    return rc;
}

static void refuse(struct link *l, const struct job *job, int status)
{
    uint64_t now = clock_now_ns();

    log_error("job_refused", "engine=%u slot=%u seq=%u.%u layer=%u pos=%u error=%d", l->engine_idx,
              job->slot, job->seq_idx, job->seq_gen, job->layer, job->pos, status);
    (void)job_worker_complete(&l->table, job, now, now, status);
}

/* ---- Joining --------------------------------------------------------------------------------- */

/* The memory of block ids that no job of the batch uses: they move when one is put between. */
static uint32_t *free_blocks(const struct link *l)
{
    const struct batch *b = &l->batch;

    for (uint32_t i = 0; i < BATCH_JOBS_MAX; i++) {
        uint32_t *blocks = b->blocks + (size_t)i * l->directory.blocks_max;
        uint32_t j = 0;

        while (j < b->n && b->attn[j].kv.table != blocks)
            j++;
        if (j == b->n)
            return blocks;
    }
    return NULL;
}

/* Behind the last job that begins with the same block at the same layer; else at the end. */
static uint32_t place_of(const struct batch *b, const struct attn_job *attn)
{
    for (uint32_t i = b->n; i > 0; i--) {
        const struct attn_job *other = &b->attn[i - 1];

        if (other->kv.layer == attn->kv.layer && other->n_q == attn->n_q &&
            other->kv.table[0] == attn->kv.table[0])
            return i;
    }
    return b->n;
}

static void insert(struct batch *b, uint32_t at, const struct job *job, const struct attn_job *attn)
{
    memmove(&b->jobs[at + 1], &b->jobs[at], (b->n - at) * sizeof b->jobs[0]);
    memmove(&b->attn[at + 1], &b->attn[at], (b->n - at) * sizeof b->attn[0]);
    b->jobs[at] = *job;
    b->attn[at] = *attn;
    b->n++;
}

static void take_out(struct batch *b, uint32_t at)
{
    b->n--;
    memmove(&b->jobs[at], &b->jobs[at + 1], (b->n - at) * sizeof b->jobs[0]);
    memmove(&b->attn[at], &b->attn[at + 1], (b->n - at) * sizeof b->attn[0]);
}

/* May the batch be run with what it has now? */
static bool fits(const struct link *l, uint64_t bytes, bool sharing, uint64_t now_ns,
                 uint64_t until_ns)
{
    if (l->bytes_per_ns <= 0)
        return false;
    uint64_t ns = (uint64_t)((double)bytes / l->bytes_per_ns);

    return ns <= (sharing ? batch_sharing_ns : batch_ns) && now_ns + ns <= until_ns;
}

/* What is beside the slot has the place of the job's block ids. */
static struct attn_job attn_of(struct link *l, const struct job *job, const struct kv_view *kv)
{
    const struct job_table_layout *layout = &l->table.layout;
    size_t place = (size_t)(kv->table - l->batch.blocks) / l->directory.blocks_max;
    struct attn_job attn = {.n_q = job->n_q,
                            .pos = job->pos,
                            .kv = *kv,
                            .ldq = layout->q_width,
                            .ldo = layout->out_width};

    payload_place(&l->batch.payload, &l->table, job->slot, (uint32_t)place, &attn);
    return attn;
}

/* With its blocks known, the job tries its place: what it shares shows only there. */
static enum batch_join join(struct link *l, const struct job *job, const struct kv_view *kv,
                            uint64_t now_ns, uint64_t until_ns)
{
    struct batch *b = &l->batch;
    struct attn_job attn = attn_of(l, job, kv);
    uint32_t at = place_of(b, &attn);
    uint64_t own = link_job_bytes(l, job), shared;
    uint64_t token = geometry_layer_token_bytes(&l->arena.geometry, job->layer);

    insert(b, at, job, &attn);
    shared = attn_shared_tokens(b->attn, b->n);
    uint64_t saved = shared > b->tokens_shared ? (shared - b->tokens_shared) * token : 0;
    uint64_t bytes = b->bytes + own - (saved < own ? saved : own);

    if (b->n > 1 && !fits(l, bytes, 2 * saved >= own, now_ns, until_ns)) {
        take_out(b, at);
        return BATCH_APART;
    }
    b->bytes = bytes;
    b->tokens_shared = shared;
    return BATCH_JOINED;
}

enum batch_join batch_add(struct link *l, const struct job *job, uint64_t now_ns, uint64_t until_ns)
{
    uint32_t *blocks = free_blocks(l);
    struct kv_view kv;

    if (blocks == NULL)
        return BATCH_APART;
    if (l->batch.n == 0)
        fault_point("worker.job");
    if (!job_worker_still_posted(&l->table, job))
        return BATCH_GONE;
    int status = job_kv(l, job, blocks, &kv);
    if (status != 0) {
        refuse(l, job, status);
        return BATCH_GONE;
    }
    return join(l, job, &kv, now_ns, until_ns);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void compute(struct link *l, struct team *team)
{
    const struct batch *b = &l->batch;

    for (uint32_t i = 0; i < b->n; i++)
        payload_take(&b->payload, &l->table, b->jobs[i].slot, &b->attn[i]);
    fault_point("worker.appended");
    attn_run(team, l->scratch, b->attn, b->n);
    for (uint32_t i = 0; i < b->n; i++)
        payload_give(&b->payload, &l->table, b->jobs[i].slot, &b->attn[i]);
    fault_point("worker.attended");
}

static void count_batch(struct link *l, uint64_t ns)
{
    static const double weight =
        0.05; /* some dozens of batches: steady, and follows a busy neighbour */
    double rate = (double)l->batch.bytes / (double)(ns > 0 ? ns : 1);

    l->bytes_per_ns =
        l->bytes_per_ns <= 0 ? rate : l->bytes_per_ns + weight * (rate - l->bytes_per_ns);
    atomic_fetch_add_explicit(&l->table.shared->kv_bytes_read, l->batch.bytes,
                              memory_order_relaxed);
    atomic_store_explicit(&l->table.shared->bytes_per_s, (uint64_t)(l->bytes_per_ns * 1e9),
                          memory_order_relaxed);
}

/* A job of many has taken its part of the batch's time. */
static void publish(struct link *l, uint64_t start_ns, uint64_t end_ns)
{
    struct batch *b = &l->batch;
    uint32_t n_done = 0;
    double total = 0;

    for (uint32_t i = 0; i < b->n; i++)
        total += (double)link_job_bytes(l, &b->jobs[i]);
    for (uint32_t i = 0; i < b->n; i++) {
        double part = (double)link_job_bytes(l, &b->jobs[i]) / total;
        uint64_t ns = (uint64_t)(part * (double)(end_ns - start_ns));

        n_done += job_worker_complete(&l->table, &b->jobs[i], end_ns - ns, end_ns, 0) == 0;
    }
    if (n_done > 0)
        count_batch(l, end_ns - start_ns);
}

void batch_run(struct link *l, struct team *team)
{
    uint64_t start = clock_now_ns();

    if (l->batch.n > 0) {
        compute(l, team);
        publish(l, start, clock_now_ns());
    }
    l->batch.n = 0;
    l->batch.bytes = l->batch.tokens_shared = 0;
}
