/* control.h - the engine's control thread: one PAIR to the router.
 *
 * It dials <run.dir>/<group>/engine-<i>.sock, answers and sends pings, introduces the engine to
 * every router it meets, and hands requests on through the handlers, which run on this thread and
 * must not block.  A router that was silent for WIRE_LOST_MS, or that comes back under another
 * epoch, is lost: handler router_lost, once.
 *
 * control_send may be called by any thread; it never blocks and never drops: an outbox that is full
 * means that the router does not read, which is the same as a lost router. */
#ifndef OMNI_GPU_ENGINE_CONTROL_H
#define OMNI_GPU_ENGINE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"
#include "proto/messages.h"

struct control;

struct control_handlers {
    void *arg;
    /* Fills in the introduction; held requests may point to memory that lives until the next call.
     */
    void (*introduce)(void *arg, struct message_engine_hello *hello);
    void (*submit)(void *arg, const struct message_submit *submit);
    void (*cancel)(void *arg, const struct request_id *id);
    void (*stop)(void *arg, const struct request_id *id);
    void (*router_lost)(void *arg);
};

struct control_config {
    const char *url;
    uint64_t epoch; /* of this engine */
    struct control_handlers handlers;
};

/* Starts the thread.  0 or -errno with *err. */
int control_create(struct control **out, const struct control_config *config, struct error *err);

/* Sends what is queued if the router takes it, and ends the thread.  NULL is allowed. */
void control_destroy(struct control *c);

void control_send(struct control *c, const struct message *m);

/* Is a router there that has been heard from lately? */
bool control_connected(const struct control *c);

#endif
