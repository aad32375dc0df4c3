/* The command line that all programs of the group share.  See config.h. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"
#include "common/base/process.h"
#include "common/base/version.h"

enum { INDEX_MAX = 15 };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"set", required_argument, NULL, 's'},
    {"print-config", no_argument, NULL, 'p'},
    {"check-config", no_argument, NULL, 'k'},
    {"index", required_argument, NULL, 'i'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {"print-run-dir", no_argument, NULL, 'r'},
    {NULL, 0, NULL, 0},
};

struct wishes {
    bool print, check, run_dir;
};

static void print_help(const struct config_program *p)
{
    printf("%s - %s\n\n"
           "usage: %s [options]\n"
           "  --config FILE            read options from an INI file\n"
           "  --set SECTION.KEY=VALUE  set one option, after the file; may be repeated\n"
           "%s"
           "  --print-config           print every option with its value and exit\n"
           "  --print-run-dir          print the folder of the group's sockets and logs and exit\n"
           "  --check-config           check the configuration and exit\n"
           "  --help, --version\n",
           p->name, p->summary, p->name,
           p->has_index ? "  --index N                which of the group's, from 0\n" : "");
}

static enum config_parse complain(const struct config_program *p, const char *text)
{
    fprintf(stderr, "%s: %s\n", p->name, text);
    return CONFIG_EXIT_BAD;
}

static bool parse_index(const char *text, uint32_t *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n > INDEX_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

/* Everything but --set. */
static enum config_parse read_flags(struct config_args *args, struct wishes *wishes,
                                    const struct config_program *p, int argc, char **argv)
{
    int option;

    optind = 0; /* glibc: start anew */
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'c':
            args->config_path = optarg;
            break;
        case 'i':
            if (!p->has_index || !parse_index(optarg, &args->index))
                return complain(p, "--index: expected a number from 0 to 15");
            break;
        case 'p':
            wishes->print = true;
            break;
        case 'r':
            wishes->run_dir = true;
            break;
        case 'k':
            wishes->check = true;
            break;
        case 'h':
            print_help(p);
            return CONFIG_EXIT_OK;
        case 'v':
            printf("%s %s\n", p->name, OMNI_VERSION);
            return CONFIG_EXIT_OK;
        case 's':
            break;
        default: /* getopt has said why */
            return CONFIG_EXIT_BAD;
        }
    }
    return optind == argc ? CONFIG_RUN : complain(p, "unexpected argument; see --help");
}

static enum config_parse apply_sets(struct omni_config *c, const struct config_program *p, int argc,
                                    char **argv)
{
    struct error err;
    int option;

    optind = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 's' && config_set(c, optarg, &err) != 0)
            return complain(p, err.text);
    }
    return CONFIG_RUN;
}

static enum config_parse grant(const struct omni_config *c, const struct config_program *p,
                               const struct wishes *wishes)
{
    char base[CONFIG_STRING_MAX];

    if (wishes->run_dir && process_run_base(c->run_dir, base, sizeof base) != 0)
        return complain(p, "run.dir is too long");
    if (wishes->run_dir)
        printf("%s/%s\n", base, c->group_name);
    else if (wishes->print)
        config_print(c, stdout);
    else if (wishes->check)
        printf("configuration: ok\n");
    else
        return CONFIG_RUN;
    return CONFIG_EXIT_OK;
}

enum config_parse config_parse_argv(struct omni_config *c, struct config_args *args,
                                    const struct config_program *program, int argc, char **argv)
{
    struct wishes wishes = {false, false, false};
    struct error err;
    enum config_parse result;

    *args = (struct config_args){0};
    config_defaults(c);
    result = read_flags(args, &wishes, program, argc, argv);
    if (result != CONFIG_RUN)
        return result;
    if (args->config_path != NULL && config_load(c, args->config_path, &err) != 0)
        return complain(program, err.text);
    result = apply_sets(c, program, argc, argv);
    if (result != CONFIG_RUN)
        return result;
    if (config_check(c, &err) != 0)
        return complain(program, err.text);
    return grant(c, program, &wishes);
}
