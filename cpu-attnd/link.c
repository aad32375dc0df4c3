#include "cpu-attnd/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
    l->batch.blocks =
        calloc((size_t)BATCH_JOBS_MAX * l->directory.blocks_max, sizeof *l->batch.blocks);
    int rc = l->batch.blocks != NULL ? attn_scratch_create(&l->scratch, isa, n_threads, dk, dv)
                                     : -ENOMEM;
    if (rc == 0)
        rc = payload_init(&l->batch.payload, &l->table.layout, BATCH_JOBS_MAX);

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
    free(l->batch.blocks);
    l->batch.blocks = NULL;
    payload_fini(&l->batch.payload);
    l->attached = false;
}

bool link_is_current(const struct link *l)
{
    return segment_is_current(&l->page.segment) && segment_is_current(&l->table.segment) &&
           segment_is_current(&l->arena.segment) && segment_is_current(&l->directory.segment);
}

/* ---- Time ------------------------------------------------------------------------------------ */

uint64_t link_job_bytes(const struct link *l, const struct job *job)
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
    return (uint64_t)((double)link_job_bytes(l, job) / l->bytes_per_ns);
}
