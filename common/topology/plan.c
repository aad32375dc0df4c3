/* Who runs where.  See topology_plan in topology.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/topology/topology.h"

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Members of a group of n that fall on node `node` when they are dealt out in turn. */
static uint32_t dealt(uint32_t n, uint32_t node, uint32_t n_nodes)
{
    return n / n_nodes + (node < n % n_nodes);
}

/* Cores for the engines of a node with `cores` cores, nw workers and ne engines. */
static uint32_t engine_cores(uint32_t cores, uint32_t ne, uint32_t nw, uint32_t threads_each)
{
    uint32_t wanted;

    if (ne == 0)
        return 0;
    if (nw == 0)
        return cores;
    wanted = threads_each != 0 ? threads_each * ne : cores / 2;
    return min_u32(max_u32(wanted, ne), cores - nw);
}

static int memory_node(const struct topology *t, uint32_t node)
{
    return t->n_nodes > 1 ? (int)t->node[node].os_index : -1;
}

/* The i-th of n members gets its even part of cores [first, first + cores), at most `limit`. */
static void place_part(struct topology_place *p, const struct topology *t, uint32_t node,
                       uint32_t first, uint32_t cores, uint32_t i, uint32_t n, uint32_t limit)
{
    uint32_t begin = first + cores * i / n, end = first + cores * (i + 1) / n;

    memset(p, 0, sizeof *p);
    if (limit != 0 && end - begin > limit)
        end = begin + limit;
    for (uint32_t c = begin; c < end; c++)
        cpu_set_add(&p->cpus, t->node[node].core_cpu[c]);
    p->n_threads = limit != 0 ? limit : end - begin;
    p->node = memory_node(t, node);
    p->pinned = !t->synthetic;
}

/* Too few cores: all of them for everybody, and the kernel decides. */
static void place_shared(struct topology_place *p, const struct topology *t, uint32_t node,
                         uint32_t n_members, uint32_t threads)
{
    memset(p, 0, sizeof *p);
    p->cpus = t->node[node].cpus;
    p->n_threads = threads != 0 ? threads : max_u32(1, t->node[node].n_cores / n_members);
    p->node = memory_node(t, node);
}

static void plan_node(struct topology_plan *plan, const struct topology *t,
                      const struct topology_request *r, uint32_t node)
{
    uint32_t ne = dealt(r->n_engines, node, t->n_nodes);
    uint32_t nw = dealt(r->n_workers, node, t->n_nodes);
    uint32_t cores = t->node[node].n_cores;
    uint32_t for_engines = cores >= ne + nw ? engine_cores(cores, ne, nw, r->engine_threads) : 0;

    for (uint32_t i = 0; i < ne; i++) {
        struct topology_place *p = &plan->engine[node + i * t->n_nodes];
        if (cores >= ne + nw)
            place_part(p, t, node, 0, for_engines, i, ne, r->engine_threads);
        else
            place_shared(p, t, node, ne + nw, r->engine_threads);
    }
    for (uint32_t i = 0; i < nw; i++) {
        struct topology_place *p = &plan->worker[node + i * t->n_nodes];
        if (cores >= ne + nw)
            place_part(p, t, node, for_engines, cores - for_engines, i, nw, r->worker_threads);
        else
            place_shared(p, t, node, ne + nw, r->worker_threads);
    }
}

/* ---- what the configuration names itself ----------------------------------------------------- */

static uint32_t node_of_cpu(const struct topology *t, uint32_t cpu)
{
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        if (cpu_set_has(&t->node[i].cpus, cpu))
            return i;
    }
    return 0;
}

static bool all_usable(const struct topology *t, const struct cpu_set *s)
{
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (cpu_set_has(s, cpu) && !cpu_set_has(&t->node[node_of_cpu(t, cpu)].cpus, cpu))
            return false;
    }
    return true;
}

static int place_named(struct topology_place *p, const struct topology *t, const char *text,
                       size_t n, uint32_t threads, struct error *err)
{
    memset(p, 0, sizeof *p);
    if (topology_parse_cpus(text, n, &p->cpus) != 0)
        return error_set(err, -EINVAL, "cpus: expected e.g. 0-3,8, found \"%.*s\"", (int)n, text);
    if (!all_usable(t, &p->cpus))
        return error_set(err, -EINVAL, "cpus \"%.*s\": not all of them are ours to use", (int)n,
                         text);
    p->n_threads = threads != 0 ? threads : cpu_set_count(&p->cpus);
    p->node = memory_node(t, node_of_cpu(t, (uint32_t)cpu_set_nth(&p->cpus, 0)));
    p->pinned = !t->synthetic;
    return 0;
}

/* "0-3|8-11": one list per member; members beyond the last list keep what was planned. */
static int apply_named(struct topology_place *places, uint32_t n, const struct topology *t,
                       const char *lists, uint32_t threads, struct error *err)
{
    const char *rest = lists != NULL && lists[0] != '\0' ? lists : NULL;

    for (uint32_t i = 0; i < n && rest != NULL; i++) {
        const char *text = rest;
        int rc = place_named(&places[i], t, text, cpu_list_next(&rest), threads, err);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool overlaps_any(const struct topology_place *p, const struct topology_place *places,
                         uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (&places[i] != p && cpu_set_intersects(&p->cpus, &places[i].cpus))
            return true;
    }
    return false;
}

static void find_exclusive(struct topology_plan *plan, struct topology_place *places, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        places[i].exclusive = places[i].pinned &&
                              !overlaps_any(&places[i], plan->engine, plan->n_engines) &&
                              !overlaps_any(&places[i], plan->worker, plan->n_workers);
}

static void place_router(struct topology_plan *plan, const struct topology *t)
{
    plan->router = (struct topology_place){.n_threads = 1, .node = -1};
    for (uint32_t i = 0; i < plan->n_engines; i++) {
        for (uint32_t w = 0; w < TOPOLOGY_CPUS_MAX / 64; w++)
            plan->router.cpus.bits[w] |= plan->engine[i].cpus.bits[w];
    }
    if (plan->n_engines == 0)
        plan->router.cpus = t->node[0].cpus;
}

static void unbind(struct topology_place *places, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        places[i].pinned = false;
        places[i].node = -1;
    }
}

struct topology_request topology_request_of(const struct omni_config *c)
{
    return (struct topology_request){.n_engines = c->group_n_engines,
                                     .n_workers = c->group_n_workers,
                                     .engine_threads = c->engine_threads,
                                     .worker_threads = c->worker_threads,
                                     .engine_cpus = c->engine_cpus,
                                     .worker_cpus = c->worker_cpus,
                                     .unbound = !c->engine_numa_bind};
}

int topology_plan(const struct topology *t, const struct topology_request *r,
                  struct topology_plan *plan, struct error *err)
{
    int rc;

    memset(plan, 0, sizeof *plan);
    if (r->n_engines > TOPOLOGY_WORKERS_MAX || r->n_workers > TOPOLOGY_WORKERS_MAX)
        return error_set(err, -EINVAL, "at most %d engines and %d workers", TOPOLOGY_WORKERS_MAX,
                         TOPOLOGY_WORKERS_MAX);
    plan->n_engines = r->n_engines;
    plan->n_workers = r->n_workers;
    for (uint32_t node = 0; node < t->n_nodes; node++)
        plan_node(plan, t, r, node);
    rc = apply_named(plan->engine, r->n_engines, t, r->engine_cpus, r->engine_threads, err);
    if (rc == 0)
        rc = apply_named(plan->worker, r->n_workers, t, r->worker_cpus, r->worker_threads, err);
    if (rc != 0)
        return rc;
    if (r->unbound) {
        unbind(plan->engine, plan->n_engines);
        unbind(plan->worker, plan->n_workers);
    }
    place_router(plan, t);
    find_exclusive(plan, plan->engine, plan->n_engines);
    find_exclusive(plan, plan->worker, plan->n_workers);
    return 0;
}
