/* commands.h - the subcommands of omni-sim; `omni NAME ...` runs `omni-sim NAME ...`, as git does.
 */
#ifndef OMNI_GPU_ENGINE_SIM_COMMANDS_H
#define OMNI_GPU_ENGINE_SIM_COMMANDS_H

enum { COMMAND_DONE = 0, COMMAND_FAILED = 1, COMMAND_USAGE = 2 };

/* argv[0] is the subcommand's name; the result is the program's exit status. */
int command_profile(int argc, char **argv);
int command_run(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_group(int argc, char **argv);

#endif
