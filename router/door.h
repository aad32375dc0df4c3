/* door.h - where sessions begin: a REP socket that answers hello with the address of a session.
 *
 * Two of them at most: the group's own (ipc, for the same uid) and, where configured, one over tcp.
 * A hello that comes twice gives two sessions; the one that nobody dials closes by itself.  The
 * addresses in a hello, if it had any, would not be used: only the router chooses addresses.
 * One thread. */
#ifndef OMNI_ROUTER_DOOR_H
#define OMNI_ROUTER_DOOR_H

#include "router/router.h"

/* Binds the door of that number; one that is not configured stays closed.  0 or -errno with err. */
int door_open(struct router *router, uint32_t index, struct error *err);
void door_close(struct door *d);

/* Answers what has come, a bounded number of hellos. */
void door_on_readable(struct router *router, struct door *d);

#endif
