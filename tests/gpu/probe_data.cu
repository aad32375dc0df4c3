/* probe_data.cu - see probe_data.h. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe_data.h"

#include <stdlib.h>

int probe_earlier(struct probe *p, const char *key, double *value)
{
    struct report_table *table = (struct report_table *)malloc(sizeof *table);
    const char *text = NULL;
    if (table != NULL && report_load(p->results, table) == 0)
        text = report_find(table, key);
    *value = text != NULL ? strtod(text, NULL) : 0.0;
    free(table);
    return *value > 0.0 ? 0 : probe_fail(p, "%s was not measured in this run", key);
}

int probe_bandwidth(struct probe *p, double *gbps)
{
    double copy, read;
    PROBE_DO(probe_earlier(p, "copy_gbps", &copy));
    PROBE_DO(probe_earlier(p, "read_gbps", &read));
    *gbps = copy > read ? copy : read;
    return 0;
}

/* Random words, with the exponents that ordinary values have. */
static __global__ void fill_elements_kernel(uint32_t *out, size_t n, uint32_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        const uint32_t x = data_word(seed, (uint32_t)i);
        const uint32_t low = 0x3e80u + ((x >> 8) % 3u << 7), high = 0x3e80u + ((x >> 24) % 3u << 7);
        out[i] = (x & 0x807f807fu) | low | high << 16;
    }
}

int probe_elements(struct probe *p, void **out, size_t n, uint32_t seed)
{
    PROBE_DO(probe_device_alloc(p, out, n * 2));
    fill_elements_kernel<<<8 * p->n_sm, 256, 0, p->stream>>>((uint32_t *)*out, n / 2, seed);
    PROBE_TRY(p, cudaGetLastError());
    return 0;
}

int probe_words(struct probe *p, const void *from, size_t n, const uint32_t **out)
{
    void *words;
    PROBE_DO(probe_device_alloc(p, &words, n * sizeof **out));
    PROBE_TRY(p, cudaMemcpy(words, from, n * sizeof **out, cudaMemcpyHostToDevice));
    *out = (const uint32_t *)words;
    return 0;
}

int probe_graph(struct probe *p, struct probe_work work, int n, cudaGraphExec_t *exec)
{
    cudaGraph_t graph;
    cudaError_t launched = cudaSuccess;
    PROBE_TRY(p, cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n && launched == cudaSuccess; i++)
        launched = work.launch(work.arg, (unsigned)i, p->stream);
    PROBE_TRY(p, cudaStreamEndCapture(p->stream, &graph));
    const cudaError_t e = launched == cudaSuccess ? cudaGraphInstantiate(exec, graph, 0) : launched;
    (void)cudaGraphDestroy(graph);
    return e == cudaSuccess ? 0 : probe_fail_cuda(p, "a captured launch", e);
}

static cudaError_t graph_launch(void *arg, unsigned, cudaStream_t stream)
{
    return cudaGraphLaunch((cudaGraphExec_t)arg, stream);
}

int probe_time_in_graph(struct probe *p, struct probe_work work, int n, double *us)
{
    cudaGraphExec_t exec;
    PROBE_DO(probe_graph(p, work, n, &exec));
    const int rc = probe_time(p, {graph_launch, (void *)exec}, 3, 9, us);
    (void)cudaStreamSynchronize(p->stream);
    (void)cudaGraphExecDestroy(exec);
    *us /= n;
    return rc;
}
