/* omni-sim group: a configured group under a recorded load, in virtual time.
 *
 * What tests/bench/sim-check holds against the real group, and what an operator tries a
 * configuration with before a group is restarted with it. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/profile.h"
#include "gpu-engine/profile_file.h"
#include "gpu-engine/sim/commands.h"
#include "gpu-engine/sim/plan_trace.h"
#include "gpu-engine/sim/plan_units.h"
#include "gpu-engine/sim/sim_run.h"

static const char usage[] =
    "usage: omni-sim group --config FILE --profile FILE [options]\n"
    "\n"
    "  --config FILE        the group's configuration; --set SECTION.KEY=VALUE changes it\n"
    "  --profile FILE       times of its device, as its engine took them\n"
    "  --ls-trace FILE      latency-sensitive arrivals and lengths (as omni plan --trace)\n"
    "  --be-list FILE       best-effort requests, a line \"in out\" each, in order, again and "
    "again\n"
    "  --be-n N             so many of them are in flight\n"
    "  --worker-read B      what a worker reads, such as 8GB/s; --worker-job T what a job costs "
    "beside\n"
    "  --worker-wake T      what the first job for a worker that sleeps waits (0); worker.spin_us "
    "says when it does\n"
    "  --copy B             what KV copies get (4GB/s); --between T of the engine, between sweeps\n"
    "  --post T             of the device, per job: q, k, v out, the output in\n"
    "  --warmup T --duration T --seed N --noise S --sweep-log FILE\n"
    "\n"
    "Prints one JSON object.\n";

struct arguments {
    struct omni_config config;
    struct model *model;
    struct sim_timing timing;
    struct sim_group group;
    struct sim_options options;
    struct plan_trace trace;
    const char *config_path, *profile_path, *trace_path, *list_path;
};

enum {
    OPTION_CONFIG = 1,
    OPTION_PROFILE,
    OPTION_TRACE,
    OPTION_LIST,
    OPTION_HELP,
    OPTION_SET,
    OPTION_BE_N,
    OPTION_READ,
    OPTION_JOB,
    OPTION_WAKE,
    OPTION_COPY,
    OPTION_BETWEEN,
    OPTION_POST,
    OPTION_WARMUP,
    OPTION_DURATION,
    OPTION_SEED,
    OPTION_NOISE,
    OPTION_SWEEP_LOG
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"profile", required_argument, NULL, OPTION_PROFILE},
    {"ls-trace", required_argument, NULL, OPTION_TRACE},
    {"be-list", required_argument, NULL, OPTION_LIST},
    {"help", no_argument, NULL, OPTION_HELP},
    {"set", required_argument, NULL, OPTION_SET},
    {"be-n", required_argument, NULL, OPTION_BE_N},
    {"worker-read", required_argument, NULL, OPTION_READ},
    {"worker-job", required_argument, NULL, OPTION_JOB},
    {"worker-wake", required_argument, NULL, OPTION_WAKE},
    {"copy", required_argument, NULL, OPTION_COPY},
    {"between", required_argument, NULL, OPTION_BETWEEN},
    {"post", required_argument, NULL, OPTION_POST},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"noise", required_argument, NULL, OPTION_NOISE},
    {"sweep-log", required_argument, NULL, OPTION_SWEEP_LOG},
    {NULL, 0, NULL, 0}};

/* ---- The command line ------------------------------------------------------------------------ */

/* In ns. */
static int take_ns(const char *field, const char *text, double *ns, struct error *err)
{
    double seconds = 0;
    int rc = plan_parse_time(field, text, &seconds, err);

    *ns = 1e9 * seconds;
    return rc;
}

static int take_count(const char *field, const char *text, double most, uint32_t *n,
                      struct error *err)
{
    double value = 0;
    int rc = plan_parse_number(field, text, 0, most, &value, err);

    *n = (uint32_t)value;
    return rc;
}

static int take_seed(struct arguments *a, struct error *err)
{
    uint32_t seed = 0;
    int rc = take_count("--seed", optarg, UINT32_MAX, &seed, err);

    a->options.load.seed = seed;
    return rc;
}

static int take_option(struct arguments *a, int option, struct error *err)
{
    struct sim_worker_timing *worker = &a->timing.worker[0];

    switch (option) {
    case OPTION_PROFILE:
        a->profile_path = optarg;
        return 0;
    case OPTION_TRACE:
        a->trace_path = optarg;
        return 0;
    case OPTION_LIST:
        a->list_path = optarg;
        return 0;
    case OPTION_SWEEP_LOG:
        a->options.sweep_log = optarg;
        return 0;
    case OPTION_SET:
        return config_set(&a->config, optarg, err);
    case OPTION_BE_N:
        return take_count("--be-n", optarg, 4096, &a->options.load.be_in_flight, err);
    case OPTION_READ:
        return plan_parse_bandwidth("--worker-read", optarg, &worker->bytes_per_ns, err);
    case OPTION_JOB:
        return take_ns("--worker-job", optarg, &worker->fixed_ns, err);
    case OPTION_WAKE:
        return take_ns("--worker-wake", optarg, &worker->wake_ns, err);
    case OPTION_COPY:
        return plan_parse_bandwidth("--copy", optarg, &a->timing.copy_bytes_per_ns, err);
    case OPTION_BETWEEN:
        return take_ns("--between", optarg, &a->timing.between_ns, err);
    case OPTION_POST:
        return take_ns("--post", optarg, &a->timing.post_ns, err);
    case OPTION_WARMUP:
        return plan_parse_time("--warmup", optarg, &a->options.warmup_s, err);
    case OPTION_DURATION:
        return plan_parse_time("--duration", optarg, &a->options.duration_s, err);
    case OPTION_SEED:
        return take_seed(a, err);
    case OPTION_NOISE:
        return plan_parse_number("--noise", optarg, 0, 1, &a->options.noise, err);
    default:
        return 0;
    }
}

/* The file first, wherever it is named, then the rest over it.  1: --help was answered. */
static int read_options(struct arguments *a, int argc, char **argv, struct error *err)
{
    int option, rc = 0;

    config_defaults(&a->config);
    while (rc == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_HELP)
            return fputs(usage, stdout), 1;
        if (option == '?')
            return error_set(err, -EINVAL, "see omni-sim group --help");
        if (option == OPTION_CONFIG)
            a->config_path = optarg;
    }
    if (a->config_path == NULL || optind < argc)
        return error_set(err, -EINVAL, "--config and --profile are needed; see --help");
    rc = config_load(&a->config, a->config_path, err);
    optind = 0;
    while (rc == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        rc = take_option(a, option, err);
    if (rc == 0 && a->profile_path == NULL)
        rc = error_set(err, -EINVAL, "--profile is needed; see --help");
    return rc == 0 ? config_check(&a->config, err) : rc;
}

/* ---- What it means --------------------------------------------------------------------------- */

static int load_model(struct arguments *a, struct error *err)
{
    struct gguf_error gguf_err;
    int rc = model_open(a->config.model_path, &a->model, &gguf_err);

    return rc == 0 ? 0
                   : error_set(err, rc, "model.path %s: %s", a->config.model_path, gguf_err.text);
}

/* The profile must be of this model; the rest of its key is whatever the group's engine took. */
static int load_profile(struct arguments *a, struct error *err)
{
    struct profile profile;
    int rc = profile_file_read(&profile, a->profile_path, err);

    if (rc != 0)
        return rc;
    if (profile.key.model_hash != a->model->hash || profile.latency.n_layers != a->model->n_layers)
        return error_set(err, -EINVAL, "profile %s is of another model than %s", a->profile_path,
                         a->config.model_path);
    a->timing.gpu = profile.latency;
    return 0;
}

static void set_workers(struct arguments *a)
{
    struct sim_timing *t = &a->timing;

    t->n_workers = a->config.engine_offload == CONFIG_OFFLOAD_NEVER ? 0 : a->config.group_n_workers;
    t->worker[0].arena_bytes = (uint64_t)a->config.worker_arena_mb << 20;
    t->worker[0].spin_ns = 1e3 * a->config.worker_spin_us;
    for (uint32_t w = 0; w < t->n_workers; w++) {
        t->worker[w] = t->worker[0];
        t->gpu.worker[w] = (struct latency_worker){.bytes_per_ns = t->worker[w].bytes_per_ns,
                                                   .fixed_ns = t->worker[w].fixed_ns};
    }
}

static int load_requests(struct arguments *a, struct error *err)
{
    struct sim_load *load = &a->options.load;
    int rc = 0;

    if (a->trace_path != NULL)
        rc = plan_trace_read(&a->trace, a->trace_path, err);
    if (rc == 0)
        rc = sim_lengths_parse(&load->ls, "1/1", 0, err);
    if (rc == 0)
        rc = sim_lengths_parse(&load->be, a->list_path != NULL ? a->list_path : "1/1", 0, err);
    if (rc == 0 && a->list_path == NULL)
        load->be_in_flight = 0;
    return rc;
}

static int prepare(struct arguments *a, struct error *err)
{
    int rc = load_model(a, err);

    if (rc == 0)
        rc = load_profile(a, err);
    if (rc == 0)
        rc = load_requests(a, err);
    if (rc != 0)
        return rc;
    set_workers(a);
    a->timing.two_batch = true; /* as the cpu device */
    a->group = (struct sim_group){.config = &a->config, .model = a->model, .timing = &a->timing};
    a->options.group = &a->group;
    a->options.slots = a->config.worker_slots;
    a->options.ttft_slo_s = a->config.slo_ttft_ms / 1e3;
    a->options.tpot_slo_s = a->config.slo_tpot_ms / 1e3;
    return 0;
}

/* ---- Output ---------------------------------------------------------------------------------- */

static double milliseconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e6;
}

/* Of a latency-sensitive request of the window, as tests/bench/load_report.h says it. */
static json_t *json_request(const struct sim_request *q)
{
    return json_pack(
        "{s:s, s:s, s:f, s:f}", "class", "ls", "outcome",
        q->finished    ? "done"
        : !q->accepted ? "refused"
                       : "unfinished",
        "ttft_ms", q->first_ns > 0 ? milliseconds(q->arrival_ns, q->first_ns) : 0, "tpot_ms",
        q->n_tokens > 1 ? milliseconds(q->first_ns, q->last_ns) / (q->n_tokens - 1) : 0);
}

static bool in_window(const struct arguments *a, uint64_t ns)
{
    return (double)ns >= 1e9 * a->options.warmup_s &&
           (double)ns < 1e9 * (a->options.warmup_s + a->options.duration_s);
}

/* Decode tokens: a first one belongs to its prefill. */
static uint64_t be_decode_tokens(const struct arguments *a, const struct sim_result *x,
                                 const struct sim_request *all, uint32_t n)
{
    uint64_t n_first = 0;

    for (uint32_t i = 0; i < n; i++)
        n_first +=
            !all[i].latency_sensitive && all[i].first_ns > 0 && in_window(a, all[i].first_ns);
    return x->be.n_tokens - n_first;
}

/* Of the whole run: the engine's books have all tokens of the device together. */
static uint64_t ls_tokens(const struct sim_request *all, uint32_t n)
{
    uint64_t n_tokens = 0;

    for (uint32_t i = 0; i < n; i++)
        n_tokens += all[i].latency_sensitive ? all[i].n_tokens : 0;
    return n_tokens;
}

static int print(const struct arguments *a, const struct sim_run *run, const struct sim_result *x)
{
    uint32_t n;
    const struct sim_request *all = sim_run_requests(run, &n);
    json_t *requests = json_array();

    for (uint32_t i = 0; i < n; i++) {
        if (all[i].latency_sensitive && in_window(a, all[i].arrival_ns))
            json_array_append_new(requests, json_request(&all[i]));
    }
    json_t *j = json_pack(
        "{s:f, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o}", "seconds", x->window_s, "be_decode_tokens",
        (json_int_t)be_decode_tokens(a, x, all, n), "be_prefill_tokens",
        (json_int_t)x->be.n_prompt_tokens, "be_worker_tokens",
        (json_int_t)x->stats[ENGINE_STAT_TOKENS_WORKER], "be_device_tokens",
        (json_int_t)(x->stats[ENGINE_STAT_TOKENS_DEVICE] - ls_tokens(all, n)), "device_busy",
        x->gpu_busy, "worker_busy", x->n_workers > 0 ? x->worker_busy[0] : 0, "sweep_ms",
        1e3 * x->mean_sweep_s, "requests", requests);
    int rc = j != NULL && json_dumpf(j, stdout, JSON_REAL_PRECISION(6)) == 0 ? 0 : -EIO;
    putchar('\n');
    json_decref(j);
    return rc;
}

static int add_arrivals(struct arguments *a, struct sim_run *run, struct error *err)
{
    for (uint32_t i = 0; i < a->trace.n; i++) {
        const struct plan_arrival *x = &a->trace.arrivals[i];
        if (sim_run_add(run, a->trace.begin_s + x->at_s, true, x->lengths) != 0)
            return error_set(err, -ENOMEM, "no memory for %u arrivals", a->trace.n);
    }
    return 0;
}

static int simulate(struct arguments *a, struct error *err)
{
    struct sim_result *result = calloc(1, sizeof *result);
    struct sim_run *run;

    if (result == NULL)
        return error_set(err, -ENOMEM, "no memory for the result");
    int rc = sim_run_create(&run, &a->options, err);
    if (rc == 0) {
        rc = add_arrivals(a, run, err);
        if (rc == 0)
            rc = sim_run_all(run, result, err);
        if (rc == 0 && print(a, run, result) != 0)
            rc = error_set(err, -EIO, "the result cannot be written");
        sim_run_destroy(run);
    }
    free(result);
    return rc;
}

int command_group(int argc, char **argv)
{
    struct arguments a = {.timing = {.copy_bytes_per_ns = 4,
                                     .copy_fixed_ns = 20e3,
                                     .payload_value_bytes = 4,
                                     .worker = {{.bytes_per_ns = 8, .fixed_ns = 5e3}}},
                          .options = {.load = {.seed = 1}, .duration_s = 60, .grace_s = 120}};
    struct error err;
    int rc = read_options(&a, argc, argv, &err);

    if (rc != 0) {
        if (rc < 0)
            fprintf(stderr, "omni-sim group: %s\n", err.text);
        return rc < 0 ? COMMAND_USAGE : COMMAND_DONE;
    }
    rc = prepare(&a, &err);
    if (rc == 0)
        rc = simulate(&a, &err);
    if (rc != 0)
        fprintf(stderr, "omni-sim group: %s\n", err.text);
    plan_trace_fini(&a.trace);
    sim_lengths_fini(&a.options.load.ls);
    sim_lengths_fini(&a.options.load.be);
    model_close(a.model);
    return rc == 0 ? COMMAND_DONE : COMMAND_FAILED;
}
