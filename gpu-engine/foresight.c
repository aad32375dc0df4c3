#include "gpu-engine/foresight.h"

#include "common/base/clock.h"

/* A weight of 1/16 follows a change of load within some dozens of sweeps. */
static const double weight = 1.0 / 16;

/* ---- Before the sweep ------------------------------------------------------------------------ */

/* Offloaded rows under way, those that enter now included. */
static uint32_t rows_under_way(const struct engine *e)
{
    uint32_t n = 0, n_resident = e->sequences.n_in_state[SEQUENCE_RESIDENT];

    for (uint32_t i = 0; i < e->sequences.n && n < n_resident; i++) {
        const struct sequence *s = &e->sequences.all[i];
        n += s->state == SEQUENCE_RESIDENT && s->in_slot;
    }
    return n;
}

void foresight_predict(struct engine *e)
{
    struct engine_batch *b = &e->batch;

    b->n_under_way = rows_under_way(e);
    b->load.n_entering = b->n_enter;
    b->load.returned_rows = e->layers_per_row * b->n_under_way / e->geometry.n_layers;
    b->predicted = latency_predict(&e->latency, &b->load);
    latency_arrivals(&e->latency, &b->load, b->arrivals);
    sweep_log_predicted(&e->sweep_log, e->sweep + 1, &b->load, &b->predicted);
}

/* ---- After it -------------------------------------------------------------------------------- */

static double span(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) : 0;
}

/* The sweep cut where the model cuts it. */
static struct latency_measured measure(const struct engine *e, const struct device_done *done)
{
    uint32_t n = e->geometry.n_layers;
    const struct device_layer_log *layer = done->layer;
    struct latency_measured m = {.dense_ns = span(done->start_ns, layer[0].jobs_ns),
                                 .head_ns = span(done->head_ns, done->end_ns)};

    for (uint32_t l = 0; l < n; l++) {
        m.attention_ns += span(layer[l].jobs_ns, layer[l].proj_ns);
        m.dense_ns += span(layer[l].proj_ns, l + 1 < n ? layer[l + 1].jobs_ns : done->head_ns);
    }
    return m;
}

static uint32_t count_returned(const struct engine *e, const struct device_done *done)
{
    uint32_t n = 0;

    for (uint32_t l = 0; l < e->geometry.n_layers; l++)
        n += done->layer[l].n_picked;
    return n;
}

static uint32_t count_ridden(const struct engine *e, const struct device_done *done)
{
    uint32_t n = 0;

    for (uint32_t l = 0; l < e->geometry.n_layers; l++)
        n += done->layer[l].n_ridden;
    return n;
}

void foresight_observe(struct engine *e, const struct device_done *done)
{
    struct engine_batch *b = &e->batch;
    struct latency_measured measured = measure(e, done);
    uint32_t n_returned = count_returned(e, done);
    double total = span(done->start_ns, done->end_ns);

    sweep_log_measured(&e->sweep_log, &measured, total, n_returned, done->n_posted,
                       count_ridden(e, done));
    if (e->latency.head.n > 0)
        accuracy_add(&e->accuracy, latency_accuracy(b->predicted.total_ns, total));
    if (b->n_under_way > 0)
        e->layers_per_row += weight * ((double)n_returned / b->n_under_way - e->layers_per_row);
    /* Held against the rows that did return, else their number would pass for speed. */
    b->load.returned_rows = (double)n_returned / e->geometry.n_layers;
    latency_observe(&e->latency, &b->load, &measured);
    stats_set(&e->stats, ENGINE_STAT_PREDICTED_US, (uint64_t)(b->predicted.total_ns / NS_PER_US));
}

void foresight_report(struct engine *e)
{
    stats_set(&e->stats, ENGINE_STAT_ACCURACY_MEAN,
              (uint64_t)(accuracy_mean(&e->accuracy) * ACCURACY_STEPS + 0.5));
    stats_set(&e->stats, ENGINE_STAT_ACCURACY_P90,
              (uint64_t)(accuracy_reached_by(&e->accuracy, 0.9) * ACCURACY_STEPS + 0.5));
}
