/* omni-gpu-engine: configure, attach, loop, detach. */
#include <stdlib.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "gpu-engine/host.h"

static struct omni_config config;
static struct host host;

static const struct config_program program = {
    .name = "omni-gpu-engine",
    .summary = "dense layers, sweeps and the attention of latency-sensitive requests",
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
    log_init("gpu-engine", (enum log_level)config.log_level);
    if (process_begin(&stop_fd, &err) != 0)
        fatal("%s", err.text);
    if (host_init(&host, &config, args.index, &err) != 0)
        fatal("%s", err.text);
    process_notify("READY=1");
    while (!process_stop_requested()) {
        host_tick(&host);
        if (process_take_reload(stop_fd))
            reload(argc, argv);
    }
    process_notify("STOPPING=1");
    host_shutdown(&host);
    return EXIT_SUCCESS;
}
