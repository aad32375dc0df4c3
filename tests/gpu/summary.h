/* summary.h - the end of a results file: a table for people, and one line of figures for programs.
 */
#ifndef OMNI_TESTS_GPU_SUMMARY_H
#define OMNI_TESTS_GPU_SUMMARY_H
#include "tests/gpu/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads the results back from path and appends the table and, as the last line, key=value figures
 * separated by spaces (key=error where it failed, key=none where nobody measured it).  Returns the
 * number of error lines in the file; a file that cannot be read back counts as one. */
int summary_write(struct report *report, const char *path);

#ifdef __cplusplus
}
#endif
#endif
