/* Reading the configuration again while the program runs.  See config.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/config.h"
#include "common/base/config_options.h"
#include "common/base/log.h"

static size_t option_bytes(const struct config_option *o)
{
    switch (o->type) {
    case CONFIG_TYPE_BOOL:
        return sizeof(bool);
    case CONFIG_TYPE_STRING:
        return CONFIG_STRING_MAX;
    default:
        return sizeof(uint32_t);
    }
}

static bool differs(const struct config_option *o, const void *a, const void *b)
{
    /* What lies behind a string's end does not count. */
    return o->type == CONFIG_TYPE_STRING ? strcmp(a, b) != 0 : memcmp(a, b, option_bytes(o)) != 0;
}

static bool is_listed(const struct config_option *o, const char *const *names)
{
    char name[96];

    snprintf(name, sizeof name, "%s.%s", o->section, o->key);
    while (*names != NULL && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

int config_reload(struct omni_config *c, const struct config_program *program,
                  const char *const *reloadable, int argc, char **argv)
{
    static struct omni_config fresh; /* by the main thread alone */
    struct config_args args;
    uint32_t n_options;
    int n_changed = 0;
    const struct config_option *options = config_options(&n_options);

    if (config_parse_argv(&fresh, &args, program, argc, argv) != CONFIG_RUN) {
        log_error("config_not_reloaded", "reason=\"not valid, see above; nothing has changed\"");
        return -EINVAL;
    }
    for (uint32_t i = 0; i < n_options; i++) {
        const struct config_option *o = &options[i];
        unsigned char *now = (unsigned char *)c + o->offset;
        const unsigned char *wanted = (const unsigned char *)&fresh + o->offset;

        if (!differs(o, now, wanted))
            continue;
        if (!is_listed(o, reloadable)) {
            log_warn("option_needs_restart", "option=%s.%s", o->section, o->key);
            continue;
        }
        memcpy(now, wanted, option_bytes(o));
        log_info("option_reloaded", "option=%s.%s", o->section, o->key);
        n_changed++;
    }
    log_info("config_reloaded", "changed=%d", n_changed);
    return n_changed;
}
