#include "gpu-engine/sim/sim_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "gpu-engine/setup.h"
#include "gpu-engine/sim/sim_run_private.h"

enum { SEQS_DEVICE = 640, SEQS_WORKER = 384, SEQS_MAX = 3072 };
enum { BLOCK_TOKENS = 32, CHUNK_MAX = 4096, DRAIN_STEPS_MAX = 1000000 };

/* Share of the TPOT objective that a sweep with a full chunk may take; the rest is for returned
 * rows and for what is not foreseen. */
static const double budget_share = 0.8;

/* ---- Sizes ----------------------------------------------------------------------------------- */

/* A decode of a latency-sensitive request comes once per sweep; so many are in one that takes as
 * long as the budget. */
static double ls_decodes(const struct sim_options *o)
{
    return o->load.ls_rate * sim_lengths_mean_out(&o->load.ls) * budget_share * o->tpot_slo_s;
}

/* The largest chunk, in the middle of a best-effort prompt, that keeps a sweep with the expected
 * decodes within the budget. */
static uint32_t fit_chunk(const struct sim_run *r)
{
    const struct sim_options *o = &r->options;
    const struct latency_model *m = &r->timing.gpu;
    struct latency_load load = {.n_rows = 0};
    double ctx = sim_lengths_mean_in(&o->load.ls) + sim_lengths_mean_out(&o->load.ls) / 2;
    uint32_t before = (uint32_t)(sim_lengths_mean_in(&o->load.be) / 2);

    uint32_t n_decodes = (uint32_t)ceil(ls_decodes(o));

    for (uint32_t i = 0; i < n_decodes; i++)
        latency_load_add_decode(m, &load, (uint32_t)ctx + 1, true);
    uint32_t n =
        latency_chunk_within(m, &load, before, CHUNK_MAX, budget_share * o->tpot_slo_s * 1e9);
    return n > BLOCK_TOKENS ? n : BLOCK_TOKENS;
}

/* Room for what decodes on the device and waits, and for residents of every worker. */
static uint32_t max_seqs(const struct sim_run *r)
{
    uint32_t n = SEQS_DEVICE + SEQS_WORKER * r->timing.n_workers;

    if (r->options.max_seqs > 0)
        return r->options.max_seqs;
    return n < SEQS_MAX ? n : SEQS_MAX;
}

static int set_config(struct sim_run *r, struct error *err)
{
    const struct sim_options *o = &r->options;
    struct omni_config *c = &r->config;

    if (o->group != NULL) {
        *c = *o->group->config;
        return 0;
    }
    config_defaults(c);
    c->engine_max_seqs = max_seqs(r);
    c->engine_offload = o->offload;
    c->engine_p_max = o->p_max;
    c->engine_auto_free_pct = o->auto_free_pct;
    c->engine_block_tokens = BLOCK_TOKENS;
    c->slo_ttft_ms = (uint32_t)(o->ttft_slo_s * 1e3);
    c->slo_tpot_ms = (uint32_t)(o->tpot_slo_s * 1e3);
    c->worker_slots = o->slots;
    c->slo_admission = !o->admit_all;
    for (const char *const *at = o->settings; at != NULL && *at != NULL; at++) {
        if (config_set(c, *at, err) != 0)
            return -EINVAL;
    }
    /* The others fit their chunks to the objective, sweep by sweep. */
    c->engine_chunk_tokens = o->chunk_tokens != 0              ? o->chunk_tokens
                             : strcmp(o->policy, "group") == 0 ? fit_chunk(r)
                                                               : CHUNK_MAX;
    return o->slots > 0 && o->p_max > 0 ? 0
                                        : error_set(err, -EINVAL, "slots and p_max must not be 0");
}

static void set_sizes(struct sim_run *r)
{
    struct engine *e = &r->engine;
    uint32_t ls = sim_lengths_max(&r->options.load.ls), be = sim_lengths_max(&r->options.load.be);
    double kv_bytes = sim_machine_kv_bytes(&r->options.machine, r->options.model);

    e->context_max = ls > be ? ls : be;
    for (uint32_t i = 0; i < r->n_extras; i++) {
        uint32_t n = r->extras[i].lengths.n_in + r->extras[i].lengths.n_out;
        e->context_max = n > e->context_max ? n : e->context_max;
    }
    e->table_max = geometry_blocks_for(&e->geometry, e->context_max + 1);
    e->seqs_max = r->config.engine_max_seqs;
    e->rows_max = r->config.engine_chunk_tokens + e->seqs_max;
    e->returned_max = r->config.engine_p_max;
    e->device_blocks = (uint32_t)(kv_bytes / e->geometry.block_bytes);
    e->n_vocab = r->options.model->n_vocab;
}

static int set_group_sizes(struct sim_run *r, struct error *err)
{
    const struct model *model = r->options.group->model;
    struct engine *e = &r->engine;
    struct setup_sizes sizes;
    int rc = setup_geometry(&e->geometry, &r->config, model, err);

    if (rc != 0)
        return rc;
    setup_sizes(&sizes, &r->config, model, &e->geometry);
    e->context_max = sizes.context_max;
    e->table_max = sizes.table_max;
    e->rows_max = sizes.rows_max;
    e->seqs_max = sizes.seqs_max;
    e->returned_max = sizes.returned_max;
    e->device_blocks = sizes.device_blocks;
    e->n_vocab = model->n_vocab;
    return 0;
}

static int set_machine_sizes(struct sim_run *r, struct error *err)
{
    const struct sim_options *o = &r->options;

    if (sim_model_geometry(o->model, o->kv_type, BLOCK_TOKENS, &r->engine.geometry) != 0)
        return error_set(err, -EINVAL, "model %s: its KV geometry is out of bounds",
                         o->model->name);
    set_sizes(r);
    return r->engine.device_blocks > 0
               ? 0
               : error_set(err, -EINVAL, "%s does not fit %s: no KV block is left", o->model->name,
                           o->machine.name);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static int open_timing(struct sim_run *r, struct error *err)
{
    const struct sim_options *o = &r->options;
    uint32_t rows_max = CHUNK_MAX + SEQS_MAX;
    int rc = 0;

    if (o->group != NULL)
        r->timing = *o->group->timing;
    else
        sim_machine_timing(&o->machine, o->model, o->kv_type, rows_max, &r->timing);
    r->timing.noise = o->noise;
    r->timing.seed = o->load.seed;
    r->timing.no_deadlines = o->no_deadlines;
    r->timing.newest_first = o->newest_first;
    if (o->profile != NULL)
        rc = sim_machine_use_profile(&r->timing, o->model, o->kv_type, o->profile, err);
    if (o->offload == CONFIG_OFFLOAD_NEVER)
        r->timing.n_workers = 0;
    return rc;
}

static int open_device(struct sim_run *r, struct error *err)
{
    struct engine *e = &r->engine;

    r->setup = (struct sim_setup){.timing = &r->timing, .clock = &r->clock};
    struct device_config config = {.geometry = &e->geometry,
                                   .exchange = e->exchange,
                                   .n_kv_blocks = e->device_blocks,
                                   .rows_max = e->rows_max,
                                   .returned_rows_max = e->returned_max,
                                   .seqs_max = e->seqs_max,
                                   .context_max = e->context_max,
                                   .copies_max = ENGINE_COPIES_MAX,
                                   .sim = &r->setup};
    e->ops = &device_sim;
    int rc = e->ops->open(&e->device, &config);
    return rc == 0 ? 0 : error_set(err, rc, "the simulated device: %s", strerror(-rc));
}

static int open_elsewhere(struct sim_run *r)
{
    const struct sim_options *o = &r->options;
    struct sim_cpu_sink sink = sim_run_cpu_sink(r);

    if (o->group != NULL || strcmp(o->policy, "headroom") != 0 ||
        o->offload == CONFIG_OFFLOAD_NEVER)
        return 0;
    r->engine.elsewhere = sim_run_elsewhere(r);
    return sim_cpu_engine_create(&r->cpu_engine, &o->machine, o->model, o->kv_type, &sink);
}

/* The policy by its name, whatever engine.policy offers on real devices. */
static int choose_policy(struct sim_run *r, struct error *err)
{
    const char *known;

    if (r->options.group != NULL)
        return 0; /* it has it from its configuration */
    const struct sched_policy *policy = sched_policy_find(r->options.policy, &known);

    if (policy == NULL)
        return error_set(err, -EINVAL, "there is no policy %s; there are %s", r->options.policy,
                         known);
    r->engine.decide.policy = policy;
    r->engine.decide.limits.params.without = r->options.without;
    sim_params_apply(&r->options.params, &r->engine.decide.limits.params);
    return 0;
}

/* Everything between the options and an engine that can step. */
static int open_engine(struct sim_run *r, struct error *err)
{
    struct engine *e = &r->engine;
    const struct sim_options *o = &r->options;
    int rc = set_config(r, err);

    if (rc != 0)
        return rc;
    rc = o->group != NULL ? set_group_sizes(r, err) : set_machine_sizes(r, err);
    if (rc != 0)
        return rc;
    rc = exchange_sim_create(&e->exchange, &r->timing, &e->geometry, &r->clock, o->slots);
    if (rc != 0)
        return error_set(err, rc, "no memory for the workers");
    rc = open_device(r, err);
    if (rc == 0)
        rc = sweep_log_open(&e->sweep_log, o->sweep_log != NULL ? o->sweep_log : "", err);
    if (rc != 0)
        return rc;
    e->latency = r->timing.gpu; /* the engine's own, which it corrects */
    e->config = &r->config;
    e->sink = sim_run_sink(r);
    e->stats.values = r->values;
    e->stats.n = ENGINE_N_STATS;
    r->engine_up = true;
    r->prompt = calloc(e->context_max + 1, sizeof *r->prompt);
    rc = open_elsewhere(r);
    if (rc == 0)
        rc = engine_init(e);
    if (rc != 0 || r->prompt == NULL)
        return error_set(err, -ENOMEM, "no memory for %u sequences of %u tokens", max_seqs(r),
                         e->context_max);
    return choose_policy(r, err);
}

int sim_run_create(struct sim_run **out, const struct sim_options *options, struct error *err)
{
    struct sim_run *r = calloc(1, sizeof *r);

    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory for a simulation");
    r->options = *options;
    r->engine.sweep_log = SWEEP_LOG_NONE;
    r->from_ns = (uint64_t)(options->warmup_s * 1e9);
    r->until_ns = r->from_ns + (uint64_t)(options->duration_s * 1e9);
    int rc = open_timing(r, err);
    if (rc != 0)
        sim_run_destroy(r);
    else
        *out = r;
    return rc;
}

void sim_run_destroy(struct sim_run *r)
{
    struct engine *e = &r->engine;

    sweep_log_close(&e->sweep_log);
    if (e->device != NULL)
        e->ops->close(e->device);
    if (r->engine_up)
        engine_fini(e);
    if (e->exchange != NULL)
        e->exchange->ops->destroy(e->exchange);
    sim_cpu_engine_destroy(r->cpu_engine);
    free(r->requests);
    free(r->extras);
    free(r->prompt);
    free(r);
}

int sim_run_add(struct sim_run *r, double at_s, bool latency_sensitive, struct sim_pair lengths)
{
    return sim_run_add_for(r, at_s, NULL, latency_sensitive, lengths);
}

int sim_run_add_for(struct sim_run *r, double at_s, const char *tenant, bool latency_sensitive,
                    struct sim_pair lengths)
{
    uint32_t at = r->n_extras;
    struct sim_extra *grown = realloc(r->extras, (r->n_extras + 1) * sizeof *grown);

    if (grown == NULL)
        return -ENOMEM;
    r->extras = grown;
    r->n_extras++;
    for (; at > 0 && (double)r->extras[at - 1].at_ns > at_s * 1e9; at--)
        r->extras[at] = r->extras[at - 1];
    r->extras[at] = (struct sim_extra){.at_ns = (uint64_t)(at_s * 1e9),
                                       .tenant = tenant,
                                       .latency_sensitive = latency_sensitive,
                                       .lengths = lengths};
    return 0;
}

/* ---- The loop -------------------------------------------------------------------------------- */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What the engine would be woken by.  With a sweep in flight only its end matters: copies and jobs
 * are looked at between sweeps. */
static uint64_t next_event_ns(const struct sim_run *r)
{
    const struct engine *e = &r->engine;
    uint64_t next = sim_run_next_arrival_ns(r);

    next = smaller(next, device_sim_next_ns(e->device));
    if (r->cpu_engine != NULL)
        next = smaller(next, sim_cpu_engine_next_ns(r->cpu_engine));
    if (!e->in_flight) {
        next = smaller(next, exchange_sim_next_ns(e->exchange));
        next = smaller(next, e->next_beat_ns);
    }
    return next;
}

/* At an edge of the window, as far as sweeps go. */
static void mark_edges(struct sim_run *r)
{
    if (!r->marked_first && r->clock.now_ns >= r->from_ns) {
        sim_run_take_mark(r, &r->first);
        r->marked_first = true;
    }
    if (!r->marked_last && r->clock.now_ns >= r->until_ns) {
        sim_run_take_mark(r, &r->last);
        r->marked_last = true;
    }
}

static void tell_progress(struct sim_run *r)
{
    if (r->options.progress == NULL || r->clock.now_ns < r->progress_ns)
        return;
    r->progress_ns = r->clock.now_ns + r->until_ns / 100;
    if (r->clock.now_ns < r->until_ns)
        r->options.progress(r->options.progress_arg, (double)r->clock.now_ns / (double)r->until_ns);
}

static void advance(struct sim_run *r)
{
    uint64_t next = next_event_ns(r);

    r->clock.now_ns = next > r->clock.now_ns ? next : r->clock.now_ns + 1;
    if (r->cpu_engine != NULL)
        sim_cpu_engine_advance(r->cpu_engine, r->clock.now_ns);
    mark_edges(r);
    sim_run_average(r);
    tell_progress(r);
}

static void step(struct sim_run *r)
{
    sim_run_submit_due(r);
    engine_step(&r->engine);
}

static bool is_over(const struct sim_run *r)
{
    uint64_t grace = r->until_ns + (uint64_t)(r->options.grace_s * 1e9);

    return r->clock.now_ns >= r->until_ns && (r->ls_open == 0 || r->clock.now_ns >= grace);
}

/* Everything that is left is cancelled, as by a router that goes away. */
static void drain(struct sim_run *r)
{
    struct engine *e = &r->engine;

    r->load_off = true;
    sim_run_drop_elsewhere(r);
    sequence_ask_all(&e->sequences, SEQUENCE_ASK_CANCEL);
    for (uint32_t i = 0; e->sequences.n_free < e->sequences.n && i < DRAIN_STEPS_MAX; i++) {
        step(r);
        advance(r);
    }
}

int sim_run_all(struct sim_run *r, struct sim_result *result, struct error *err)
{
    const struct sim_load *load = &r->options.load;
    uint64_t wall_ns = clock_now_ns();
    int rc = open_engine(r, err);

    if (rc != 0)
        return rc;
    memset(result, 0, sizeof *result);
    r->result = result;
    sim_arrivals_init(&r->ls_arrivals, load->seed, 1, load->ls_rate, load->burst_s, NULL);
    sim_arrivals_init(&r->be_arrivals, load->seed, 2, load->be_rate, 0, &load->be_times);
    sim_run_begin(r);
    while (!is_over(r)) {
        step(r);
        advance(r);
    }
    drain(r);
    sim_run_summarise(r);
    result->wall_s = (double)(clock_now_ns() - wall_ns) / 1e9;
    return sim_run_check_books(r, err);
}

const struct sim_request *sim_run_requests(const struct sim_run *r, uint32_t *n)
{
    *n = r->n_requests;
    return r->requests;
}

const struct sim_timing *sim_run_timing(const struct sim_run *r)
{
    return &r->timing;
}
