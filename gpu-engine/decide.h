/* decide.h - the engine's side of a scheduling decision: describe what is held, ask the policy.
 *
 * The policy is engine.policy; it decides who computes, who moves and who waits (scheduler.h).
 * batch.h carries the decision out.  Engine thread, no sweep in flight. */
#ifndef OMNI_GPU_ENGINE_DECIDE_H
#define OMNI_GPU_ENGINE_DECIDE_H

#include "gpu-engine/engine.h"

/* Can the configured policy be carried out here?  Device and profile are there.  0, or -ENOTSUP with
 * *err naming the setting and what is missing. */
int decide_check(const struct engine *e, struct error *err);

/* After the sequence table; sizes and device are known.  0 or -ENOMEM; safe to fini after both. */
int decide_init(struct engine *e);
void decide_fini(struct engine *e);

/* Fills e->decide.decision; an index in it is an index into e->decide.seqs, whose id is the
 * sequence. */
void decide_sweep(struct engine *e);

/* The sequence behind an index of the decision. */
static inline struct sequence *decide_sequence(struct engine *e, uint32_t idx)
{
    return &e->sequences.all[e->decide.seqs[idx].id];
}

#endif
