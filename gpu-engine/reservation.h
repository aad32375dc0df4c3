/* reservation.h - a best-effort sequence's place in a worker's arena: blocks and a job slot.
 *
 * A reservation promises the whole request (prompt and all output tokens), so that a resident sequence
 * never runs out of blocks.  It is made when the sequence is copied out, or before: a prompt that is
 * meant for a worker, or whose KV is to be kept in host memory as it grows, has its full blocks copied
 * while it computes on the device (placement.h), and leaves little to copy when it moves.
 *
 * Full blocks that another resident holds already are shared instead of the reserved ones, and not
 * copied.  Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_RESERVATION_H
#define OMNI_GPU_ENGINE_RESERVATION_H

#include "gpu-engine/engine.h"

/* The worker has the blocks and a slot; the sequence has no reservation yet. */
void reservation_make(struct engine *e, struct sequence *s, uint32_t worker);

/* Gives the job slot, or the arena blocks, of a sequence back; both together end a reservation. */
void reservation_give_slot(struct engine *e, struct sequence *s);
void reservation_release_blocks(struct engine *e, struct sequence *s);

/* Has the arena block i of group g already, from a sequence with the same prefix?  That is shared then,
 * and the reserved one given back.  False: it must be copied; it is found from now on. */
bool reservation_has_block(struct engine *e, struct sequence *s, uint32_t g, uint32_t i);

#endif
