/* What a plan found: a table, sentences that answer the question, and JSON. */
#include <errno.h>
#include <jansson.h>

#include "gpu-engine/sim/plan.h"

static double percent(double share)
{
    return 100 * share;
}

static double worker_busy(const struct sim_result *x)
{
    double sum = 0;

    for (uint32_t w = 0; w < x->n_workers; w++)
        sum += x->worker_busy[w];
    return x->n_workers > 0 ? sum / x->n_workers : 0;
}

static double device_busy(const struct sim_result *x)
{
    return x->gpu_busy;
}

/* Of the latency-sensitive requests, by admission: they count as not met. */
static double refused(const struct sim_result *x)
{
    return x->ls.offered > 0 ? 1 - (double)x->ls.admitted / x->ls.offered : 0;
}

static double ttft_p99_s(const struct sim_result *x)
{
    return x->ls.ttft_s[2];
}

static double tpot_p99_s(const struct sim_result *x)
{
    return x->ls.tpot_s[2];
}

static double prefill_tokens_s(const struct sim_result *x)
{
    return (double)x->be.n_prompt_tokens / x->window_s;
}

/* Largest less smallest of the seeds' BE tokens/s. */
static double be_spread(const struct plan_case *c)
{
    uint64_t least = UINT64_MAX, most = 0;

    for (uint32_t i = 0; i < c->n_results; i++) {
        uint64_t n = c->results[i].be.n_tokens;
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    return (double)(most - least) / c->results[0].window_s;
}

static const char *timing_of(const struct plan *p)
{
    return p->question->options.profile != NULL ? p->question->options.profile : "first principles";
}

/* ---- What was asked -------------------------------------------------------------------------- */

static void print_machine(FILE *out, const struct plan *p)
{
    const struct sim_options *o = &p->question->options;
    const struct sim_machine *m = &o->machine;

    fprintf(out, "%s on %u x %s (%.0f GB), %u socket%s of %.0f GB/s and %.0f GB", o->model->name,
            m->n_gpus, m->gpu->name, m->gpu->memory_bytes / 1e9, m->n_sockets,
            m->n_sockets == 1 ? "" : "s", m->socket_bytes_per_ns,
            m->host_bytes / m->n_sockets / 1e9);
    if (m->n_hosts > 0)
        fprintf(out, ", %u host%s of %.0f GB/s over %.0f Gbit/s", m->n_hosts,
                m->n_hosts == 1 ? "" : "s", m->remote_bytes_per_ns, 8 * m->net_bytes_per_ns);
    fprintf(out, "\ntimes of the device: %s%s\n", timing_of(p),
            o->profile != NULL ? ""
                               : " (no profile was given: a roofline, good to some tens of %)");
}

static void print_load(FILE *out, const struct plan *p)
{
    const struct plan_question *q = p->question;
    const struct sim_options *o = &q->options;

    fprintf(out,
            "LS: %s, %.2f requests/s of %.0f + %.0f tokens; TTFT within %g s, TPOT within %g ms\n",
            q->trace_name, q->ls_rate, sim_lengths_mean_in(&o->load.ls),
            sim_lengths_mean_out(&o->load.ls), o->ttft_slo_s, 1e3 * o->tpot_slo_s);
    if (q->trace.n > 0)
        fprintf(
            out, "    %u arrivals over %.0f s, %g times as fast%s; %u without tokens left out\n",
            q->trace.n, q->trace.span_s, q->ls_scale,
            q->trace.span_s / q->ls_scale < o->warmup_s + o->duration_s ? ", again and again" : "",
            q->trace.n_left_out);
    fprintf(out, "BE: %s, %.0f + %.0f tokens, ", q->be_name, sim_lengths_mean_in(&o->load.be),
            sim_lengths_mean_out(&o->load.be));
    if (o->load.be_rate > 0)
        fprintf(out, "%.1f a minute; ", 60 * o->load.be_rate);
    else
        fprintf(out, "without end; ");
    fprintf(out, "policy %s; %.0f s measured after %.0f s, seed %llu\n\n", o->policy, o->duration_s,
            o->warmup_s, (unsigned long long)o->load.seed);
}

/* ---- Table ----------------------------------------------------------------------------------- */

static void print_case(FILE *out, const struct plan_case *c)
{
    const struct sim_bounds *b = &c->bounds;

    fprintf(out, "%-14s %7.2f %8.2f %7.3f %7.1f %7.0f %7.0f", c->name, percent(plan_attainment(c)),
            percent(plan_mean(c, refused)), plan_mean(c, ttft_p99_s),
            1e3 * plan_mean(c, tpot_p99_s), percent(plan_mean(c, device_busy)),
            percent(plan_mean(c, worker_busy)));
    if (c->kind != PLAN_ALONE)
        fprintf(out, " %9.1f %6.1f %9.0f", plan_be_tokens_s(c), be_spread(c),
                plan_mean(c, prefill_tokens_s));
    if (c->kind != PLAN_ALONE && c->kind != PLAN_FITTED)
        fprintf(out, " %9.0f   %c   %8.0f %8.0f %8.0f %8.0f", b->joint, b->binds, b->p, b->k, b->w,
                b->d);
    fputc('\n', out);
}

static void print_table(FILE *out, const struct plan *p)
{
    fprintf(out, "%14s %7s %8s %7s %7s %7s %7s %9s %6s %9s %9s %s %8s %8s %8s %8s\n", "", "LS met",
            "refused", "TTFT", "TPOT", "device", "CPUs", "BE", "spread", "prefill", "bound",
            "binds", "P", "K", "W", "D");
    fprintf(out, "%14s %7s %8s %7s %7s %7s %7s %9s %6s %9s %9s\n", "", "%", "%", "p99 s", "p99 ms",
            "busy %", "busy %", "tokens/s", "", "tokens/s", "tokens/s");
    for (uint32_t i = 0; i < p->n_cases; i++)
        print_case(out, &p->cases[i]);
    fprintf(
        out,
        "\nMeans over %u seed%s; spread: of BE between them.  Bounds, each supply alone: P device "
        "time left for\nprompts, K device memory left for KV, W the workers' read bandwidth, D "
        "rows within the TPOT objective;\nbound: all four together.\n\n",
        p->question->n_seeds, p->question->n_seeds == 1 ? "" : "s");
}

/* ---- Answers --------------------------------------------------------------------------------- */

static const char *doc_of_supply(char binds)
{
    switch (binds) {
    case 'P':
        return "device time for best-effort prompts";
    case 'K':
        return "device memory for KV";
    case 'W':
        return "the workers' read bandwidth";
    case 'D':
        return "rows within the TPOT objective";
    default:
        return "nothing of the machine: as much as arrives is served";
    }
}

static void print_ls_answer(FILE *out, const struct plan *p)
{
    double target = p->question->target;
    double alone = plan_attainment(plan_find(p, PLAN_ALONE));
    double beside = plan_attainment(plan_find(p, PLAN_AS_IS));

    if (alone < target)
        fprintf(out,
                "The latency-sensitive load does not fit by itself: %.2f %% meet their objectives "
                "without any best effort, %.4g %% are wanted.\n",
                percent(alone), percent(target));
    else if (beside < target)
        fprintf(out,
                "Best effort takes too much: %.2f %% of LS meet their objectives beside it (alone "
                "%.2f %%, wanted %.4g %%).\n",
                percent(beside), percent(alone), percent(target));
    else
        fprintf(out, "LS is kept: %.2f %% meet their objectives, %.2f %% without best effort.\n",
                percent(beside), percent(alone));
}

static void print_fitted(FILE *out, const struct plan *p)
{
    const struct plan_case *c = plan_find(p, PLAN_FITTED);

    if (c == NULL)
        return;
    if (plan_attainment(c) < p->question->target)
        fprintf(out, "No rate of best effort was found at which LS meets it.\n");
    else
        fprintf(
            out,
            "LS meets it beside %.1f best-effort requests a minute (%.0f decode tokens/s): limit "
            "them to that.\n",
            60 * c->options.load.be_rate, plan_be_tokens_s(c));
}

/* Requests by their output, since prompts in work would count otherwise. */
static void print_be_answer(FILE *out, const struct plan *p)
{
    const struct plan_case *c = plan_find(p, PLAN_AS_IS);
    const struct sim_load *load = &p->question->options.load;
    double tokens_s = plan_be_tokens_s(c);

    fprintf(out,
            "Beside LS %.0f decode tokens/s of best effort are served: %.2f million an hour, about "
            "%.1f requests a minute%s.\n",
            tokens_s, tokens_s * 3600 / 1e6, 60 * tokens_s / sim_lengths_mean_out(&load->be),
            load->be_rate > 0 ? " (of those that arrive)" : "");
    fprintf(out, "What binds is %c, %s: together the four supplies bound it at %.0f tokens/s.\n",
            c->bounds.binds, doc_of_supply(c->bounds.binds), c->bounds.joint);
}

static double change_pct(double now, double was)
{
    return was > 0 ? 100 * (now / was - 1) : 0;
}

static void print_more(FILE *out, const struct plan *p)
{
    const struct plan_case *was = plan_find(p, PLAN_AS_IS);

    for (uint32_t i = 0; i < p->n_cases; i++) {
        const struct plan_case *c = &p->cases[i];

        if (c->kind == PLAN_ALONE || c->kind == PLAN_AS_IS || c->kind == PLAN_FITTED)
            continue;
        fprintf(out,
                "%s: %+.0f %% best effort (bound %+.0f %%), LS met %+.2f points; then %c binds.\n",
                c->name, change_pct(plan_be_tokens_s(c), plan_be_tokens_s(was)),
                change_pct(c->bounds.joint, was->bounds.joint),
                percent(plan_attainment(c) - plan_attainment(was)), c->bounds.binds);
    }
}

void plan_report_table(FILE *out, const struct plan *p)
{
    print_machine(out, p);
    print_load(out, p);
    print_table(out, p);
    print_ls_answer(out, p);
    print_be_answer(out, p);
    print_fitted(out, p);
    print_more(out, p);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_case(const struct plan_case *c)
{
    const struct sim_bounds *b = &c->bounds;
    const char binds[2] = {b->binds, '\0'};

    return json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:f}",
        "name", c->name, "attainment_pct", percent(plan_attainment(c)), "refused_pct",
        percent(plan_mean(c, refused)), "ttft_p99_s", plan_mean(c, ttft_p99_s), "tpot_p99_s",
        plan_mean(c, tpot_p99_s), "device_busy_pct", percent(plan_mean(c, device_busy)),
        "worker_busy_pct", percent(plan_mean(c, worker_busy)), "be_tokens_s", plan_be_tokens_s(c),
        "be_spread_tokens_s", be_spread(c), "be_prefill_tokens_s", plan_mean(c, prefill_tokens_s),
        "be_rate", c->options.load.be_rate, "bound_tokens_s", b->joint, "binds", binds, "p", b->p,
        "k", b->k, "w", b->w, "d", b->d);
}

/* Cases that differ in the machine. */
static json_t *json_series(const struct plan *p, const char *name,
                           double (*value)(const struct plan_case *))
{
    json_t *x = json_array(), *y = json_array();

    for (uint32_t i = 0; i < p->n_cases; i++) {
        if (p->cases[i].kind == PLAN_ALONE || p->cases[i].kind == PLAN_FITTED)
            continue;
        json_array_append_new(x, json_string(p->cases[i].name));
        json_array_append_new(y, json_real(value(&p->cases[i])));
    }
    return json_pack("{s:s, s:o, s:o}", "name", name, "x", x, "y", y);
}

static double joint_bound(const struct plan_case *c)
{
    return c->bounds.joint;
}

int plan_report_json(FILE *out, const struct plan *p)
{
    const struct plan_question *q = p->question;
    const struct sim_options *o = &q->options;
    json_t *cases = json_array();
    char title[256];

    for (uint32_t i = 0; i < p->n_cases; i++)
        json_array_append_new(cases, json_case(&p->cases[i]));
    snprintf(title, sizeof title, "%s on %u x %s: best effort beside %.2f LS requests/s",
             o->model->name, o->machine.n_gpus, o->machine.gpu->name, q->ls_rate);
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:[o,o], s:s, s:s, s:s, s:f, s:f, s:f, s:s, s:o}", "title",
                  title, "x_label", "", "y_label", "decode tokens/s", "series",
                  json_series(p, "simulated", plan_be_tokens_s),
                  json_series(p, "bound", joint_bound), "timing", timing_of(p), "trace",
                  q->trace_name, "be", q->be_name, "ls_rate", q->ls_rate, "ttft_slo_s",
                  o->ttft_slo_s, "tpot_slo_s", o->tpot_slo_s, "policy", o->policy, "cases", cases);
    int rc =
        j != NULL && json_dumpf(j, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0 ? 0 : -EIO;

    fputc('\n', out);
    json_decref(j);
    return rc;
}
