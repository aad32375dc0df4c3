/* sched_fixture.h - states for scheduler tests and benches: random but possible, from a seed.
 *
 * Possible means what the engine guarantees: blocks add up, whoever computes holds the blocks of
 * what it computed, residents hold arena blocks and a slot. */
#ifndef OMNI_TESTS_SCHED_FIXTURE_H
#define OMNI_TESTS_SCHED_FIXTURE_H

#include "common/sched/scheduler.h"

enum { FIXTURE_SEQS_MAX = 2048, FIXTURE_WORKERS_MAX = 4 };

struct sched_fixture {
    struct sched_limits limits;
    struct latency_model latency;
    struct sched_seq seqs[FIXTURE_SEQS_MAX];
    struct sched_worker workers[FIXTURE_WORKERS_MAX];
    struct sched_state state; /* points to the others */
    uint64_t random;
};

/* Of the fixture's own generator (splitmix64). */
uint32_t fixture_below(struct sched_fixture *f, uint32_t n);

/* A device like a big GPU: 32 layers of one kind, or of two, dense in steps of 64 rows. */
void fixture_model(struct latency_model *m, uint32_t n_kinds);

/* Everything random: bounds, parameters, sequences of n_classes classes. */
void fixture_random(struct sched_fixture *f, uint64_t seed, uint32_t n_classes);

/* Roomy bounds, no sequences yet; then add them. */
void fixture_roomy(struct sched_fixture *f);
/* A sequence of the class at the place, `ctx` positions and a decode, or a prompt of ctx to do. */
struct sched_seq *fixture_add(struct sched_fixture *f, uint32_t class_idx, enum sched_place place,
                              uint32_t ctx);

#endif
