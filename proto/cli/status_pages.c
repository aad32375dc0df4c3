#include "proto/cli/status_pages.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/shm/stats.h"

#define PAGE_PREFIX "stats-"

/* "stats-<program>-<index>" -> program and index. */
static bool parse_page_name(const char *file, char program[64], uint32_t *index)
{
    const char *dash = strrchr(file, '-');
    size_t skip = strlen(PAGE_PREFIX);
    char *end;

    if (strncmp(file, PAGE_PREFIX, skip) != 0 || dash < file + skip || dash[1] < '0' ||
        dash[1] > '9')
        return false;
    size_t n = (size_t)(dash - (file + skip));

    if (n == 0 || n >= 64)
        return false;
    memcpy(program, file + skip, n);
    program[n] = '\0';
    *index = (uint32_t)strtoul(dash + 1, &end, 10);
    return *end == '\0';
}

static void add_value(void *page, const struct stats_name *name, uint64_t value)
{
    if (value != 0)
        json_object_set_new(page, name->name, json_integer((json_int_t)value));
}

/* A page outlives a program that was killed. */
static void add_process(json_t *processes, const char *program, uint32_t index, pid_t pid)
{
    const bool lives = kill(pid, 0) == 0;

    json_array_append_new(processes,
                          json_pack("{s:s, s:I, s:s, s:I}", "program", program, "index",
                                    (json_int_t)index, "state", lives ? "running" : "gone", "pid",
                                    (json_int_t)(lives ? pid : 0)));
}

static void add_page(json_t *pages, json_t *processes, const char *dir, const char *program,
                     uint32_t index)
{
    struct stats_page page = STATS_NONE;
    struct error error;

    if (stats_attach(&page, dir, program, index, &error) != 0)
        return; /* it went away meanwhile, or another version wrote it */
    json_t *object = json_pack("{s:s, s:I}", "program", program, "index", (json_int_t)index);

    add_process(processes, program, index, (pid_t)segment_header(&page.segment)->creator_pid);
    stats_foreach(&page, add_value, object);
    stats_detach(&page);
    json_array_append_new(pages, object);
}

json_t *status_pages_json(const struct omni_config *config)
{
    char dir[SEGMENT_PATH_MAX], program[64];
    json_t *pages = json_array(), *processes = json_array();
    uint32_t index;

    if (segment_dir_resolve(config->shm_dir, config->group_name, dir, sizeof dir) == 0) {
        DIR *d = opendir(dir);

        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
            if (parse_page_name(e->d_name, program, &index))
                add_page(pages, processes, dir, program, index);
        if (d != NULL)
            closedir(d);
    }
    return json_pack("{s:n, s:o, s:o}", "router", "processes", processes, "pages", pages);
}
