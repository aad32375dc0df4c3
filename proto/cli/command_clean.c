/* omni clean - removes what a killed group left: segments that no process maps, sockets that no
 * process listens on.  What is in use stays. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm/segment.h"
#include "proto/cli/commands.h"
#include "proto/cli/group.h"

static bool is_stale_socket(const char *path)
{
    char url[WIRE_URL_BYTES];
    struct stat st;

    if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode) || strlen(path) > WIRE_PATH_BYTES_MAX)
        return false;
    snprintf(url, sizeof url, "ipc://%.*s", WIRE_PATH_BYTES_MAX, path);
    return !wire_is_listening(url);
}

static uint32_t clean_sockets(const char *dir)
{
    char path[3 * CONFIG_STRING_MAX + 2];
    uint32_t n_removed = 0;
    DIR *d = opendir(dir);

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (is_stale_socket(path) && unlink(path) == 0)
            n_removed++;
    }
    if (d != NULL)
        closedir(d);
    return n_removed;
}

static int clean(const struct group *group, struct error *error)
{
    char shm_dir[SEGMENT_PATH_MAX], sockets[2 * CONFIG_STRING_MAX + 2];
    uint32_t n_removed = 0, n_busy = 0;
    const struct omni_config *c = &group->config;
    int err = segment_dir_resolve(c->shm_dir, c->group_name, shm_dir, sizeof shm_dir);

    if (err != 0)
        return error_set(error, err, "the path of the shared memory directory is too long");
    err = segment_unlink_stale(shm_dir, &n_removed, &n_busy, error);
    if (err != 0)
        return err;
    snprintf(sockets, sizeof sockets, "%s/%s", group->run_dir, c->group_name);
    printf("group %s: %u segments removed, %u in use; %u sockets removed\n", c->group_name,
           n_removed, n_busy, clean_sockets(sockets));
    return 0;
}

int command_clean(int argc, char **argv)
{
    struct group_options group_options = {0};
    const struct option_row rows[] = {GROUP_OPTION_ROWS(&group_options), {0}};
    const struct option_row *const tables[] = {rows, NULL};
    const struct option_command command = {
        .usage = "omni clean [options]",
        .summary = "Removes segments and sockets of the group that no process uses.",
        .tables = tables};
    struct group group;
    struct error error;
    int n_operands;
    enum option_result result = options_parse(&command, argc, argv, &n_operands);

    if (result != OPTIONS_RUN)
        return result == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
    int err = group_resolve(&group, &group_options, &error);

    if (err == 0)
        err = clean(&group, &error);
    return err == 0 ? EXIT_DONE : command_fail("clean", &error);
}
