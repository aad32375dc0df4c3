/* log.h - one line per event, key=value, to stderr (the supervisor keeps the files).
 *
 *   log_info("worker_attached", "worker=%u pid=%d arena_bytes=%" PRIu64, w, pid, n);
 *
 * prints   2026-11-24T06:00:00.123Z info gpu-engine worker_attached worker=0 pid=42 arena_bytes=...
 * The event is a fixed word, the rest is key=value.  Never called per token or per job.
 * Any thread; one write(2) per line, so that lines of several processes do not mix. */
#ifndef OMNI_COMMON_BASE_LOG_H
#define OMNI_COMMON_BASE_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* program: static string shown in every line.  Call before the first thread is started. */
void log_init(const char *program, enum log_level min_level);

/* Changes the lowest level printed; any thread, at any time. */
void log_set_level(enum log_level min_level);

/* "debug", "info", "warn", "error" -> level; 0 or -EINVAL. */
int log_level_parse(const char *name, enum log_level *out);

/* How often the wall clock has moved against the monotonic one, by a second or more, between two
 * lines of this process.  Only the stamps in the log follow it; the first line after a jump says
 * "clock_jumped_s=".  Any thread. */
unsigned log_clock_jumps(void);

void log_write(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(event, ...) log_write(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...)  log_write(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_warn(event, ...)  log_write(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_write(LOG_LEVEL_ERROR, event, __VA_ARGS__)

#endif
