/* placement.h - where the KV of best-effort sequences lives: device, arena, or nowhere (parked).
 *
 * DESIGN.  Three rules, by engine.offload:
 *   never   on the device; when its blocks run out the newest best-effort sequence is dropped and
 *           computed again later.
 *   always  every best-effort sequence leaves for an arena as soon as its prefill is done.
 *   auto    on the device while engine.auto_free_pct of its blocks are free and nobody waits for
 *           blocks; else the newest goes out.  The oldest comes back (delayed copy-in) when nobody
 *           waits and twice that share stays free after it.
 * Copies run beside sweeps.  A sequence moves at a token boundary only, and is in no sweep while it
 * moves.  Latency-sensitive sequences never move; for them best effort yields at once.
 *
 * An arena promises the whole request (prompt and all output tokens) at copy-out, so a resident
 * sequence never runs out of blocks.  Full blocks that another resident holds already are shared
 * and not copied.  Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_PLACEMENT_H
#define OMNI_GPU_ENGINE_PLACEMENT_H

#include "gpu-engine/engine.h"

/* Takes in finished copies; starts new ones by the rules above. */
void placement_step(struct engine *e);

/* Frees device blocks for somebody who cannot wait: the newest best-effort sequence that computes
 * loses its KV and waits again.  False: there is none (except `keep`, which is never chosen). */
bool placement_yield(struct engine *e, const struct sequence *keep);

/* Has the step of the sequence's copy that is under way ended?  The copy is over then (a sequence
 * that has ended wants no further step). */
bool placement_copy_ended(struct engine *e, struct sequence *s);

/* Gives the job slot, and the arena blocks, of a sequence back. */
void placement_give_slot(struct engine *e, struct sequence *s);
void placement_release_arena(struct engine *e, struct sequence *s);

/* Must best effort leave the device before it decodes? */
static inline bool placement_decodes_on_device(const struct engine *e)
{
    return e->config->engine_offload != CONFIG_OFFLOAD_ALWAYS;
}

#endif
