/* probe_torch.cu - PyTorch beside our figures: starts torch_beside.py, which appends to the same file.
 *
 * OMNI_GPU_TORCH names the script (tests/gpu/run sets it; a binary that was carried alone has none). */
#include "tests/gpu/probe.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOTHING_TO_RUN = 77 };

/* The child: dies with this process, whose parent kills it when its time is over. */
static void script_exec(const char *script, const char *results)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("python3", "python3", script, results, (char *)NULL);
    _exit(NOTHING_TO_RUN);
}

static int measure_torch(struct probe *p)
{
    const char *script = getenv("OMNI_GPU_TORCH");
    int status = 0;
    if (script == NULL || *script == '\0') {
        report_text(p->report, "torch", "%s", "none: OMNI_GPU_TORCH names no script");
        return 0;
    }
    const pid_t child = fork();
    if (child == 0)
        script_exec(script, p->results);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return probe_fail(p, "python3 cannot be started");
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOTHING_TO_RUN)
        report_text(p->report, "torch", "%s", "none");
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return probe_fail(p, "%s ended with status %d", script, status);
    return 0;
}

static const struct probe_measurement measurements[] = {{"torch", measure_torch}};

const struct probe_part part_torch = {"torch", "PyTorch's attention and decode steps beside ours",
                                      120, 1, measurements};
