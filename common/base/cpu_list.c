#include "common/base/cpu_list.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Takes the number that *p begins with; -EINVAL where there is none, or no such cpu. */
static int take_number(const char **p, const char *end, uint32_t *out)
{
    const char *start = *p;

    *out = 0;
    while (*p < end && isdigit((unsigned char)**p) && *out < CPU_LIST_CPUS_MAX)
        *out = *out * 10 + (uint32_t)(*(*p)++ - '0');
    return *p > start && *out < CPU_LIST_CPUS_MAX ? 0 : -EINVAL;
}

static int take_range(const char **p, const char *end, uint64_t *bits)
{
    uint32_t first, last;
    int rc = take_number(p, end, &first);

    last = first;
    if (rc == 0 && *p < end && **p == '-') {
        (*p)++;
        rc = take_number(p, end, &last);
    }
    if (rc != 0 || last < first)
        return -EINVAL;
    for (uint32_t cpu = first; cpu <= last; cpu++)
        bits[cpu / 64] |= UINT64_C(1) << (cpu % 64);
    return 0;
}

int cpu_list_parse(const char *text, size_t n, uint64_t bits[CPU_LIST_WORDS])
{
    const char *p = text, *end = text + n;

    memset(bits, 0, CPU_LIST_WORDS * sizeof *bits);
    for (;;) {
        if (take_range(&p, end, bits) != 0)
            return -EINVAL;
        if (p == end)
            return 0;
        if (*p++ != ',')
            return -EINVAL;
    }
}

size_t cpu_list_next(const char **rest)
{
    size_t n = strcspn(*rest, "|");

    *rest = (*rest)[n] == '|' ? *rest + n + 1 : NULL;
    return n;
}
