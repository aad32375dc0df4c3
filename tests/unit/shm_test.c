#include "shm_test.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/shm/segment.h"

char shm_test_dir[64];

int shm_test_setup(void **state)
{
    static unsigned n;
    struct error err;

    (void)state;
    snprintf(shm_test_dir, sizeof shm_test_dir, "/dev/shm/omni-test-%d-%u", (int)getpid(), n++);
    return segment_dir_prepare(shm_test_dir, &err);
}

int shm_test_teardown(void **state)
{
    DIR *d = opendir(shm_test_dir);
    struct dirent *entry;

    (void)state;
    if (d == NULL)
        return 0;
    while ((entry = readdir(d)) != NULL)
        unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    return rmdir(shm_test_dir);
}

void shm_test_geometry(struct kv_geometry *g, uint32_t n_groups)
{
    const struct kv_layer_spec layers[] = {
        {.attention = KV_ATTENTION_FULL,
         .n_heads = 4,
         .n_kv_heads = 2,
         .dk = 8,
         .dv = 8,
         .scale = 1},
        {.attention = KV_ATTENTION_FULL,
         .n_heads = 2,
         .n_kv_heads = 1,
         .dk = 16,
         .dv = 16,
         .scale = 1},
    };
    const struct kv_geometry_config config = {.type = KV_TYPE_F16,
                                              .block_tokens = 32,
                                              .n_groups = n_groups,
                                              .n_ranks = 1,
                                              .model_hash = 77};
    const char *field;

    assert_int_equal(geometry_init(g, &config, layers, 2, &field), 0);
}

int shm_test_child(const char *label, unsigned n, void (*body)(void *), void *arg)
{
    char spec[128];
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (label != NULL) {
            snprintf(spec, sizeof spec, "%s:%u", label, n);
            fault_set(spec);
        }
        body(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return 1;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
