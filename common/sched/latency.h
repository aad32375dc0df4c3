/* latency.h - how long a sweep will take, layer by layer and module by module.
 *
 * DESIGN.  A layer's time is the sum of three modules over its rows:
 *
 *   prefill attention   f_PA = pa_a * c_PA + pa_h * n + pa_b * chunks
 *                       c_PA = sum over chunks of causal token pairs, n = their tokens
 *   decode attention    f_DA = da_a * c_DA + da_h * g + da_b
 *                       c_DA = sum of context lengths, g = decodes
 *   dense               f_D(n), a staircase in the number of rows n, interpolated between steps
 *
 * and a sweep is all its layers, the head over the sampled rows, and what comes before the first
 * layer.  Layers that cost the same (heads, widths, MLP, weight types) share their coefficients: a
 * "kind".  A window cuts the context that a kind reads, so c_PA and c_DA are counted per kind.  The
 * forms are those of the piggybacking paper (arXiv 2603.12831, section 4); pa_h is ours: appending
 * a chunk's k and v costs per token, which shows where the context is short.
 *
 * Returned rows are known only in part before a sweep.  Beside common rows a layer's rows are
 * their mean; in a sweep of returned rows alone most layers have none and cost nothing, the others
 * a whole pass over the weights, so the number of layers that have any matters.
 *
 * A worker's job takes bytes / bandwidth + a fixed cost.
 *
 * What was measured at start-up (a profile) is corrected online by one factor per module (the dense
 * products have two, see below): the
 * median of the last measured / predicted ratios, bounded, so that a neighbour that takes the core
 * for a moment moves nothing, and one that stays is followed within some sweeps.  A
 * neighbour slows a sweep in two ways, which are corrected apart: through caches and memory, each
 * module by its own factor; and by taking the core away, the whole sweep by one factor, learnt from
 * the time that the device did compute.
 *
 * A dense product's first row takes the time of reading the weights; what further rows add is
 * arithmetic.  Neighbours that share memory slow the one, those that share the core the other, so
 * f_D(n) = dense * f(1) + rows * (f(n) - f(1)) with a factor each.
 *
 * Plain data and pure functions; one thread; no clock of its own. */
#ifndef OMNI_COMMON_SCHED_LATENCY_H
#define OMNI_COMMON_SCHED_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LATENCY_LAYERS_MAX = 128,
    LATENCY_KINDS_MAX = 8,
    LATENCY_STEPS_MAX = 80,
    LATENCY_WORKERS_MAX = 16,
    /* Values that a correction's median is taken over.  Under a neighbour that comes and goes 9
     * follow better than 31 (measured: 1 % more accuracy), and 4 outliers still move nothing. */
    LATENCY_WINDOW = 9,
};

/* ns over rows; ascending in rows, at least one step.  Below the first step its value holds, beyond
 * the last one the slope of the last two. */
struct latency_stairs {
    uint32_t n;
    uint32_t rows[LATENCY_STEPS_MAX];
    double ns[LATENCY_STEPS_MAX];
};

struct latency_kind {
    uint32_t window, n_sinks;    /* of its attention; window 0 = all */
    struct latency_stairs dense; /* projection to the next QKV, once per layer */
    double pre_share;            /* of the dense time: norm and QKV, before the attention */
    double pa_a, pa_h, pa_b;     /* ns per causal pair; per token; per chunk */
    double da_a, da_h, da_b;     /* ns per KV token; per decode; once if there is any decode */
};

/* What has a correction: the modules, and the share of time that others take from the device. */
enum latency_module {
    LATENCY_DENSE,   /* of the first row: bound by reading the weights */
    LATENCY_ROWS,    /* of the further rows: bound by arithmetic */
    LATENCY_PREFILL, /* attention of chunks: bound by arithmetic */
    LATENCY_DECODE,  /* attention of decodes: bound by memory, which neighbours share */
    LATENCY_HEAD,
    LATENCY_STOLEN,
    LATENCY_MODULES
};

/* The last values of something measured; their median moves when most of them do. */
struct latency_window {
    float value[LATENCY_WINDOW];
    uint32_t n, next;
};

struct latency_correction {
    double factor; /* what predictions are multiplied by; 1 at first */
    struct latency_window ratios;
};

struct latency_worker {
    double bytes_per_ns;
    double fixed_ns; /* per job */
};

struct latency_model {
    uint32_t n_layers, n_kinds;
    uint8_t kind_of[LATENCY_LAYERS_MAX]; /* latency_set_kind */
    uint32_t n_of[LATENCY_KINDS_MAX];    /* layers of each kind */
    struct latency_kind kind[LATENCY_KINDS_MAX];
    struct latency_stairs head; /* final norm, LM head, sampling, over sampled rows */
    double fixed_ns, row_ns;    /* before the first layer: per sweep and per common row */
    struct latency_correction correction[LATENCY_MODULES];
    double return_ns; /* per returned row, beside its share of the dense time: a job is written, a
                         worker woken, an output copied.  Learnt online. */
    struct latency_window returns;
    struct latency_worker worker[LATENCY_WORKERS_MAX];
};

/* What one sweep asks for.  Fill with latency_load_add_*, which keep the sums per kind. */
struct latency_load {
    uint32_t n_rows;    /* common rows */
    uint32_t n_decodes; /* of them, decodes whose attention is on the device */
    uint32_t n_chunks;
    uint32_t n_chunk_rows;  /* of them, tokens of chunks */
    uint32_t n_out;         /* rows that are sampled */
    uint32_t n_entering;    /* offloaded rows that begin at layer 0 */
    double returned_rows;   /* over all layers */
    double returned_layers; /* that have any; read only if there are no common rows */
    double returned_out;    /* offloaded rows that get through the last layer, and are sampled */
    double c_pa[LATENCY_KINDS_MAX];
    double c_da[LATENCY_KINDS_MAX];
};

struct latency_prediction {
    double dense_ns, attention_ns, head_ns, fixed_ns; /* corrected, undisturbed */
    double return_ns;                                 /* all returned rows' own cost */
    double rows_ns;                                   /* of dense_ns: beyond the first row */
    double prefill_ns, decode_ns;                     /* of attention_ns */
    double busy_ns;                                   /* their sum */
    double total_ns;                                  /* with what others will take */
};

/* Takes a value in and returns the median; the median of nothing is 0. */
double latency_window_take(struct latency_window *w, double value);
double latency_window_median(const struct latency_window *w);

/* All layers are of kind 0 at first. */
void latency_init(struct latency_model *m, uint32_t n_layers);
void latency_set_kind(struct latency_model *m, uint32_t layer, uint32_t kind);

/* One row that attends over ctx tokens (its own included): a decode, or a prompt's last token. */
void latency_load_add_decode(const struct latency_model *m, struct latency_load *load, uint32_t ctx,
                             bool sampled);

/* A prefill chunk of n tokens behind `before` tokens of context; sampled if it ends the prompt. */
void latency_load_add_chunk(const struct latency_model *m, struct latency_load *load,
                            uint32_t before, uint32_t n, bool sampled);

double latency_stairs_at(const struct latency_stairs *s, double rows);

/* Where the offloaded rows are before a sweep: row counts by layer. */
struct latency_offloaded {
    uint16_t back[LATENCY_LAYERS_MAX]; /* their job has returned */
    uint16_t out[LATENCY_LAYERS_MAX];  /* their job is with a worker */
};

/* Expected merges of the sweep, into load->returned_rows, returned_layers and returned_out.  A row that is back
 * is merged at its layer and goes on: each further job rides along with probability `ride`, until
 * one misses or the last layer is through; so does each of n_entering rows from layer 0 on.  A job
 * that is out returns in time with probability `late`: one that has not come since an earlier sweep
 * tells of a worker that does not get its core. */
void latency_load_set_returned(const struct latency_model *m, struct latency_load *load,
                               const struct latency_offloaded *rows, uint32_t n_entering,
                               double ride, double late);

/* One layer's modules, corrected; rows of a layer that some rows reach. */
double latency_dense_ns(const struct latency_model *m, uint32_t layer, double rows);
double latency_attention_ns(const struct latency_model *m, uint32_t layer,
                            const struct latency_load *load);
/* Of all layers. */
double latency_attention_all_ns(const struct latency_model *m, const struct latency_load *load);

struct latency_prediction latency_predict(const struct latency_model *m,
                                          const struct latency_load *load);

/* Time from the sweep's start to the output projection of each layer: the deadline of its jobs. */
void latency_arrivals(const struct latency_model *m, const struct latency_load *load,
                      uint64_t *arrival_ns);

/* The same of a sweep of two batches that take turns layer by layer: each reads the weights, so
 * what a layer takes is the sum; the beginning and the head are passed once, over the rows of both.
 * One batch's layer is the window of the other's jobs (device/cpu/cpu_sweep.c has the order).  b
 * without any row: one batch. */
struct latency_prediction latency_predict_two(const struct latency_model *m,
                                              const struct latency_load *a,
                                              const struct latency_load *b);
void latency_arrivals_two(const struct latency_model *m, const struct latency_load *a,
                          const struct latency_load *b, uint64_t *arrival_a_ns,
                          uint64_t *arrival_b_ns);

/* The same modules as they were measured in a finished sweep, dense with what comes before the
 * first layer; 0: was not part of it.  busy_ns: of total_ns, what others did not take away.
 * load: with the rows that really returned.  Takes the ratios in; those of modules only if the
 * sweep was hardly disturbed, for it is not known which of them was. */
struct latency_measured {
    double dense_ns, attention_ns, head_ns;
    double total_ns, busy_ns;
};
void latency_observe(struct latency_model *m, const struct latency_load *load,
                     const struct latency_measured *measured);
/* Of two batches, whose modules are measured together. */
void latency_observe_two(struct latency_model *m, const struct latency_load *a,
                         const struct latency_load *b, const struct latency_measured *measured);

/* 1 - |predicted - measured| / measured; never below 0. */
double latency_accuracy(double predicted_ns, double measured_ns);

/* A worker's job over that many KV bytes. */
double latency_job_ns(const struct latency_model *m, uint32_t worker, double kv_bytes);

/* Most tokens of a chunk behind `before`, of at most n, that keep the sweep of load plus the chunk
 * within budget_ns; 0 if not even one fits.  Binary search: the prediction grows with n. */
uint32_t latency_chunk_within(const struct latency_model *m, const struct latency_load *load,
                              uint32_t before, uint32_t n, double budget_ns);

#endif
