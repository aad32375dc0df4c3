#include "common/sched/latency.h"

#include <math.h>
#include <string.h>

/* A correction stays within these: beyond, the profile is wrong and should be taken again. */
static const double factor_min = 0.5, factor_max = 4.0;
/* A simulated card with tiles of 64 rows: without this bound the dense factor wandered from 0.63 to
 * 1.08 and sweeps of 1,600 rows took 1.2 times their prediction. */
static const double uneven_most = 0.03;
/* Of the dense time, in sweeps that teach the dense factor. */
static const double returns_most = 0.1;

/* A job costs its engine tens of microseconds (measured: 20, most of it waking the worker). */
static const double return_max_ns = 1e6;

/* A sweep that computed for this share of its time was hardly disturbed: the rest is what the
 * kernel itself takes. */
static const double busy_enough = 0.97;

void latency_init(struct latency_model *m, uint32_t n_layers)
{
    memset(m, 0, sizeof *m);
    m->n_layers = n_layers <= LATENCY_LAYERS_MAX ? n_layers : LATENCY_LAYERS_MAX;
    m->n_of[0] = m->n_layers;
    for (int i = 0; i < LATENCY_MODULES; i++)
        m->correction[i].factor = 1;
}

void latency_set_kind(struct latency_model *m, uint32_t layer, uint32_t kind)
{
    m->n_of[m->kind_of[layer]]--;
    m->kind_of[layer] = (uint8_t)kind;
    m->n_of[kind]++;
}

/* ---- Load ------------------------------------------------------------------------------------ */

/* Tokens that a query at the end of ctx tokens reads. */
static double visible(const struct latency_kind *k, double ctx)
{
    double most = (double)k->window + k->n_sinks;

    return k->window != 0 && ctx > most ? most : ctx;
}

void latency_load_add_decode(const struct latency_model *m, struct latency_load *load, uint32_t ctx,
                             bool sampled)
{
    for (uint32_t i = 0; i < m->n_kinds; i++)
        load->c_da[i] += visible(&m->kind[i], ctx);
    load->n_rows++;
    load->n_decodes++;
    load->n_out += sampled;
}

/* Pairs of n queries behind `before` tokens: exact without a window, by its mean with one. */
static double causal_pairs(const struct latency_kind *k, double before, double n)
{
    double mean_ctx = before + (n + 1) / 2;

    return n * visible(k, mean_ctx);
}

void latency_load_add_chunk(const struct latency_model *m, struct latency_load *load,
                            uint32_t before, uint32_t n, bool sampled)
{
    for (uint32_t i = 0; i < m->n_kinds; i++)
        load->c_pa[i] += causal_pairs(&m->kind[i], before, n);
    load->n_rows += n;
    load->n_chunk_rows += n;
    load->n_chunks++;
    load->n_out += sampled;
}

/* ride + ride^2 + ... + ride^n: layers that a row gets on, of n. */
static double rides(double ride, uint32_t n)
{
    return ride < 1 ? ride * (1 - pow(ride, n)) / (1 - ride) : n;
}

void latency_load_set_returned(const struct latency_model *m, struct latency_load *load,
                               const struct latency_offloaded *rows, uint32_t n_entering,
                               double ride, double late)
{
    double n_rows = n_entering * rides(ride, m->n_layers), n_layers = n_rows;
    double n_out = n_entering * pow(ride, m->n_layers);

    for (uint32_t l = 0; l < m->n_layers; l++) {
        double merged = rows->back[l] + late * rows->out[l];
        uint32_t n_behind = m->n_layers - 1 - l;
        double further = merged * rides(ride, n_behind);

        n_rows += merged + further;
        n_layers += fmin(merged, 1) + further; /* rows under way rarely meet */
        n_out += merged * pow(ride, n_behind);
    }
    load->returned_out = n_out;
    load->returned_rows = n_rows;
    load->returned_layers = fmin(n_layers, m->n_layers);
}

/* ---- Prediction ------------------------------------------------------------------------------ */

static double between(const struct latency_stairs *s, uint32_t i, double rows)
{
    double x0 = s->rows[i], x1 = s->rows[i + 1];

    return s->ns[i] + (s->ns[i + 1] - s->ns[i]) * (rows - x0) / (x1 - x0);
}

double latency_stairs_at(const struct latency_stairs *s, double rows)
{
    uint32_t low = 0, high = s->n;

    if (s->n == 0 || rows <= 0)
        return 0;
    if (s->n == 1 || rows <= s->rows[0])
        return s->ns[0];
    while (low + 1 < high) { /* last step at or below rows */
        uint32_t mid = (low + high) / 2;
        if (s->rows[mid] <= rows)
            low = mid;
        else
            high = mid;
    }
    return between(s, low + 1 < s->n ? low : s->n - 2, rows);
}

/* Reading the weights, and what rows beyond the first add; corrected. */
static double dense_of(const struct latency_model *m, uint32_t kind, double rows, double *rows_ns)
{
    const struct latency_stairs *s = &m->kind[kind].dense;
    double ns = latency_stairs_at(s, rows), first = s->n > 0 ? fmin(ns, s->ns[0]) : 0;

    *rows_ns = m->correction[LATENCY_ROWS].factor * (ns - first);
    return m->correction[LATENCY_DENSE].factor * first + *rows_ns;
}

double latency_dense_ns(const struct latency_model *m, uint32_t layer, double rows)
{
    double unused;

    return dense_of(m, m->kind_of[layer], rows, &unused);
}

static double prefill_of(const struct latency_model *m, uint32_t kind,
                         const struct latency_load *load)
{
    const struct latency_kind *k = &m->kind[kind];

    return m->correction[LATENCY_PREFILL].factor *
           (k->pa_a * load->c_pa[kind] + k->pa_h * load->n_chunk_rows + k->pa_b * load->n_chunks);
}

static double decode_of(const struct latency_model *m, uint32_t kind,
                        const struct latency_load *load)
{
    const struct latency_kind *k = &m->kind[kind];

    if (load->n_decodes == 0)
        return 0;
    return m->correction[LATENCY_DECODE].factor *
           (k->da_a * load->c_da[kind] + k->da_h * load->n_decodes + k->da_b);
}

double latency_attention_ns(const struct latency_model *m, uint32_t layer,
                            const struct latency_load *load)
{
    uint32_t kind = m->kind_of[layer];

    return prefill_of(m, kind, load) + decode_of(m, kind, load);
}

double latency_attention_all_ns(const struct latency_model *m, const struct latency_load *load)
{
    double ns = 0;

    for (uint32_t k = 0; k < m->n_kinds; k++)
        ns += m->n_of[k] * (prefill_of(m, k, load) + decode_of(m, k, load));
    return ns;
}

/* A layer of the sweep: its expected time, whether any row reaches it or not. */
static double dense_expected(const struct latency_model *m, uint32_t kind,
                             const struct latency_load *load, double *rows_ns)
{
    double layers = load->returned_layers, share = layers / m->n_layers, ns;

    *rows_ns = 0;
    if (load->n_rows > 0)
        return dense_of(m, kind, load->n_rows + load->returned_rows / m->n_layers, rows_ns);
    if (layers <= 0)
        return 0;
    ns = share * dense_of(m, kind, fmax(load->returned_rows / layers, 1), rows_ns);
    *rows_ns *= share;
    return ns;
}

static double before_ns(const struct latency_model *m, double n_rows)
{
    return m->correction[LATENCY_DENSE].factor * (m->fixed_ns + m->row_ns * n_rows);
}

static double head_ns(const struct latency_model *m, double n_out)
{
    return m->correction[LATENCY_HEAD].factor * latency_stairs_at(&m->head, n_out);
}

static void add_layers(const struct latency_model *m, const struct latency_load *load,
                       struct latency_prediction *p)
{
    if (load->n_rows == 0 && load->returned_rows <= 0)
        return;
    for (uint32_t k = 0; k < m->n_kinds; k++) {
        double rows_ns;

        p->dense_ns += m->n_of[k] * dense_expected(m, k, load, &rows_ns);
        p->rows_ns += m->n_of[k] * rows_ns;
        p->prefill_ns += m->n_of[k] * prefill_of(m, k, load);
        p->decode_ns += m->n_of[k] * decode_of(m, k, load);
    }
    p->return_ns += m->return_ns * load->returned_rows;
}

struct latency_prediction latency_predict_two(const struct latency_model *m,
                                              const struct latency_load *a,
                                              const struct latency_load *b)
{
    double n_out = (double)a->n_out + b->n_out + a->returned_out + b->returned_out;
    struct latency_prediction p = {.head_ns = head_ns(m, n_out),
                                   .fixed_ns = before_ns(m, (double)a->n_rows + b->n_rows)};

    add_layers(m, a, &p);
    add_layers(m, b, &p);
    p.attention_ns = p.prefill_ns + p.decode_ns;
    p.busy_ns = p.dense_ns + p.attention_ns + p.head_ns + p.fixed_ns + p.return_ns;
    p.total_ns = m->correction[LATENCY_STOLEN].factor * p.busy_ns;
    return p;
}

static const struct latency_load no_load;

struct latency_prediction latency_predict(const struct latency_model *m,
                                          const struct latency_load *load)
{
    return latency_predict_two(m, load, &no_load);
}

/* A layer's products with what its returned rows cost, before and behind its attention. */
static double dense_part_ns(const struct latency_model *m, uint32_t l,
                            const struct latency_load *load, bool before)
{
    uint32_t kind = m->kind_of[l];
    double rows_ns, ns = dense_expected(m, kind, load, &rows_ns);
    double pre = m->kind[kind].pre_share;

    ns += m->return_ns * load->returned_rows / m->n_layers;
    return (before ? pre : 1 - pre) * ns;
}

/* From a batch's jobs of layer l to those of layer l + 1; *arrival_ns on the way. */
static double layer_ns(const struct latency_model *m, uint32_t l, const struct latency_load *load,
                       double at, uint64_t *arrival_ns)
{
    at += latency_attention_ns(m, l, load);
    *arrival_ns = (uint64_t)(m->correction[LATENCY_STOLEN].factor * at);
    at += dense_part_ns(m, l, load, false);
    return l + 1 < m->n_layers ? at + dense_part_ns(m, l + 1, load, true) : at;
}

void latency_arrivals_two(const struct latency_model *m, const struct latency_load *a,
                          const struct latency_load *b, uint64_t *arrival_a_ns,
                          uint64_t *arrival_b_ns)
{
    double at = before_ns(m, (double)a->n_rows + b->n_rows);

    at += dense_part_ns(m, 0, b, true) + dense_part_ns(m, 0, a, true);
    for (uint32_t l = 0; l < m->n_layers; l++) {
        at = layer_ns(m, l, b, at, &arrival_b_ns[l]);
        at = layer_ns(m, l, a, at, &arrival_a_ns[l]);
    }
}

void latency_arrivals(const struct latency_model *m, const struct latency_load *load,
                      uint64_t *arrival_ns)
{
    uint64_t unused[LATENCY_LAYERS_MAX];

    latency_arrivals_two(m, load, &no_load, arrival_ns, unused);
}

double latency_accuracy(double predicted_ns, double measured_ns)
{
    double off = fabs(predicted_ns - measured_ns) / measured_ns;

    return measured_ns > 0 && off < 1 ? 1 - off : 0;
}

double latency_job_ns(const struct latency_model *m, uint32_t worker, double kv_bytes)
{
    const struct latency_worker *w = &m->worker[worker];

    return w->fixed_ns + (w->bytes_per_ns > 0 ? kv_bytes / w->bytes_per_ns : 0);
}

static double total_with(const struct latency_model *m, const struct latency_load *load,
                         uint32_t before, uint32_t n, bool sampled)
{
    struct latency_load with = *load;

    if (n > 0)
        latency_load_add_chunk(m, &with, before, n, sampled);
    return latency_predict(m, &with).total_ns;
}

uint32_t latency_chunk_within(const struct latency_model *m, const struct latency_load *load,
                              uint32_t before, uint32_t n, double budget_ns)
{
    uint32_t low = 0, high = n > 0 ? n - 1 : 0;

    if (n == 0 || total_with(m, load, before, n, true) <= budget_ns)
        return n;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;

        if (total_with(m, load, before, mid, false) <= budget_ns)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* ---- Correction ------------------------------------------------------------------------------ */

double latency_window_median(const struct latency_window *w)
{
    float sorted[LATENCY_WINDOW];

    if (w->n == 0)
        return 0;
    for (uint32_t i = 0; i < w->n; i++) {
        uint32_t at = i;
        for (; at > 0 && sorted[at - 1] > w->value[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = w->value[i];
    }
    return (double)sorted[w->n / 2];
}

double latency_window_take(struct latency_window *w, double value)
{
    w->value[w->next] = (float)value;
    w->next = (w->next + 1) % LATENCY_WINDOW;
    w->n += w->n < LATENCY_WINDOW;
    return latency_window_median(w);
}

/* predicted_ns: bare, without this correction. */
static void take_ratio(struct latency_correction *c, double measured_ns, double predicted_ns)
{
    if (!(predicted_ns > 0) || !(measured_ns > 0))
        return;
    double factor = latency_window_take(&c->ratios, measured_ns / predicted_ns);
    c->factor = fmin(fmax(factor, factor_min), factor_max);
}

static void take_module(struct latency_model *m, enum latency_module which, double measured_ns,
                        double predicted_ns)
{
    struct latency_correction *c = &m->correction[which];

    take_ratio(c, measured_ns, predicted_ns / c->factor);
}

/* The larger of a product's two parts takes what the other leaves. */
static void take_products(struct latency_model *m, const struct latency_prediction *p,
                          double measured_ns)
{
    double first_ns = p->dense_ns + p->fixed_ns - p->rows_ns;

    if (p->rows_ns > first_ns)
        take_module(m, LATENCY_ROWS, measured_ns - first_ns, p->rows_ns);
    else
        take_module(m, LATENCY_DENSE, measured_ns - p->rows_ns, first_ns);
}

/* Dense products and returned rows share one measured time: each takes what the other leaves. */
static void take_dense(struct latency_model *m, const struct latency_prediction *p,
                       double returned_rows, double measured_ns)
{
    double dense_ns = p->dense_ns + p->fixed_ns;

    /* Where returns are much of it, both together fit any split of the time between them. */
    if (p->return_ns <= returns_most * dense_ns)
        take_products(m, p, measured_ns - p->return_ns);
    if (returned_rows < 1)
        return;
    double each = latency_window_take(&m->returns, (measured_ns - dense_ns) / returned_rows);
    m->return_ns = fmin(fmax(each, 0), return_max_ns);
}

static double dense_with(const struct latency_model *m, const struct latency_load *load,
                         double returned_rows)
{
    struct latency_load other = *load;

    other.returned_rows = returned_rows;
    return latency_predict(m, &other).dense_ns;
}

/* Is the time of the mean number of rows the mean of the times?  Rows return unevenly over the
 * layers.  Where their mean lies beside a step, some layers pay it and some do not, and the sweep
 * tells of the step and not of the device's speed. */
static bool tells_of_speed(const struct latency_model *m, const struct latency_load *load)
{
    if (load->n_rows == 0 || load->returned_rows <= 0)
        return true;
    double dense_ns = dense_with(m, load, load->returned_rows);
    double ends = dense_with(m, load, 0) + dense_with(m, load, 2 * load->returned_rows);

    return fabs(ends / 2 - dense_ns) <= uneven_most * dense_ns;
}

void latency_observe_two(struct latency_model *m, const struct latency_load *a,
                         const struct latency_load *b, const struct latency_measured *measured)
{
    struct latency_prediction p = latency_predict_two(m, a, b);

    take_ratio(&m->correction[LATENCY_STOLEN], measured->total_ns, measured->busy_ns);
    if (measured->busy_ns < busy_enough * measured->total_ns)
        return;
    if (tells_of_speed(m, a) && tells_of_speed(m, b))
        take_dense(m, &p, a->returned_rows + b->returned_rows, measured->dense_ns);
    /* One measured time for both: a sweep with a chunk tells of the chunk, which is most of it. */
    if (a->n_chunks + b->n_chunks > 0)
        take_module(m, LATENCY_PREFILL, measured->attention_ns - p.decode_ns, p.prefill_ns);
    else
        take_module(m, LATENCY_DECODE, measured->attention_ns, p.decode_ns);
    take_module(m, LATENCY_HEAD, measured->head_ns, p.head_ns);
}

void latency_observe(struct latency_model *m, const struct latency_load *load,
                     const struct latency_measured *measured)
{
    latency_observe_two(m, load, &no_load, measured);
}
