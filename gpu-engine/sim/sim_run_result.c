/* What a run has shown: averages, marks at the window's edges, quantiles, and the books. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/hash.h"
#include "gpu-engine/sim/sim_run_private.h"

/* ---- Over time ------------------------------------------------------------------------------- */

static uint32_t device_best_effort(const struct engine *e)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->batch.n_seqs; i++)
        n += engine_is_best_effort(&e->sequences.all[e->batch.members[i]]);
    return n;
}

void sim_run_average(struct sim_run *r)
{
    const struct engine *e = &r->engine;
    uint64_t from = r->averaged_ns > r->from_ns ? r->averaged_ns : r->from_ns;
    uint64_t until = r->clock.now_ns < r->until_ns ? r->clock.now_ns : r->until_ns;

    r->averaged_ns = r->clock.now_ns;
    if (until <= from)
        return;
    r->resident_ns += (until - from) * e->sequences.n_in_state[SEQUENCE_RESIDENT];
    r->device_be_ns += e->in_flight ? (until - from) * device_best_effort(e) : 0;
    if (r->cpu_engine != NULL)
        r->cpu_engine_rows_ns += (until - from) * sim_cpu_engine_n_running(r->cpu_engine);
}

static uint64_t stock_of_output(const struct sim_run *r)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < r->n_requests; i++) {
        const struct sim_request *q = &r->requests[i];
        if (!q->latency_sensitive && q->first_ns > 0 && q->end_ns == 0)
            sum += q->n_out - q->n_tokens;
    }
    return sum;
}

void sim_run_take_mark(struct sim_run *r, struct sim_mark *mark)
{
    uint64_t n_jobs;

    mark->gpu_busy_ns = device_sim_busy_ns(r->engine.device);
    mark->stock = stock_of_output(r);
    mark->cpu_engine_busy_ns = r->cpu_engine != NULL ? sim_cpu_engine_busy_ns(r->cpu_engine) : 0;
    mark->n_sweeps = stats_get(&r->engine.stats, ENGINE_STAT_SWEEPS);
    for (uint32_t w = 0; w < r->timing.n_workers; w++)
        mark->worker_busy_ns[w] = exchange_sim_busy_ns(r->engine.exchange, w, &n_jobs);
}

/* ---- Over requests --------------------------------------------------------------------------- */

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e9;
}

static double tpot_of(const struct sim_request *q)
{
    return q->n_tokens > 1 ? seconds(q->first_ns, q->last_ns) / (q->n_tokens - 1) : 0;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void quantiles(double *values, uint32_t n, double out[3])
{
    static const double q[3] = {0.5, 0.9, 0.99};

    qsort(values, n, sizeof *values, compare_double);
    for (int i = 0; i < 3; i++)
        out[i] = n > 0 ? values[(uint32_t)(q[i] * (n - 1) + 0.5)] : 0;
}

/* An objective counts as met only by a request that has its tokens. */
static void judge(const struct sim_run *r, const struct sim_request *q, struct sim_class_result *c)
{
    bool ttft = q->first_ns > 0 && seconds(q->arrival_ns, q->first_ns) <= r->options.ttft_slo_s;
    bool tpot = q->finished && tpot_of(q) <= r->options.tpot_slo_s;

    c->ttft_ok += ttft;
    c->tpot_ok += tpot;
    c->both_ok += ttft && tpot;
}

static void summarise_class(struct sim_run *r, bool latency_sensitive, struct sim_class_result *c)
{
    double *ttft = calloc(r->n_requests + 1, sizeof *ttft);
    double *tpot = calloc(r->n_requests + 1, sizeof *tpot);
    uint32_t n_ttft = 0, n_tpot = 0, n_ended = 0;

    for (uint32_t i = 0; i < r->n_requests && ttft != NULL && tpot != NULL; i++) {
        const struct sim_request *q = &r->requests[i];

        if (q->latency_sensitive != latency_sensitive)
            continue;
        if (q->finished && sim_run_in_window(r, q->end_ns)) {
            c->latency_s += seconds(q->arrival_ns, q->end_ns);
            n_ended++;
        }
        if (!sim_run_in_window(r, q->arrival_ns))
            continue;
        c->offered++;
        c->admitted += q->accepted;
        c->finished += q->finished;
        c->failed += q->failed;
        judge(r, q, c);
        if (q->first_ns > 0)
            ttft[n_ttft++] = seconds(q->arrival_ns, q->first_ns);
        if (q->n_tokens > 1)
            tpot[n_tpot++] = tpot_of(q);
    }
    c->ended = n_ended;
    c->latency_s = n_ended > 0 ? c->latency_s / n_ended : 0;
    if (ttft != NULL && tpot != NULL) {
        quantiles(ttft, n_ttft, c->ttft_s);
        quantiles(tpot, n_tpot, c->tpot_s);
    }
    free(ttft);
    free(tpot);
}

static uint64_t hash_requests(const struct sim_run *r)
{
    uint64_t h = HASH_SEED;

    for (uint32_t i = 0; i < r->n_requests; i++) {
        const struct sim_request *q = &r->requests[i];
        uint64_t key[] = {q->arrival_ns, q->first_ns, q->last_ns, q->n_tokens, q->n_in};
        h = hash_bytes(h, key, sizeof key);
    }
    return h;
}

void sim_run_summarise(struct sim_run *r)
{
    struct sim_result *x = r->result;
    double window_ns = (double)(r->until_ns - r->from_ns);
    uint64_t n_sweeps = r->last.n_sweeps - r->first.n_sweeps;
    double busy_ns = (double)(r->last.gpu_busy_ns - r->first.gpu_busy_ns);

    x->window_s = window_ns / 1e9;
    summarise_class(r, true, &x->ls);
    summarise_class(r, false, &x->be);
    x->gpu_busy = busy_ns / window_ns;
    x->mean_sweep_s = n_sweeps > 0 ? busy_ns / (double)n_sweeps / 1e9 : 0;
    x->n_workers = r->timing.n_workers;
    for (uint32_t w = 0; w < x->n_workers; w++)
        x->worker_busy[w] =
            (double)(r->last.worker_busy_ns[w] - r->first.worker_busy_ns[w]) / window_ns;
    x->residents = (double)r->resident_ns / window_ns;
    x->device_be = (double)r->device_be_ns / window_ns;
    x->stock_first = r->first.stock;
    x->stock_last = r->last.stock;
    x->cpu_engine_rows = (double)r->cpu_engine_rows_ns / window_ns;
    if (r->cpu_engine != NULL)
        x->cpu_engine_busy = (double)(r->last.cpu_engine_busy_ns - r->first.cpu_engine_busy_ns) /
                             window_ns / sim_cpu_engine_n_hosts(r->cpu_engine);
    x->accuracy_mean = accuracy_mean(&r->engine.accuracy);
    x->accuracy_p90 = accuracy_reached_by(&r->engine.accuracy, 0.9);
    x->chunk_tokens = r->config.engine_chunk_tokens;
    x->kv_blocks = r->engine.device_blocks;
    for (uint32_t i = 0; i < ENGINE_N_STATS; i++)
        x->stats[i] = stats_get(&r->engine.stats, i);
    x->hash = hash_requests(r);
}

/* ---- The books ------------------------------------------------------------------------------- */

static int check_worker(const struct engine *e, uint32_t w, struct error *err)
{
    const struct engine_worker *worker = &e->workers[w];

    if (kv_pool_check(&worker->pool) != 0 || worker->pool.n_free != worker->pool.n_blocks)
        return error_set(err, -EUCLEAN, "worker %u: %u of %u arena blocks are free at the end", w,
                         worker->pool.n_free, worker->pool.n_blocks);
    if (worker->n_free_slots != e->exchange->slots_per_worker || worker->n_resident != 0)
        return error_set(err, -EUCLEAN, "worker %u: %u of %u slots are free at the end", w,
                         worker->n_free_slots, e->exchange->slots_per_worker);
    return 0;
}

/* Every token once and in order was checked on arrival; here: as many as were asked for. */
static int check_requests(const struct sim_run *r, struct error *err)
{
    for (uint32_t i = 0; i < r->n_requests; i++) {
        const struct sim_request *q = &r->requests[i];

        if (q->accepted && q->end_ns == 0)
            return error_set(err, -EUCLEAN, "request %u never ended", i);
        if (q->finished && q->n_tokens != q->n_out)
            return error_set(err, -EUCLEAN, "request %u: %u tokens, %u asked for", i, q->n_tokens,
                             q->n_out);
    }
    return 0;
}

int sim_run_check_books(struct sim_run *r, struct error *err)
{
    const struct engine *e = &r->engine;
    uint64_t promised = admission_promised(&r->engine);
    int rc = 0;

    if (e->sequences.n_free != e->sequences.n)
        return error_set(err, -EUCLEAN, "%u sequences are held at the end",
                         e->sequences.n - e->sequences.n_free);
    if (kv_pool_check(&e->pool) != 0 || e->pool.n_free != e->pool.n_blocks || e->n_copies != 0)
        return error_set(err, -EUCLEAN, "device: %u of %u blocks are free at the end",
                         e->pool.n_free, e->pool.n_blocks);
    if (promised != 0)
        return error_set(err, -EUCLEAN, "admission still promises %llu blocks",
                         (unsigned long long)promised);
    for (uint32_t w = 0; w < e->exchange->n_workers && rc == 0; w++)
        rc = check_worker(e, w, err);
    return rc == 0 ? check_requests(r, err) : rc;
}
