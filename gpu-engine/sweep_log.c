#include "gpu-engine/sweep_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"

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

void sweep_log_predicted(struct sweep_log *log, uint64_t sweep, const struct latency_load *load,
                         const struct latency_prediction *p)
{
    if (log->fd < 0)
        return;
    put(log, "%llu %u %u %u %u %u %u %.0f %.0f %.2f %.2f %.0f %.0f %.0f %.0f %.0f ",
        (unsigned long long)sweep, load->n_rows, load->n_decodes, load->n_chunks,
        load->n_chunk_rows, load->n_out, load->n_entering, load->c_da[0], load->c_pa[0],
        load->returned_rows, load->returned_layers, p->total_ns, p->busy_ns,
        p->dense_ns + p->fixed_ns + p->return_ns, p->attention_ns, p->head_ns);
}

void sweep_log_measured(struct sweep_log *log, const struct sweep_log_outcome *o)
{
    const struct latency_measured *m = &o->measured;

    if (log->fd < 0)
        return;
    put(log, "%.0f %.0f %.0f %.0f %.0f %u %u %u %u\n", m->total_ns, m->busy_ns, m->dense_ns,
        m->attention_ns, m->head_ns, o->returned, o->returned_layers, o->posted, o->ridden);
}
