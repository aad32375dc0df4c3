/* placement.h - moving the KV of best-effort sequences: device, arena, or nowhere (parked).
 *
 * The policy says who moves (scheduler.h); this carries it out.  Copies run beside sweeps.  A
 * sequence moves at a token boundary only, and is in no sweep while it moves.  An arena promises
 * the whole request (prompt and all output tokens) at the move out, so that a resident sequence
 * never runs out of blocks.  Full blocks that another resident holds already are shared and not
 * copied.  Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_PLACEMENT_H
#define OMNI_GPU_ENGINE_PLACEMENT_H

#include "gpu-engine/engine.h"

/* Takes in copies, or steps of copies, that have ended. */
void placement_step(struct engine *e);

/* Begins to copy the sequence to that worker's arena, which has the blocks and a slot for it. */
void placement_copy_out(struct engine *e, struct sequence *s, uint32_t worker);

/* Gives it a place in that worker's arena as if its KV had been copied there: for what is resident
 * when an engine begins.  It waits, and holds no blocks. */
void placement_adopt(struct engine *e, struct sequence *s, uint32_t worker);

/* Begins to copy it back; the device has the blocks for its tokens. */
void placement_copy_in(struct engine *e, struct sequence *s);

/* Drops its KV on the device; it waits, and will be computed again. */
void placement_drop(struct engine *e, struct sequence *s);

/* Has the step of the sequence's copy that is under way ended?  The copy is over then (a sequence
 * that has ended wants no further step). */
bool placement_copy_ended(struct engine *e, struct sequence *s);

/* Gives the job slot, and the arena blocks, of a sequence back. */
void placement_give_slot(struct engine *e, struct sequence *s);
void placement_release_arena(struct engine *e, struct sequence *s);

#endif
