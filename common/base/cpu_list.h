/* cpu_list.h - "0-3,8": a list of cpus as the kernel writes it, and "0-3|8-11": one list per member.
 *
 * The configuration is checked with it before anything starts, and the topology reads it; so it
 * lies below both, and knows neither.  Pure functions. */
#ifndef OMNI_COMMON_BASE_CPU_LIST_H
#define OMNI_COMMON_BASE_CPU_LIST_H

#include <stddef.h>
#include <stdint.h>

enum {
    CPU_LIST_CPUS_MAX = 1024, /* numbers below it */
    CPU_LIST_WORDS = CPU_LIST_CPUS_MAX / 64
};

/* Reads the n characters at text, without blanks; bit c of bits is cpu c.  0 or -EINVAL. */
int cpu_list_parse(const char *text, size_t n, uint64_t bits[CPU_LIST_WORDS]);

/* The list that *rest begins with: its length.  *rest goes on to the next list, to NULL after the
 * last.  Call while *rest is not NULL. */
size_t cpu_list_next(const char **rest);

#endif
