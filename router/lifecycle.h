/* lifecycle.h - how requests end, and how they pass from session to session.
 *
 * Each function leaves table, queue, engine account, session lists and counters consistent: they
 * are the only places where more than one of these changes.  One thread. */
#ifndef OMNI_ROUTER_LIFECYCLE_H
#define OMNI_ROUTER_LIFECYCLE_H

#include "router/router.h"

/* Puts a new request into the queue of its class and its session.  False if the queue is full: the
 * request is gone. */
bool lifecycle_enqueue(struct router *router, struct request *r, struct session *s);

/* The engine has sent it back: first in its queue again, none of its class is sent before then. */
void lifecycle_requeue(struct router *router, struct request *r, uint32_t retry_after_ms);

/* Books a request on an engine and a worker (or REQUEST_NONE); finish and requeue undo it. */
void lifecycle_claim(struct router *router, struct request *r, struct engine_link *e,
                     uint32_t worker, uint32_t n_blocks);

/* It has ended, with done or with an error. */
void lifecycle_finish(struct router *router, struct request *r, const struct request_end *end);
void lifecycle_fail(struct router *router, struct request *r, enum error_code code, bool retryable,
                    uint32_t retry_after_ms, const char *message);

/* Ends it as cancelled: at once if no engine has it, else the engine is told.  Nothing happens to
 * one that is ending or has ended. */
void lifecycle_cancel(struct router *router, struct request *r);

/* The same, at the wish of a session that does not have it: the end is told to that one too.  False
 * if yet another session awaits that already.  Not for a request that has ended. */
bool lifecycle_cancel_for(struct router *router, struct request *r, const struct session *s);

/* The session gets the output from token `from` on; the session that had it is told. */
void lifecycle_attach(struct router *router, struct request *r, struct session *s, uint32_t from);

/* The session of r, or NULL. */
struct session *lifecycle_session(struct router *router, const struct request *r);

/* Takes r out of its session's lists. */
void lifecycle_detach(struct router *router, struct request *r);

/* A session has ended: its requests are cancelled, or, if the router is the one who closed it, wait
 * a lease for somebody to attach; then it is destroyed. */
void lifecycle_end_session(struct router *router, struct session *s, bool keep_for_a_lease);

/* Cancels orphans whose time is up and forgets old results. */
void lifecycle_tick(struct router *router, uint64_t now_ns);

#endif
