#include "gpu-engine/sim/sim_report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

static double percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static double be_tokens_s(const struct sim_report *r)
{
    return (double)r->result->be.n_tokens / r->result->window_s;
}

static double prefill_tokens_s(const struct sim_report *r)
{
    return (double)r->result->be.n_prompt_tokens / r->result->window_s;
}

static double gaps_in_slo_pct(const struct sim_report *r)
{
    return percent((double)r->result->n_gaps_ok, (double)r->result->gaps.n);
}

static double worker_busy_pct(const struct sim_report *r)
{
    double sum = 0;

    for (uint32_t w = 0; w < r->result->n_workers; w++)
        sum += 100 * r->result->worker_busy[w];
    return r->result->n_workers > 0 ? sum / r->result->n_workers : 0;
}

void sim_report_supply(struct sim_supply *s, const struct sim_options *o,
                       const struct sim_timing *timing)
{
    double token_bytes = sim_model_token_bytes(o->model, o->kv_type);

    *s = (struct sim_supply){.gpu = &timing->gpu,
                             .kv_tokens = sim_machine_kv_bytes(&o->machine, o->model) / token_bytes,
                             .n_workers = timing->n_workers,
                             .token_bytes = token_bytes / o->model->n_layers,
                             .ls_rate = o->load.ls_rate,
                             .ls_in = sim_lengths_mean_in(&o->load.ls),
                             .ls_out = sim_lengths_mean_out(&o->load.ls),
                             .be_in = sim_lengths_mean_in(&o->load.be),
                             .be_out = sim_lengths_mean_out(&o->load.be),
                             .be_rate = o->load.be_rate,
                             .tpot_slo_s = o->tpot_slo_s};
    for (uint32_t w = 0; w < timing->n_workers; w++) {
        s->worker_bytes_per_ns += timing->worker[w].bytes_per_ns;
        s->worker_fixed_ns += timing->worker[w].fixed_ns / timing->n_workers;
    }
}

/* ---- Table ----------------------------------------------------------------------------------- */

static void print_ls(FILE *out, const struct sim_report *r)
{
    const struct sim_class_result *c = &r->result->ls;
    const struct sim_histogram *g = &r->result->gaps;

    fprintf(out, "latency-sensitive  offered %u, admitted %u, refused %u, finished %u\n",
            c->offered, c->admitted, c->offered - c->admitted, c->finished);
    fprintf(out,
            "  attainment       %.2f %% of offered (TTFT %.2f %%, TPOT %.2f %%), %.2f %% of "
            "admitted (TTFT %.2f %%, TPOT %.2f %%)\n",
            percent(c->both_ok, c->offered), percent(c->ttft_ok, c->offered),
            percent(c->tpot_ok, c->offered), percent(c->both_ok, c->admitted),
            percent(c->ttft_ok, c->admitted), percent(c->tpot_ok, c->admitted));
    fprintf(out, "  TTFT s           p50 %.3f  p90 %.3f  p99 %.3f\n", c->ttft_s[0], c->ttft_s[1],
            c->ttft_s[2]);
    fprintf(out, "  TPOT s           p50 %.4f  p90 %.4f  p99 %.4f\n", c->tpot_s[0], c->tpot_s[1],
            c->tpot_s[2]);
    fprintf(out,
            "  token gaps s     p50 %.4f  p99 %.4f  p99.9 %.4f  longest %.3f; %.2f %% within "
            "the TPOT objective\n",
            sim_histogram_quantile(g, 0.5), sim_histogram_quantile(g, 0.99),
            sim_histogram_quantile(g, 0.999), (double)g->max_ns / 1e9, gaps_in_slo_pct(r));
}

static void print_be(FILE *out, const struct sim_report *r)
{
    const struct sim_result *x = r->result;
    const uint64_t *s = x->stats;

    fprintf(out,
            "best effort        %.1f decode tokens/s, %.0f prefill tokens/s, %u ended, mean "
            "latency %.1f s\n",
            be_tokens_s(r), prefill_tokens_s(r), x->be.ended, x->be.latency_s);
    fprintf(out,
            "  where            %.1f rows on the device, %.1f resident at workers (means); "
            "%llu copies out, %llu in, %llu yields\n",
            x->device_be, x->residents, (unsigned long long)s[ENGINE_STAT_COPIES_OUT],
            (unsigned long long)s[ENGINE_STAT_COPIES_IN],
            (unsigned long long)s[ENGINE_STAT_YIELDS]);
    if (x->cpu_engine_rows > 0)
        fprintf(out, "  CPU-only engines %.1f requests (mean), busy %.1f %%\n", x->cpu_engine_rows,
                100 * x->cpu_engine_busy);
    if (x->stock_first + x->stock_last > 0)
        fprintf(out, "  output to come   of what has begun: %llu tokens before, %llu after\n",
                (unsigned long long)x->stock_first, (unsigned long long)x->stock_last);
    fprintf(out, "  jobs             %llu, %.1f %% rode along\n",
            (unsigned long long)s[ENGINE_STAT_JOBS_POSTED],
            percent((double)s[ENGINE_STAT_JOBS_RIDDEN], (double)s[ENGINE_STAT_JOBS_POSTED]));
}

static void print_machine(FILE *out, const struct sim_report *r)
{
    const struct sim_result *x = r->result;

    fprintf(out, "machine            device busy %.1f %%, workers", 100 * x->gpu_busy);
    for (uint32_t w = 0; w < x->n_workers; w++)
        fprintf(out, " %.1f", 100 * x->worker_busy[w]);
    fprintf(out,
            "%s; sweep %.1f ms (mean), chunk %u, %u KV blocks; prediction %.1f %% (p90 %.1f)\n",
            x->n_workers > 0 ? " %" : " none", 1e3 * x->mean_sweep_s, x->chunk_tokens, x->kv_blocks,
            100 * x->accuracy_mean, 100 * x->accuracy_p90);
}

void sim_report_table(FILE *out, const struct sim_report *r)
{
    const struct sim_options *o = r->options;
    const struct sim_bounds *b = &r->bounds;

    fprintf(out, "%s (%s), %s; times from %s\n", o->machine.name, o->machine.doc, o->model->name,
            r->timing);
    fprintf(out,
            "policy %s, offload %s; LS %.2f req/s, SLO TTFT %.2f s, TPOT %.3f s; BE %s; %.0f s "
            "after %.0f s, seed %llu\n\n",
            r->policy, r->offload, o->load.ls_rate, o->ttft_slo_s, o->tpot_slo_s, r->be_name,
            o->duration_s, o->warmup_s, (unsigned long long)o->load.seed);
    print_ls(out, r);
    print_be(out, r);
    print_machine(out, r);
    fprintf(out,
            "bounds tokens/s    P %.0f  K %.0f  W %.0f  D %.0f; together %.0f (device %.0f, "
            "workers %.0f, sweep %.0f ms); binds: %c\n",
            b->p, b->k, b->w, b->d, b->joint, b->device, b->worker, 1e3 * b->sweep_s, b->binds);
    fprintf(out,
            "be_tokens_s=%.1f attainment_pct=%.2f gaps_in_slo_pct=%.2f bound_pct=%.1f "
            "sim_s=%.2f\n",
            be_tokens_s(r), percent(r->result->ls.both_ok, r->result->ls.offered),
            gaps_in_slo_pct(r), percent(be_tokens_s(r), b->joint), r->result->wall_s);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_what(const struct sim_report *r)
{
    const struct sim_options *o = r->options;

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:i}", "machine",
                     o->machine.name, "model", o->model->name, "timing", r->timing, "policy",
                     r->policy, "offload", r->offload, "be", r->be_name, "ls_rate", o->load.ls_rate,
                     "ttft_slo_s", o->ttft_slo_s, "tpot_slo_s", o->tpot_slo_s, "duration_s",
                     o->duration_s, "noise", o->noise, "seed", (json_int_t)o->load.seed,
                     "n_workers", (int)r->result->n_workers);
}

static json_t *json_ls(const struct sim_report *r)
{
    const struct sim_class_result *c = &r->result->ls;
    const struct sim_histogram *g = &r->result->gaps;

    return json_pack(
        "{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:[f,f,f], s:[f,f,f], s:[f,f,f], s:f, "
        "s:f}",
        "offered", (int)c->offered, "admitted", (int)c->admitted, "refused",
        (int)(c->offered - c->admitted), "finished", (int)c->finished, "attainment_pct",
        percent(c->both_ok, c->offered), "ttft_pct", percent(c->ttft_ok, c->offered), "tpot_pct",
        percent(c->tpot_ok, c->offered), "attainment_admitted_pct",
        percent(c->both_ok, c->admitted), "ttft_admitted_pct", percent(c->ttft_ok, c->admitted),
        "tpot_admitted_pct", percent(c->tpot_ok, c->admitted), "ttft_s", c->ttft_s[0], c->ttft_s[1],
        c->ttft_s[2], "tpot_s", c->tpot_s[0], c->tpot_s[1], c->tpot_s[2], "gap_s",
        sim_histogram_quantile(g, 0.5), sim_histogram_quantile(g, 0.99),
        sim_histogram_quantile(g, 0.999), "gap_max_s", (double)g->max_ns / 1e9, "gaps_in_slo_pct",
        gaps_in_slo_pct(r));
}

static json_t *json_be(const struct sim_report *r)
{
    const struct sim_result *x = r->result;
    const uint64_t *s = x->stats;

    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I}", "tokens_s",
        be_tokens_s(r), "stock_tokens", (double)x->stock_last, "stock_gain_s",
        ((double)x->stock_last - (double)x->stock_first) / x->window_s, "cpu_engine_rows",
        x->cpu_engine_rows, "prefill_tokens_s", prefill_tokens_s(r), "ended", (int)x->be.ended,
        "latency_s", x->be.latency_s, "device_rows", x->device_be, "residents", x->residents,
        "jobs", (json_int_t)s[ENGINE_STAT_JOBS_POSTED], "ridden",
        (json_int_t)s[ENGINE_STAT_JOBS_RIDDEN], "copies_out", (json_int_t)s[ENGINE_STAT_COPIES_OUT],
        "copies_in", (json_int_t)s[ENGINE_STAT_COPIES_IN], "yields",
        (json_int_t)s[ENGINE_STAT_YIELDS]);
}

static json_t *json_bounds(const struct sim_report *r)
{
    const struct sim_bounds *b = &r->bounds;
    const char binds[2] = {b->binds, '\0'};

    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "p", b->p, "k", b->k, "w",
                     b->w, "d", b->d, "joint", b->joint, "device", b->device, "worker", b->worker,
                     "sweep_s", b->sweep_s, "binds", binds);
}

int sim_report_json(FILE *out, const struct sim_report *r)
{
    const struct sim_result *x = r->result;
    json_t *j =
        json_pack("{s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:i, s:f, s:f, s:f}", "run", json_what(r),
                  "ls", json_ls(r), "be", json_be(r), "bounds", json_bounds(r), "device_busy_pct",
                  100 * x->gpu_busy, "worker_busy_pct", worker_busy_pct(r), "sweep_s",
                  x->mean_sweep_s, "chunk_tokens", (int)x->chunk_tokens, "accuracy_mean",
                  x->accuracy_mean, "accuracy_p90", x->accuracy_p90, "sim_s", x->wall_s);
    int rc =
        j != NULL && json_dumpf(j, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0 ? 0 : -ENOMEM;

    fputc('\n', out);
    json_decref(j);
    return rc;
}
