/* Sets of cpus and their text form.  See topology.h. */
#include <stdio.h>

#include "common/topology/topology.h"

uint32_t cpu_set_count(const struct cpu_set *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < TOPOLOGY_CPUS_MAX / 64; i++)
        n += (uint32_t)__builtin_popcountll(s->bits[i]);
    return n;
}

bool cpu_set_has(const struct cpu_set *s, uint32_t cpu)
{
    return cpu < TOPOLOGY_CPUS_MAX && (s->bits[cpu / 64] >> (cpu % 64) & 1) != 0;
}

void cpu_set_add(struct cpu_set *s, uint32_t cpu)
{
    if (cpu < TOPOLOGY_CPUS_MAX)
        s->bits[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

int cpu_set_nth(const struct cpu_set *s, uint32_t n)
{
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (cpu_set_has(s, cpu) && n-- == 0)
            return (int)cpu;
    }
    return -1;
}

bool cpu_set_intersects(const struct cpu_set *a, const struct cpu_set *b)
{
    for (uint32_t i = 0; i < TOPOLOGY_CPUS_MAX / 64; i++) {
        if ((a->bits[i] & b->bits[i]) != 0)
            return true;
    }
    return false;
}

int topology_parse_cpus(const char *text, size_t n, struct cpu_set *out)
{
    return cpu_list_parse(text, n, out->bits);
}

void topology_format_cpus(const struct cpu_set *set, char *out, uint32_t out_size)
{
    uint32_t used = 0;

    out[0] = '\0';
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        uint32_t last = cpu;
        int n;

        if (!cpu_set_has(set, cpu))
            continue;
        while (cpu_set_has(set, last + 1))
            last++;
        if (last == cpu)
            n = snprintf(out + used, out_size - used, "%s%u", used > 0 ? "," : "", cpu);
        else
            n = snprintf(out + used, out_size - used, "%s%u-%u", used > 0 ? "," : "", cpu, last);
        if (n < 0 || (uint32_t)n >= out_size - used) {
            out[used] = '\0';
            return;
        }
        used += (uint32_t)n;
        cpu = last;
    }
}
