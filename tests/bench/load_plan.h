/* load_plan.h - what a load asks, decided before it begins.
 *
 * A plan has two lists.  Arrivals: requests with a time, sent at that time whatever has become of
 * the others (open loop).  Backlog: requests without a time, of which a given number is kept in
 * flight (closed loop), in order and from the beginning again when they have run out.
 *
 * It is read from a file of lines `SECONDS CLASS PROMPT OUTPUT`, SECONDS from the begin of the load
 * or `-` for the backlog, lengths in tokens, `#` for comments; or it is made: Poisson arrivals and
 * lengths that vary by a quarter.  The plan owns its lists; plan_fini frees them. */
#ifndef OMNI_TESTS_BENCH_LOAD_PLAN_H
#define OMNI_TESTS_BENCH_LOAD_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

enum { LOAD_PROMPT_MAX = 16384, LOAD_CLASS_BYTES = 16 };

struct load_ask {
    uint64_t at_ns; /* from the begin of the load; arrivals only */
    char class_name[LOAD_CLASS_BYTES];
    uint32_t prompt, output; /* tokens, at least 1 */
};

struct load_list {
    struct load_ask *asks;
    uint32_t n, n_max;
};

struct load_plan {
    struct load_list arrivals; /* by time */
    struct load_list backlog;
};

/* Lengths and rate of a plan that is made. */
struct load_recipe {
    double ls_rate, seconds; /* of arrivals, in all */
    uint32_t seed, n_be;     /* n_be: how many of the backlog will be in flight */
    uint32_t ls_prompt, ls_output, be_prompt, be_output;
};

/* 0, -EINVAL (the error names the line), -ENOMEM or the errno of the file. */
int plan_read(struct load_plan *plan, const char *path, struct error *error);

/* 0 or -ENOMEM.  One seed asks LS the same whatever BE does. */
int plan_make(struct load_plan *plan, const struct load_recipe *recipe);
void plan_fini(struct load_plan *plan);

/* splitmix64 */
uint64_t plan_random(uint64_t *state);

static inline bool ask_is_ls(const struct load_ask *ask)
{
    return ask->class_name[0] == 'l' && ask->class_name[1] == 's' && ask->class_name[2] == '\0';
}

#endif
