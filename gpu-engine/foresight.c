#include "gpu-engine/foresight.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "common/base/clock.h"

/* Sweeps that the average of returned rows goes back to: about a token's time at a worker. */
enum { AVERAGE_OVER = 16 };

/* Of single token gaps so many are to be within the objective. */
static const double sure_of = 0.995;
/* Predictions that miss by more than this tell of a machine that others disturb; to leave them more room
 * would idle the device in most sweeps for the sake of a few. */
static const double least_sure_share = 0.8;
enum { SURE_AFTER = 200 }; /* sweeps; below, a share of 0.995 is that of the worst one */

/* ---- Before the sweep ------------------------------------------------------------------------ */

static_assert(sizeof(struct device_offloaded) == sizeof(struct latency_offloaded),
              "a device's rows by layer are copied to the model's");

static uint32_t kind_of(const struct engine *e)
{
    const struct engine_batch *b = &e->batch;
    bool two = b->load_b.n_rows > 0 || e->decide.decision.n_enter_b > 0;

    return (b->n_rows > 0 ? ENGINE_SWEEP_COMMON : 0) | (two ? ENGINE_SWEEP_TWO : 0) |
           (b->wait_total_ns > 0 ? ENGINE_SWEEP_WAITS : 0);
}

/* Of a kind that has not been seen yet, what the plain sweeps say. */
static double usual(const struct latency_window *by_kind, uint32_t kind)
{
    const struct latency_window *w = &by_kind[kind];

    return latency_window_median(w->n > 0 ? w : &by_kind[kind & ENGINE_SWEEP_COMMON]);
}

/* Rows under way return to batch A, as those that enter with it; the others ride in batch B. */
static void predict_returned(struct engine *e)
{
    static const struct latency_offloaded nobody;
    struct engine_batch *b = &e->batch;
    struct latency_offloaded rows;
    uint32_t n_b = e->decide.decision.n_enter_b;
    double ride = usual(e->ride, b->kind), late = usual(e->late, b->kind);

    memcpy(&rows, &b->offloaded, sizeof rows);
    b->load.n_entering = b->n_enter - n_b;
    b->load_b.n_entering = n_b;
    latency_load_set_returned(&e->latency, &b->load, &rows, b->n_enter - n_b, ride, late);
    latency_load_set_returned(&e->latency, &b->load_b, &nobody, n_b, ride, late);
}

/* What the sweep waits for KV that it reads from host memory: the policy has counted the link. */
static double link_wait_ns(const struct engine *e)
{
    const struct sched_decision *d = &e->decide.decision;

    return d->stream ? fmax(0, (double)d->predicted_ns - e->batch.predicted.total_ns) : 0;
}

/* Waits are spread over the layers: a job is in time if it is back by then. */
static void predict_wait(struct engine *e)
{
    struct engine_batch *b = &e->batch;
    uint32_t n = e->geometry.n_layers;

    b->predicted_wait_ns =
        fmin((double)b->wait_total_ns, latency_window_median(&e->waited[b->kind]));
    b->predicted_wait_ns = fmax(b->predicted_wait_ns, link_wait_ns(e));
    for (uint32_t l = 0; l < n; l++) {
        uint64_t ns = (uint64_t)(b->predicted_wait_ns * (l + 1) / n);
        b->arrivals[l] += ns;
        b->arrivals_b[l] += ns;
    }
}

/* Nothing is waited for while nothing is known of the worker. */
static void set_pace(struct engine *e)
{
    for (uint32_t w = 0; w < e->exchange->n_workers && w < LATENCY_WORKERS_MAX; w++) {
        const struct latency_worker *worker = &e->latency.worker[w];

        e->batch.pace[w] = (struct device_pace){
            .fixed_ns = worker->fixed_ns,
            .ns_per_byte = worker->bytes_per_ns > 0 ? 1 / worker->bytes_per_ns : 0};
    }
}

void foresight_predict(struct engine *e)
{
    struct engine_batch *b = &e->batch;

    b->kind = kind_of(e);
    predict_returned(e);
    b->predicted = latency_predict_two(&e->latency, &b->load, &b->load_b);
    latency_arrivals_two(&e->latency, &b->load, &b->load_b, b->arrivals, b->arrivals_b);
    predict_wait(e);
    set_pace(e);
    sweep_log_predicted(&e->sweep_log, e->sweep + 1, b);
}

/* ---- After it -------------------------------------------------------------------------------- */

static double span(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) : 0;
}

/* The sweep cut where the model cuts it: modules of both batches together, waits apart. */
static struct latency_measured measure(const struct engine *e, const struct device_done *done,
                                       double *waited_ns)
{
    uint32_t n = e->geometry.n_layers;
    struct latency_measured m = {.dense_ns = span(done->start_ns, done->layer[0].jobs_ns),
                                 .head_ns = span(done->head_ns, done->end_ns),
                                 .total_ns = span(done->start_ns, done->end_ns),
                                 .busy_ns = (double)done->busy_ns};

    *waited_ns = 0;
    for (uint32_t l = 0; l < n; l++) {
        const struct device_layer_log *k = &done->layer[l];
        uint64_t next_ns = l + 1 < n ? done->layer[l + 1].jobs_ns : done->head_ns;

        m.attention_ns += span(k->jobs_ns + k->b_ns + k->b_waited_ns, k->proj_ns);
        m.attention_ns += (double)k->b_attention_ns;
        m.dense_ns += span(k->proj_ns + k->waited_ns - k->b_waited_ns, next_ns);
        m.dense_ns += (double)(k->b_ns - k->b_attention_ns);
        *waited_ns += (double)k->waited_ns;
    }
    m.total_ns -= *waited_ns;
    m.busy_ns = fmax(0, m.busy_ns - *waited_ns);
    return m;
}

/* What came back in the sweep. */
struct returned {
    uint32_t n, n_layers, n_ridden;
    uint32_t n_out; /* got through the last layer */
};

static struct returned count_returned(const struct engine *e, const struct device_done *done)
{
    uint32_t n_sampled = e->batch.load.n_out + e->batch.load_b.n_out;
    struct returned r = {.n_out = done->n_out > n_sampled ? done->n_out - n_sampled : 0};

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
    uint32_t kind = e->batch.kind, n_back = 0, n_out = 0;

    for (uint32_t l = 0; l < e->geometry.n_layers; l++) {
        n_back += rows->back[l];
        n_out += rows->out[l];
    }
    learn(&e->ride[kind], n_posted, r->n_ridden);
    learn(&e->late[kind], n_out, r->n > r->n_ridden + n_back ? r->n - r->n_ridden - n_back : 0);
    if (n_back + n_out + n_posted > 0 && (kind & ENGINE_SWEEP_COMMON) != 0)
        e->returned_rows += ((double)r->n / e->geometry.n_layers - e->returned_rows) / AVERAGE_OVER;
}

/* Held against the rows that did return, else their number would pass for speed.  It is not known
 * in which batch they did, and all the same for the time that they took: batch A's have. */
static void learn_times(struct engine *e, const struct latency_measured *measured,
                        const struct returned *r)
{
    struct engine_batch *b = &e->batch;
    bool halves = e->decide.decision.n_enter_b > 0;
    double in_b = halves ? (double)e->decide.decision.n_enter_b / b->n_enter : 0;

    b->load.returned_rows = (1 - in_b) * r->n;
    b->load.returned_layers = r->n_layers;
    b->load.returned_out = (1 - in_b) * r->n_out;
    b->load_b.returned_rows = in_b * r->n;
    b->load_b.returned_layers = halves ? r->n_layers : 0;
    b->load_b.returned_out = in_b * r->n_out;
    latency_observe_two(&e->latency, &b->load, &b->load_b, measured);
}

void foresight_observe(struct engine *e, const struct device_done *done)
{
    struct engine_batch *b = &e->batch;
    double waited_ns;
    struct latency_measured measured = measure(e, done, &waited_ns);
    struct returned r = count_returned(e, done);
    const struct sweep_log_outcome outcome = {.measured = measured,
                                              .waited_ns = waited_ns,
                                              .returned = r.n,
                                              .returned_layers = r.n_layers,
                                              .posted = done->n_posted,
                                              .ridden = r.n_ridden};
    double predicted_ns = b->predicted.total_ns + b->predicted_wait_ns;

    sweep_log_measured(&e->sweep_log, &outcome);
    if (e->latency.head.n > 0)
        accuracy_add(&e->accuracy, latency_accuracy(predicted_ns, measured.total_ns + waited_ns));
    if ((b->kind & ENGINE_SWEEP_COMMON) != 0 && measured.total_ns > 0)
        accuracy_add(&e->kept, predicted_ns / (measured.total_ns + waited_ns));
    learn_shares(e, done->n_posted, &r);
    if ((b->kind & ENGINE_SWEEP_WAITS) != 0)
        latency_window_take(&e->waited[b->kind], waited_ns);
    learn_times(e, &measured, &r);
    engine_count(e, ENGINE_STAT_WAITED_US, (uint64_t)(waited_ns / NS_PER_US));
    engine_count(e, ENGINE_STAT_SWEEPS_TWO, (b->kind & ENGINE_SWEEP_TWO) != 0);
    stats_set(&e->stats, ENGINE_STAT_PREDICTED_US, (uint64_t)(predicted_ns / NS_PER_US));
}

double foresight_sure_share(const struct engine *e)
{
    if (e->kept.n < SURE_AFTER)
        return 0;
    return fmax(least_sure_share, accuracy_reached_by(&e->kept, sure_of));
}

/* Workers measure their reading, the exchange how soon they begin; what else a job costs is in the
 * reading.  Until then what the profile says of a worker holds. */
static void take_read_rates(struct engine *e)
{
    for (uint32_t w = 0; w < e->exchange->n_workers && w < LATENCY_WORKERS_MAX; w++) {
        uint64_t rate = exchange_read_rate(e->exchange, w);

        uint64_t start_ns = exchange_start_ns(e->exchange, w);

        if (rate != 0)
            e->latency.worker[w].bytes_per_ns = (double)rate / NS_PER_S;
        if (start_ns != 0)
            e->latency.worker[w].fixed_ns = (double)start_ns;
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
