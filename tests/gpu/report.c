/* report.c - see report.h. */
#include "tests/gpu/report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = REPORT_KEY_MAX + REPORT_VALUE_MAX + 512 };

static const char ERROR_PREFIX[] = "error:";

static int report_open(struct report *report, const char *path, int flags, int echo_fd)
{
    report->echo = echo_fd;
    report->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0644);
    return report->fd < 0 ? -errno : 0;
}

int report_create(struct report *report, const char *path, int echo_fd)
{
    return report_open(report, path, O_CREAT | O_EXCL, echo_fd);
}

int report_attach(struct report *report, const char *path, int echo_fd)
{
    return report_open(report, path, 0, echo_fd);
}

void report_close(struct report *report)
{
    if (report->fd >= 0)
        close(report->fd);
    report->fd = -1;
}

static int key_length(const char *text)
{
    const size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n < REPORT_KEY_MAX ? (int)n : 0;
}

/* The echo is a courtesy: a closed terminal must not stop a measurement. */
static int line_write(struct report *report, const char *line, size_t n)
{
    if (report->echo >= 0 && write(report->echo, line, n) < 0)
        report->echo = -1;
    const ssize_t done = write(report->fd, line, n);
    if (done < 0)
        return -errno;
    return (size_t)done == n ? 0 : -EIO;
}

static void value_clean(char *value)
{
    for (char *c = value; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
}

static int entry_write(struct report *report, const char *key, const char *prefix,
                       const char *format, va_list args)
{
    char value[REPORT_VALUE_MAX], line[LINE_MAX_BYTES];
    const int key_n = key_length(key);
    if (!key_n || key[key_n])
        return -EINVAL;
    vsnprintf(value, sizeof value, format, args);
    value_clean(value);
    const int n = snprintf(line, sizeof line, "%s=%s%s\n", key, prefix, value);
    return line_write(report, line, (size_t)n);
}

int report_text(struct report *report, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int rc = entry_write(report, key, "", format, args);
    va_end(args);
    return rc;
}

int report_error(struct report *report, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int rc = entry_write(report, key, ERROR_PREFIX, format, args);
    va_end(args);
    return rc;
}

int report_number(struct report *report, const char *key, double value)
{
    if (!isfinite(value))
        return report_error(report, key, "not a finite number");
    /* Never an exponent: a spreadsheet and a shell both read these lines. */
    const int whole = fabs(value) >= 10000.0 || value == floor(value);
    const int decimals = whole ? 0 : fabs(value) >= 100.0 ? 2 : 4;
    return report_text(report, key, "%.*f", decimals, value);
}

int report_line(struct report *report, const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (n < 0)
        return -EINVAL;
    if ((size_t)n > sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n] = '\n';
    return line_write(report, line, (size_t)n + 1);
}

/* 1: an entry was read into *out; 0: the line is not key=value. */
static int entry_parse(char *line, struct report_entry *out)
{
    const int n = key_length(line);
    if (!n || line[n] != '=')
        return 0;
    line[strcspn(line, "\n")] = '\0';
    memcpy(out->key, line, (size_t)n);
    out->key[n] = '\0';
    snprintf(out->value, sizeof out->value, "%.*s", (int)sizeof out->value - 1, line + n + 1);
    return 1;
}

int report_load(const char *path, struct report_table *table)
{
    char line[4096];
    int rc = 0;
    FILE *file = fopen(path, "re");
    table->n = 0;
    if (!file)
        return -errno;
    while (!rc && fgets(line, sizeof line, file)) {
        struct report_entry entry;
        if (!entry_parse(line, &entry))
            continue;
        if (table->n == REPORT_ENTRIES_MAX)
            rc = -E2BIG;
        else
            table->entry[table->n++] = entry;
    }
    fclose(file);
    return rc;
}

const char *report_find(const struct report_table *table, const char *key)
{
    for (size_t i = table->n; i-- > 0;)
        if (!strcmp(table->entry[i].key, key))
            return table->entry[i].value;
    return NULL;
}

size_t report_count_errors(const struct report_table *table)
{
    size_t n = 0;
    for (size_t i = 0; i < table->n; i++)
        n += !strncmp(table->entry[i].value, ERROR_PREFIX, sizeof ERROR_PREFIX - 1);
    return n;
}
