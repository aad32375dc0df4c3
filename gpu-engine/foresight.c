#include "gpu-engine/foresight.h"

#include <assert.h>
#include <string.h>

#include "common/base/clock.h"

/* ---- Before the sweep ------------------------------------------------------------------------ */

static_assert(sizeof(struct device_offloaded) == sizeof(struct latency_offloaded),
              "a device's rows by layer are copied to the model's");

/* Batch B computes a layer in the window of batch A's: later deadlines, and its time beside A's. */
static void add_batch_b(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    const struct latency_model *m = &e->latency;
    double ns = 0;

    if (b->load_b.n_rows == 0)
        return;
    for (uint32_t l = 0; l < m->n_layers; l++) {
        ns += latency_dense_ns(m, l, b->load_b.n_rows) + latency_attention_ns(m, l, &b->load_b);
        b->arrivals[l] += (uint64_t)ns;
    }
    /* Its rows share the head's pass and the sweep's beginning. */
    b->predicted.attention_ns += ns;
    b->predicted.busy_ns += ns;
    b->predicted.total_ns += m->correction[LATENCY_STOLEN].factor * ns;
}

void foresight_predict(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    struct latency_offloaded rows;
    bool common = b->n_rows > 0;

    memcpy(&rows, &b->offloaded, sizeof rows);
    b->load.n_entering = b->n_enter;
    latency_load_set_returned(&e->latency, &b->load, &rows, b->n_enter,
                              latency_window_median(&e->ride[common]),
                              latency_window_median(&e->late[common]));
    b->predicted = latency_predict(&e->latency, &b->load);
    latency_arrivals(&e->latency, &b->load, b->arrivals);
    add_batch_b(e);
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
    double waited_ns = 0;

    for (uint32_t l = 0; l < n; l++) {
        m.attention_ns += span(layer[l].jobs_ns, layer[l].proj_ns);
        m.dense_ns += span(layer[l].proj_ns + layer[l].waited_ns,
                           l + 1 < n ? layer[l + 1].jobs_ns : done->head_ns);
        waited_ns += (double)layer[l].waited_ns;
    }
    /* What was waited on purpose is no work. */
    m.total_ns -= waited_ns;
    m.busy_ns -= waited_ns;
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

/* The usual share is the median over sweeps, not the mean: a worker that has its core lets all rows
 * ride to the end, one that has not lets none, and the first is what mostly happens. */
static void learn(struct latency_window *share, uint32_t tried, uint32_t met)
{
    if (tried > 0)
        latency_window_take(share, (double)met / tried);
}

static void learn_shares(struct engine *e, uint32_t n_posted, const struct returned *r)
{
    const struct device_offloaded *rows = &e->batch.offloaded;
    bool common = e->batch.n_rows > 0;
    uint32_t n_back = 0, n_out = 0;

    for (uint32_t l = 0; l < e->geometry.n_layers; l++) {
        n_back += rows->back[l];
        n_out += rows->out[l];
    }
    learn(&e->ride[common], n_posted, r->n_ridden);
    learn(&e->late[common], n_out, r->n > r->n_ridden + n_back ? r->n - r->n_ridden - n_back : 0);
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
    learn_shares(e, done->n_posted, &r);
    /* Held against the rows that did return, else their number would pass for speed. */
    b->load.returned_rows = r.n;
    b->load.returned_layers = r.n_layers;
    /* Where two batches alternate it is not known which module's time is whose. */
    if (b->load_b.n_rows == 0 && e->decide.decision.n_enter_b == 0)
        latency_observe(&e->latency, &b->load, &measured);
    stats_set(&e->stats, ENGINE_STAT_PREDICTED_US, (uint64_t)(b->predicted.total_ns / NS_PER_US));
}

/* Workers measure themselves; what else a job costs is not told apart from its reading.  Until one
 * has, what the profile says of it holds. */
static void take_read_rates(struct engine *e)
{
    for (uint32_t w = 0; w < e->exchange->n_workers && w < LATENCY_WORKERS_MAX; w++) {
        uint64_t rate = exchange_read_rate(e->exchange, w);

        if (rate != 0)
            e->latency.worker[w].bytes_per_ns = (double)rate / NS_PER_S;
    }
}

void foresight_report(struct engine *e)
{
    take_read_rates(e);
    stats_set(&e->stats, ENGINE_STAT_ACCURACY_MEAN,
              (uint64_t)(accuracy_mean(&e->accuracy) * ACCURACY_STEPS + 0.5));
    stats_set(&e->stats, ENGINE_STAT_ACCURACY_P90,
              (uint64_t)(accuracy_reached_by(&e->accuracy, 0.9) * ACCURACY_STEPS + 0.5));
}
