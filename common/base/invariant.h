/* invariant.h - programmer errors and "cannot go on" (STYLE, errors 3 and 4).
 *
 * invariant(x) is always on: it states what must be true here because of code of ours, prints the
 * expression and its place, and aborts.  Bytes that come from a client, a file or a peer process
 * are never checked with it: those are operating errors (0 or -errno).
 * fatal() ends the program with a message; it is called from main.c and <program>.c only.
 * Any thread, any process; neither returns. */
#ifndef OMNI_COMMON_BASE_INVARIANT_H
#define OMNI_COMMON_BASE_INVARIANT_H

#define invariant(x)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(x), 0))                                                             \
            invariant_failed(#x, __FILE__, __LINE__);                                              \
    } while (0)

_Noreturn void invariant_failed(const char *expression, const char *file, int line);

/* Logs "fatal: ..." and exits with status 1. */
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
