/* commands.h - the subcommands of omni; each has a file of its own.
 *
 * argv[0] is the subcommand's name.  They return the exit status: 0 done, 1 failed (the reason is
 * on stderr), 2 wrong usage, 3 nobody answers (status). */
#ifndef OMNI_PROTO_CLI_COMMANDS_H
#define OMNI_PROTO_CLI_COMMANDS_H

#include "common/base/error.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOBODY = 3 };

int command_chat(int argc, char **argv);
int command_run(int argc, char **argv);
int command_status(int argc, char **argv);
int command_cancel(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_clean(int argc, char **argv);
int command_messages(int argc, char **argv);

/* "omni <command>: <text>" on stderr; returns EXIT_FAILED. */
int command_fail(const char *command, const struct error *error);

/* The first Ctrl-C asks the command to stop, the second ends the process. */
void command_catch_interrupt(void);
int command_interrupts(void);

#endif
