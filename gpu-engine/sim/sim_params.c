#include "gpu-engine/sim/sim_params.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t off; /* of a uint32_t in struct sched_params */
    uint32_t most;
} params[] = {
    {"use_pct", offsetof(struct sched_params, slo_use_pct), 100},
    {"free_pct", offsetof(struct sched_params, auto_free_pct), 90},
    {"headroom_pct", offsetof(struct sched_params, headroom_pct), 100},
    {"token_budget", offsetof(struct sched_params, token_budget), 1 << 20},
};
#define N_PARAMS (sizeof params / sizeof *params)
static_assert(N_PARAMS <= SIM_PARAMS_MAX, "a place per name");

static int take_one(struct sim_params *p, const char *at, size_t n, struct error *err)
{
    const char *equals = memchr(at, '=', n);
    size_t name_n = equals != NULL ? (size_t)(equals - at) : n;

    for (size_t i = 0; i < N_PARAMS; i++) {
        char *end;

        if (strlen(params[i].name) != name_n || strncmp(params[i].name, at, name_n) != 0)
            continue;
        unsigned long value = equals != NULL ? strtoul(equals + 1, &end, 10) : ULONG_MAX;
        if (equals == NULL || end != at + n || value > params[i].most)
            return error_set(err, -EINVAL, "%.*s: %s=0..%u is expected", (int)n, at, params[i].name,
                             params[i].most);
        p->given |= 1u << i;
        p->value[i] = (uint32_t)value;
        return 0;
    }
    return error_set(err, -EINVAL,
                     "%.*s: no such parameter; there are use_pct, free_pct, headroom_pct and "
                     "token_budget",
                     (int)name_n, at);
}

int sim_params_parse(struct sim_params *p, const char *text, struct error *err)
{
    int rc = 0;

    for (const char *at = text; at != NULL && *at != '\0' && rc == 0;) {
        size_t n = strcspn(at, ",");

        rc = take_one(p, at, n, err);
        at += n + (at[n] == ',');
    }
    return rc;
}

void sim_params_apply(const struct sim_params *p, struct sched_params *out)
{
    for (size_t i = 0; i < N_PARAMS; i++) {
        if ((p->given >> i & 1) != 0)
            memcpy((char *)out + params[i].off, &p->value[i], sizeof p->value[i]);
    }
}
