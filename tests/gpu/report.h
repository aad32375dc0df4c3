/* report.h - the results file: key=value lines, each written as soon as it is measured.
 *
 * The file is the only truth about a run.  The parent process creates it, the process of each part
 * appends to it, and the summary at the end is made by reading it back; a part that crashes or is
 * killed loses what it had not measured yet and nothing else.  One write(2) per line on an O_APPEND
 * descriptor, so that lines of two processes never mix.  Every line is also echoed to stdout. */
#ifndef OMNI_TESTS_GPU_REPORT_H
#define OMNI_TESTS_GPU_REPORT_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { REPORT_KEY_MAX = 64, REPORT_VALUE_MAX = 256, REPORT_ENTRIES_MAX = 1024 };

struct report {
    int fd;   /* the results file; -1 when closed */
    int echo; /* a second descriptor that gets every line, or -1 */
};

struct report_entry {
    char key[REPORT_KEY_MAX];
    char value[REPORT_VALUE_MAX];
};

struct report_table {
    size_t n;
    struct report_entry entry[REPORT_ENTRIES_MAX];
};

/* Creates the file (0644); -EEXIST rather than mixing two runs in one file, or another -errno. */
int report_create(struct report *report, const char *path, int echo_fd);

/* Opens an existing file for appending: the process of one part.  0 or -errno. */
int report_attach(struct report *report, const char *path, int echo_fd);

void report_close(struct report *report);

/* Appends key=value.  The key is [a-z0-9_]+, shorter than REPORT_KEY_MAX (-EINVAL otherwise);
 * control characters in the value become spaces and an overlong value is cut.  0 or -errno. */
int report_text(struct report *report, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends key=<value in five significant digits or better>; a value that is not finite is an error
 * line. */
int report_number(struct report *report, const char *key, double value);

/* Appends key=error:<reason>. */
int report_error(struct report *report, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends one line that is no key=value (table rows, blank lines). */
int report_line(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Reads the key=value lines of a file; lines without a valid key are passed over.  0 or -errno;
 * -E2BIG beyond REPORT_ENTRIES_MAX. */
int report_load(const char *path, struct report_table *table);

/* The value of the last line with this key, or NULL. */
const char *report_find(const struct report_table *table, const char *key);

/* How many entries are error:... */
size_t report_count_errors(const struct report_table *table);

#ifdef __cplusplus
}
#endif
#endif
