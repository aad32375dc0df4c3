/* omni-sim run: one load on one machine, in virtual time. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gpu-engine/sim/commands.h"
#include "gpu-engine/sim/sim_report.h"

static const char usage[] =
    "usage: omni-sim run --machine M --model X [options]\n"
    "\n"
    "  --machine M         a named machine; --gpus, --hosts, --net, --bandwidth change it\n"
    "  --model X           a named model\n"
    "  --profiles DIR      folder of profiles MACHINE-MODEL.profile; else $OMNI_SIM_PROFILES;\n"
    "                      without one for the machine, times are from first principles\n"
    "  --profile FILE      this profile\n"
    "  --ls-rate R         latency-sensitive requests/s (4)\n"
    "  --ls LENGTHS        SHAREGPT (default), IN/OUT means, or a file of \"in out\" lines\n"
    "  --burst S           redraw the rate every S seconds, between 0.25 and 1.75 times\n"
    "  --be LENGTHS        LONGBENCH, DAILYMAIL, IN/OUT, a file, or none (DAILYMAIL)\n"
    "  --be-rate R         best-effort requests/s; 0: without end (default)\n"
    "  --be-arrivals FILE  at these times (a number of seconds per line), scaled to --be-rate\n"
    "  --be-computed       best effort comes with its prompt computed, without end\n"
    "  --backlog N         best-effort requests that wait without end (32)\n"
    "  --sigma S           of the lengths' lognormal distributions (0.6)\n"
    "  --prefilled PCT     begin with the device full of best effort, and PCT % of the arenas\n"
    "  --kv TYPE           bf16 (default) or int8\n"
    "  --policy P          omni (default), group, paper, sync, headroom, ls-first, harvest, "
    "stream\n"
    "  --params A=N,B=N    its free parameters: use_pct, free_pct, headroom_pct, token_budget\n"
    "  --offload O         auto (default), always (decode best effort at workers alone) or never\n"
    "  --without A,B       ideas that policy omni does without: riding, two-batch, waiting, "
    "stairs,\n"
    "                      placement, copy-back, spread, staging, share; any policy without\n"
    "                      deadlines (of jobs at workers), oldest-first (of returned rows)\n"
    "  --ttft S --tpot S   objectives in seconds (3, 0.25)\n"
    "  --admission A       on: refuse latency-sensitive requests that would be late (default); "
    "off\n"
    "  --ls-target PCT     share of them to be in time (100)\n"
    "  --duration S        measured seconds (300); --warmup S before them (60)\n"
    "  --chunk N           prefill rows of a sweep (what the TPOT objective admits)\n"
    "  --p-max N           returned rows per layer (64); --slots N residents per worker (512)\n"
    "  --noise S           spread of a sweep's times, lognormal (0.02)\n"
    "  --gpus N --hosts N  ranks; further hosts with a worker each\n"
    "  --net GBPS          network of further hosts, Gbit/s\n"
    "  --bandwidth GBS     of a socket, GB/s\n"
    "  --sweep-log FILE    a line per sweep\n"
    "  --seed N --json\n";

struct arguments {
    struct sim_options options;
    const char *machine, *model, *profiles, *profile, *ls, *be, *policy, *offload, *without;
    const char *params, *kv, *be_arrivals;
    const char *admission, *settings[2];
    double ls_target;
    double gpus, hosts, net, bandwidth, sigma, seed, backlog, chunk, p_max, slots;
    bool json;
    char profile_path[512], timing[600], target[40];
};

static const char *const offload_names[] = {"auto", "always", "never"};

/* ---- The command line ------------------------------------------------------------------------ */

static bool parse_number(const char *text, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= 0 && *out <= 1e15;
}

enum { OPTION_WORDS = 256, OPTION_NUMBERS = 512 };

static const char *const word_options[] = {
    "machine", "model",     "profiles", "profile", "ls", "be",          "policy",
    "offload", "sweep-log", "without",  "params",  "kv", "be-arrivals", "admission"};
static const char *const number_options[] = {
    "ls-rate",  "burst",  "be-rate",   "backlog", "sigma",     "ttft",     "tpot",
    "duration", "warmup", "chunk",     "p-max",   "slots",     "noise",    "gpus",
    "hosts",    "net",    "bandwidth", "seed",    "prefilled", "ls-target"};
enum {
    N_WORDS = sizeof word_options / sizeof *word_options,
    N_NUMBERS = sizeof number_options / sizeof *number_options
};

static void make_long_options(struct option *options)
{
    for (int i = 0; i < N_WORDS; i++)
        *options++ = (struct option){word_options[i], required_argument, NULL, OPTION_WORDS + i};
    for (int i = 0; i < N_NUMBERS; i++)
        *options++ =
            (struct option){number_options[i], required_argument, NULL, OPTION_NUMBERS + i};
    *options++ = (struct option){"json", no_argument, NULL, 'j'};
    *options++ = (struct option){"be-computed", no_argument, NULL, 'c'};
    *options++ = (struct option){"help", no_argument, NULL, 'h'};
    *options = (struct option){NULL, 0, NULL, 0};
}

/* -1: the command line is wrong; 0: --help was answered; 1: go on. */
static int parse(struct arguments *a, int argc, char **argv)
{
    struct sim_options *o = &a->options;
    const char **words[N_WORDS] = {&a->machine,     &a->model,    &a->profiles, &a->profile,
                                   &a->ls,          &a->be,       &a->policy,   &a->offload,
                                   &o->sweep_log,   &a->without,  &a->params,   &a->kv,
                                   &a->be_arrivals, &a->admission};
    double *numbers[N_NUMBERS] = {
        &o->load.ls_rate, &o->load.burst_s, &o->load.be_rate, &a->backlog,       &a->sigma,
        &o->ttft_slo_s,   &o->tpot_slo_s,   &o->duration_s,   &o->warmup_s,      &a->chunk,
        &a->p_max,        &a->slots,        &o->noise,        &a->gpus,          &a->hosts,
        &a->net,          &a->bandwidth,    &a->seed,         &o->prefilled_pct, &a->ls_target};
    struct option options[N_WORDS + N_NUMBERS + 4];
    int c;

    make_long_options(options);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c >= OPTION_NUMBERS) {
            if (!parse_number(optarg, numbers[c - OPTION_NUMBERS])) {
                fprintf(stderr, "omni-sim run: --%s %s: a number >= 0 is expected\n",
                        number_options[c - OPTION_NUMBERS], optarg);
                return -1;
            }
            o->prefilled |= numbers[c - OPTION_NUMBERS] == &o->prefilled_pct;
        } else if (c >= OPTION_WORDS) {
            *words[c - OPTION_WORDS] = optarg;
        } else if (c == 'j') {
            a->json = true;
        } else if (c == 'c') {
            o->be_computed = true;
        } else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : -1;
        }
    }
    if (optind == argc && a->machine != NULL && a->model != NULL)
        return 1;
    fputs(usage, stderr);
    return -1;
}

/* ---- What it means --------------------------------------------------------------------------- */

static bool same_word(const char *at, size_t n, const char *word)
{
    return strlen(word) == n && strncmp(word, at, n) == 0;
}

/* An idea of the policy, or one of the device and its workers. */
static bool take_out(struct sim_options *o, const char *at, size_t n)
{
    uint32_t idea = sched_without_find(at, n);

    o->without |= idea;
    o->no_deadlines |= same_word(at, n, "deadlines");
    o->newest_first |= same_word(at, n, "oldest-first");
    return idea != 0 || same_word(at, n, "deadlines") || same_word(at, n, "oldest-first");
}

static int find_ideas(struct arguments *a, struct error *err)
{
    for (const char *at = a->without; at != NULL && *at != '\0';) {
        size_t n = strcspn(at, ",");

        if (!take_out(&a->options, at, n))
            return error_set(err, -EINVAL, "--without %.*s: no such idea", (int)n, at);
        at += n + (at[n] == ',');
    }
    return 0;
}

static int find_admission(struct arguments *a, struct error *err)
{
    struct sim_options *o = &a->options;

    o->admit_all = strcmp(a->admission, "off") == 0;
    snprintf(a->target, sizeof a->target, "slo.ls_target_pct=%.0f", a->ls_target);
    a->settings[0] = a->target;
    o->settings = a->settings;
    return o->admit_all || strcmp(a->admission, "on") == 0
               ? 0
               : error_set(err, -EINVAL, "--admission %s: on or off", a->admission);
}

static int find_names(struct arguments *a, struct error *err)
{
    struct sim_options *o = &a->options;
    const char *known;
    const struct sim_machine *machine = sim_machine_find(a->machine, &known);

    if (machine == NULL)
        return error_set(err, -EINVAL, "--machine %s is unknown; known: %s", a->machine, known);
    o->machine = *machine;
    o->model = sim_model_find(a->model, &known);
    if (o->model == NULL)
        return error_set(err, -EINVAL, "--model %s is unknown; known: %s", a->model, known);
    o->policy = a->policy;
    o->kv_type = strcmp(a->kv, "int8") == 0 ? KV_TYPE_I8 : KV_TYPE_BF16;
    if (o->kv_type == KV_TYPE_BF16 && strcmp(a->kv, "bf16") != 0)
        return error_set(err, -EINVAL, "--kv %s: bf16 or int8", a->kv);
    while (o->offload < 3 && strcmp(offload_names[o->offload], a->offload) != 0)
        o->offload++;
    return o->offload < 3
               ? 0
               : error_set(err, -EINVAL, "--offload %s: auto, always or never", a->offload);
}

static void change_machine(struct arguments *a)
{
    struct sim_machine *m = &a->options.machine;

    if (a->gpus >= 1)
        m->n_gpus = (uint32_t)a->gpus;
    if (a->bandwidth > 0)
        m->socket_bytes_per_ns = a->bandwidth;
    if (a->net > 0)
        m->net_bytes_per_ns = a->net / 8;
    m->n_hosts = (uint32_t)a->hosts;
}

static int find_lengths(struct arguments *a, struct error *err)
{
    struct sim_load *load = &a->options.load;
    bool none = strcmp(a->be, "none") == 0;
    int rc = sim_lengths_parse(&load->ls, a->ls, a->sigma, err);

    load->seed = (uint64_t)a->seed;
    load->be_backlog = none ? 0 : (uint32_t)a->backlog;
    if (rc == 0)
        rc = sim_lengths_parse(&load->be, none ? "1/1" : a->be, a->sigma, err);
    if (rc == 0 && a->be_arrivals != NULL)
        rc = sim_times_read(&load->be_times, a->be_arrivals, err);
    return rc;
}

/* A profile that is asked for must be there; one of a folder may be. */
static void find_profile(struct arguments *a)
{
    const char *dir = a->profiles != NULL ? a->profiles : getenv("OMNI_SIM_PROFILES");
    struct stat st;

    snprintf(a->timing, sizeof a->timing, "first principles");
    if (a->profile == NULL && dir != NULL) {
        snprintf(a->profile_path, sizeof a->profile_path, "%s/%s-%s.profile", dir, a->machine,
                 a->model);
        if (stat(a->profile_path, &st) == 0)
            a->profile = a->profile_path;
    }
    if (a->profile != NULL)
        snprintf(a->timing, sizeof a->timing, "%s", a->profile);
    a->options.profile = a->profile;
}

static int prepare(struct arguments *a, struct error *err)
{
    int rc = find_names(a, err);

    if (rc != 0)
        return rc;
    rc = find_ideas(a, err);
    if (rc == 0)
        rc = sim_params_parse(&a->options.params, a->params, err);
    if (rc == 0)
        rc = find_admission(a, err);
    if (rc != 0)
        return rc;
    change_machine(a);
    find_profile(a);
    a->options.chunk_tokens = (uint32_t)a->chunk;
    a->options.p_max = (uint32_t)a->p_max;
    a->options.slots = (uint32_t)a->slots;
    return find_lengths(a, err);
}

/* ---- Running --------------------------------------------------------------------------------- */

static int report(const struct arguments *a, const struct sim_run *run,
                  const struct sim_result *result)
{
    struct sim_report r = {.options = &a->options,
                           .result = result,
                           .timing = a->timing,
                           .be_name = a->be,
                           .policy = a->policy,
                           .offload = offload_names[a->options.offload]};
    struct sim_supply supply;

    sim_report_supply(&supply, &a->options, sim_run_timing(run));
    sim_bounds_find(&supply, &r.bounds);
    if (a->json)
        return sim_report_json(stdout, &r);
    sim_report_table(stdout, &r);
    return 0;
}

static int simulate(const struct arguments *a, struct error *err)
{
    struct sim_result *result = malloc(sizeof *result);
    struct sim_run *run;
    int rc = sim_run_create(&run, &a->options, err);

    if (rc == 0) {
        rc = result != NULL ? sim_run_all(run, result, err)
                            : error_set(err, -ENOMEM, "no memory for the result");
        if (rc == 0 && report(a, run, result) != 0)
            rc = error_set(err, -EIO, "the report cannot be written");
        sim_run_destroy(run);
    }
    free(result);
    return rc;
}

int command_run(int argc, char **argv)
{
    struct arguments a = {.ls = "SHAREGPT",
                          .be = "DAILYMAIL",
                          .policy = "omni",
                          .kv = "bf16",
                          .offload = "auto",
                          .admission = "on",
                          .ls_target = 100,
                          .sigma = 0.6,
                          .backlog = 32,
                          .p_max = 64,
                          .slots = 512,
                          .seed = 1,
                          .options = {.load = {.ls_rate = 4},
                                      .kv_type = KV_TYPE_BF16,
                                      .warmup_s = 60,
                                      .duration_s = 300,
                                      .grace_s = 1200,
                                      .ttft_slo_s = 3,
                                      .tpot_slo_s = 0.25,
                                      .noise = 0.02,
                                      .auto_free_pct = 10}};
    struct error err;
    int go = parse(&a, argc, argv);

    if (go <= 0)
        return go == 0 ? COMMAND_DONE : COMMAND_USAGE;
    int rc = prepare(&a, &err);
    if (rc == 0)
        rc = simulate(&a, &err);
    if (rc != 0)
        fprintf(stderr, "omni-sim run: %s\n", err.text);
    sim_lengths_fini(&a.options.load.ls);
    sim_lengths_fini(&a.options.load.be);
    sim_times_fini(&a.options.load.be_times);
    return rc == 0 ? COMMAND_DONE : COMMAND_FAILED;
}
