/* status.h - the state of the group as one JSON object, for status replies.
 *
 *   ready      all engines are connected and all their workers alive
 *   no_engine_ms   for how long no engine is ready: whoever waits in a queue waits for one
 *   group, router{pid, epoch, uptime_s}, model{name, path, n_ctx}
 *   sessions{n, max}, queues[{class, length, max, oldest_ms}], requests{by state}
 *   engines[{index, state, pid, epoch, outstanding, running, waiting, offloaded, sweeps,
 *            kv{total, free, block_tokens}, workers[{index, state, pid, free_blocks, total_blocks,
 *            resident, jobs, arena_bytes, huge_bytes}]}]
 *   processes[{program, index, state, pid}]   pid 0: there is none
 *   counters{name: n}, classes{class: {name: n}}
 *
 * Allocates; not on the token path. */
#ifndef OMNI_ROUTER_STATUS_H
#define OMNI_ROUTER_STATUS_H

#include "router/router.h"

/* Zero-terminated, to be freed by the caller; NULL if there is no memory. */
char *status_json(const struct router *router, uint64_t now_ns);

#endif
