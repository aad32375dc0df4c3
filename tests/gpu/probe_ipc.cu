/* probe_ipc.cu - CUDA IPC: device memory of one process opened by another.
 *
 * The way of the paper, and an option for ours: a worker that opens the KV pool.  What is asked:
 * what the opening costs, what a context in the worker costs (time and device memory), and whether
 * the memory is as fast from there.  The other process is this program once more, started by fork
 * and exec. While it measures, the parent keeps the memory and does nothing. */
#include "tests/gpu/ipc.h"
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"
#include "tests/gpu/spawn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 61, CHILD_LIMIT_MS = 15000, HANDLE_HEX = 2 * sizeof(cudaIpcMemHandle_t) + 1 };

static const size_t SHARED_BYTES = 512 * MIB;
static const size_t COPY_BYTES = 256 * MIB;

static void handle_encode(const cudaIpcMemHandle_t *handle, char hex[HANDLE_HEX])
{
    const unsigned char *byte = (const unsigned char *)handle;
    for (size_t i = 0; i < sizeof *handle; i++)
        snprintf(hex + 2 * i, 3, "%02x", byte[i]);
}

static int handle_decode(const char *hex, cudaIpcMemHandle_t *handle)
{
    unsigned char *byte = (unsigned char *)handle;
    if (strlen(hex) != HANDLE_HEX - 1)
        return -1;
    for (size_t i = 0; i < sizeof *handle; i++) {
        unsigned value;
        if (sscanf(hex + 2 * i, "%2x", &value) != 1)
            return -1;
        byte[i] = (unsigned char)value;
    }
    return 0;
}

/* ---- the child ---- */

struct shared_work {
    uint4 *shared;
    uint32_t *sum;
    void *pinned;
    int n_blocks;
};

static cudaError_t read_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct shared_work *w = (const struct shared_work *)arg;
    return read_xor(w->sum, w->shared, SHARED_BYTES / 16, w->n_blocks, stream);
}

static cudaError_t out_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct shared_work *w = (const struct shared_work *)arg;
    return cudaMemcpyAsync(w->pinned, w->shared, COPY_BYTES, cudaMemcpyDeviceToHost, stream);
}

static int shared_measure(struct probe *p, struct shared_work *w, uint32_t expected)
{
    uint32_t found = 0;
    double us;
    w->n_blocks = 8 * p->n_sm;
    PROBE_DO(probe_device_alloc(p, (void **)&w->sum, 256));
    PROBE_DO(probe_pinned_alloc(p, &w->pinned, COPY_BYTES));
    PROBE_TRY(p, cudaMemsetAsync(w->sum, 0, sizeof found, p->stream));
    PROBE_TRY(p, read_launch(w, 0, p->stream));
    PROBE_TRY(p, cudaMemcpyAsync(&found, w->sum, sizeof found, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    if (found != expected)
        return probe_fail(p, "checksum %08x became %08x", expected, found);
    PROBE_DO(probe_time(p, {read_launch, w}, 2, 7, &us));
    probe_number(p, probe_gbps((double)SHARED_BYTES, us), "ipc_read_gbps");
    PROBE_DO(probe_time(p, {out_launch, w}, 1, 7, &us));
    probe_number(p, probe_gbps((double)COPY_BYTES, us), "ipc_d2h_gbps");
    return 0;
}

static int open_timed(struct probe *p, const cudaIpcMemHandle_t *handle, void **at, const char *key)
{
    const uint64_t start = probe_now_ns();
    PROBE_TRY(p, cudaIpcOpenMemHandle(at, *handle, cudaIpcMemLazyEnablePeerAccess));
    probe_number(p, (double)(probe_now_ns() - start) / 1e3, "%s", key);
    return 0;
}

static int child_run(struct probe *p, struct report *report, char **argv)
{
    cudaIpcMemHandle_t handle;
    struct shared_work w = {};
    const size_t free_before = (size_t)strtoull(argv[5], NULL, 10);
    const uint64_t start = probe_now_ns();
    PROBE_DO(probe_open(p, report));
    probe_number(p, (double)(probe_now_ns() - start) / 1e6, "ipc_context_ms");
    if (free_before > p->free_bytes)
        probe_number(p, (double)(free_before - p->free_bytes) / (double)MIB, "ipc_context_mib");
    if (handle_decode(argv[2], &handle) || strtoull(argv[3], NULL, 10) != SHARED_BYTES)
        return probe_fail(p, "arguments do not parse");
    PROBE_DO(open_timed(p, &handle, (void **)&w.shared, "ipc_open_us"));
    const int rc = shared_measure(p, &w, (uint32_t)strtoul(argv[4], NULL, 16));
    const uint64_t closing = probe_now_ns();
    (void)cudaDeviceSynchronize();
    PROBE_TRY(p, cudaIpcCloseMemHandle(w.shared));
    probe_number(p, (double)(probe_now_ns() - closing) / 1e3, "ipc_close_us");
    PROBE_DO(rc);
    PROBE_DO(open_timed(p, &handle, (void **)&w.shared, "ipc_reopen_us"));
    PROBE_TRY(p, cudaIpcCloseMemHandle(w.shared));
    return 0;
}

int ipc_child_main(char **argv)
{
    struct probe probe;
    struct report report = {STDOUT_FILENO, -1};
    const int rc = child_run(&probe, &report, argv);
    if (rc)
        report_error(&report, "ipc", "%s", probe.why);
    probe_release(&probe);
    return rc ? 1 : 0;
}

/* ---- the parent ---- */

static int child_start(struct probe *p, const char *hex, uint32_t sum, char *output,
                       size_t output_bytes)
{
    char bytes[32], expected[16], free_bytes[32], how[64];
    size_t free_now = 0, total = 0;
    PROBE_TRY(p, cudaMemGetInfo(&free_now, &total));
    snprintf(bytes, sizeof bytes, "%zu", SHARED_BYTES);
    snprintf(expected, sizeof expected, "%08" PRIx32, sum);
    snprintf(free_bytes, sizeof free_bytes, "%zu", free_now);
    const char *const argv[] = {"probe", "ipc-open", hex, bytes, expected, free_bytes, NULL};
    const struct spawn_result result = spawn_self(argv, CHILD_LIMIT_MS, output, output_bytes);
    if (result.outcome == SPAWN_EXITED && result.detail == 0)
        return 0;
    const char *reason = strstr(output, "ipc=error:");
    spawn_describe(result, how, sizeof how);
    return probe_fail(p, "second process: %s%.*s", reason ? "" : how,
                      reason ? (int)strcspn(reason + 10, "\n") : 0, reason ? reason + 10 : "");
}

/* The child's lines but its error, which becomes this measurement's. */
static void lines_forward(struct probe *p, char *output)
{
    char *save = NULL;
    for (char *line = strtok_r(output, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strchr(line, '=') && strncmp(line, "ipc=", 4))
            report_line(p->report, "%s", line);
}

static int measure_ipc(struct probe *p)
{
    static char output[8192];
    char hex[HANDLE_HEX];
    cudaIpcMemHandle_t handle;
    uint4 *shared;
    uint32_t *sum, expected = 0;
    output[0] = '\0';
    PROBE_DO(probe_device_alloc(p, (void **)&shared, SHARED_BYTES));
    PROBE_DO(probe_device_alloc(p, (void **)&sum, 256));
    PROBE_TRY(p, fill(shared, SHARED_BYTES / 16, SEED, p->stream));
    PROBE_TRY(p, cudaMemsetAsync(sum, 0, sizeof *sum, p->stream));
    PROBE_TRY(p, read_xor(sum, shared, SHARED_BYTES / 16, 8 * p->n_sm, p->stream));
    PROBE_TRY(p,
              cudaMemcpyAsync(&expected, sum, sizeof expected, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    const uint64_t start = probe_now_ns();
    PROBE_TRY(p, cudaIpcGetMemHandle(&handle, shared));
    probe_number(p, (double)(probe_now_ns() - start) / 1e3, "ipc_get_handle_us");
    handle_encode(&handle, hex);
    const int rc = child_start(p, hex, expected, output, sizeof output);
    lines_forward(p, output);
    return rc;
}

static const struct probe_measurement measurements[] = {
    {"ipc_open_us", measure_ipc},
};

const struct probe_part part_ipc = {"ipc", "CUDA IPC between two processes", 30, 1, measurements};
