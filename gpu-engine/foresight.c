#include "gpu-engine/foresight.h"

#include <math.h>

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
    double more = e->more_returned[b->n_rows > 0] * b->n_under_way;
    b->load.returned_rows = b->n_back + more;
    /* A row that comes in between is rarely at a layer where another one is. */
    b->load.returned_layers = fmin(b->n_back_layers + more, e->geometry.n_layers);
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
                                 .head_ns = span(done->head_ns, done->end_ns),
                                 .total_ns = span(done->start_ns, done->end_ns),
                                 .busy_ns = (double)done->busy_ns};

    for (uint32_t l = 0; l < n; l++) {
        m.attention_ns += span(layer[l].jobs_ns, layer[l].proj_ns);
        m.dense_ns += span(layer[l].proj_ns, l + 1 < n ? layer[l + 1].jobs_ns : done->head_ns);
    }
    return m;
}

/* What came back in the sweep. */
struct returned {
    uint32_t n, n_layers, n_ridden;
};

static struct returned count_returned(const struct engine *e, const struct device_done *done)
{
    struct returned r = {.n = 0};

    for (uint32_t l = 0; l < e->geometry.n_layers; l++) {
        r.n += done->layer[l].n_picked;
        r.n_layers += done->layer[l].n_picked > 0;
        r.n_ridden += done->layer[l].n_ridden;
    }
    return r;
}

static void learn_returned(struct engine *e, const struct returned *r)
{
    const struct engine_batch *b = &e->batch;
    double *more = &e->more_returned[b->n_rows > 0];

    if (b->n_under_way > 0 && r->n >= b->n_back)
        *more += weight * ((double)(r->n - b->n_back) / b->n_under_way - *more);
}

void foresight_observe(struct engine *e, const struct device_done *done)
{
    struct engine_batch *b = &e->batch;
    struct latency_measured measured = measure(e, done);
    struct returned r = count_returned(e, done);
    const struct sweep_log_outcome outcome = {.measured = measured,
                                              .returned = r.n,
                                              .returned_layers = r.n_layers,
                                              .posted = done->n_posted,
                                              .ridden = r.n_ridden};

    sweep_log_measured(&e->sweep_log, &outcome);
    if (e->latency.head.n > 0)
        accuracy_add(&e->accuracy, latency_accuracy(b->predicted.total_ns, measured.total_ns));
    learn_returned(e, &r);
    /* Held against the rows that did return, else their number would pass for speed. */
    b->load.returned_rows = r.n;
    b->load.returned_layers = r.n_layers;
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
