/* Topology on synthetic machines: who runs where, and that programs do not share cores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/topology/topology.h"

static void load(struct topology *t, const char *description)
{
    struct error err;

    assert_int_equal(topology_load(t, description, &err), 0);
}

static struct topology_plan plan_for(const struct topology *t, uint32_t n_engines,
                                     uint32_t n_workers)
{
    struct topology_request r = {.n_engines = n_engines, .n_workers = n_workers};
    struct topology_plan plan;
    struct error err;

    assert_int_equal(topology_plan(t, &r, &plan, &err), 0);
    return plan;
}

static const char *cpus(const struct topology_place *p)
{
    static char text[2][256];
    static unsigned turn;

    turn ^= 1;
    topology_format_cpus(&p->cpus, text[turn], sizeof text[turn]);
    return text[turn];
}

/* No cpu belongs to two places, and each has one at least. */
static void assert_disjoint(const struct topology_plan *plan)
{
    struct cpu_set all = {{0}};
    uint32_t sum = 0;

    for (uint32_t i = 0; i < plan->n_engines + plan->n_workers; i++) {
        const struct topology_place *p =
            i < plan->n_engines ? &plan->engine[i] : &plan->worker[i - plan->n_engines];
        assert_true(cpu_set_count(&p->cpus) >= 1);
        sum += cpu_set_count(&p->cpus);
        for (size_t w = 0; w < TOPOLOGY_CPUS_MAX / 64; w++)
            all.bits[w] |= p->cpus.bits[w];
    }
    assert_int_equal(cpu_set_count(&all), sum);
}

static void nodes_of_synthetic_machines(void **state)
{
    static const struct {
        const char *description;
        uint32_t nodes, cores, cpus;
    } machines[] = {{"numa:1 core:2 pu:1", 1, 2, 2},
                    {"numa:2 core:8 pu:2", 2, 16, 32},
                    {"numa:4 core:6 pu:2", 4, 24, 48},
                    {"pack:2 numa:4 core:8 pu:2", 8, 64, 128}};

    (void)state;
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct topology t;
        load(&t, machines[i].description);
        assert_int_equal(t.n_nodes, machines[i].nodes);
        assert_int_equal(t.n_cores, machines[i].cores);
        assert_int_equal(t.n_cpus, machines[i].cpus);
        struct topology_plan plan = plan_for(&t, 1, t.n_nodes);
        assert_disjoint(&plan);
        for (uint32_t w = 0; w < t.n_nodes; w++)
            assert_int_equal(plan.worker[w].node, t.n_nodes > 1 ? (int)t.node[w].os_index : -1);
    }
}

static const struct topology_node *node_of(const struct topology *t, int os_index)
{
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        if ((int)t->node[i].os_index == os_index)
            return &t->node[i];
    }
    fail_msg("there is no node %d", os_index);
    return NULL;
}

/* A place's cpus are one per core, a thread for each, on the node that its memory is bound to. */
static void assert_at_home(const struct topology *t, const struct topology_place *p)
{
    const struct topology_node *node = node_of(t, p->node);
    uint32_t n_cores = 0;

    for (uint32_t c = 0; c < node->n_cores; c++)
        n_cores += cpu_set_has(&p->cpus, node->core_cpu[c]);
    assert_int_equal(n_cores, cpu_set_count(&p->cpus));
    assert_int_equal(p->n_threads, n_cores);
}

/* With a worker per node: every core has exactly one owner, the engine takes half of its node's,
 * the other workers have their nodes to themselves, and the router stays off the workers' cores. */
static void workers_threads_and_memory_are_at_home(void **state)
{
    static const char *const machines[] = {"numa:2 core:8 pu:2", "numa:4 core:6 pu:2",
                                           "pack:2 numa:4 core:8 pu:2"};

    (void)state;
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct topology t;
        load(&t, machines[i]);
        struct topology_plan plan = plan_for(&t, 1, t.n_nodes);
        uint32_t n_threads = plan.engine[0].n_threads, home = 0;

        assert_at_home(&t, &plan.engine[0]);
        assert_int_equal(plan.engine[0].n_threads, t.node[0].n_cores / 2);
        for (uint32_t w = 0; w < t.n_nodes; w++) {
            assert_at_home(&t, &plan.worker[w]);
            assert_false(cpu_set_intersects(&plan.router.cpus, &plan.worker[w].cpus));
            home += plan.worker[w].node == plan.engine[0].node;
            n_threads += plan.worker[w].n_threads;
        }
        assert_int_equal(home, 1);
        assert_int_equal(n_threads, t.n_cores);
    }
}

static void two_cores_are_split(void **state)
{
    struct topology t;
    struct topology_plan plan;

    (void)state;
    load(&t, "numa:1 core:2 pu:1");
    plan = plan_for(&t, 1, 1);
    assert_string_equal(cpus(&plan.engine[0]), "0");
    assert_string_equal(cpus(&plan.worker[0]), "1");
    assert_int_equal(plan.engine[0].n_threads, 1);
    assert_string_equal(cpus(&plan.router), "0");
}

static void one_core_is_shared(void **state)
{
    struct topology t;
    struct topology_plan plan;

    (void)state;
    load(&t, "numa:1 core:1 pu:1");
    plan = plan_for(&t, 1, 2);
    assert_string_equal(cpus(&plan.engine[0]), "0");
    assert_string_equal(cpus(&plan.worker[1]), "0");
    assert_int_equal(plan.worker[0].n_threads, 1);
    assert_false(plan.engine[0].pinned || plan.worker[0].pinned || plan.worker[0].exclusive);
}

static void two_sockets_with_hyperthreads(void **state)
{
    struct topology t;
    struct topology_plan plan;

    (void)state;
    load(&t, "numa:2 core:4 pu:2"); /* cpus 0-7 and 8-15, cores 0,2,4,6 and 8,10,12,14 */
    plan = plan_for(&t, 1, 2);
    assert_string_equal(cpus(&plan.engine[0]), "0,2");
    assert_string_equal(cpus(&plan.worker[0]), "4,6");
    assert_string_equal(cpus(&plan.worker[1]), "8,10,12,14");
    assert_int_equal(plan.worker[1].n_threads, 4);
    plan = plan_for(&t, 2, 4);
    assert_disjoint(&plan);
    assert_int_equal(plan.worker[3].node, 1);
}

static void configured_cpus_and_threads_win(void **state)
{
    struct topology t;
    struct topology_request r = {.n_engines = 1, .n_workers = 2, .engine_threads = 1};
    struct topology_plan plan;
    struct error err;

    (void)state;
    load(&t, "numa:1 core:8 pu:1");
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    assert_string_equal(cpus(&plan.engine[0]), "0");
    assert_int_equal(cpu_set_count(&plan.worker[0].cpus) + cpu_set_count(&plan.worker[1].cpus), 7);
    r.worker_threads = 2;
    r.worker_cpus = "4-5|7";
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    assert_string_equal(cpus(&plan.worker[0]), "4-5");
    assert_string_equal(cpus(&plan.worker[1]), "7");
    assert_int_equal(plan.worker[0].n_threads, 2);
    r.worker_cpus = "4-9";
    assert_int_equal(topology_plan(&t, &r, &plan, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4-9"));
    r.worker_cpus = "x";
    assert_int_equal(topology_plan(&t, &r, &plan, &err), -EINVAL);
}

static void exclusive_means_nobody_else(void **state)
{
    struct topology t;
    struct topology_request r = {.n_engines = 1, .n_workers = 1};
    struct topology_plan plan;
    struct error err;

    (void)state;
    load(&t, "numa:1 core:4 pu:1");
    t.synthetic = false; /* as if it were the machine: places are pinned */
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    assert_true(plan.engine[0].exclusive && plan.worker[0].exclusive);
    r.worker_cpus = "0-3";
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    assert_false(plan.engine[0].exclusive || plan.worker[0].exclusive);
}

static void unbound_means_nobody_is_pinned(void **state)
{
    struct topology t;
    struct topology_plan plan;
    struct omni_config c;
    struct error err;

    (void)state;
    load(&t, "numa:2 core:4 pu:1");
    t.synthetic = false;
    config_defaults(&c);
    c.group_n_workers = 2;
    struct topology_request r = topology_request_of(&c);
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    assert_true(plan.engine[0].pinned && plan.worker[1].pinned && plan.worker[1].node == 1);
    assert_int_equal(config_set(&c, "engine.numa_bind=no", &err), 0);
    assert_int_equal(config_set(&c, "worker.cpus=3|5", &err), 0);
    r = topology_request_of(&c);
    assert_int_equal(topology_plan(&t, &r, &plan, &err), 0);
    for (int i = 0; i < 2; i++) {
        assert_false(plan.worker[i].pinned || plan.worker[i].exclusive);
        assert_int_equal(plan.worker[i].node, -1);
    }
    assert_false(plan.engine[0].pinned || plan.engine[0].exclusive);
    assert_int_equal(plan.engine[0].node, -1);
    assert_int_equal(plan.worker[0].n_threads, 1); /* threads still follow the lists */
}

static void cpu_lists_there_and_back(void **state)
{
    static const char *const good[] = {"0", "0-3", "1,3,5-7", "63-65,1023"};
    static const char *const bad[] = {"",  "-1",  "3-1", "1,",   "1024",      "1-",
                                      "a", "1;2", "1 2", "1--2", "4294967296"};
    struct cpu_set set;
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(topology_parse_cpus(good[i], strlen(good[i]), &set), 0);
        topology_format_cpus(&set, text, sizeof text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(topology_parse_cpus(bad[i], strlen(bad[i]), &set), -EINVAL);
    assert_int_equal(cpu_set_nth(&set, 99), -1);
}

static void this_machine_can_be_read_and_pinned(void **state)
{
    struct topology t;
    struct topology_plan plan;
    struct error err;

    (void)state;
    unsetenv("OMNI_TOPOLOGY");
    load(&t, NULL);
    assert_true(t.n_nodes >= 1 && t.n_cpus >= t.n_cores);
    plan = plan_for(&t, 1, 1);
    assert_int_equal(topology_pin_thread(&plan.worker[0].cpus), 0);
    assert_int_equal(topology_pin_thread(&(struct cpu_set){{0}}), -EINVAL);
    setenv("OMNI_TOPOLOGY", "numa:3 core:1 pu:1", 1);
    load(&t, NULL);
    assert_int_equal(t.n_nodes, 3);
    assert_true(t.synthetic);
    assert_int_equal(topology_load(&t, "nonsense", &err), -EINVAL);
}

/* However little hwloc finds: one node, and what the kernel lets us use. */
static void test_without_hwloc(void **state)
{
    static const char *const components[] = {"stop", "no_os,stop"};
    cpu_set_t all, first;
    struct topology t;
    uint32_t cpu = 0;

    (void)state;
    unsetenv("OMNI_TOPOLOGY");
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&first);
    CPU_SET(cpu, &first);
    for (int i = 0; i < 2; i++) {
        setenv("HWLOC_COMPONENTS", components[i], 1);
        load(&t, NULL);
        assert_int_equal(t.n_nodes, 1);
        assert_int_equal(t.n_cores, CPU_COUNT(&all));
        assert_int_equal(t.n_cpus, CPU_COUNT(&all));
        assert_int_equal(sched_setaffinity(0, sizeof first, &first), 0);
        load(&t, NULL);
        assert_int_equal(t.n_cores, 1);
        assert_int_equal(t.node[0].core_cpu[0], cpu);
        assert_true(cpu_set_has(&t.node[0].cpus, cpu));
        assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    }
    unsetenv("HWLOC_COMPONENTS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_hwloc), /* before one that pins itself */
        cmocka_unit_test(nodes_of_synthetic_machines),
        cmocka_unit_test(workers_threads_and_memory_are_at_home),
        cmocka_unit_test(two_cores_are_split),
        cmocka_unit_test(one_core_is_shared),
        cmocka_unit_test(two_sockets_with_hyperthreads),
        cmocka_unit_test(configured_cpus_and_threads_win),
        cmocka_unit_test(exclusive_means_nobody_else),
        cmocka_unit_test(unbound_means_nobody_is_pinned),
        cmocka_unit_test(cpu_lists_there_and_back),
        cmocka_unit_test(this_machine_can_be_read_and_pinned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
