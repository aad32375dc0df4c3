#include "common/topology/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

static void add_core(struct topology_node *node, hwloc_const_bitmap_t cpuset)
{
    int first = hwloc_bitmap_first(cpuset);

    if (first < 0 || first >= TOPOLOGY_CPUS_MAX || node->n_cores == TOPOLOGY_CORES_MAX)
        return;
    node->core_cpu[node->n_cores++] = (uint16_t)first;
    for (int cpu = first; cpu >= 0 && cpu < TOPOLOGY_CPUS_MAX; cpu = hwloc_bitmap_next(cpuset, cpu))
        cpu_set_add(&node->cpus, (uint32_t)cpu);
}

static void read_node(struct topology_node *node, hwloc_topology_t h, hwloc_obj_t numa)
{
    /* Some virtual machines show no cores: then each hardware thread is one. */
    hwloc_obj_type_t type =
        hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t core = NULL;

    memset(node, 0, sizeof *node);
    node->os_index = numa->os_index;
    while ((core = hwloc_get_next_obj_inside_cpuset_by_type(h, numa->cpuset, type, core)) != NULL)
        add_core(node, core->cpuset);
}

static int read_all(struct topology *t, hwloc_topology_t h, struct error *err)
{
    int n = hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_NUMANODE);

    for (int i = 0; i < n && t->n_nodes < TOPOLOGY_NODES_MAX; i++) {
        struct topology_node *node = &t->node[t->n_nodes];
        read_node(node, h, hwloc_get_obj_by_type(h, HWLOC_OBJ_NUMANODE, (unsigned)i));
        if (node->n_cores == 0) /* memory without cpus, or none of ours */
            continue;
        t->n_nodes++;
        t->n_cores += node->n_cores;
        t->n_cpus += cpu_set_count(&node->cpus);
    }
    return t->n_nodes > 0 ? 0 : error_set(err, -ENODEV, "no NUMA node with a usable cpu was found");
}

/* Where hwloc learns nothing of the machine (some containers): one node of the cpus that we may use,
 * each of them a core. */
static int read_allowed(struct topology *t, struct error *err)
{
    struct topology_node *node = &t->node[0];
    cpu_set_t allowed;
    char list[128];

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return error_set(err, -errno, "neither hwloc nor the kernel tells which cpus there are");
    memset(node, 0, sizeof *node);
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX && cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || node->n_cores == TOPOLOGY_CORES_MAX)
            continue;
        node->core_cpu[node->n_cores++] = (uint16_t)cpu;
        cpu_set_add(&node->cpus, cpu);
    }
    t->n_nodes = 1;
    t->n_cores = t->n_cpus = node->n_cores;
    topology_format_cpus(&node->cpus, list, sizeof list);
    log_warn("topology_unknown", "taken=\"one node, cpus %s\" remedy=\"engine.cpus, worker.cpus\"",
             list);
    return 0;
}

/* hwloc can count cpus without the system's help, and no more than that. */
static bool has_counted_only(hwloc_topology_t h)
{
    return !hwloc_topology_get_support(h)->discovery->numa &&
           hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_CORE) == 0;
}

static int read_machine(struct topology *t, hwloc_topology_t h, struct error *err)
{
    hwloc_topology_set_flags(h, HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM |
                                    HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
    if (hwloc_topology_load(h) != 0 || has_counted_only(h))
        return read_allowed(t, err);
    return read_all(t, h, err);
}

int topology_load(struct topology *t, const char *synthetic, struct error *err)
{
    hwloc_topology_t h;
    int rc;

    memset(t, 0, sizeof *t);
    if (synthetic == NULL)
        synthetic = getenv("OMNI_TOPOLOGY");
    t->synthetic = synthetic != NULL && synthetic[0] != '\0';
    if (hwloc_topology_init(&h) != 0)
        return error_set(err, -ENOMEM, "hwloc cannot start");
    if (t->synthetic && hwloc_topology_set_synthetic(h, synthetic) != 0) {
        hwloc_topology_destroy(h);
        return error_set(err, -EINVAL, "topology \"%s\" is not understood", synthetic);
    }
    if (!t->synthetic)
        rc = read_machine(t, h, err);
    else if (hwloc_topology_load(h) == 0)
        rc = read_all(t, h, err);
    else
        rc = error_set(err, -EIO, "topology \"%s\" cannot be loaded", synthetic);
    hwloc_topology_destroy(h);
    return rc;
}

int topology_pin_thread(const struct cpu_set *cpus)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX && cpu < CPU_SETSIZE; cpu++) {
        if (cpu_set_has(cpus, cpu))
            CPU_SET(cpu, &set);
    }
    return CPU_COUNT(&set) == 0 ? -EINVAL
                                : -pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
