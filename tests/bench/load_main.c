/* omni-bench-load: one client that loads a server with both classes, and measures.
 *
 *   omni-bench-load --config F | --http PORT [--plan F] [--ls-rate R] [--be N] [--seconds S] ...
 *
 * With --plan the file says what is asked (load_plan.h), and --be how much of its backlog is in
 * flight.  Without it: Poisson LS at --ls-rate, a backlog of BE, lengths about those given.
 * One JSON object on stdout (load_report.h). */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/bench/load_report.h"

enum { TAIL_S = 30 }; /* arrivals of a made plan behind the window, for company */

struct options {
    const char *config, *plan;
    uint32_t http_port;
    struct load_settings load;
    struct load_recipe recipe;
};

struct number_option {
    const char *name;
    uint32_t *to;
    uint32_t min, max;
};

struct real_option {
    const char *name;
    double *to;
};

static bool set_number(struct options *o, const char *name, const char *text)
{
    struct load_recipe *r = &o->recipe;
    const struct number_option rows[] = {
        {"--http", &o->http_port, 1, UINT16_MAX},
        {"--be", &o->load.n_backlog, 0, 4096},
        {"--seed", &o->load.seed, 0, UINT32_MAX},
        {"--vocab", &o->load.vocab, 1, UINT32_MAX},
        {"--ls-prompt", &r->ls_prompt, 4, LOAD_PROMPT_MAX / 2},
        {"--ls-output", &r->ls_output, 4, LOAD_PROMPT_MAX / 2},
        {"--be-prompt", &r->be_prompt, 4, LOAD_PROMPT_MAX / 2},
        {"--be-output", &r->be_output, 4, LOAD_PROMPT_MAX / 2},
    };
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(name, rows[i].name) != 0)
            continue;
        *rows[i].to = (uint32_t)value;
        return *end == '\0' && value >= rows[i].min && value <= rows[i].max;
    }
    return false;
}

static bool set_option(struct options *o, const char *name, const char *text)
{
    const struct real_option rows[] = {
        {"--ls-rate", &o->recipe.ls_rate},       {"--seconds", &o->load.seconds},
        {"--warm-up", &o->load.warm_up_s},       {"--drain", &o->load.drain_s},
        {"--ttft-slo-ms", &o->load.ttft_slo_ms}, {"--tpot-slo-ms", &o->load.tpot_slo_ms},
    };
    char *end;

    if (strcmp(name, "--config") == 0 || strcmp(name, "--plan") == 0) {
        *(strcmp(name, "--plan") == 0 ? &o->plan : &o->config) = text;
        return true;
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(name, rows[i].name) != 0)
            continue;
        *rows[i].to = strtod(text, &end);
        return *end == '\0' && *rows[i].to >= 0 && *rows[i].to < 1e6;
    }
    return set_number(o, name, text);
}

static bool parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || !set_option(o, argv[i], argv[i + 1]))
            return false;
    }
    return (o->config != NULL) != (o->http_port != 0) && o->load.seconds > 0;
}

static int open_plan(struct load_plan *plan, struct options *o, struct error *err)
{
    if (o->plan != NULL)
        return plan_read(plan, o->plan, err);
    o->recipe.seed = o->load.seed;
    o->recipe.n_be = o->load.n_backlog;
    o->recipe.seconds = o->load.warm_up_s + o->load.seconds + TAIL_S;
    return plan_make(plan, &o->recipe) == 0 ? 0 : error_set(err, -ENOMEM, "no memory");
}

static int run(const struct options *o, const struct load_plan *plan, struct error *err)
{
    struct load l = {.o = o->load, .plan = plan};
    int rc = o->config != NULL ? door_omni_open(&l.door, o->config, err)
                               : door_http_open(&l.door, (uint16_t)o->http_port, err);

    if (rc != 0)
        return rc;
    rc = load_run(&l);
    if (rc == 0)
        rc = load_report(&l, stdout);
    if (rc != 0)
        error_set(err, rc, "the run broke off: %s", strerror(-rc));
    l.door->ops->close(l.door);
    load_fini(&l);
    return rc;
}

/* The load needs little time but needs it at once: before the programs that it loads, where it is
 * let.  Its threads inherit this.  Whether it was in time is measured, not assumed. */
static void hurry(void)
{
    const struct sched_param lowest = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_RR, &lowest) != 0)
        setpriority(PRIO_PROCESS, 0, -10);
}

int main(int argc, char **argv)
{
    struct options o = {
        .load = {.warm_up_s = 3, .seconds = 20, .drain_s = 60, .seed = 1, .vocab = 4096},
        .recipe = {.ls_prompt = 160, .ls_output = 64, .be_prompt = 600, .be_output = 96}};
    struct load_plan plan = {0};
    struct error err = {.text = ""};

    if (!parse(&o, argc, argv)) {
        fprintf(stderr,
                "usage: omni-bench-load --config F | --http PORT [--plan F] [--ls-rate R] [--be N] "
                "[--seconds S] [--warm-up S] [--drain S] [--seed N] [--vocab N] [--ls-prompt N] "
                "[--ls-output N] [--be-prompt N] [--be-output N] [--ttft-slo-ms T] "
                "[--tpot-slo-ms T]\n");
        return 2;
    }
    int rc = open_plan(&plan, &o, &err);
    hurry();
    if (rc == 0)
        rc = run(&o, &plan, &err);
    if (rc != 0)
        fprintf(stderr, "omni-bench-load: %s\n", err.text);
    plan_fini(&plan);
    return rc == 0 ? 0 : 1;
}
