/* status_print.h - the group's state for people: any JSON object, scalars of one object on one
 * line.
 *
 * It knows no key, so that whatever the router reports is shown. */
#ifndef OMNI_PROTO_CLI_STATUS_PRINT_H
#define OMNI_PROTO_CLI_STATUS_PRINT_H

#include <jansson.h>
#include <stdio.h>

void status_print(const json_t *state, FILE *out);

#endif
