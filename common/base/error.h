/* error.h - the text that goes with an errno.
 *
 * Functions that may fail for a reason an operator has to understand take a `struct error *` and
 * fill it with one sentence: what was expected, what was found, the remedy.  They return the same
 * negative errno with or without it; NULL is allowed everywhere.  Nothing is logged below main.c:
 * whoever can add context logs once.  Plain data on the caller's stack; no allocation. */
#ifndef OMNI_COMMON_BASE_ERROR_H
#define OMNI_COMMON_BASE_ERROR_H

#include <stdarg.h>
#include <stdio.h>

struct error {
    char text[512]; /* NUL-terminated, cut if longer */
};

/* Writes the sentence into *e (NULL: nowhere) and returns code, for `return error_set(...)`. */
static inline int __attribute__((format(printf, 3, 4)))
error_set(struct error *e, int code, const char *format, ...)
{
    va_list args;

    if (e != NULL) {
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
    }
    return code;
}

#endif
