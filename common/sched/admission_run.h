/* admission_run.h - a schedule of latency-sensitive sequences, run ahead; for admission.c alone.
 *
 * A run is a copy of the sequences and a clock.  It goes on by steps: one sweep as the policy decides
 * it while any prompt waits, then jumps in which every decode makes as many tokens as the one that
 * ends first. */
#ifndef OMNI_COMMON_SCHED_ADMISSION_RUN_H
#define OMNI_COMMON_SCHED_ADMISSION_RUN_H

#include "common/sched/admission.h"
#include "common/sched/price.h"

struct admission_run {
    const struct admission_view *view;
    struct price price;
    struct sched_seq *seqs; /* [n_max]; SCHED_ELSEWHERE: has ended */
    struct objective_past *past;
    uint32_t n, n_max;
    uint32_t n_prompts, n_live; /* without their next first token; not ended */
    uint32_t n_free;            /* blocks */
    uint64_t now_ns;
    uint64_t prompts_done_ns; /* when the last prompt got its token */
    struct fair_share fair;
};

int admission_run_init(struct admission_run *r, uint32_t n_max);
void admission_run_fini(struct admission_run *r);

/* From the view's sequences; from another run's present. */
void admission_run_load(struct admission_run *r, const struct admission_view *view);
void admission_run_copy(struct admission_run *r, const struct admission_run *from);

/* Behind all others; returns its index. */
uint32_t admission_run_add(struct admission_run *r, const struct sched_seq *s);

/* One sweep.  False: nobody gets a row. */
bool admission_run_sweep(struct admission_run *r, struct sched_decision *d);

/* All decodes up to the next end; only without prompts. */
void admission_run_jump(struct admission_run *r);

/* Gap between tokens if all that are live decoded at their full lengths at once. */
double admission_run_widest_gap_ns(const struct admission_run *r);

/* What the sequence will have got, if it goes on with such gaps; n_output 0: it is not reached, as far
 * as one looked. */
struct objective_past admission_run_past(const struct admission_run *r, uint32_t i, double gap_ns);

/* Nobody is there. */
void admission_run_clear(struct admission_run *r, const struct admission_view *view);

struct objective admission_run_objective(const struct admission_run *r, uint32_t i);

/* The same, less the part of the time to a first token yet to come that is to be left over. */
struct objective admission_run_aim(const struct admission_run *r, uint32_t i);

#endif
