/* options.c - see options.h. */
#include "tests/gpu/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The sub-commands that the program gives itself have a fixed form. */
static int subcommand_parse(struct options *options, int argc, char **argv)
{
    if (!strcmp(argv[1], "part") && argc == 4)
        options->mode = OPTIONS_PART;
    else if (!strcmp(argv[1], "ipc-open") && argc == 6)
        options->mode = OPTIONS_IPC_OPEN;
    else
        return -EINVAL;
    return 0;
}

static const char **value_slot(struct options *options, const char *arg)
{
    if (!strcmp(arg, "--results"))
        return &options->results;
    if (!strcmp(arg, "--commit"))
        return &options->commit;
    if (!strcmp(arg, "--only"))
        return &options->only;
    return NULL;
}

static int mode_parse(struct options *options, const char *arg)
{
    if (!strcmp(arg, "--device"))
        options->mode = OPTIONS_DEVICE;
    else if (!strcmp(arg, "--list"))
        options->mode = OPTIONS_LIST;
    else if (!strcmp(arg, "--help") || !strcmp(arg, "-h"))
        options->mode = OPTIONS_HELP;
    else
        return -EINVAL;
    return 0;
}

int options_parse(struct options *options, int argc, char **argv, char *why, size_t why_bytes)
{
    *options = (struct options){OPTIONS_MEASURE, NULL, "unknown", NULL};
    if (argc > 1 && argv[1][0] != '-') {
        if (!subcommand_parse(options, argc, argv))
            return 0;
        snprintf(why, why_bytes, "unknown command %s, or wrong number of arguments", argv[1]);
        return -EINVAL;
    }
    for (int i = 1; i < argc; i++) {
        const char **slot = value_slot(options, argv[i]);
        if (slot && i + 1 < argc) {
            *slot = argv[++i];
        } else if (slot || mode_parse(options, argv[i])) {
            snprintf(why, why_bytes, slot ? "%s needs a value" : "unknown option %s", argv[i]);
            return -EINVAL;
        }
    }
    if (options->mode == OPTIONS_MEASURE && !options->results) {
        snprintf(why, why_bytes, "--results FILE is missing");
        return -EINVAL;
    }
    return 0;
}

bool options_selects(const char *only, const char *part)
{
    const size_t n = strlen(part);
    for (const char *at = only; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, part, n) && (at[n] == ',' || at[n] == '\0'))
            return true;
    return !only;
}

void options_slug(const char *name, char *slug, size_t slug_bytes)
{
    size_t n = 0;
    for (; *name && n + 1 < slug_bytes; name++) {
        if (isalnum((unsigned char)*name))
            slug[n++] = (char)tolower((unsigned char)*name);
        else if (n && slug[n - 1] != '-')
            slug[n++] = '-';
    }
    while (n && slug[n - 1] == '-')
        n--;
    slug[n] = '\0';
}
