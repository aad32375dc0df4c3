/* sweep_log.h - a line per sweep, for those who want to know where predictions fail.
 *
 * The first half of a line is made before its sweep is submitted (what was asked, what was
 * predicted), the second half when it has ended (what was measured); SWEEP_LOG_COLUMNS heads the
 * file.  Lines are collected in memory and written when the buffer is full, and at the end; closed,
 * each call is one comparison.  Engine thread.
 *
 * Loads are of both batches together, rows_b and entering_b say how much of that is batch B's.
 * Total and busy times hold the funded waits, which stand beside them too. */
#ifndef OMNI_GPU_ENGINE_SWEEP_LOG_H
#define OMNI_GPU_ENGINE_SWEEP_LOG_H

#include <stddef.h>

#include "common/base/error.h"
#include "common/sched/latency.h"

#define SWEEP_LOG_COLUMNS                                                                          \
    "sweep rows decodes chunks chunk_rows out entering kv_tokens pairs returned returned_layers "  \
    "rows_b entering_b p_total_ns p_busy_ns p_dense_ns p_attention_ns p_head_ns p_wait_ns "        \
    "m_total_ns m_busy_ns m_dense_ns m_attention_ns m_head_ns m_wait_ns "                          \
    "m_returned m_returned_layers posted ridden"

struct engine_batch;

struct sweep_log {
    int fd; /* -1: closed */
    char *buffer;
    size_t n_bytes;
};
#define SWEEP_LOG_NONE ((struct sweep_log){.fd = -1})

struct sweep_log_outcome {
    struct latency_measured measured; /* without what was waited */
    double waited_ns;
    uint32_t returned, returned_layers, posted, ridden; /* rows over all layers */
};

/* path "": stays closed.  The file is made anew.  0 or -errno with *err. */
int sweep_log_open(struct sweep_log *log, const char *path, struct error *err);
void sweep_log_close(struct sweep_log *log);

void sweep_log_predicted(struct sweep_log *log, uint64_t sweep, const struct engine_batch *batch);
void sweep_log_measured(struct sweep_log *log, const struct sweep_log_outcome *o);

#endif
