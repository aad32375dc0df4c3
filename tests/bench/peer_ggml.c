/* peer_ggml.c - decode attention by ggml's CPU backend, the peer of bench attention.
 *
 *   peer_ggml WIDTH KV_HEADS GROUP CONTEXT THREADS token|head
 *
 * Built outside the tree by peer_ggml.sh.  One query against f16 K and V, through
 * ggml_flash_attn_ext: `token` lays KV out as llama.cpp's cache does (a token's heads side by side),
 * `head` every head by itself.  So many sequences are in turn that KV comes from memory: together
 * 256 MiB.  Prints gbs=..: the bytes of K and V, counted once, over the median time of a call
 * (processor time for one thread, the wall for more). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-cpu.h"
#include "ggml.h"

#include "median.h"

enum { POOL_MIB = 256, CALLS = 60, SEQUENCES_MAX = 512 };

struct sequence {
    struct ggml_cgraph *graph;
};

static double now(int n_threads)
{
    struct timespec t;

    clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* [width][context][heads] as flash attention wants it, over either layout in memory. */
static struct ggml_tensor *kv_tensor(struct ggml_context *ctx, int width, int heads, int context,
                                     bool by_token)
{
    struct ggml_tensor *t;
    uint16_t *p;

    if (by_token)
        t = ggml_permute(ctx, ggml_new_tensor_3d(ctx, GGML_TYPE_F16, width, heads, context), 0, 2,
                         1, 3);
    else
        t = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, width, context, heads);
    p = t->data;
    for (size_t i = 0; i < (size_t)width * heads * context; i++)
        p[i] = (uint16_t)((i * 2654435761U >> 7 & 0x3ff) | 0x3000); /* 0.125 to 0.25 */
    return t;
}

static struct ggml_cgraph *make_sequence(struct ggml_context *ctx, int width, int heads, int group,
                                         int context, bool by_token)
{
    struct ggml_tensor *q =
        ggml_new_tensor_3d(ctx, GGML_TYPE_F32, width, 1, (int64_t)heads * group);
    struct ggml_tensor *k = kv_tensor(ctx, width, heads, context, by_token);
    struct ggml_tensor *v = kv_tensor(ctx, width, heads, context, by_token);
    struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, 8, false);

    for (int i = 0; i < width * heads * group; i++)
        ((float *)q->data)[i] = (float)(i * 7 % 17) / 17.0f - 0.5f;
    ggml_build_forward_expand(graph, ggml_flash_attn_ext(ctx, q, k, v, NULL, 0.1f, 0.0f, 0.0f));
    return graph;
}

int main(int argc, char **argv)
{
    static struct ggml_cgraph *graphs[SEQUENCES_MAX];
    static double seconds[CALLS];

    if (argc != 7)
        return 2;
    int width = atoi(argv[1]), heads = atoi(argv[2]), group = atoi(argv[3]);
    int context = atoi(argv[4]), n_threads = atoi(argv[5]);
    bool by_token = strcmp(argv[6], "token") == 0;
    double bytes = 4.0 * width * heads * context;
    int n = (int)(((double)POOL_MIB * (1 << 20)) / bytes) + 1;
    n = n > SEQUENCES_MAX ? SEQUENCES_MAX : n;

    struct ggml_init_params params = {.mem_size = (size_t)(n * (bytes + 65536)) + (1 << 24)};
    struct ggml_context *ctx = ggml_init(params);
    for (int i = 0; i < n; i++)
        graphs[i] = make_sequence(ctx, width, heads, group, context, by_token);

    struct ggml_threadpool_params pool_params = ggml_threadpool_params_default(n_threads);
    struct ggml_threadpool *pool = ggml_threadpool_new(&pool_params);
    struct ggml_cplan plan = ggml_graph_plan(graphs[0], n_threads, pool);
    plan.work_data = malloc(plan.work_size + 1);
    for (int i = 0; i < CALLS + 3; i++) {
        double start = now(n_threads);

        if (ggml_graph_compute(graphs[i % n], &plan) != GGML_STATUS_SUCCESS)
            return 1;
        if (i >= 3)
            seconds[i - 3] = now(n_threads) - start;
    }
    printf("gbs=%.3f\n", bytes / median_of(seconds, CALLS) * 1e-9);
    return 0;
}
