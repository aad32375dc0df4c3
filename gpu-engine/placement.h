/* placement.h - moving the KV of best-effort sequences: device, arena, or nowhere (parked).
 *
 * The policy says who moves (scheduler.h); this carries it out.  Copies run beside sweeps.  A
 * sequence moves at a token boundary only, and is in no sweep while it moves.  It needs a reservation
 * (reservation.h) then; one that had it before has its full blocks copied as they fill, while it
 * computes, and only the rest when it moves.
 *
 * Where the policy wants KV kept in host memory (`checkpoint`) a reservation outlives the way back, and
 * who must give its blocks up at once goes on from the last full block that is there.  Engine thread,
 * between sweeps; placement_mirror also while one is in flight. */
#ifndef OMNI_GPU_ENGINE_PLACEMENT_H
#define OMNI_GPU_ENGINE_PLACEMENT_H

#include "gpu-engine/engine.h"

/* Takes in copies, or steps of copies, that have ended. */
void placement_step(struct engine *e);

/* Begins copies of full blocks of sequences that compute and have a reservation. */
void placement_mirror(struct engine *e);

/* Reserves a place at that worker, which has the blocks and a slot, for a sequence on the device or one
 * that begins there in the sweep that is built. */
void placement_reserve(struct engine *e, struct sequence *s, uint32_t worker);

/* Begins to copy the sequence to that worker's arena: where it has a reservation, or which has the
 * blocks and a slot for it. */
void placement_copy_out(struct engine *e, struct sequence *s, uint32_t worker);

/* Gives it a place in that worker's arena as if its KV had been copied there: for what is resident
 * when an engine begins.  It waits, and holds no blocks. */
void placement_adopt(struct engine *e, struct sequence *s, uint32_t worker);

/* Begins to copy it back; the device has the blocks for its tokens. */
void placement_copy_in(struct engine *e, struct sequence *s);

/* Drops its KV on the device, where no copy reads it; it waits, and will be computed again. */
void placement_drop(struct engine *e, struct sequence *s);

/* Has the step of the sequence's copy that is under way ended?  The copy is over then (a sequence
 * that has ended wants no further step). */
bool placement_copy_ended(struct engine *e, struct sequence *s);

#endif
