#include "tests/bench/load_plan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 256, BACKLOG_MADE = 256 };

static int list_append(struct load_list *list, const struct load_ask *ask)
{
    if (list->n == list->n_max) {
        uint32_t n_max = list->n_max == 0 ? 256 : 2 * list->n_max;
        struct load_ask *asks = reallocarray(list->asks, n_max, sizeof *asks);

        if (asks == NULL)
            return -ENOMEM;
        list->asks = asks;
        list->n_max = n_max;
    }
    list->asks[list->n++] = *ask;
    return 0;
}

void plan_fini(struct load_plan *plan)
{
    free(plan->arrivals.asks);
    free(plan->backlog.asks);
    *plan = (struct load_plan){0};
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* 1: an ask; 0: nothing on this line; -EINVAL. */
static int parse_line(const char *line, struct load_ask *ask, bool *has_time)
{
    char when[32], rest[2], *end;
    int n = sscanf(line, "%31s %15s %u %u %1s", when, ask->class_name, &ask->prompt, &ask->output,
                   rest);

    if (n <= 0 || when[0] == '#')
        return 0;
    if (n != 4 || ask->prompt == 0 || ask->prompt > LOAD_PROMPT_MAX || ask->output == 0)
        return -EINVAL;
    *has_time = strcmp(when, "-") != 0;
    if (!*has_time)
        return 1;
    double seconds = strtod(when, &end);
    if (*end != '\0' || !(seconds >= 0 && seconds < 1e6))
        return -EINVAL;
    ask->at_ns = (uint64_t)(seconds * 1e9);
    return 1;
}

static int by_time(const void *a, const void *b)
{
    uint64_t left = ((const struct load_ask *)a)->at_ns,
             right = ((const struct load_ask *)b)->at_ns;

    return (left > right) - (left < right);
}

static int read_lines(struct load_plan *plan, FILE *file, const char *path, struct error *error)
{
    char line[LINE_BYTES];

    for (unsigned number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        struct load_ask ask = {0};
        bool has_time = false;
        int rc = parse_line(line, &ask, &has_time);

        if (rc < 0)
            return error_set(error, rc, "%s:%u: expected SECONDS|- CLASS PROMPT OUTPUT", path,
                             number);
        rc = rc == 0 ? 0 : list_append(has_time ? &plan->arrivals : &plan->backlog, &ask);
        if (rc < 0)
            return error_set(error, rc, "%s: no memory", path);
    }
    return 0;
}

int plan_read(struct load_plan *plan, const char *path, struct error *error)
{
    FILE *file = fopen(path, "r");

    *plan = (struct load_plan){0};
    if (file == NULL)
        return error_set(error, -errno, "%s: %s", path, strerror(errno));
    int rc = read_lines(plan, file, path, error);
    fclose(file);
    if (rc != 0)
        plan_fini(plan);
    else if (plan->arrivals.n > 0)
        qsort(plan->arrivals.asks, plan->arrivals.n, sizeof plan->arrivals.asks[0], by_time);
    return rc;
}

/* ---- Making ---------------------------------------------------------------------------------- */

uint64_t plan_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double random_unit(uint64_t *state) /* in (0, 1] */
{
    return ((double)(plan_random(state) >> 11) + 1) / 9007199254740992.0;
}

/* About n: evenly from 3/4 n to 5/4 n. */
static uint32_t about(uint64_t *state, uint32_t n)
{
    return n - n / 4 + (uint32_t)(plan_random(state) % (n / 2 + 1));
}

static struct load_ask make_ask(uint64_t *state, const char *name, uint32_t prompt, uint32_t output)
{
    struct load_ask ask = {.prompt = about(state, prompt), .output = about(state, output)};

    snprintf(ask.class_name, sizeof ask.class_name, "%s", name);
    return ask;
}

static int make_arrivals(struct load_plan *plan, const struct load_recipe *r)
{
    uint64_t state = r->seed;
    double at = 0;
    int rc = 0;

    while (rc == 0 && r->ls_rate > 0) {
        at += -log(random_unit(&state)) / r->ls_rate;
        if (at >= r->seconds)
            break;
        struct load_ask ask = make_ask(&state, "ls", r->ls_prompt, r->ls_output);
        ask.at_ns = (uint64_t)(at * 1e9);
        rc = list_append(&plan->arrivals, &ask);
    }
    return rc;
}

/* The first of the backlog are cut to different lengths: together they would prefill and decode in
 * step for ever, and a window would see one or the other. */
static int make_backlog(struct load_plan *plan, const struct load_recipe *r)
{
    uint64_t state = r->seed + UINT64_C(1000003);
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && r->n_be > 0 && i < BACKLOG_MADE; i++) {
        struct load_ask ask = make_ask(&state, "be", r->be_prompt, r->be_output);

        if (i < r->n_be)
            ask.output = 1 + ask.output * (i + 1) / (r->n_be + 1);
        rc = list_append(&plan->backlog, &ask);
    }
    return rc;
}

int plan_make(struct load_plan *plan, const struct load_recipe *recipe)
{
    *plan = (struct load_plan){0};
    int rc = make_arrivals(plan, recipe);

    if (rc == 0)
        rc = make_backlog(plan, recipe);
    if (rc != 0)
        plan_fini(plan);
    return rc;
}
