/* link.h - a worker's attachment to one engine: its page, job table, arena and directory.
 *
 * A link comes and goes with the segments: it attaches when they are there, acknowledges every new
 * engine's epoch, and attaches anew when the engine has replaced a file.  Segments outlive both
 * sides; a worker that restarts finds its jobs where they were.  Dispatching thread only. */
#ifndef OMNI_CPU_ATTND_LINK_H
#define OMNI_CPU_ATTND_LINK_H

#include "common/base/error.h"
#include "common/compute/attention.h"
#include "common/shm/arena.h"
#include "common/shm/directory.h"
#include "common/shm/engine_page.h"
#include "common/shm/job_worker.h"
#include "cpu-attnd/batch.h"

struct link {
    char dir[SEGMENT_PATH_MAX];
    uint32_t engine_idx, worker_idx;
    bool attached;
    struct engine_page page;
    struct job_table table;
    struct arena arena;
    struct directory directory;
    struct attn_scratch *scratch;
    struct batch batch;
    double bytes_per_ns; /* moving average over finished jobs; 0 = none yet */
    int last_error;      /* of the last attempt to attach, */
    uint32_t n_failed;   /* and how often it came in a row: a reason is logged once */
};

void link_init(struct link *l, const char *dir, uint32_t engine_idx, uint32_t worker_idx);

/* Attaches to all segments or to none, without waiting for anybody.  0, or -errno (-ENOENT: no
 * engine yet; -EBUSY: the worker's role is taken).  Call again at the next look. */
int link_attach(struct link *l, enum isa isa, uint32_t n_threads);
void link_detach(struct link *l);

/* Are the names still the files that are mapped? */
bool link_is_current(const struct link *l);

/* KV bytes that the job reads: its window's, if the layer has one.  Its layer must exist. */
uint64_t link_job_bytes(const struct link *l, const struct job *job);

/* Time that the job will take, by what was measured; 0 while nothing is known. */
uint64_t link_predict_ns(const struct link *l, const struct job *job);

#endif
