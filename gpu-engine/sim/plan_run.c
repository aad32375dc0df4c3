/* The cases of a plan, and their simulations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu-engine/sim/plan.h"
#include "gpu-engine/sim/sim_report.h"

/* The load goes on behind the window while its requests are answered; a recorded one so long. */
static const double tail_s = 120;
enum { FIT_STEPS = 6 }; /* to 2 % of what fits without the target */

/* ---- Cases ----------------------------------------------------------------------------------- */

static struct plan_case *add_case(struct plan *p, enum plan_case_kind kind, const char *name)
{
    struct plan_case *c = &p->cases[p->n_cases++];

    *c = (struct plan_case){.kind = kind, .name = name, .options = p->question->options};
    return c;
}

void plan_init(struct plan *p, const struct plan_question *q)
{
    struct sim_options *o;
    struct sim_machine *m;

    *p = (struct plan){.question = q};
    o = &add_case(p, PLAN_ALONE, "LS alone")->options;
    o->load.be_rate = 0;
    o->load.be_backlog = 0;
    o->prefilled = false;
    add_case(p, PLAN_AS_IS, "with BE");
    m = &add_case(p, PLAN_SOCKET, "+1 CPU socket")->options.machine;
    m->host_bytes *= (m->n_sockets + 1.0) / m->n_sockets;
    m->n_sockets++;
    add_case(p, PLAN_HOST, "+1 host")->options.machine.n_hosts++;
    if (q->options.kv_type != KV_TYPE_I8)
        add_case(p, PLAN_INT8, "int8 KV")->options.kv_type = KV_TYPE_I8;
}

void plan_fini(struct plan *p)
{
    for (uint32_t i = 0; i < p->n_cases; i++)
        free(p->cases[i].results);
    p->n_cases = 0;
}

const struct plan_case *plan_find(const struct plan *p, enum plan_case_kind kind)
{
    for (uint32_t i = 0; i < p->n_cases; i++) {
        if (p->cases[i].kind == kind)
            return &p->cases[i];
    }
    return NULL;
}

double plan_mean(const struct plan_case *c, double (*of)(const struct sim_result *))
{
    double sum = 0;

    for (uint32_t i = 0; i < c->n_results; i++)
        sum += of(&c->results[i]);
    return sum / c->n_results;
}

static double attainment(const struct sim_result *x)
{
    return x->ls.offered > 0 ? (double)x->ls.both_ok / x->ls.offered : 1;
}

static double be_tokens_s(const struct sim_result *x)
{
    return (double)x->be.n_tokens / x->window_s;
}

double plan_attainment(const struct plan_case *c)
{
    return plan_mean(c, attainment);
}

double plan_be_tokens_s(const struct plan_case *c)
{
    return plan_mean(c, be_tokens_s);
}

/* ---- Progress -------------------------------------------------------------------------------- */

struct progress {
    const struct plan *plan;
    const char *name;
    uint32_t at, seed, n_seeds;
};

/* A line that is written over, on a terminal. */
static void show_share(void *arg, double share)
{
    const struct progress *g = arg;

    fprintf(stderr, "\r\033[K[%u/%u] %s: %.0f %%", g->at + 1, g->plan->n_cases, g->name,
            100 * (g->seed + share) / g->n_seeds);
}

/* Elsewhere a line per case. */
static void show_begin(const struct progress *g)
{
    if (!g->plan->question->quiet && !isatty(STDERR_FILENO))
        fprintf(stderr, "[%u/%u] %s\n", g->at + 1, g->plan->n_cases, g->name);
}

static void show_end(const struct progress *g)
{
    if (!g->plan->question->quiet && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ---- Running --------------------------------------------------------------------------------- */

static int add_trace(struct sim_run *run, const struct plan_question *q)
{
    double until_s = q->options.warmup_s + q->options.duration_s + tail_s;
    int rc = 0;

    for (uint64_t i = 0; q->trace.n > 0 && rc == 0; i++) {
        struct plan_arrival a = plan_trace_at(&q->trace, i, q->ls_scale);
        if (a.at_s >= until_s)
            break;
        rc = sim_run_add(run, a.at_s, true, a.lengths);
    }
    return rc;
}

static void find_bounds(struct plan_case *c, const struct plan_question *q,
                        const struct sim_run *run)
{
    struct sim_supply supply;

    sim_report_supply(&supply, &c->options, sim_run_timing(run));
    supply.ls_rate = q->ls_rate;
    sim_bounds_find(&supply, &c->bounds);
}

static int run_seed(struct plan_case *c, const struct plan_question *q, struct error *err)
{
    struct sim_run *run;
    int rc = sim_run_create(&run, &c->options, err);

    if (rc != 0)
        return rc;
    if (add_trace(run, q) != 0)
        rc = error_set(err, -ENOMEM, "no memory for %s", c->name);
    if (rc == 0)
        rc = sim_run_all(run, &c->results[c->n_results++], err);
    if (rc == 0)
        find_bounds(c, q, run);
    sim_run_destroy(run);
    return rc;
}

/* A case that has run before forgets that. */
static int run_case(struct plan *p, struct plan_case *c, struct error *err)
{
    const struct plan_question *q = p->question;
    struct progress g = {
        .plan = p, .name = c->name, .at = (uint32_t)(c - p->cases), .n_seeds = q->n_seeds};
    bool watched = !q->quiet && isatty(STDERR_FILENO);
    int rc = 0;

    if (c->results == NULL)
        c->results = calloc(q->n_seeds, sizeof *c->results);
    if (c->results == NULL)
        return error_set(err, -ENOMEM, "no memory for %s", c->name);
    c->n_results = 0;
    c->options.progress = watched ? show_share : NULL;
    c->options.progress_arg = &g;
    for (; g.seed < q->n_seeds && rc == 0; g.seed++) {
        c->options.load.seed = q->options.load.seed + g.seed;
        rc = run_seed(c, q, err);
    }
    c->options.progress_arg = NULL;
    show_end(&g);
    return rc;
}

/* ---- So much that the target is met ---------------------------------------------------------- */

/* Best effort at a rate: the largest of which the latency-sensitive requests still meet the target;
 * its case stays as the last one that did. */
static int fit(struct plan *p, struct plan_case *c, double rate_max, struct error *err)
{
    double low = 0, high = rate_max;
    int rc = 0;

    for (int step = 0; step < FIT_STEPS && rc == 0; step++) {
        c->options.load.be_rate = (low + high) / 2;
        rc = run_case(p, c, err);
        if (rc == 0 && plan_attainment(c) >= p->question->target)
            low = c->options.load.be_rate;
        else
            high = c->options.load.be_rate;
    }
    if (rc != 0 || low == c->options.load.be_rate)
        return rc;
    c->options.load.be_rate = low;
    return low > 0 ? run_case(p, c, err) : 0;
}

/* Does best effort without bounds cost what the load alone meets? */
static int fit_if_needed(struct plan *p, struct error *err)
{
    const struct plan_case *as_is = plan_find(p, PLAN_AS_IS);
    double target = p->question->target, tokens_s = plan_be_tokens_s(as_is);

    if (plan_attainment(plan_find(p, PLAN_ALONE)) < target || plan_attainment(as_is) >= target)
        return 0;
    struct plan_case *c = add_case(p, PLAN_FITTED, "BE that fits");
    c->options.prefilled = false;
    struct progress g = {.plan = p, .name = c->name, .at = p->n_cases - 1};
    show_begin(&g);
    return fit(p, c, tokens_s / sim_lengths_mean_out(&c->options.load.be), err);
}

int plan_run(struct plan *p, struct error *err)
{
    int rc = 0;

    for (uint32_t i = 0; i < p->n_cases && rc == 0; i++) {
        struct progress g = {.plan = p, .name = p->cases[i].name, .at = i};
        show_begin(&g);
        rc = run_case(p, &p->cases[i], err);
    }
    return rc == 0 ? fit_if_needed(p, err) : rc;
}
