#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/invariant.h"

enum {
    LINE_BYTES_MAX = 2048, /* longer lines are cut: below PIPE_BUF, one write is one line */
    JUMP_MS = 1000         /* less than this is a clock that is being adjusted */
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *log_program = "omni";
static _Atomic int log_min_level = LOG_LEVEL_INFO;
static _Atomic int64_t log_clock_ms; /* wall clock less monotonic clock at the last line; 0: none */
static _Atomic unsigned log_n_jumps;

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

unsigned log_clock_jumps(void)
{
    return atomic_load_explicit(&log_n_jumps, memory_order_relaxed);
}

/* Milliseconds that the wall clock has jumped by since the last line; 0: it has not. */
static int64_t note_clock(const struct timespec *wall)
{
    int64_t apart = (int64_t)wall->tv_sec * 1000 + wall->tv_nsec / 1000000 -
                    (int64_t)(clock_now_ns() / NS_PER_MS);
    int64_t before = atomic_exchange_explicit(&log_clock_ms, apart, memory_order_relaxed);

    if (before == 0 || llabs(apart - before) < JUMP_MS)
        return 0;
    atomic_fetch_add_explicit(&log_n_jumps, 1, memory_order_relaxed);
    return apart - before;
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
    size_t used = n < 0 ? 0 : (size_t)n;
    int64_t jumped = note_clock(&now);

    if (jumped != 0 && used < size) {
        n = snprintf(line + used, size - used, "clock_jumped_s=%lld ", (long long)jumped / 1000);
        used += n < 0 ? 0 : (size_t)n;
    }
    return used;
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
