#include "gpu-engine/sim/sim_load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;
static const double burst_low = 0.25, burst_high = 1.75;

enum { DRAW_LENGTH = 1, DRAW_ARRIVAL = 3, DRAW_ACCEPT, DRAW_BURST, DRAW_PAIR };

/* ---- Draws ----------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

double sim_draw(uint64_t seed, uint64_t stream, uint64_t index, uint64_t what)
{
    uint64_t h = mix(mix(mix(mix(seed) ^ stream) ^ index) ^ what);

    return (double)(h >> 11) / 9007199254740992.0; /* 2^53 */
}

static double normal_below(double x)
{
    return 0.5 * erfc(-x / sqrt(2));
}

/* ---- Lengths --------------------------------------------------------------------------------- */

/* E[min(X, cap)] of a lognormal. */
static double mean_cut(double mu, double sigma, double cap)
{
    double z = (log(cap) - mu) / sigma;

    return exp(mu + sigma * sigma / 2) * normal_below(z - sigma) + cap * (1 - normal_below(z));
}

void sim_length_set(struct sim_length *l, double mean, double sigma, uint32_t cap)
{
    double low = -10, high = log(cap) + 4 * sigma + 1;

    *l = (struct sim_length){.mean = mean, .sigma = sigma, .cap = cap};
    for (int i = 0; sigma > 0 && i < 60; i++) {
        l->mu = (low + high) / 2;
        if (mean_cut(l->mu, sigma, cap) < mean)
            low = l->mu;
        else
            high = l->mu;
    }
}

uint32_t sim_length_draw(const struct sim_length *l, uint64_t seed, uint64_t stream, uint64_t index)
{
    double u = sim_draw(seed, stream, index, DRAW_LENGTH);
    double v = sim_draw(seed, stream, index, DRAW_LENGTH + 1);
    double z = sqrt(-2 * log(1 - u)) * cos(2 * pi * v);
    double n = l->sigma > 0 ? exp(l->mu + l->sigma * z) : l->mean;

    n = fmin(fmax(round(n), 1), l->cap);
    return (uint32_t)n;
}

/* ---- Kinds of requests ----------------------------------------------------------------------- */

/* Means and cuts: ShareGPT as measured by DistServe's authors; LongBench-v2 and DailyMails as the
 * piggybacking paper has them (arXiv 2603.12831).  Their spread is not published: sigma is stated
 * in every report. */
static const struct {
    const char *name;
    double in, out;
    uint32_t in_cap, out_cap;
} kinds[] = {
    {"SHAREGPT", 764.8, 182.7, 2048, 1024},
    {"LONGBENCH", 8952, 136, 12000, 1024},
    {"DAILYMAIL", 1964, 397, 8192, 2048},
};

enum { MEAN_CAP = 4 }; /* IN/OUT: nothing is longer than so many means */

static bool parse_kind(struct sim_lengths *l, const char *text, double sigma)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(text, kinds[i].name) != 0)
            continue;
        sim_length_set(&l->in, kinds[i].in, sigma, kinds[i].in_cap);
        sim_length_set(&l->out, kinds[i].out, sigma, kinds[i].out_cap);
        return true;
    }
    return false;
}

static bool parse_means(struct sim_lengths *l, const char *text, double sigma)
{
    char *end;
    unsigned long in = strtoul(text, &end, 10);

    if (end == text || *end != '/')
        return false;
    const char *second = end + 1;
    unsigned long out = strtoul(second, &end, 10);
    if (end == second || *end != '\0' || in == 0 || out == 0 || in > 1000000 || out > 1000000)
        return false;
    sim_length_set(&l->in, (double)in, sigma, MEAN_CAP * (uint32_t)in);
    sim_length_set(&l->out, (double)out, sigma, MEAN_CAP * (uint32_t)out);
    return true;
}

/* The next word of the file as a number.  1; 0: the file has ended; -1: it is none. */
static int next_number(FILE *f, double *x)
{
    char word[64], *end;

    if (fscanf(f, "%63s", word) != 1)
        return feof(f) ? 0 : -1;
    *x = strtod(word, &end);
    return *end == '\0' && isfinite(*x) ? 1 : -1;
}

/* As next_number, for two numbers of tokens. */
static int next_pair(FILE *f, struct sim_pair *pair)
{
    double in, out;
    int n = next_number(f, &in);

    if (n != 1)
        return n;
    if (next_number(f, &out) != 1 || in < 0 || out < 0 || in > UINT32_MAX || out > UINT32_MAX ||
        in != floor(in) || out != floor(out))
        return -1;
    *pair = (struct sim_pair){.n_in = (uint32_t)in, .n_out = (uint32_t)out};
    return 1;
}

static int read_pairs(struct sim_lengths *l, FILE *f, const char *path, struct error *err)
{
    uint32_t cap = 0;
    struct sim_pair pair;
    int n;

    while ((n = next_pair(f, &pair)) == 1) {
        if (pair.n_in == 0 || pair.n_out == 0)
            return error_set(err, -EINVAL, "%s: line %u: lengths are not positive", path,
                             l->n_pairs + 1);
        if (l->n_pairs == cap) {
            cap = cap == 0 ? 1024 : 2 * cap;
            struct sim_pair *grown = realloc(l->pairs, cap * sizeof *grown);
            if (grown == NULL)
                return error_set(err, -ENOMEM, "%s: no memory", path);
            l->pairs = grown;
        }
        l->pairs[l->n_pairs++] = pair;
    }
    if (n != 0 || l->n_pairs == 0)
        return error_set(err, -EINVAL, "%s: line %u is no pair of lengths", path, l->n_pairs + 1);
    return 0;
}

int sim_lengths_parse(struct sim_lengths *l, const char *text, double sigma, struct error *err)
{
    memset(l, 0, sizeof *l);
    if (parse_kind(l, text, sigma) || parse_means(l, text, sigma))
        return 0;
    FILE *f = fopen(text, "re");
    if (f == NULL)
        return error_set(err, -errno,
                         "lengths '%s': neither SHAREGPT, LONGBENCH, DAILYMAIL, nor IN/OUT, nor a "
                         "file of pairs (%s)",
                         text, strerror(errno));
    int rc = read_pairs(l, f, text, err);
    fclose(f);
    if (rc != 0)
        sim_lengths_fini(l);
    return rc;
}

void sim_lengths_fini(struct sim_lengths *l)
{
    free(l->pairs);
    l->pairs = NULL;
    l->n_pairs = 0;
}

struct sim_pair sim_lengths_draw(const struct sim_lengths *l, uint64_t seed, uint64_t stream,
                                 uint64_t index)
{
    if (l->n_pairs > 0)
        return l->pairs[(uint32_t)(sim_draw(seed, stream, index, DRAW_PAIR) * l->n_pairs)];
    return (struct sim_pair){.n_in = sim_length_draw(&l->in, seed, 2 * stream, index),
                             .n_out = sim_length_draw(&l->out, seed, 2 * stream + 1, index)};
}

double sim_lengths_mean_in(const struct sim_lengths *l)
{
    double sum = 0;

    for (uint32_t i = 0; i < l->n_pairs; i++)
        sum += l->pairs[i].n_in;
    return l->n_pairs > 0 ? sum / l->n_pairs : l->in.mean;
}

double sim_lengths_mean_out(const struct sim_lengths *l)
{
    double sum = 0;

    for (uint32_t i = 0; i < l->n_pairs; i++)
        sum += l->pairs[i].n_out;
    return l->n_pairs > 0 ? sum / l->n_pairs : l->out.mean;
}

uint32_t sim_lengths_max(const struct sim_lengths *l)
{
    uint32_t most = l->in.cap + l->out.cap;

    for (uint32_t i = 0; i < l->n_pairs; i++) {
        uint32_t n = l->pairs[i].n_in + l->pairs[i].n_out;
        most = n > most ? n : most;
    }
    return most;
}

uint32_t sim_lengths_max_out(const struct sim_lengths *l)
{
    uint32_t most = l->out.cap;

    for (uint32_t i = 0; i < l->n_pairs; i++)
        most = l->pairs[i].n_out > most ? l->pairs[i].n_out : most;
    return most;
}

/* ---- Recorded times -------------------------------------------------------------------------- */

static int append_time(struct sim_times *t, uint32_t *cap, double at_s)
{
    if (t->n == *cap) {
        uint32_t more = *cap == 0 ? 1024 : 2 * *cap;
        double *grown = realloc(t->at_s, more * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        t->at_s = grown;
        *cap = more;
    }
    t->at_s[t->n++] = at_s;
    return 0;
}

static int read_times(struct sim_times *t, FILE *f, const char *path, struct error *err)
{
    uint32_t cap = 0;
    double at_s, first = 0;
    int n;

    while ((n = next_number(f, &at_s)) == 1) {
        first = t->n == 0 ? at_s : first;
        if (t->n > 0 && at_s - first < t->at_s[t->n - 1])
            return error_set(err, -EINVAL, "%s: line %u: times go back", path, t->n + 1);
        if (append_time(t, &cap, at_s - first) != 0)
            return error_set(err, -ENOMEM, "%s: no memory", path);
    }
    if (n != 0 || t->n < 2 || t->at_s[t->n - 1] <= 0)
        return error_set(err, -EINVAL, "%s: line %u is no time of arrival", path, t->n + 1);
    t->span_s = t->at_s[t->n - 1] * t->n / (t->n - 1);
    return 0;
}

int sim_times_read(struct sim_times *t, const char *path, struct error *err)
{
    FILE *f = fopen(path, "re");

    memset(t, 0, sizeof *t);
    if (f == NULL)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = read_times(t, f, path, err);
    fclose(f);
    if (rc != 0)
        sim_times_fini(t);
    return rc;
}

void sim_times_fini(struct sim_times *t)
{
    free(t->at_s);
    memset(t, 0, sizeof *t);
}

/* ---- Arrivals -------------------------------------------------------------------------------- */

static double burst_factor(const struct sim_arrivals *a, double at_s)
{
    if (a->burst_s <= 0)
        return 1;
    return burst_low + (burst_high - burst_low) *
                           sim_draw(a->seed, a->stream, (uint64_t)(at_s / a->burst_s), DRAW_BURST);
}

/* The recorded one that is next, on the scale that makes their rate the one asked for. */
static double recorded_s(const struct sim_arrivals *a, uint64_t i)
{
    const struct sim_times *t = a->times;
    double scale = t->n / t->span_s / a->rate;
    uint64_t n_rounds = i / t->n;

    return scale * (t->at_s[i % t->n] + (double)n_rounds * t->span_s);
}

/* Candidates at the highest rate, of which those that the present rate has are taken. */
static void draw_next(struct sim_arrivals *a)
{
    double most = a->burst_s > 0 ? burst_high : 1, u;

    if (a->times != NULL) {
        a->at_s = recorded_s(a, a->n_drawn++);
        return;
    }
    do {
        u = sim_draw(a->seed, a->stream, a->n_drawn, DRAW_ARRIVAL);
        a->at_s += -log(1 - u) / (a->rate * most);
        u = sim_draw(a->seed, a->stream, a->n_drawn++, DRAW_ACCEPT);
    } while (u * most >= burst_factor(a, a->at_s));
}

void sim_arrivals_init(struct sim_arrivals *a, uint64_t seed, uint64_t stream, double rate,
                       double burst_s, const struct sim_times *times)
{
    *a = (struct sim_arrivals){.seed = seed, .stream = stream, .rate = rate, .burst_s = burst_s};
    a->times = times != NULL && times->n > 0 ? times : NULL;
    if (rate > 0)
        draw_next(a);
}

uint64_t sim_arrivals_next_ns(const struct sim_arrivals *a)
{
    return a->rate > 0 ? (uint64_t)(a->at_s * 1e9) : UINT64_MAX;
}

void sim_arrivals_pop(struct sim_arrivals *a)
{
    draw_next(a);
}
