#include "proto/cli/group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *group_name(const struct group_options *options)
{
    const char *name = getenv("OMNI_GROUP");

    if (options->group != NULL)
        return options->group;
    return name != NULL && name[0] != '\0' ? name : "omni";
}

static int load_config(struct group *g, const struct group_options *options, struct error *error)
{
    char generated[CONFIG_STRING_MAX + 64];
    const char *name = group_name(options);

    config_defaults(&g->config);
    if (options->config != NULL)
        return config_load(&g->config, options->config, error);
    if (strlen(name) >= sizeof g->config.group_name || strchr(name, '/') != NULL)
        return error_set(error, -EINVAL, "not a group's name: %s", name);
    int err = wire_run_dir(NULL, g->run_dir, sizeof g->run_dir);

    if (err != 0)
        return error_set(error, err, "the path of the run directory is too long");
    snprintf(generated, sizeof generated, "%s/%s/group.ini", g->run_dir, name);
    if (access(generated, R_OK) == 0)
        return config_load(&g->config, generated, error);
    memcpy(g->config.group_name, name, strlen(name) + 1);
    return 0;
}

int group_resolve(struct group *g, const struct group_options *options, struct error *error)
{
    int err = load_config(g, options, error);

    if (err != 0)
        return err;
    err = wire_run_dir(g->config.run_dir, g->run_dir, sizeof g->run_dir);
    if (err == 0 && options->url == NULL)
        err = wire_url_router(g->url, g->run_dir, g->config.group_name);
    if (err == 0 && options->url != NULL)
        err = wire_url_check(options->url);
    if (err == 0 && options->url != NULL)
        snprintf(g->url, sizeof g->url, "%s", options->url);
    return err == 0 ? 0 : error_set(error, err, "the router's address is malformed or too long");
}

int group_open(const struct group *g, uint32_t timeout_ms, struct client **out, struct error *error)
{
    struct client_options options = {.url = g->url, .name = "omni", .open_timeout_ms = timeout_ms};

    return client_open(out, &options, error);
}
