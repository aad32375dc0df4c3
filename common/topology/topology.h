/* topology.h - which cpus and NUMA nodes there are, and who runs where.
 *
 * Read through hwloc, restricted to what this process may use (cpuset).  A synthetic description
 * ("numa:2 core:4 pu:2", hwloc's syntax) replaces the machine in tests: OMNI_TOPOLOGY or the
 * parameter; threads are then never pinned.  topology_plan decides once, from the same inputs, in
 * every program of a group, so that they agree without talking.  Any thread may read. */
#ifndef OMNI_COMMON_TOPOLOGY_TOPOLOGY_H
#define OMNI_COMMON_TOPOLOGY_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/cpu_list.h"
#include "common/base/error.h"

enum {
    TOPOLOGY_CPUS_MAX = CPU_LIST_CPUS_MAX,
    TOPOLOGY_CORES_MAX = 256, /* per node */
    TOPOLOGY_NODES_MAX = 16,
    TOPOLOGY_WORKERS_MAX = 16
};

struct cpu_set { /* by operating-system cpu number */
    uint64_t bits[TOPOLOGY_CPUS_MAX / 64];
};

struct topology_node {
    uint32_t os_index; /* what mbind takes */
    uint32_t n_cores;
    struct cpu_set cpus;                   /* all hardware threads */
    uint16_t core_cpu[TOPOLOGY_CORES_MAX]; /* first hardware thread of each core */
};

struct topology {
    uint32_t n_nodes, n_cores, n_cpus;
    bool synthetic;
    struct topology_node node[TOPOLOGY_NODES_MAX];
};

/* synthetic NULL: OMNI_TOPOLOGY if set, else the machine; where hwloc knows nothing of it, one node of
 * the cpus that this process may use, and a warning (topology_unknown). */
int topology_load(struct topology *t, const char *synthetic, struct error *err);

/* Where one program (or one worker of the group) runs. */
struct topology_place {
    struct cpu_set cpus;
    uint32_t n_threads; /* suggested or as configured */
    int node;           /* operating system's node for its memory; -1: only one, do not bind */
    bool pinned;        /* false: cores are shared, do not pin */
    bool exclusive;     /* pinned, and no other engine or worker runs there: spinning is allowed if
                           the other end's place is exclusive too */
};

struct topology_plan {
    uint32_t n_engines, n_workers;
    struct topology_place engine[TOPOLOGY_WORKERS_MAX];
    struct topology_place worker[TOPOLOGY_WORKERS_MAX];
    struct topology_place router; /* shares the engines' cores; sleeps most of the time */
};

struct topology_request {
    uint32_t n_engines, n_workers;
    uint32_t engine_threads, worker_threads; /* 0 = decide */
    const char *engine_cpus; /* "" or NULL = decide; "0-3|8-11": one list per engine */
    const char *worker_cpus;
    bool
        unbound; /* nobody is pinned and no memory is bound: for a machine that others place us on */
};

/* What the configuration of a group asks for.  Its texts stay the configuration's. */
struct topology_request topology_request_of(const struct omni_config *c);

/* Workers are spread over the nodes in turn; engines get about half of the cores of their node
 * (one at least), never a worker's, while there are enough; else all share and nobody is pinned. */
int topology_plan(const struct topology *t, const struct topology_request *r,
                  struct topology_plan *plan, struct error *err);

/* Pins the calling thread; 0 or -errno. */
int topology_pin_thread(const struct cpu_set *cpus);

/* "0-3,8" <-> set.  Parse: of n characters; 0 or -EINVAL. */
int topology_parse_cpus(const char *text, size_t n, struct cpu_set *out);
void topology_format_cpus(const struct cpu_set *set, char *out, uint32_t out_size);

uint32_t cpu_set_count(const struct cpu_set *s);
bool cpu_set_has(const struct cpu_set *s, uint32_t cpu);
void cpu_set_add(struct cpu_set *s, uint32_t cpu);
bool cpu_set_intersects(const struct cpu_set *a, const struct cpu_set *b);
/* The n-th cpu of the set (from 0), or -1. */
int cpu_set_nth(const struct cpu_set *s, uint32_t n);

#endif
