#include "common/sched/arrival.h"

#include <string.h>

/* A weight of 1/8 follows a change of load within a dozen sweeps and forgets one slow sweep. */
static const double weight = 0.125;

/* Contexts shorter than this say nothing of the cost per token. */
enum { KV_TOKENS_TELLING = 256 };

void arrival_init(struct arrival_model *m, uint32_t n_layers)
{
    memset(m, 0, sizeof *m);
    m->n_layers = n_layers <= ARRIVAL_LAYERS_MAX ? n_layers : ARRIVAL_LAYERS_MAX;
}

static void average(double *mean, double seen, int first)
{
    *mean = first ? seen : *mean + weight * (seen - *mean);
}

static double span(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) : 0;
}

static void observe_attention(struct arrival_model *m, const struct arrival_layer *layers,
                              uint64_t kv_tokens, int first)
{
    double sum = 0;

    for (uint32_t l = 0; l < m->n_layers; l++)
        sum += span(layers[l].jobs_ns, layers[l].proj_ns);
    double mean = sum / m->n_layers;
    if (kv_tokens < KV_TOKENS_TELLING)
        average(&m->attention_ns, mean, first);
    else if (mean > m->attention_ns)
        average(&m->attention_ns_per_token, (mean - m->attention_ns) / (double)kv_tokens,
                m->attention_ns_per_token <= 0);
}

void arrival_observe(struct arrival_model *m, uint64_t start_ns, const struct arrival_layer *layers,
                     uint64_t kv_tokens)
{
    int first = m->n_observed == 0;

    average(&m->head_ns, span(start_ns, layers[0].jobs_ns), first);
    for (uint32_t l = 0; l + 1 < m->n_layers; l++)
        average(&m->dense_ns[l], span(layers[l].proj_ns, layers[l + 1].jobs_ns), first);
    observe_attention(m, layers, kv_tokens, first);
    m->n_observed++;
}

void arrival_predict(const struct arrival_model *m, uint64_t kv_tokens, uint64_t *arrival_ns)
{
    double attention = m->attention_ns + m->attention_ns_per_token * (double)kv_tokens;
    double at = m->head_ns;

    for (uint32_t l = 0; l < m->n_layers; l++) {
        at += attention;
        arrival_ns[l] = m->n_observed > 0 ? (uint64_t)at : 0;
        at += m->dense_ns[l];
    }
}
