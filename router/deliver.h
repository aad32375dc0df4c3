/* deliver.h - output on its way to the sessions.
 *
 * A request with something to send is in its session's dirty list; delivery pulls from the requests
 * as long as the session's outbox has room.  What a slow client has not taken stays in the requests
 * (their token logs are bounded), so nothing is dropped, and what piled up leaves in few messages.
 * All requests of a session that got tokens in one sweep are dirty when deliver_session runs at the
 * end of the turn, and so travel in one message.  One thread. */
#ifndef OMNI_ROUTER_DELIVER_H
#define OMNI_ROUTER_DELIVER_H

#include "router/router.h"

/* r has output or an end to send; nothing happens if it is in no session. */
void deliver_mark(struct router *router, struct request *r);

/* Sends what the dirty requests of s have, while there is room. */
void deliver_session(struct router *router, struct session *s, uint64_t now_ns);

/* Tells s how r ended: its done, or its error.  0, or -ENOBUFS: no room for it now. */
int deliver_end(struct session *s, const struct request *r, uint64_t now_ns);

/* An error message that is not the end of a request: the message just received, or the session, is
 * refused.  id may be NULL. */
void deliver_error(struct session *s, const struct request_id *id, enum error_code code,
                   const char *field, bool retryable, uint32_t retry_after_ms, const char *message,
                   uint64_t now_ns);

#endif
