#include "common/shm/memory_room.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512, LINE_BYTES = 512 };

/* The files of one version of control groups. */
struct version {
    const char *folder; /* below the root */
    const char *limit, *used;
    const char *cached[2]; /* lines of memory.stat: pages of files */
};
static const struct version versions[] = {
    {"", "memory.max", "memory.current", {"active_file ", "inactive_file "}},
    {"/memory",
     "memory.limit_in_bytes",
     "memory.usage_in_bytes",
     {"total_active_file ", "total_inactive_file "}},
};

static FILE *open_in(const char *folder, const char *name)
{
    char path[PATH_BYTES + 64];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);

    return n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
}

/* False where there is no such file, or no number in it ("max"). */
static bool read_number(const char *folder, const char *name, uint64_t *out)
{
    FILE *f = open_in(folder, name);

    if (f == NULL)
        return false;
    bool found = fscanf(f, "%" SCNu64, out) == 1;
    fclose(f);
    return found;
}

/* The sum of the numbers behind these words, each at the start of a line; *found: any of them. */
static uint64_t sum_lines(FILE *f, const char *const *words, int n_words, bool *found)
{
    char line[LINE_BYTES];
    uint64_t sum = 0;

    while (fgets(line, sizeof line, f) != NULL) {
        for (int i = 0; i < n_words; i++) {
            size_t n = strlen(words[i]);

            if (strncmp(line, words[i], n) != 0)
                continue;
            sum += strtoull(line + n, NULL, 10);
            *found = true;
        }
    }
    return sum;
}

static void take_machine(struct memory_room *room, const char *proc)
{
    static const char *const words[] = {"MemAvailable:"};
    FILE *f = open_in(proc, "meminfo");
    bool found = false;

    if (f == NULL)
        return;
    uint64_t kib = sum_lines(f, words, 1, &found);
    fclose(f);
    if (found)
        room->bytes = kib * 1024;
}

static void take_group(struct memory_room *room, const struct version *v, const char *folder)
{
    uint64_t limit, used, cached = 0;
    bool found = false;

    if (!read_number(folder, v->limit, &limit) || !read_number(folder, v->used, &used))
        return;
    FILE *f = open_in(folder, "memory.stat");
    if (f != NULL) {
        cached = sum_lines(f, v->cached, 2, &found);
        fclose(f);
    }
    uint64_t held = used > cached ? used - cached : 0;
    uint64_t left = limit > held ? limit - held : 0;
    if (left >= room->bytes)
        return;
    room->bytes = left;
    room->is_a_group = true;
}

/* The group that /proc names, and all above it; in a container its path may be one of the machine
 * outside, and only the root of it is there. */
static void take_groups(struct memory_room *room, const struct version *v, const char *cgroup,
                        const char *group)
{
    char path[PATH_BYTES];
    size_t root = strlen(cgroup) + strlen(v->folder);
    int n = snprintf(path, sizeof path, "%s%s%s", cgroup, v->folder, group);

    if (n < 0 || (size_t)n >= sizeof path)
        return;
    for (char *end = path + n; end != NULL && (size_t)(end - path) >= root;
         end = strrchr(path, '/')) {
        *end = '\0';
        take_group(room, v, path);
    }
}

struct memory_room memory_room_now(const char *proc, const char *cgroup)
{
    struct memory_room room = {.bytes = UINT64_MAX};
    FILE *f = open_in(proc, "self/cgroup");
    char line[LINE_BYTES];

    take_machine(&room, proc);
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

        if (group == NULL)
            continue;
        line[strcspn(line, "\n")] = '\0';
        *group++ = '\0';
        if (controllers[1] == '\0')
            take_groups(&room, &versions[0], cgroup, group);
        else if (strstr(controllers, "memory") != NULL)
            take_groups(&room, &versions[1], cgroup, group);
    }
    if (f != NULL)
        fclose(f);
    return room;
}
