/* ending.h - how a sequence ends: the answer at once, its memory when nobody can touch it.
 *
 * A slot, block or residual named by a job that has not returned is never reused: not after a
 * cancel, not after a time-out.  So an ended sequence may stay ENDED for as long as its worker is
 * stopped; the client has its answer meanwhile.  Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_ENDING_H
#define OMNI_GPU_ENGINE_ENDING_H

#include "gpu-engine/engine.h"

/* Answers (done, with the sequence's counts) and ends it. */
void ending_finish(struct engine *e, struct sequence *s, enum finish_reason reason);

/* Answers with an error and ends it. */
void ending_fail(struct engine *e, struct sequence *s, enum error_code code, const char *message,
                 bool retryable);

/* One that waits goes to the CPU-only engine, which answers from here on. */
void ending_hand_over(struct engine *e, struct sequence *s);

/* Ends the sequences that were asked to stop or cancelled. */
void ending_obey(struct engine *e);

/* Gives back what ended sequences hold and nobody can touch any more. */
void ending_drain(struct engine *e);

#endif
