/* ledger.h - what the sequence directory is told of a best-effort sequence.
 *
 * The order of writes that makes recovery safe is kept here: KV first (a finished sweep or copy),
 * then the token id, then committed.  An engine without a directory (in simulation) tells nobody.
 * Engine thread, between sweeps. */
#ifndef OMNI_GPU_ENGINE_LEDGER_H
#define OMNI_GPU_ENGINE_LEDGER_H

#include "gpu-engine/engine.h"

/* Gives the sequence its entry.  0, or -ENOSPC: the directory is full. */
int ledger_open(struct engine *e, struct sequence *s);

/* Its last known token, and that the KV of all before it is complete. */
void ledger_commit(struct engine *e, const struct sequence *s);

/* Its KV was dropped. */
void ledger_drop(struct engine *e, const struct sequence *s);

/* KV of so many positions is complete where the directory says. */
void ledger_commit_kv(struct engine *e, const struct sequence *s);

/* All groups move to that state. */
void ledger_set_state(struct engine *e, const struct sequence *s, enum directory_state state);

/* Where it will be resident: worker, arena blocks, slot.  Before FILLING ends. */
void ledger_set_place(struct engine *e, const struct sequence *s);

/* No job names it any more. */
void ledger_close(struct engine *e, struct sequence *s);

#endif
