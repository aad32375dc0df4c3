/* Plots are drawn by the script that draws those of the benchmarks: a program of its own, so that
 * nothing here needs a drawing library. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu-engine/sim/plot.h"

enum { PATH_BYTES = 4096 };

/* The script in one of the folders above this program: build/x/bin lies in the source tree. */
static int find_script(char *out, size_t cap)
{
    static const char script[] = "/tests/bench/plot.py";
    ssize_t n = readlink("/proc/self/exe", out, cap - sizeof script);

    if (n < 0)
        return -errno;
    out[n] = '\0';
    for (char *slash; (slash = strrchr(out, '/')) != NULL;) {
        memcpy(slash, script, sizeof script);
        if (access(out, R_OK) == 0)
            return 0;
        *slash = '\0';
    }
    return -ENOENT;
}

static int draw_file(const char *json_path, const char *target, struct error *err)
{
    char path[PATH_BYTES];
    const char *script = getenv("OMNI_PLOT");
    int status;

    if (script == NULL && find_script(path, sizeof path) != 0)
        return error_set(err, -ENOENT,
                         "--plot: tests/bench/plot.py is not found above this "
                         "program; OMNI_PLOT may name it");
    pid_t pid = fork();
    if (pid == 0) {
        const char *debian = "/usr/bin/python3"; /* whose packages have matplotlib */
        const char *python = access(debian, X_OK) == 0 ? debian : "python3";
        execlp(python, "python3", script != NULL ? script : path, json_path, target, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return error_set(err, -errno, "--plot: %s", strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? 0
               : error_set(err, -EIO, "--plot %s: it was not drawn (python3 with matplotlib?)",
                           target);
}

static int write_file(int fd, const char *path, plot_write *write, const void *arg,
                      struct error *err)
{
    FILE *f = fdopen(fd, "w");

    if (f == NULL)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = write(f, arg);
    if (fclose(f) != 0 || rc != 0)
        return error_set(err, -EIO, "%s cannot be written", path);
    return 0;
}

int plot_draw(plot_write *write, const void *arg, const char *target, struct error *err)
{
    char path[] = "/tmp/omni-plot-XXXXXX";
    int fd = mkstemp(path);

    if (fd < 0)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = write_file(fd, path, write, arg, err);
    if (rc == 0)
        rc = draw_file(path, target, err);
    unlink(path);
    return rc;
}
