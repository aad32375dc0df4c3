/* service.h - what a client may ask for: generate, cancel, status, ping.
 *
 * Each function handles one message of one session to its end; refusals go back to that session
 * alone.  One thread. */
#ifndef OMNI_ROUTER_SERVICE_H
#define OMNI_ROUTER_SERVICE_H

#include "router/router.h"

/* Starts a request or attaches to the one with this id. */
void service_on_generate(struct router *router, struct session *s, const struct message *m);

/* Ends a request of this session. */
void service_on_cancel(struct router *router, struct session *s, const struct message *m);

void service_on_status(struct router *router, struct session *s, const struct message *m);
void service_on_ping(struct router *router, struct session *s, const struct message *m);

/* A message that could not be decoded, or that clients do not send.  Too many end the session. */
void service_on_bad_message(struct router *router, struct session *s,
                            const struct codec_error *error);

#endif
