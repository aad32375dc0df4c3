/* omni-cpu-attnd: configure, attach, loop, detach. */
#include <stdlib.h>

#include "common/base/invariant.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "cpu-attnd/attnd.h"

static struct omni_config config;
static struct attnd attnd;

static const struct config_program program = {
    .name = "omni-cpu-attnd",
    .summary = "decode attention of best-effort requests, one process per NUMA node",
    .has_index = true};

/* SIGHUP: what can change without a restart does. */
static void reload(int argc, char **argv)
{
    static const char *const reloadable[] = {"log.level", NULL};

    process_reload(&config, &program, reloadable, argc, argv);
    process_notify("READY=1");
}

int main(int argc, char **argv)
{
    struct config_args args;
    struct error err;
    int stop_fd;

    switch (config_parse_argv(&config, &args, &program, argc, argv)) {
    case CONFIG_RUN:
        break;
    case CONFIG_EXIT_OK:
        return EXIT_SUCCESS;
    case CONFIG_EXIT_BAD:
        return EXIT_FAILURE;
    }
    log_init("cpu-attnd", (enum log_level)config.log_level);
    if (process_begin(&stop_fd, &err) != 0)
        fatal("%s", err.text);
    if (attnd_init(&attnd, &config, args.index, &err) != 0)
        fatal("%s", err.text);
    process_notify("READY=1");
    while (!process_stop_requested()) {
        attnd_tick(&attnd);
        if (process_take_reload(stop_fd))
            reload(argc, argv);
    }
    process_notify("STOPPING=1");
    attnd_shutdown(&attnd);
    return EXIT_SUCCESS;
}
