#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/invariant.h"

enum { LINE_BYTES_MAX = 2048 }; /* longer lines are cut: below PIPE_BUF, one write is one line */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *log_program = "omni";
static _Atomic int log_min_level = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level min_level)
{
    log_program = program;
    log_set_level(min_level);
}

void log_set_level(enum log_level min_level)
{
    atomic_store_explicit(&log_min_level, (int)min_level, memory_order_relaxed);
}

int log_level_parse(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

static size_t format_head(char *line, size_t size, const char *level, const char *event)
{
    struct timespec now;
    struct tm utc;
    char stamp[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    int n = snprintf(line, size, "%s.%03ldZ %s %s %s ", stamp, now.tv_nsec / 1000000, level,
                     log_program, event);
    return n < 0 ? 0 : (size_t)n;
}

static void write_line(const char *level, const char *event, const char *format, va_list args)
{
    char line[LINE_BYTES_MAX];
    size_t used = format_head(line, sizeof line, level, event);

    if (used < sizeof line) {
        int n = vsnprintf(line + used, sizeof line - used, format, args);
        used += n < 0 ? 0 : (size_t)n;
    }
    if (used > sizeof line - 1)
        used = sizeof line - 1;
    line[used++] = '\n';
    /* Nothing can be done about a failed write to stderr. */
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
    va_list args;

    if ((int)level < atomic_load_explicit(&log_min_level, memory_order_relaxed))
        return;
    va_start(args, format);
    write_line(level_names[level], event, format, args);
    va_end(args);
}

void invariant_failed(const char *expression, const char *file, int line)
{
    log_write(LOG_LEVEL_ERROR, "invariant_failed", "at=%s:%d expression=\"%s\"", file, line,
              expression);
    abort();
}

void fatal(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    write_line("fatal", "cannot_go_on", format, args);
    va_end(args);
    exit(1);
}
