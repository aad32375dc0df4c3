/* Decode sweeps as graphs: one per bucket of rows, bucket of context, and with or without what
 * offloaded rows need.  All are captured and uploaded before "ready".
 *
 * A graph's grids cover its bucket; blocks without work end at once.  Rows that return fill what the
 * common rows leave of it. */
#include "common/base/log.h"
#include "gpu-engine/device/cuda/cuda_device.h"

void cuda_graph_shape(const struct device *d, const struct cuda_graph *g, struct cuda_shape *out)
{
    *out = (struct cuda_shape){.ctx_max = g->ctx_max, .offloads = g->offloads, .counted = true};
    out->enters = g->offloads ? d->config.returned_rows_max : 0;
    out->leaves = g->offloads ? d->n_slots : 0;
    out->batch[0] = (struct cuda_batch_shape){
        .rows = g->rows,
        .decodes = g->rows < d->config.seqs_max ? g->rows : d->config.seqs_max,
        .outputs = g->rows < d->output_room ? g->rows : d->output_room};
}

/* The next of d->graphs; it is counted as soon as it must be destroyed. */
static int capture(struct device *d, struct cuda_graph *g)
{
    struct cuda_shape shape;
    cudaGraph_t graph;

    cuda_graph_shape(d, g, &shape);
    CUDA_TRY(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
    int rc = cuda_sweep_launch(d, &shape);
    CUDA_TRY(cudaStreamEndCapture(d->stream, &graph));
    if (rc != 0) {
        CUDA_NOTE(cudaGraphDestroy(graph));
        return rc;
    }
    cudaError_t instantiated = cudaGraphInstantiate(&g->exec, graph, 0);
    CUDA_NOTE(cudaGraphDestroy(graph));
    CUDA_TRY(instantiated);
    d->n_graphs++;
    CUDA_TRY(cudaGraphUpload(g->exec, d->stream));
    return 0;
}

static int add(struct device *d, uint32_t rows, uint32_t ctx_max, bool offloads)
{
    struct cuda_graph *g = &d->graphs[d->n_graphs];

    if (d->n_graphs == CUDA_GRAPHS_MAX)
        return 0; /* the rest are plain launches */
    *g = (struct cuda_graph){.rows = rows, .ctx_max = ctx_max, .offloads = offloads};
    return capture(d, g);
}

static int add_rows(struct device *d, uint32_t rows)
{
    uint32_t ctx = CUDA_GRAPH_CONTEXT;
    int rc = 0;

    for (bool last = false; !last && rc == 0; ctx *= 4) {
        last = ctx >= d->config.context_max;
        uint32_t ctx_max = last ? d->config.context_max : ctx;

        rc = add(d, rows, ctx_max, false);
        if (rc == 0 && d->n_slots > 0)
            rc = add(d, rows, ctx_max, true);
    }
    return rc;
}

int cuda_graphs_make(struct device *d)
{
    uint32_t most = d->config.seqs_max + d->config.returned_rows_max;
    int rc = 0;

    most = most < d->row_room ? most : d->row_room;
    most = most < CUDA_GRAPH_ROWS_MAX ? most : (uint32_t)CUDA_GRAPH_ROWS_MAX;
    for (uint32_t rows = 1; rc == 0; rows *= 2) {
        rc = add_rows(d, rows < most ? rows : most);
        if (rows >= most)
            break;
    }
    if (rc == 0)
        CUDA_TRY(cudaStreamSynchronize(d->stream));
    return rc;
}

void cuda_graphs_destroy(struct device *d)
{
    while (d->n_graphs > 0)
        CUDA_NOTE(cudaGraphExecDestroy(d->graphs[--d->n_graphs].exec));
}

/* They were made in ascending order of rows, then of context. */
const struct cuda_graph *cuda_graph_find(const struct device *d, uint32_t rows, uint32_t ctx_max,
                                         bool offloads)
{
    for (uint32_t i = 0; i < d->n_graphs; i++) {
        const struct cuda_graph *g = &d->graphs[i];

        if (g->rows >= rows && g->ctx_max >= ctx_max && g->offloads == offloads)
            return g;
    }
    return NULL;
}
