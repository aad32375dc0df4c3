/* attnd.h - the attention worker: takes jobs of all engines of the group and computes them.
 *
 * One process per NUMA node, its thread team pinned there.  The dispatching thread is thread 0 of
 * the team: it takes hints off the rings, orders the jobs, runs them with the whole team, one after
 * the other (over all cores that beats several side by side) or in small batches (batch.h), and
 * publishes the results.  It
 * owns no request state: killed at any point, the next one goes on from the shared memory. */
#ifndef OMNI_CPU_ATTND_ATTND_H
#define OMNI_CPU_ATTND_ATTND_H

#include "common/base/config.h"
#include "common/sched/job_order.h"
#include "common/shm/stats.h"
#include "common/topology/topology.h"
#include "cpu-attnd/link.h"

enum { ATTND_ENGINES_MAX = 16 };

/* clang-format off */
#define ATTND_STATS(X)                                                                             \
    X(JOBS, "jobs", COUNTER, "attention jobs taken")                                               \
    X(RUNS, "runs", COUNTER, "runs of the team: jobs that are computed together count once")       \
    X(SHARED, "tokens_shared", COUNTER,                                                            \
      "tokens of KV, per layer, that one read served for several jobs")                            \
    X(ATTACHES, "attaches", COUNTER, "attachments to an engine")                                   \
    X(EPOCHS, "epochs", COUNTER, "engine epochs acknowledged")                                     \
    X(QUEUED, "queued", GAUGE, "jobs taken and not yet run")                                       \
    X(ENGINES, "engines", GAUGE, "engines attached to")                                            \
    X(THREADS, "threads", GAUGE, "threads of the team")                                            \
    X(CPUS_OWN, "cpus_own", GAUGE, "CPUs that are its own; 0: shared, nobody spins there")         \
    X(CPUS_CLAIMED, "cpus_claimed", GAUGE, "of those planned for it: another group has them")      \
    X(BANDWIDTH, "kv_bytes_per_s", GAUGE, "measured KV read rate, moving average")
/* clang-format on */

#define ATTND_STAT_ENUM(NAME, ...) ATTND_STAT_##NAME,
enum attnd_stat { ATTND_STATS(ATTND_STAT_ENUM) ATTND_N_STATS };

struct attnd {
    const struct omni_config *config;
    uint32_t index;
    struct topology topology;
    struct topology_plan plan;
    uint32_t n_claimed; /* of its cpus, by another group */
    enum isa isa;
    struct team *team;
    uint32_t n_threads;
    struct link links[ATTND_ENGINES_MAX];
    uint32_t n_links;
    struct job_order order;
    struct stats_page stats;
    char dir[SEGMENT_PATH_MAX];
    uint64_t awake_ns; /* last job, or last word that one comes soon */
    uint64_t next_look_ns, next_beat_ns;
};

/* 0 or -errno with *err; a failed init is safe to shut down. */
int attnd_init(struct attnd *a, const struct omni_config *config, uint32_t index,
               struct error *err);

/* One round: attachments, new jobs, one run of the team; sleeps when there is nothing to do. */
void attnd_tick(struct attnd *a);

void attnd_shutdown(struct attnd *a);

#endif
