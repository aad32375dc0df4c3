/* omni plan: how much best effort fits, what binds, and what more would buy. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu-engine/sim/commands.h"
#include "gpu-engine/sim/plan.h"

static int write_json(const struct plan *p, FILE *f, const char *path, struct error *err)
{
    if (f == NULL)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = plan_report_json(f, p);
    if (fclose(f) != 0 || rc != 0)
        return error_set(err, -EIO, "%s cannot be written", path);
    return 0;
}

/* The drawing reads JSON from a file, whether one was asked for or not. */
static int draw(const struct plan *p, struct error *err)
{
    char path[] = "/tmp/omni-plan-XXXXXX";
    int fd = mkstemp(path);

    if (fd < 0)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = write_json(p, fdopen(fd, "w"), path, err);
    if (rc == 0)
        rc = plan_plot(path, p->question->plot, err);
    unlink(path);
    return rc;
}

static int answer(const struct plan_question *q, struct error *err)
{
    struct plan plan;

    plan_init(&plan, q);
    int rc = plan_run(&plan, err);
    if (rc == 0)
        plan_report_table(stdout, &plan);
    if (rc == 0 && q->json != NULL)
        rc = write_json(&plan, fopen(q->json, "we"), q->json, err);
    if (rc == 0 && q->plot != NULL)
        rc = draw(&plan, err);
    plan_fini(&plan);
    return rc;
}

int command_plan(int argc, char **argv)
{
    struct plan_question q;
    struct error err;
    int rc = plan_question_parse(&q, argc, argv, &err), status = COMMAND_DONE;

    if (rc < 0)
        status = COMMAND_USAGE;
    else if (rc == 0 && (rc = answer(&q, &err)) != 0)
        status = COMMAND_FAILED;
    if (rc < 0)
        fprintf(stderr, "omni plan: %s\n", err.text);
    plan_question_fini(&q);
    return status;
}
