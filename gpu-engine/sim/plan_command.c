/* omni plan: how much best effort fits, what binds, and what more would buy. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/sim/commands.h"
#include "gpu-engine/sim/plan.h"
#include "gpu-engine/sim/plot.h"

static int write_json(const struct plan *p, FILE *f, const char *path, struct error *err)
{
    if (f == NULL)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = plan_report_json(f, p);
    if (fclose(f) != 0 || rc != 0)
        return error_set(err, -EIO, "%s cannot be written", path);
    return 0;
}

static int write_report(FILE *out, const void *plan)
{
    return plan_report_json(out, plan);
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
        rc = plot_draw(write_report, &plan, q->plot, err);
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
