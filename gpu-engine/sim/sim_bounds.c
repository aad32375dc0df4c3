#include "gpu-engine/sim/sim_bounds.h"

#include <math.h>
#include <string.h>

enum { GRID = 40, ROUNDS = 30 };
static const double more = 1.05; /* of a supply, to see whether it binds */

/* Of each supply, a factor: 1 as it is, 1.05 to try; prices of 0 make one free. */
struct scale {
    double prefill; /* of the price of a prompt's tokens */
    double device;  /* of the device's KV */
    double worker;  /* of their bandwidth */
    double dense;   /* of the rows' price beyond an empty sweep, decodes of both kinds */
};

static const struct scale as_is = {1, 1, 1, 1};

/* ---- One sweep ------------------------------------------------------------------------------- */

/* Mean context of a request over its output. */
static double mean_ctx(double in, double out)
{
    return in + out / 2;
}

/* KV positions that the latency-sensitive requests hold while one takes out * T to decode. */
static double ls_kv(const struct sim_supply *s, double sweep_s)
{
    return s->ls_rate * s->ls_out * sweep_s * mean_ctx(s->ls_in, s->ls_out);
}

static double attention_ns(const struct latency_kind *k, double pairs, double tokens, double chunks,
                           double decodes, double ctx_sum)
{
    double ns = k->pa_a * pairs + k->pa_h * tokens + k->pa_b * chunks;

    return decodes > 0 ? ns + k->da_a * ctx_sum + k->da_h * decodes + k->da_b : ns;
}

static double layers_of_kind(const struct latency_model *m, uint32_t kind)
{
    double n = 0;

    for (uint32_t l = 0; l < m->n_layers; l++)
        n += m->kind_of[l] == kind;
    return n;
}

/* Time of a sweep of length T that makes d + r best-effort tokens per sweep. */
static double sweep_ns(const struct sim_supply *s, const struct scale *c, double sweep_s, double d,
                       double r)
{
    const struct latency_model *m = s->gpu;
    double ls_n = s->ls_rate * s->ls_out * sweep_s, ls_prompt = s->ls_rate * s->ls_in * sweep_s;
    double be_prompt = c->prefill * (d + r) / s->be_out * s->be_in;
    double pairs = ls_prompt * s->ls_in / 2 + be_prompt * s->be_in / 2;
    double ctx = ls_n * mean_ctx(s->ls_in, s->ls_out) + d * mean_ctx(s->be_in, s->be_out);
    double rows = ls_n + ls_prompt + be_prompt + (d + r) / c->dense, ns = m->fixed_ns;

    for (uint32_t i = 0; i < m->n_kinds; i++) {
        const struct latency_kind *k = &m->kind[i];
        double layer_ns =
            latency_stairs_at(&k->dense, fmax(rows, 1)) +
            attention_ns(k, pairs, ls_prompt + be_prompt, ls_prompt + be_prompt > 0, ls_n + d, ctx);
        ns += layers_of_kind(m, i) * layer_ns;
    }
    return ns + m->row_ns * rows + latency_stairs_at(&m->head, ls_n + d + r);
}

/* ---- The best of all sweeps ------------------------------------------------------------------ */

/* Tokens per second from workers at most. */
static double worker_rate(const struct sim_supply *s, const struct scale *c)
{
    double bytes = mean_ctx(s->be_in, s->be_out) * s->token_bytes, job_ns;

    if (s->n_workers == 0)
        return 0;
    job_ns = s->worker_fixed_ns + bytes / (c->worker * s->worker_bytes_per_ns / s->n_workers);
    return 1e9 * s->n_workers / (job_ns * s->gpu->n_layers);
}

/* Most d of a sweep length by memory. */
static double device_most(const struct sim_supply *s, const struct scale *c, double sweep_s)
{
    double free_tokens = c->device * s->kv_tokens - ls_kv(s, sweep_s);

    return fmax(free_tokens / mean_ctx(s->be_in, s->be_out), 0);
}

/* Largest share of (d, r) that fits in the sweep: what is asked for grows with it, so halving. */
static double fitting_share(const struct sim_supply *s, const struct scale *c, double sweep_s,
                            double d, double r)
{
    double low = 0, high = 1;

    if (sweep_ns(s, c, sweep_s, d, r) <= sweep_s * 1e9)
        return 1;
    for (int i = 0; i < ROUNDS; i++) {
        double mid = (low + high) / 2;
        if (sweep_ns(s, c, sweep_s, mid * d, mid * r) <= sweep_s * 1e9)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* What a sweep of that length makes when device and workers are asked in that mixture. */
static void try_mixture(const struct sim_supply *s, const struct scale *c, double sweep_s, double d,
                        double r, struct sim_bounds *best)
{
    /* No share up to the one that makes as much as the best so far is worth a search. */
    double even = d + r > 0 ? best->joint * sweep_s / (d + r) : 1;

    if (even >= 1 || sweep_ns(s, c, sweep_s, even * d, even * r) > sweep_s * 1e9)
        return;
    double share = fitting_share(s, c, sweep_s, d, r);
    double rate = share * (d + r) / sweep_s;

    if (s->be_rate > 0)
        rate = fmin(rate, s->be_rate * s->be_out);
    if (rate <= best->joint)
        return;
    best->joint = rate;
    best->sweep_s = sweep_s;
    best->device = share * d / sweep_s;
    best->worker = share * r / sweep_s;
}

static double best_of(const struct sim_supply *s, const struct scale *c, double device_share,
                      double worker_share, struct sim_bounds *best)
{
    struct sim_bounds b = {.joint = 0};
    double w = worker_share * worker_rate(s, c);

    for (int t = 1; t <= GRID; t++) {
        double sweep_s = s->tpot_slo_s * t / GRID;
        double d = device_share * device_most(s, c, sweep_s), r = w * sweep_s;

        for (int i = 0; i <= GRID; i++) {
            try_mixture(s, c, sweep_s, d * i / GRID, r, &b);
            try_mixture(s, c, sweep_s, d, r * i / GRID, &b);
        }
    }
    if (best != NULL)
        *best = b;
    return b.joint;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static const double much = 1e6; /* so much of a supply that it never binds */

static double gain(const struct sim_supply *s, struct scale c)
{
    return best_of(s, &c, 1, 1, NULL);
}

static char binding(const struct sim_supply *s, double joint)
{
    const struct {
        char name;
        struct scale scale;
    } tries[] = {{'P', {1 / more, 1, 1, 1}},
                 {'K', {1, more, 1, 1}},
                 {'W', {1, 1, more, 1}},
                 {'D', {1, 1, 1, more}}};
    double best = 0;
    char name = 'P';

    if (s->be_rate > 0 && joint >= s->be_rate * s->be_out * 0.999)
        return 'A';
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        double g = gain(s, tries[i].scale) - joint;
        if (g > best) {
            best = g;
            name = tries[i].name;
        }
    }
    return name;
}

void sim_bounds_find(const struct sim_supply *s, struct sim_bounds *b)
{
    struct sim_supply free_workers = *s;
    const struct scale only_prefill = {1, much, 1, much}, no_prefill = {0, 1, 1, 1};

    memset(b, 0, sizeof *b);
    best_of(s, &as_is, 1, 1, b);
    free_workers.n_workers = 1;
    free_workers.worker_fixed_ns = 0;
    free_workers.worker_bytes_per_ns = much;
    /* P: rows of workers that cost nothing, so that prefill alone takes the time. */
    b->p = best_of(&free_workers, &only_prefill, 0, 1, NULL);
    b->k = best_of(s, &no_prefill, 1, 0, NULL);
    b->w = worker_rate(s, &as_is);
    b->d = best_of(&free_workers, &no_prefill, 0, 1, NULL);
    b->binds = binding(s, b->joint);
}
