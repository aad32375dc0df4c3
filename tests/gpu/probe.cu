/* probe.cu - the program: head, parts one after another, summary.  See README.md.
 *
 * This process never makes a CUDA context: it asks for the device's name and leaves the rest to one
 * child process per part, which appends to the same results file.
 *
 * Exit status: 0 all measured, 1 some measurement failed (its line says key=error:...), 2 usage or
 * the results file cannot be written, 77 no CUDA device. */
#include "tests/gpu/head.h"
#include "tests/gpu/ipc.h"
#include "tests/gpu/options.h"
#include "tests/gpu/probe.h"
#include "tests/gpu/spawn.h"
#include "tests/gpu/summary.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_ERRORS = 1, EXIT_USAGE = 2, EXIT_NO_DEVICE = 77 };

/* The whole run, however slow the machine: a visit to a GPU is short. */
static const int TOTAL_LIMIT_S = 420;

static const struct probe_part *const PARTS[] = {
    &part_ceilings, &part_gemm,     &part_copies, &part_kernels, &part_step,
    &part_exchange, &part_zerocopy, &part_flags,  &part_posted,  &part_graphs,
    &part_register, &part_ipc,      &part_torch,
};

static const char USAGE[] = "usage: probe --results FILE [--commit ID] [--only PART[,PART...]]\n"
                            "       probe --device | --list | --help\n";

/* 0, or -1 after saying on stderr why there is none. */
static int device_name(struct cudaDeviceProp *prop)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0)
        e = cudaGetDeviceProperties(prop, 0);
    if (e == cudaSuccess && n > 0)
        return 0;
    int driver = 0; /* stays 0 where no driver is installed */
    (void)cudaDriverGetVersion(&driver);
    const char *reason = e == cudaSuccess ? "the driver lists none" : cudaGetErrorString(e);
    fprintf(stderr, "no CUDA device: %s\n", driver == 0 ? "no NVIDIA driver" : reason);
    return -1;
}

static void head_device(struct report *report, const struct cudaDeviceProp *prop)
{
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    report_text(report, "device", "%s", prop->name);
    report_text(report, "device_sm", "%d.%d", prop->major, prop->minor);
    report_text(report, "device_multiprocessors", "%d", prop->multiProcessorCount);
    report_text(report, "device_memory_mib", "%zu", prop->totalGlobalMem / MIB);
    report_text(report, "device_l2_mib", "%zu", (size_t)prop->l2CacheSize / MIB);
    report_text(report, "device_pci", "%04x:%02x:%02x.0", (unsigned)prop->pciDomainID,
                (unsigned)prop->pciBusID, (unsigned)prop->pciDeviceID);
    report_text(report, "cuda_driver", "%d.%d", driver / 1000, driver % 1000 / 10);
    report_text(report, "cuda_runtime", "%d.%d", runtime / 1000, runtime % 1000 / 10);
}

static void measurement_run(struct probe *probe, const struct probe_measurement *m)
{
    probe->why[0] = '\0';
    const int rc = m->run(probe);
    if (rc)
        report_error(probe->report, m->key, "%s", probe->why);
    probe_release(probe);
}

/* The process of one part. */
static int part_main(const char *name, const char *path)
{
    struct probe probe;
    struct report report;
    const struct probe_part *part = NULL;
    for (const struct probe_part *candidate : PARTS)
        part = !strcmp(candidate->name, name) ? candidate : part;
    if (!part || report_attach(&report, path, STDOUT_FILENO))
        return EXIT_USAGE;
    if (probe_open(&probe, &report)) {
        report_error(&report, name, "%s", probe.why);
        return EXIT_ERRORS;
    }
    probe.results = path;
    for (int i = 0; i < part->n; i++)
        measurement_run(&probe, &part->measurement[i]);
    report_close(&report);
    return EXIT_OK;
}

static void part_spawn(struct report *report, const struct probe_part *part, const char *path,
                       int left_ms)
{
    char how[64];
    const int limit_ms = part->limit_s * 1000 < left_ms ? part->limit_s * 1000 : left_ms;
    const uint64_t start = probe_now_ns();
    const char *const argv[] = {"probe", "part", part->name, path, NULL};
    if (limit_ms <= 0) {
        report_error(report, part->name, "the run's %d s are used up", TOTAL_LIMIT_S);
        return;
    }
    const struct spawn_result result = spawn_self(argv, limit_ms, NULL, 0);
    spawn_describe(result, how, sizeof how);
    if (result.outcome != SPAWN_EXITED ||
        (result.detail != EXIT_OK && result.detail != EXIT_ERRORS))
        report_error(report, part->name, "%s", how);
    char key[REPORT_KEY_MAX];
    snprintf(key, sizeof key, "seconds_%s", part->name);
    report_number(report, key, (double)(probe_now_ns() - start) / 1e9);
}

/* Every name in the list must be a part's, or a typing error would look like a run without errors.
 */
static bool only_is_valid(const char *only)
{
    size_t n_names = only ? 1 : 0, n_parts = 0;
    for (const char *at = only; at && *at; at++)
        n_names += *at == ',';
    for (const struct probe_part *part : PARTS)
        n_parts += only && options_selects(only, part->name);
    return n_names == n_parts;
}

static int measure_main(const struct options *options, const struct cudaDeviceProp *prop)
{
    struct report report;
    const uint64_t start = probe_now_ns();
    const int rc = report_create(&report, options->results, STDOUT_FILENO);
    if (rc) {
        fprintf(stderr, "%s: %s\n", options->results, strerror(-rc));
        return EXIT_USAGE;
    }
    head_device(&report, prop);
    head_host(&report, options->commit);
    for (const struct probe_part *part : PARTS)
        if (options_selects(options->only, part->name))
            part_spawn(&report, part, options->results,
                       TOTAL_LIMIT_S * 1000 - (int)((probe_now_ns() - start) / 1000000));
    report_number(&report, "seconds_total", (double)(probe_now_ns() - start) / 1e9);
    const int n_errors = summary_write(&report, options->results);
    report_close(&report);
    return n_errors ? EXIT_ERRORS : EXIT_OK;
}

static int parts_list(void)
{
    for (const struct probe_part *part : PARTS)
        printf("%-10s %s\n", part->name, part->what);
    return EXIT_OK;
}

static int device_main(const struct options *options)
{
    struct cudaDeviceProp prop;
    char slug[128];
    if (!only_is_valid(options->only)) {
        fprintf(stderr, "probe: --only %s: see --list for the parts\n%s", options->only, USAGE);
        return EXIT_USAGE;
    }
    if (device_name(&prop))
        return EXIT_NO_DEVICE;
    if (options->mode == OPTIONS_MEASURE)
        return measure_main(options, &prop);
    options_slug(prop.name, slug, sizeof slug);
    printf("%s\n", slug);
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    struct options options;
    char why[128];
    if (options_parse(&options, argc, argv, why, sizeof why)) {
        fprintf(stderr, "probe: %s\n%s", why, USAGE);
        return EXIT_USAGE;
    }
    switch (options.mode) {
    case OPTIONS_HELP:
        fputs(USAGE, stdout);
        return EXIT_OK;
    case OPTIONS_LIST:
        return parts_list();
    case OPTIONS_PART:
        return part_main(argv[2], argv[3]);
    case OPTIONS_IPC_OPEN:
        return ipc_child_main(argv);
    case OPTIONS_DEVICE:
    case OPTIONS_MEASURE:
        break;
    }
    return device_main(&options);
}
