/* omni - the command line of a group: subcommands, as git has them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "proto/cli/commands.h"

enum { PATH_BYTES = 4096 };

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *doc;
};

static const struct command commands[] = {
    {"chat", command_chat, "talk with the model, or ask one question"},
    {"run", command_run, "send the requests of a file, stream or report them"},
    {"status", command_status, "what the group is doing"},
    {"cancel", command_cancel, "end a request by its id"},
    {"tokenize", command_tokenize, "text on stdin to token ids; needs no group"},
    {"clean", command_clean, "remove segments and sockets that nobody uses any more"},
    {"messages", command_messages, "the protocol's messages, as the README lists them"},
};

/* Programs beside this one that are spoken of as subcommands; plan and profile are omni-sim's own.
 */
static const struct {
    const char *name, *program, *doc;
} programs[] = {
    {"sim", "omni-sim", "simulate a machine and a load in virtual time"},
    {"plan", "omni-sim", "how much best effort fits beside a load, and what more would buy"},
    {"profile", "omni-sim", "fit the latency model to this machine"},
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    if (++interrupts > 1) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

void command_catch_interrupt(void)
{
    /* No SA_RESTART: a read of the terminal ends, so that the command sees it. */
    struct sigaction action = {.sa_handler = on_interrupt};

    interrupts = 0;
    sigaction(SIGINT, &action, NULL);
}

int command_interrupts(void)
{
    return interrupts;
}

int command_fail(const char *command, const struct error *error)
{
    fprintf(stderr, "omni %s: %s\n", command, error->text);
    return EXIT_FAILED;
}

static void list_commands(FILE *out)
{
    fprintf(out, "usage: omni COMMAND [options]    (omni COMMAND --help tells more)\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].doc);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        fprintf(out, "  %-10s %s (%s)\n", programs[i].name, programs[i].doc, programs[i].program);
}

/* Path of a program in the folder of this one. */
static int find_beside(const char *program, char *out, size_t cap)
{
    ssize_t n = readlink("/proc/self/exe", out, cap - 1);

    if (n < 0)
        return -errno;
    out[n] = '\0';
    char *slash = strrchr(out, '/');
    size_t room = cap - (size_t)(slash + 1 - out);

    if (strlen(program) >= room)
        return -ENAMETOOLONG;
    memcpy(slash + 1, program, strlen(program) + 1);
    return access(out, X_OK) == 0 ? 0 : -errno;
}

/* Never returns if the program can be run. */
static int run_program(const char *program, char **argv)
{
    char path[PATH_BYTES] = "";
    int err = find_beside(program, path, sizeof path);

    if (err == 0) {
        execv(path, argv);
        err = -errno;
    }
    fprintf(stderr, "omni %s: cannot run %s: %s\n", argv[0], path[0] != '\0' ? path : program,
            strerror(-err));
    return EXIT_FAILED;
}

static int run_named(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc, argv);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        if (strcmp(argv[0], programs[i].name) != 0)
            continue;
        /* "omni sim x" is "omni-sim x"; "omni plan x" is "omni-sim plan x". */
        if (strcmp(argv[0], "sim") == 0)
            return run_program(programs[i].program, argv);
        char **longer = calloc((size_t)argc + 2, sizeof *longer);

        if (longer == NULL)
            return EXIT_FAILED;
        longer[0] = argv[0];
        memcpy(longer + 1, argv, (size_t)argc * sizeof *argv);
        int status = run_program(programs[i].program, longer);

        free(longer);
        return status;
    }
    fprintf(stderr, "omni: no such command: %s\n\n", argv[0]);
    list_commands(stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    log_init("omni", LOG_LEVEL_WARN);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        list_commands(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        list_commands(stdout);
        return EXIT_DONE;
    }
    int status = run_named(argc - 1, argv + 1);

    if (fflush(stdout) != 0 && status == EXIT_DONE) {
        fprintf(stderr, "omni: cannot write: %s\n", strerror(errno));
        status = EXIT_FAILED;
    }
    return status;
}
