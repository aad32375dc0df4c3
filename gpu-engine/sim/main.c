/* omni-sim: what a machine does with a model, without a group: subcommands, as git has them. */
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "gpu-engine/sim/commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *doc;
} commands[] = {
    {"run", command_run, "one load on one machine, in virtual time"},
    {"group", command_group, "a configured group under a recorded load, in virtual time"},
    {"plan", command_plan, "how much best effort fits beside a load, and what more would buy"},
    {"profile", command_profile, "take, show or check the latency model's profile of a model"},
};

static void list_commands(FILE *out)
{
    fprintf(out, "usage: omni-sim COMMAND [options]    (omni-sim COMMAND --help tells more)\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].doc);
}

int main(int argc, char **argv)
{
    log_init("omni-sim", LOG_LEVEL_WARN);
    if (argc < 2) {
        list_commands(stderr);
        return COMMAND_USAGE;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "--help") != 0) {
        fprintf(stderr, "omni-sim: no such command: %s\n\n", argv[1]);
        list_commands(stderr);
        return COMMAND_USAGE;
    }
    list_commands(stdout);
    return COMMAND_DONE;
}
