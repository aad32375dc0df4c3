/* probe_graphs.cu - what launching costs: graphs of empty kernels, and plain launches beside them.
 *
 * A decode sweep is one graph of some 320 nodes, so two figures matter: the host's time in
 * cudaGraphLaunch, and the device's time per node when the nodes do nothing.  The host's time is
 * taken with an idle device, so that a full queue never shows as cost. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"

enum { HOST_SAMPLES = 300, PLAIN_LAUNCHES = 320 };

static int chain_create(struct probe *p, int n_nodes, cudaGraphExec_t *exec)
{
    cudaGraph_t graph;
    PROBE_TRY(p, cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n_nodes; i++)
        (void)empty(
            p->stream); /* a failed launch invalidates the capture, which EndCapture reports */
    PROBE_TRY(p, cudaStreamEndCapture(p->stream, &graph));
    const cudaError_t e = cudaGraphInstantiate(exec, graph, 0);
    (void)cudaGraphDestroy(graph);
    return e == cudaSuccess ? 0 : probe_fail_cuda(p, "cudaGraphInstantiate", e);
}

static cudaError_t graph_launch(void *arg, unsigned, cudaStream_t stream)
{
    return cudaGraphLaunch((cudaGraphExec_t)arg, stream);
}

/* Host time in one call, and from the call to the device being done: medians, microseconds. */
static int host_cost(struct probe *p, struct probe_work work, double *call_us, double *done_us)
{
    double call[HOST_SAMPLES], done[HOST_SAMPLES];
    for (int i = -10; i < HOST_SAMPLES; i++) { /* the first ones upload and warm up */
        const uint64_t start = probe_now_ns();
        PROBE_TRY(p, work.launch(work.arg, 0, p->stream));
        const uint64_t returned = probe_now_ns();
        PROBE_TRY(p, cudaStreamSynchronize(p->stream));
        if (i < 0)
            continue;
        call[i] = (double)(returned - start) / 1e3;
        done[i] = (double)(probe_now_ns() - start) / 1e3;
    }
    *call_us = stats_median(call, HOST_SAMPLES);
    *done_us = stats_median(done, HOST_SAMPLES);
    return 0;
}

static int graph_run(struct probe *p, cudaGraphExec_t exec, int n_nodes)
{
    const struct probe_work work = {graph_launch, (void *)exec};
    double call_us, done_us, device_us;
    PROBE_DO(host_cost(p, work, &call_us, &done_us));
    PROBE_DO(probe_time(p, work, 20, 15, &device_us));
    probe_number(p, call_us, "graph%d_launch_us", n_nodes);
    probe_number(p, done_us, "graph%d_done_us", n_nodes);
    probe_number(p, device_us / n_nodes, "graph%d_node_us", n_nodes);
    return 0;
}

static int measure_graphs(struct probe *p)
{
    static const int n_nodes_list[] = {1, 32, 320};
    for (int n : n_nodes_list) {
        cudaGraphExec_t exec;
        PROBE_DO(chain_create(p, n, &exec));
        const int rc = graph_run(p, exec, n);
        (void)cudaStreamSynchronize(p->stream);
        (void)cudaGraphExecDestroy(exec);
        PROBE_DO(rc);
    }
    return 0;
}

static cudaError_t empty_launch(void *, unsigned, cudaStream_t stream)
{
    return empty(stream);
}

static int measure_plain(struct probe *p)
{
    const struct probe_work work = {empty_launch, NULL};
    double call_us, done_us, device_us;
    PROBE_DO(host_cost(p, work, &call_us, &done_us));
    PROBE_DO(probe_time(p, work, PLAIN_LAUNCHES, 15, &device_us));
    probe_number(p, call_us, "plain_launch_us");
    probe_number(p, done_us, "plain_done_us");
    /* Back to back: the slower of the host's launching and the device's starting. */
    probe_number(p, device_us, "plain_node_us");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"graph_launch", measure_graphs},
    {"plain_launch_us", measure_plain},
};

const struct probe_part part_graphs = {"graphs", "graph launches beside plain ones", 20, 2,
                                       measurements};
