/* dispatch.h - which request goes to which engine next, and which worker would hold its KV.
 *
 * Classes in order; inside one tenants by their shares, each tenant's first come first served.  A
 * request goes to the engine with the smallest load that has a place for it: the larger of its
 * share of requests_max and its share of KV that the router has promised to outstanding requests
 * (prompt and max_tokens of each, which is what an engine must be able to hold).  An eighth of an
 * engine's places is kept for the first class; where even that is taken, a request of the first
 * class is refused once its first token would be late.  Requests of all classes but the first name
 * a worker for the case that they are offloaded: the ready one with the most KV left.
 * Whether a request is admitted is the engine's answer alone; the router refuses only what can
 * never fit.  A refusal is final for the first class, whose objectives do not survive waiting; the
 * others wait and try again.  So while no engine is ready: requests of the first class end with a
 * retryable error after router.lease_ms, the others wait for one.  One thread. */
#ifndef OMNI_ROUTER_DISPATCH_H
#define OMNI_ROUTER_DISPATCH_H

#include "router/router.h"

/* Submits as many requests as the engines have room for, or ends those that cannot wait for one. */
void dispatch_run(struct router *router, uint64_t now_ns);

/* May requests of this class wait after an engine has refused them? */
bool dispatch_class_waits(uint32_t class_idx);

/* The most tokens of prompt and output, together, that the KV of some ready engine could ever hold
 * for a request of this class; UINT32_MAX while no engine is ready: nobody knows. */
uint32_t dispatch_tokens_max(const struct router *router, uint32_t class_idx);

/* The engine for a request of this class and so many tokens, or NULL. */
struct engine_link *dispatch_pick_engine(struct router *router, uint32_t class_idx,
                                         uint32_t n_tokens);

/* The worker of e for a request of so many KV blocks, or REQUEST_NONE. */
uint32_t dispatch_pick_worker(const struct engine_link *e, uint32_t n_blocks);

#endif
