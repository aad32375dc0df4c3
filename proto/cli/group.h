/* group.h - which group the command talks to.
 *
 * --url, else --config FILE, else the group named by --group or OMNI_GROUP (default "omni", as
 * deploy/omni-group names it): with the configuration that omni-group generated for it where there
 * is one, else with the defaults of every option. */
#ifndef OMNI_PROTO_CLI_GROUP_H
#define OMNI_PROTO_CLI_GROUP_H

#include "common/base/config.h"
#include "proto/cli/options.h"
#include "proto/client.h"

struct group_options {
    const char *url;
    const char *config;
    const char *group;
};

#define GROUP_OPTION_ROWS(o)                                                                       \
    {"group", OPTION_TEXT, &(o)->group, NULL, "NAME", "the group (default: $OMNI_GROUP or omni)"}, \
        {"config", OPTION_TEXT, &(o)->config, NULL, "FILE", "the group's configuration file"},     \
    {                                                                                              \
        "url", OPTION_TEXT, &(o)->url, NULL, "URL", "address of the router's hello"                \
    }

struct group {
    struct omni_config config;
    char run_dir[CONFIG_STRING_MAX];
    char url[WIRE_URL_BYTES];
};

/* 0, or -errno with the reason. */
int group_resolve(struct group *g, const struct group_options *options, struct error *error);

/* Opens a session with it. */
int group_open(const struct group *g, uint32_t timeout_ms, struct client **out,
               struct error *error);

#endif
