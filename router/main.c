/* omni-router: configure, bind, serve until told to stop, unbind. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/config.h"
#include "common/base/invariant.h"
#include "common/base/log.h"
#include "common/base/process.h"
#include "router/router.h"

static const struct config_program program = {
    .name = "omni-router", .summary = "the door of a group: sessions, queues, token streams"};
static struct omni_config config;

/* SIGHUP: what can change without a restart does. */
static void reload(struct router *r, int argc, char **argv)
{
    static const char *const reloadable[] = {"log.level", "router.result_keep_s",
                                             "router.slow_client_ms", NULL};

    if (process_reload(&config, &program, reloadable, argc, argv) >= 0)
        router_reconfigure(r, &config);
    process_notify("READY=1");
}

static void serve(struct router *r, int stop_fd, int argc, char **argv)
{
    int rc = router_watch(r, stop_fd);

    if (rc < 0)
        fatal("cannot watch for signals: %s", strerror(-rc));
    while (!process_stop_requested()) {
        rc = router_poll(r);
        if (rc < 0)
            fatal("cannot wait for messages: %s", strerror(-rc));
        if (process_take_reload(stop_fd))
            reload(r, argc, argv);
    }
}

int main(int argc, char **argv)
{
    static struct router router;
    struct config_args args;
    struct error err = {""};
    char run_dir[256], stats_dir[256];
    int stop_fd;

    log_init("router", LOG_LEVEL_INFO);
    switch (config_parse_argv(&config, &args, &program, argc, argv)) {
    case CONFIG_RUN:
        break;
    case CONFIG_EXIT_OK:
        return 0;
    case CONFIG_EXIT_BAD:
        return 2;
    }
    log_set_level((enum log_level)config.log_level);
    if (process_begin(&stop_fd, &err) < 0)
        fatal("%s", err.text);
    if (process_run_dir(config.run_dir, config.group_name, run_dir, sizeof run_dir, &err) < 0 ||
        process_lock(run_dir, "router", &err) < 0)
        fatal("%s", err.text);
    if (segment_dir_resolve(config.shm_dir, config.group_name, stats_dir, sizeof stats_dir) < 0)
        fatal("shm.dir is too long");
    if (segment_dir_prepare(stats_dir, &err) < 0)
        fatal("%s", err.text);
    if (router_init(&router, &config, run_dir, stats_dir, &err) < 0)
        fatal("%s", err.text);
    log_info("router_ready", "group=%s dir=%s model=\"%s\" engines=%u", config.group_name, run_dir,
             router.text.model_name, router.n_engines);
    process_notify("READY=1");
    serve(&router, stop_fd, argc, argv);
    process_notify("STOPPING=1");
    log_info("router_stopping", "sessions=%u", router.sessions.n);
    router_shutdown(&router);
    return 0;
}
