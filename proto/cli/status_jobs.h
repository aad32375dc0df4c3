/* status_jobs.h - a look into the shared memory of a group, living or dead: which attention jobs
 * are out, and which sequences the directory knows.
 *
 *   {"tables": [{"engine", "worker", "engine_epoch", "acked_epoch", "worker_pid", "beat_ms",
 *                "posted", "done", "n_free", "slots": [{"slot", "state", "generation", "epoch",
 *                "sequence", "sequence_generation", "layer", "pos", "n_q", "sweep", "age_ms",
 *                "deadline_ms"}]}],
 *    "directories": [{"engine", "n_free", "sequences": [{"sequence", "generation", "request",
 *                "committed", "prompt_tokens", "slot",
 *                "groups": [{"state", "worker", "blocks"}]}]}],
 *    "unreadable": [{"segment", "reason"}]}
 *
 * Slots that are FREE are counted, not listed.  age_ms: since it was posted; deadline_ms: until the
 * sweep reaches the layer's output projection, negative when that is past, null without one.
 *
 * Read-only: takes no role, rings no bell, changes no byte.  Values are read while their owners
 * run: a slot is shown as it was at one moment, the whole is no snapshot. */
#ifndef OMNI_PROTO_CLI_STATUS_JOBS_H
#define OMNI_PROTO_CLI_STATUS_JOBS_H

#include <jansson.h>
#include <stdbool.h>

#include "common/base/config.h"

/* *found: was there a segment at all.  NULL if there is no memory. */
json_t *status_jobs_json(const struct omni_config *config, bool *found);

#endif
