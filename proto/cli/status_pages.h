/* status_pages.h - what the programs of a group wrote into their statistics pages, where the router
 * does not answer: {"router": null, "processes": [{"program", "index", "state", "pid"}],
 * "pages": [{"program", "index", <name>: n}]}.  A pid may have been given to another process since
 * the program died: only the router knows better. */
#ifndef OMNI_PROTO_CLI_STATUS_PAGES_H
#define OMNI_PROTO_CLI_STATUS_PAGES_H

#include <jansson.h>

#include "common/base/config.h"

/* NULL if there is no memory; no page at all is an empty list. */
json_t *status_pages_json(const struct omni_config *config);

#endif
