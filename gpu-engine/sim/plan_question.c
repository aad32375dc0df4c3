/* The command line of omni plan. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-engine/sim/plan.h"
#include "gpu-engine/sim/plan_units.h"

static const char usage[] =
    "usage: omni plan --model M --gpu G --trace T --slo ttft=2s,tpot=200ms [options]\n"
    "\n"
    "Simulates the engine under the trace's latency-sensitive load with as much best effort as\n"
    "fits beside it, then again with one CPU socket or host more, and with 8-bit KV.\n"
    "\n"
    "  --model M            a named model (a wrong name lists them)\n"
    "  --gpu G              a100, h200, rtx4090 or core, 4xa100 for four of them, or a machine of\n"
    "                       `omni sim run`\n"
    "  --link L             between GPUs: nvlink (default) or pcie\n"
    "  --gpu-memory 48GB, --gpu-bandwidth 864GB/s, --gpu-tflops 181\n"
    "                       another card: G in all else\n"
    "  --cpus 2x400GB/s,512GB\n"
    "                       sockets, what each reads, what it keeps for KV (the machine's own)\n"
    "  --hosts 1x200GB/s    further hosts with a worker each; --net 100Gbit/s between them (0)\n"
    "  --kv TYPE            bf16 (default), f16 or int8\n"
    "  --trace T            a CSV file with TIMESTAMP, ContextTokens, GeneratedTokens, JSON lines\n"
    "                       with timestamp, input_length, output_length, - for standard input,\n"
    "                       or poisson:RATE:LENGTHS, such as poisson:4/s:SHAREGPT\n"
    "  --ls-scale X         the trace X times as fast (1)\n"
    "  --slo ttft=2s,tpot=200ms\n"
    "  --target PERCENT     of requests that are to meet it (99)\n"
    "  --be LENGTHS         LONGBENCH, DAILYMAIL (default), IN/OUT means, or a file of pairs\n"
    "  --be-rate R          best-effort requests, such as 180/min; default: without end\n"
    "  --sigma S            spread of named lengths (0.6)\n"
    "  --profile FILE       times of the device as measured (omni profile); else first principles\n"
    "  --policy P           as engine.policy (omni)\n"
    "  --duration T         measured time (5min); --warmup T before it (1min)\n"
    "  --seed N --seeds K   the first seed of lengths, arrivals and noise (1); how many (3)\n"
    "  --json FILE, --plot FILE.png, --quiet (no progress)\n";

/* What is read as text first, because one word means nothing without another. */
struct words {
    const char *model, *gpu, *link, *gpu_memory, *gpu_bandwidth, *gpu_tflops, *cpus, *hosts, *net,
        *kv, *trace, *ls_scale, *slo, *target, *be, *be_rate, *sigma, *profile, *policy, *duration,
        *warmup, *seed, *seeds, *json, *plot;
};

enum { QUIET = 1, HELP = 2, FIRST_WORD = 16 };

/* ---- Words ----------------------------------------------------------------------------------- */

/* -1: wrong; 0: --help was answered; 1: go on. */
static int read_words(struct words *w, bool *quiet, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **word;
    } all[] = {{"model", &w->model},
               {"gpu", &w->gpu},
               {"link", &w->link},
               {"gpu-memory", &w->gpu_memory},
               {"gpu-bandwidth", &w->gpu_bandwidth},
               {"gpu-tflops", &w->gpu_tflops},
               {"cpus", &w->cpus},
               {"hosts", &w->hosts},
               {"net", &w->net},
               {"kv", &w->kv},
               {"trace", &w->trace},
               {"ls-scale", &w->ls_scale},
               {"slo", &w->slo},
               {"target", &w->target},
               {"be", &w->be},
               {"be-rate", &w->be_rate},
               {"sigma", &w->sigma},
               {"profile", &w->profile},
               {"policy", &w->policy},
               {"duration", &w->duration},
               {"warmup", &w->warmup},
               {"seed", &w->seed},
               {"seeds", &w->seeds},
               {"json", &w->json},
               {"plot", &w->plot}};
    enum { N = sizeof all / sizeof *all };
    struct option options[N + 3] = {{"quiet", no_argument, NULL, QUIET},
                                    {"help", no_argument, NULL, HELP}};
    int c;

    for (int i = 0; i < N; i++)
        options[i + 2] = (struct option){all[i].name, required_argument, NULL, FIRST_WORD + i};
    optind = 0; /* a test may parse twice */
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c >= FIRST_WORD)
            *all[c - FIRST_WORD].word = optarg;
        else if (c == QUIET)
            *quiet = true;
        else if (c == HELP)
            return fputs(usage, stdout), 0;
        else
            return -1;
    }
    return optind == argc ? 1 : -1;
}

/* ---- The machine ----------------------------------------------------------------------------- */

static const struct sim_machine *find_machine(const char *name)
{
    const char *known;

    return sim_machine_find(name, &known);
}

/* "4xa100": the machine of that many; one card alone is a machine of more with the others taken
 * out. */
static const struct sim_machine *find_gpu(const char *text, const char *link, uint32_t *n)
{
    char name[64];
    size_t digits = strspn(text, "0123456789");
    bool counted = digits > 0 && digits < 4 && text[digits] == 'x';
    const char *gpu = counted ? text + digits + 1 : text;

    *n = counted ? (uint32_t)strtoul(text, NULL, 10) : 1;
    snprintf(name, sizeof name, "%sx%u-%s", gpu, *n, link);
    const struct sim_machine *m = find_machine(name);
    if (m == NULL && *n == 1) {
        snprintf(name, sizeof name, "%sx2-%s", gpu, link);
        m = find_machine(name);
    }
    return m != NULL || *n != 1 ? m : find_machine(gpu);
}

static int set_gpus(struct plan_question *q, const struct words *w, struct error *err)
{
    struct sim_machine *machine = &q->options.machine;
    const char *known;
    const struct sim_machine *named = sim_machine_find(w->gpu, &known), *found = named;
    uint32_t n = 1;

    if (strcmp(w->link, "nvlink") != 0 && strcmp(w->link, "pcie") != 0)
        return error_set(err, -EINVAL, "--link: '%s': nvlink or pcie", w->link);
    if (found == NULL && strcmp(w->gpu, "core") == 0)
        found = named = find_machine("cpu-here");
    if (found == NULL)
        found = find_gpu(w->gpu, w->link, &n);
    if (found == NULL)
        return error_set(err, -EINVAL,
                         "--gpu: '%s' is unknown; a100, 2xa100, 4xa100, h200, rtx4090, core, or a "
                         "machine: %s",
                         w->gpu, known);
    *machine = *found;
    if (named == NULL)
        machine->n_gpus = n;
    return 0;
}

/* Another card than the named one. */
static int change_gpu(struct plan_question *q, const struct words *w, struct error *err)
{
    double tflops;
    int rc = 0;

    q->gpu = *q->options.machine.gpu;
    if (w->gpu_memory != NULL)
        rc = plan_parse_bytes("--gpu-memory", w->gpu_memory, &q->gpu.memory_bytes, err);
    if (rc == 0 && w->gpu_bandwidth != NULL)
        rc = plan_parse_bandwidth("--gpu-bandwidth", w->gpu_bandwidth, &q->gpu.bytes_per_ns, err);
    if (rc == 0 && w->gpu_tflops != NULL) {
        rc = plan_parse_number("--gpu-tflops", w->gpu_tflops, 0.001, 1e6, &tflops, err);
        q->gpu.flops_per_ns = rc == 0 ? 1e3 * tflops : 0;
    }
    q->options.machine.gpu = &q->gpu;
    return rc;
}

static int set_hosts(struct plan_question *q, const struct words *w, struct error *err)
{
    struct sim_machine *m = &q->options.machine;
    struct plan_parts cpus = {m->n_sockets, m->socket_bytes_per_ns, m->host_bytes / m->n_sockets};
    struct plan_parts hosts = {0, m->remote_bytes_per_ns, m->remote_bytes};
    int rc = 0;

    if (w->cpus != NULL)
        rc = plan_parse_parts("--cpus", w->cpus, &cpus, err);
    if (rc == 0 && w->hosts != NULL) {
        hosts.n = 1;
        rc = plan_parse_parts("--hosts", w->hosts, &hosts, err);
    }
    if (rc == 0 && w->net != NULL)
        rc = plan_parse_bandwidth("--net", w->net, &m->net_bytes_per_ns, err);
    if (rc != 0)
        return rc;
    if (cpus.n < 1 || cpus.n + hosts.n >= LATENCY_WORKERS_MAX - 1)
        return error_set(err, -EINVAL, "--cpus, --hosts: 1 to %d sockets and hosts together",
                         LATENCY_WORKERS_MAX - 2);
    if (cpus.bytes_per_ns <= 0 || hosts.bytes_per_ns <= 0 || m->net_bytes_per_ns <= 0)
        return error_set(err, -EINVAL, "--cpus, --hosts, --net: a bandwidth is 0");
    m->n_sockets = cpus.n;
    m->socket_bytes_per_ns = cpus.bytes_per_ns;
    m->host_bytes = cpus.bytes * cpus.n;
    m->n_hosts = hosts.n;
    m->remote_bytes_per_ns = hosts.bytes_per_ns;
    m->remote_bytes = hosts.bytes;
    return 0;
}

static int set_model(struct plan_question *q, const struct words *w, struct error *err)
{
    static const struct {
        const char *name;
        enum kv_type type;
    } types[] = {{"bf16", KV_TYPE_BF16}, {"f16", KV_TYPE_F16}, {"int8", KV_TYPE_I8}};
    const char *known;

    q->options.model = sim_model_find(w->model, &known);
    if (q->options.model == NULL)
        return error_set(err, -EINVAL, "--model: '%s' is unknown; known: %s", w->model, known);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, w->kv) == 0)
            q->options.kv_type = types[i].type;
    }
    return q->options.kv_type != 0
               ? 0
               : error_set(err, -EINVAL, "--kv: '%s': bf16, f16 or int8", w->kv);
}

/* ---- The load -------------------------------------------------------------------------------- */

/* poisson:RATE:LENGTHS */
static int set_poisson(struct plan_question *q, const char *text, double sigma, struct error *err)
{
    char rate[32];
    const char *lengths = strchr(text, ':');
    size_t n = lengths != NULL ? (size_t)(lengths - text) : strlen(text);

    if (n >= sizeof rate)
        return error_set(err, -EINVAL,
                         "--trace: poisson:RATE:LENGTHS, such as poisson:4/s:SHAREGPT");
    memcpy(rate, text, n);
    rate[n] = '\0';
    int rc = plan_parse_frequency("--trace poisson", rate, &q->ls_rate, err);
    if (rc == 0)
        rc = sim_lengths_parse(&q->options.load.ls, lengths != NULL ? lengths + 1 : "SHAREGPT",
                               sigma, err);
    q->ls_rate *= q->ls_scale;
    q->options.load.ls_rate = q->ls_rate;
    return rc;
}

/* The lengths that the run can meet are those of the arrivals it will see. */
static int set_trace(struct plan_question *q, const char *path, struct error *err)
{
    struct sim_lengths *lengths = &q->options.load.ls;
    int rc = plan_trace_read(&q->trace, path, err);

    if (rc != 0)
        return rc;
    double until_s = q->options.warmup_s + q->options.duration_s;
    uint32_t n = 1;
    while (n < q->trace.n && plan_trace_at(&q->trace, n, q->ls_scale).at_s < until_s)
        n++;
    lengths->pairs = calloc(n, sizeof *lengths->pairs);
    if (lengths->pairs == NULL)
        return error_set(err, -ENOMEM, "no memory for %u arrivals", n);
    for (uint32_t i = 0; i < n; i++)
        lengths->pairs[i] = q->trace.arrivals[i].lengths;
    lengths->n_pairs = n;
    q->ls_rate = n < q->trace.n ? n / until_s : plan_trace_rate(&q->trace) * q->ls_scale;
    return 0;
}

static int set_load(struct plan_question *q, const struct words *w, struct error *err)
{
    static const char poisson[] = "poisson:";
    struct sim_load *load = &q->options.load;
    double sigma = 0, seed = 0, seeds = 0;
    int rc = plan_parse_number("--sigma", w->sigma, 0, 3, &sigma, err);

    if (rc == 0)
        rc = plan_parse_number("--ls-scale", w->ls_scale, 1e-3, 1e3, &q->ls_scale, err);
    if (rc == 0)
        rc = plan_parse_number("--seed", w->seed, 0, 1e15, &seed, err);
    if (rc == 0)
        rc = plan_parse_number("--seeds", w->seeds, 1, PLAN_SEEDS_MAX, &seeds, err);
    load->seed = (uint64_t)seed;
    q->n_seeds = (uint32_t)seeds;
    if (rc == 0)
        rc = strncmp(w->trace, poisson, sizeof poisson - 1) == 0
                 ? set_poisson(q, w->trace + sizeof poisson - 1, sigma, err)
                 : set_trace(q, w->trace, err);
    if (rc == 0)
        rc = sim_lengths_parse(&load->be, w->be, sigma, err);
    if (rc == 0 && w->be_rate != NULL)
        rc = plan_parse_frequency("--be-rate", w->be_rate, &load->be_rate, err);
    /* Without end is from before the beginning: minutes would pass until the memories are full. */
    q->options.prefilled = load->be_rate <= 0;
    q->options.prefilled_pct = 100;
    return rc;
}

/* ---- Objectives and time --------------------------------------------------------------------- */

static int set_objective(struct plan_question *q, const char *item, struct error *err)
{
    struct sim_options *o = &q->options;

    if (strncmp(item, "ttft=", 5) == 0)
        return plan_parse_time("--slo ttft", item + 5, &o->ttft_slo_s, err);
    if (strncmp(item, "tpot=", 5) == 0)
        return plan_parse_time("--slo tpot", item + 5, &o->tpot_slo_s, err);
    return error_set(err, -EINVAL, "--slo: '%s' is neither ttft=TIME nor tpot=TIME", item);
}

static int set_slo(struct plan_question *q, const char *text, struct error *err)
{
    char copy[128], *saved;
    int rc = 0;

    if (strlen(text) >= sizeof copy)
        return error_set(err, -EINVAL, "--slo: too long");
    memcpy(copy, text, strlen(text) + 1);
    for (char *item = strtok_r(copy, ",", &saved); item != NULL && rc == 0;
         item = strtok_r(NULL, ",", &saved))
        rc = set_objective(q, item, err);
    if (rc == 0 && (q->options.ttft_slo_s < 1e-3 || q->options.tpot_slo_s < 1e-3))
        rc = error_set(err, -EINVAL, "--slo: '%s': ttft and tpot, of 1ms at least, are needed",
                       text);
    return rc;
}

static int set_times(struct plan_question *q, const struct words *w, struct error *err)
{
    struct sim_options *o = &q->options;
    double percent = 0;
    int rc = set_slo(q, w->slo, err);

    if (rc == 0)
        rc = plan_parse_time("--duration", w->duration, &o->duration_s, err);
    if (rc == 0)
        rc = plan_parse_time("--warmup", w->warmup, &o->warmup_s, err);
    if (rc == 0 && (o->duration_s < 1 || o->duration_s > 86400 || o->warmup_s > 86400))
        rc = error_set(err, -EINVAL, "--duration, --warmup: 1s to 24h");
    if (rc == 0)
        rc = plan_parse_number("--target", w->target, 0, 100, &percent, err);
    q->target = percent / 100;
    return rc;
}

/* ---- All ------------------------------------------------------------------------------------- */

static int understand(struct plan_question *q, const struct words *w, struct error *err)
{
    int rc = set_gpus(q, w, err);

    if (rc == 0)
        rc = change_gpu(q, w, err);
    if (rc == 0)
        rc = set_hosts(q, w, err);
    if (rc == 0)
        rc = set_model(q, w, err);
    if (rc == 0)
        rc = set_times(q, w, err);
    if (rc == 0)
        rc = set_load(q, w, err);
    q->trace_name = w->trace;
    q->be_name = w->be;
    q->options.profile = w->profile;
    q->options.policy = w->policy;
    q->json = w->json;
    q->plot = w->plot;
    return rc;
}

int plan_question_parse(struct plan_question *q, int argc, char **argv, struct error *err)
{
    struct words w = {.link = "nvlink",
                      .kv = "bf16",
                      .ls_scale = "1",
                      .target = "99",
                      .be = "DAILYMAIL",
                      .sigma = "0.6",
                      .policy = "omni",
                      .duration = "5min",
                      .warmup = "1min",
                      .seed = "1",
                      .seeds = "3"};

    *q = (struct plan_question){.options = {.load = {.be_backlog = 32},
                                            .grace_s = 600,
                                            .noise = 0.02,
                                            .p_max = 64,
                                            .slots = 512,
                                            .auto_free_pct = 10}};
    int go = read_words(&w, &q->quiet, argc, argv);
    if (go < 0)
        return error_set(err, -EINVAL, "see omni plan --help");
    if (go == 0)
        return 1;
    if (w.model == NULL || w.gpu == NULL || w.trace == NULL || w.slo == NULL)
        return error_set(err, -EINVAL, "--model, --gpu, --trace and --slo are needed; see --help");
    return understand(q, &w, err);
}

void plan_question_fini(struct plan_question *q)
{
    plan_trace_fini(&q->trace);
    sim_lengths_fini(&q->options.load.ls);
    sim_lengths_fini(&q->options.load.be);
}
