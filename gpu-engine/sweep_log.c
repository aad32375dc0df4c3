#include "gpu-engine/sweep_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "gpu-engine/engine.h"

enum { BUFFER_BYTES = 64 * 1024, HALF_LINE_MAX = 512 };

static void flush(struct sweep_log *log)
{
    size_t written = 0;

    while (written < log->n_bytes) {
        ssize_t n = write(log->fd, log->buffer + written, log->n_bytes - written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            log_warn("sweep_log_ends", "reason=\"%s\"", strerror(errno));
            close(log->fd);
            log->fd = -1;
            break;
        }
        written += (size_t)n;
    }
    log->n_bytes = 0;
}

static void __attribute__((format(printf, 2, 3)))
put(struct sweep_log *log, const char *format, ...)
{
    va_list args;

    if (BUFFER_BYTES - log->n_bytes < HALF_LINE_MAX)
        flush(log);
    va_start(args, format);
    log->n_bytes += (size_t)vsnprintf(log->buffer + log->n_bytes, HALF_LINE_MAX, format, args);
    va_end(args);
}

int sweep_log_open(struct sweep_log *log, const char *path, struct error *err)
{
    if (path[0] == '\0')
        return 0;
    log->buffer = malloc(BUFFER_BYTES);
    if (log->buffer == NULL)
        return error_set(err, -ENOMEM, "engine.sweep_log: no memory");
    log->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log->fd < 0)
        return error_set(err, -errno, "engine.sweep_log %s: %s", path, strerror(errno));
    put(log, "%s\n", SWEEP_LOG_COLUMNS);
    return 0;
}

void sweep_log_close(struct sweep_log *log)
{
    if (log->fd >= 0)
        flush(log);
    if (log->fd >= 0)
        close(log->fd);
    free(log->buffer);
    *log = SWEEP_LOG_NONE;
}

void sweep_log_predicted(struct sweep_log *log, uint64_t sweep, const struct engine_batch *batch)
{
    const struct latency_load *a = &batch->load, *b = &batch->load_b;
    const struct latency_prediction *p = &batch->predicted;
    double wait_ns = batch->predicted_wait_ns;

    if (log->fd < 0)
        return;
    put(log, "%llu %u %u %u %u %u %u %.0f %.0f %.2f %.2f %u %u ", (unsigned long long)sweep,
        a->n_rows + b->n_rows, a->n_decodes + b->n_decodes, a->n_chunks + b->n_chunks,
        a->n_chunk_rows + b->n_chunk_rows, a->n_out + b->n_out, a->n_entering + b->n_entering,
        a->c_da[0] + b->c_da[0], a->c_pa[0] + b->c_pa[0], a->returned_rows + b->returned_rows,
        a->returned_layers + b->returned_layers, b->n_rows, b->n_entering);
    put(log, "%.0f %.0f %.0f %.0f %.0f %.0f ", p->total_ns + wait_ns, p->busy_ns + wait_ns,
        p->dense_ns + p->fixed_ns + p->return_ns, p->attention_ns, p->head_ns, wait_ns);
}

void sweep_log_measured(struct sweep_log *log, const struct sweep_log_outcome *o)
{
    const struct latency_measured *m = &o->measured;

    if (log->fd < 0)
        return;
    put(log, "%.0f %.0f %.0f %.0f %.0f %.0f %u %u %u %u\n", m->total_ns + o->waited_ns,
        m->busy_ns + o->waited_ns, m->dense_ns, m->attention_ns, m->head_ns, o->waited_ns,
        o->returned, o->returned_layers, o->posted, o->ridden);
}
