/* policy_omni.h - what the two files of the policy `omni` share.
 *
 * policy_omni.c decides a sweep: rows, one batch or two, waiting.  policy_omni_place.c decides where
 * best effort decodes: what workers can do, what is scarce, who moves.  Both work on one struct omni,
 * which lives for one decision.  Nobody else includes this. */
#ifndef OMNI_COMMON_SCHED_POLICY_OMNI_H
#define OMNI_COMMON_SCHED_POLICY_OMNI_H

#include "common/sched/plan.h"

struct omni {
    struct plan p;
    double budget_ns;
    double best_effort_ns; /* what of it best effort may fill, latency-sensitive rows included */
    double dense_row_ns;   /* a row's part of the largest sweep, without attention */
    double ls_ns;          /* what latency-sensitive rows cost at that price, and their attention */
    double decodes_ns;     /* the same of best effort's decodes on the device */
    uint32_t reserve;      /* device blocks for latency-sensitive growth */
    uint32_t staging;      /* and for the next prompt */
    double n_layers;
    double job_ns, fixed_ns; /* of a mean resident's job, per layer */
    double rate;             /* tokens per ns that the workers can read for */
    uint32_t n_residents;
    double returned; /* rows per layer that came back of late; 0 if nobody is under way */
    bool can_offload;
    bool prompts_wait;           /* latency-sensitive ones that this sweep does not finish */
    double prompt_worth;         /* 0..1 */
    bool surplus;                /* residents that workers cannot use */
    double at_workers;           /* worth of a decode there, of its worth on the device */
    struct latency_load decodes; /* rows of batch A */
};

static inline bool omni_is_without(const struct omni *o, enum sched_without idea)
{
    return (o->p.limits->params.without & (uint32_t)idea) != 0;
}

/* ---- In the order in which a decision calls them --------------------------------------------- */

/* Sets can_offload and the workers' times and rate. */
void omni_look_at_workers(struct omni *o);

/* Blocks kept for latency-sensitive growth, and for the next prompt to be staged. */
void omni_set_reserves(struct omni *o);

/* Counts in the load the rows that workers may return in a sweep that takes its whole budget. */
void omni_reserve_for_returned(struct omni *o);

/* What prompts are worth, and whether a decode is worth more here or at a worker. */
void omni_judge(struct omni *o);

/* Moves out, and back. */
void omni_place(struct omni *o);
void omni_bring_back(struct omni *o);

/* Places at workers for the prompts in this sweep, where workers come first. */
void omni_reserve_for_prompts(struct omni *o);

/* Blocks that a prompt which begins must leave free. */
uint32_t omni_blocks_to_leave(const struct omni *o);

/* Tokens that workers add to a sweep with that window per layer. */
double omni_worker_tokens(const struct omni *o, double sweep_ns, double window_ns);

/* Time of a prompt's row in a large chunk. */
double omni_row_ns(const struct omni *o);

/* Of any row in the largest sweep, without attention. */
double omni_dense_row_ns(const struct omni *o);

#endif
