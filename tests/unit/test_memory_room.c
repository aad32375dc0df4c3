/* Room for memory: the machine's, or what a control group of either version has left. */
#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm/memory_room.h"

#define MIB (1024ULL * 1024)

static char root[64];

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
    char full[256];

    assert_true(snprintf(full, sizeof full, "%s/%s", root, path) < (int)sizeof full);
    for (char *slash = strchr(full + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(full, 0700);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static struct memory_room room(void)
{
    char proc[80], cgroup[80];

    (void)snprintf(proc, sizeof proc, "%s/proc", root);
    (void)snprintf(cgroup, sizeof cgroup, "%s/cgroup", root);
    return memory_room_now(proc, cgroup);
}

static void assert_room(uint64_t bytes, bool is_a_group)
{
    struct memory_room r = room();

    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.is_a_group, is_a_group);
}

static int begin(void **state)
{
    (void)state;
    strcpy(root, "/tmp/omni-room.XXXXXX");
    return mkdtemp(root) == NULL;
}

static int end(void **state)
{
    char command[96];

    (void)state;
    (void)snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void test_the_machine_alone(void **state)
{
    (void)state;
    assert_room(UINT64_MAX, false);
    put("proc/meminfo", "MemTotal:  4096000 kB\nMemAvailable:   2048000 kB\n");
    assert_room(2048000 * 1024ULL, false);
    put("proc/self/cgroup", "0::/a/b\n");
    put("cgroup/a/b/memory.max", "max\n");
    put("cgroup/a/b/memory.current", "1000000\n");
    assert_room(2048000 * 1024ULL, false);
}

static void test_version_2(void **state)
{
    (void)state;
    put("proc/meminfo", "MemAvailable:   2048000 kB\n");
    put("proc/self/cgroup", "0::/a/b\n");
    put("cgroup/a/b/memory.max", "268435456\n");
    put("cgroup/a/b/memory.current", "167772160\n");
    assert_room(96 * MIB, true);
    put("cgroup/a/b/memory.stat",
        "anon 5\ninactive_file 33554432\nactive_file 1048576\nshmem 77\n");
    assert_room(129 * MIB, true);
    put("cgroup/a/memory.max", "67108864\n"); /* the group above has less */
    put("cgroup/a/memory.current", "62914560\n");
    assert_room(4 * MIB, true);
    put("cgroup/a/memory.current", "99999999\n");
    assert_room(0, true);
}

static void test_version_1_in_a_container(void **state)
{
    (void)state;
    put("proc/meminfo", "MemAvailable:   2048000 kB\n");
    put("proc/self/cgroup", "12:cpu,cpuacct:/docker/77\n7:memory:/docker/77\n0::/\n");
    put("cgroup/memory/memory.limit_in_bytes", "268435456\n");
    put("cgroup/memory/memory.usage_in_bytes", "134217728\n");
    put("cgroup/memory/memory.stat",
        "inactive_file 1\ntotal_inactive_file 1048576\ntotal_active_file 0\n");
    assert_room(129 * MIB, true);
    put("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_room(2048000 * 1024ULL, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_machine_alone, begin, end),
        cmocka_unit_test_setup_teardown(test_version_2, begin, end),
        cmocka_unit_test_setup_teardown(test_version_1_in_a_container, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
