#include "cpu-attnd/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"

void link_init(struct link *l, const char *dir, uint32_t engine_idx, uint32_t worker_idx)
{
    memset(l, 0, sizeof *l);
    snprintf(l->dir, sizeof l->dir, "%s", dir);
    l->engine_idx = engine_idx;
    l->worker_idx = worker_idx;
    l->page.segment = SEGMENT_NONE;
    l->table = JOB_TABLE_NONE;
    l->arena = ARENA_NONE;
    l->directory = DIRECTORY_NONE;
}

/* ---- Attaching ------------------------------------------------------------------------------- */

static void widest_heads(const struct kv_geometry *g, uint32_t *dk, uint32_t *dv)
{
    *dk = *dv = 0;
    for (uint32_t i = 0; i < g->n_layers; i++) {
        *dk = g->layer[i].dk > *dk ? g->layer[i].dk : *dk;
        *dv = g->layer[i].dv > *dv ? g->layer[i].dv : *dv;
    }
}

/* The table comes last: attaching to it takes the worker's role and announces us. */
static int attach_segments(struct link *l, struct error *err)
{
    int rc = engine_page_attach(&l->page, l->dir, l->engine_idx, err);

    if (rc == 0)
        rc = directory_attach(&l->directory, l->dir, l->engine_idx, err);
    if (rc == 0)
        rc = arena_attach(&l->arena, l->dir, l->engine_idx, l->worker_idx, true, err);
    if (rc == 0)
        rc = job_table_attach(&l->table, l->dir, l->engine_idx, l->worker_idx,
                              &l->page.shared->done_bell, err);
    return rc;
}

/* What a job needs beside the segments, for the largest that they allow. */
static int create_scratch(struct link *l, enum isa isa, uint32_t n_threads, struct error *err)
{
    uint32_t dk, dv;

    widest_heads(&l->arena.geometry, &dk, &dv);
    l->blocks = calloc(l->directory.blocks_max, sizeof *l->blocks);
    int rc = l->blocks != NULL ? attn_scratch_create(&l->scratch, isa, n_threads, dk, dv) : -ENOMEM;

    return rc == 0 ? 0 : error_set(err, rc, "no memory for the scratch of a job");
}

/* Once per reason.  An engine that reclaims holds the worker's role for less than a look: only the
 * second look in a row that finds it taken means another worker. */
static void tell_failure(struct link *l, int rc, const struct error *err)
{
    if (rc != l->last_error)
        l->n_failed = 0;
    l->last_error = rc;
    if (rc != -ENOENT && ++l->n_failed == (rc == -EBUSY ? 2 : 1))
        log_warn("attach_failed", "engine=%u error=%d detail=\"%s\"", l->engine_idx, rc, err->text);
}

int link_attach(struct link *l, enum isa isa, uint32_t n_threads)
{
    struct error err = {.text = ""};
    int rc = attach_segments(l, &err);

    if (rc == 0)
        rc = create_scratch(l, isa, n_threads, &err);
    if (rc != 0) {
        tell_failure(l, rc, &err);
        link_detach(l);
        return rc;
    }
    l->last_error = 0;
    l->attached = true;
    log_info("attached", "engine=%u epoch=%u slots=%u arena_blocks=%u block_bytes=%u",
             l->engine_idx, l->table.epoch, l->table.layout.n_slots, l->arena.n_blocks,
             l->arena.geometry.block_bytes);
    return 0;
}

void link_detach(struct link *l)
{
    job_table_detach(&l->table);
    arena_detach(&l->arena);
    directory_detach(&l->directory);
    engine_page_detach(&l->page);
    attn_scratch_destroy(l->scratch);
    l->scratch = NULL;
    free(l->blocks);
    l->blocks = NULL;
    l->attached = false;
}

bool link_is_current(const struct link *l)
{
    return segment_is_current(&l->page.segment) && segment_is_current(&l->table.segment) &&
           segment_is_current(&l->arena.segment) && segment_is_current(&l->directory.segment);
}

/* ---- A job ----------------------------------------------------------------------------------- */

/* Ids of the blocks that the job's context fills.  Each is read once, so that what is checked is
 * what the kernels use, whatever the directory says by then. */
static int copy_blocks(struct link *l, const struct directory_table *table, uint32_t n)
{
    const volatile uint32_t *ids = table->blocks;

    if (n > table->n_blocks) /* a directory of other blocks than the arena's */
        return -EPROTO;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = ids[i];

        if (id >= l->arena.n_blocks)
            return -EPROTO;
        l->blocks[i] = id;
    }
    return 0;
}

/* The KV that the job names, everything checked: this is another process's memory. */
static int job_kv(struct link *l, const struct job *job, struct kv_view *kv)
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

    rc = copy_blocks(l, &table, n_blocks);
    if (rc == 0)
        *kv = arena_view(&l->arena, job->layer, l->blocks, n_blocks);
    return rc;
}

static void compute(struct link *l, struct team *team, const struct job *job,
                    const struct kv_view *kv)
{
    const struct job_table_layout *layout = &l->table.layout;
    struct attn_job attn = {.q = job_table_q(&l->table, job->slot),
                            .out = job_table_out(&l->table, job->slot),
                            .n_q = job->n_q,
                            .pos = job->pos,
                            .kv = *kv,
                            .ldq = layout->q_width,
                            .ldo = layout->out_width};

    attn_append(kv, job->pos, job->n_q, job_table_k(&l->table, job->slot), layout->k_width,
                job_table_v(&l->table, job->slot), layout->v_width);
    fault_point("worker.appended");
    attn_run(team, l->scratch, &attn, 1);
    fault_point("worker.attended");
}

/* KV bytes that the job reads: its window's, if the layer has one. */
static uint64_t job_bytes(const struct link *l, const struct job *job)
{
    const struct kv_layer *layer = &l->arena.geometry.layer[job->layer];
    uint64_t n = job->ctx_len;

    if (layer->window != 0 && n > (uint64_t)layer->window + layer->n_sinks)
        n = (uint64_t)layer->window + layer->n_sinks;
    return n * geometry_layer_token_bytes(&l->arena.geometry, job->layer);
}

uint64_t link_predict_ns(const struct link *l, const struct job *job)
{
    if (l->bytes_per_ns <= 0 || job->layer >= l->arena.geometry.n_layers)
        return 0;
    return (uint64_t)((double)job_bytes(l, job) / l->bytes_per_ns);
}

static void count_job(struct link *l, const struct job *job, uint64_t ns)
{
    static const double weight =
        0.05; /* some dozens of jobs: steady, and follows a busy neighbour */
    uint64_t bytes = job_bytes(l, job);
    double rate = (double)bytes / (double)(ns > 0 ? ns : 1);

    l->bytes_per_ns =
        l->bytes_per_ns <= 0 ? rate : l->bytes_per_ns + weight * (rate - l->bytes_per_ns);
    atomic_fetch_add_explicit(&l->table.shared->kv_bytes_read, bytes, memory_order_relaxed);
    atomic_store_explicit(&l->table.shared->bytes_per_s, (uint64_t)(l->bytes_per_ns * 1e9),
                          memory_order_relaxed);
}

void link_run_job(struct link *l, struct team *team, const struct job *job)
{
    uint64_t start = clock_now_ns();
    struct kv_view kv;

    fault_point("worker.job");
    if (!job_worker_still_posted(&l->table, job))
        return;
    int status = job_kv(l, job, &kv);
    if (status == 0)
        compute(l, team, job, &kv);
    else
        log_error("job_refused", "engine=%u slot=%u seq=%u.%u layer=%u pos=%u error=%d",
                  l->engine_idx, job->slot, job->seq_idx, job->seq_gen, job->layer, job->pos,
                  status);
    uint64_t end = clock_now_ns();
    if (job_worker_complete(&l->table, job, start, end, status) == 0 && status == 0)
        count_job(l, job, end - start);
}
