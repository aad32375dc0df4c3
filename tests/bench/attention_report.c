#include "tests/bench/attention_report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/median.h"

static const enum kv_type report_types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_I8, KV_TYPE_F32};
enum { N_TYPES = sizeof report_types / sizeof report_types[0], LONG_CONTEXT = 4096 };

/* ---- Shapes ---------------------------------------------------------------------------------- */

void report_print_head(void)
{
    printf("%-4s %4s %3s %3s %6s %4s %3s  %10s %7s  %7s  %s\n", "kv", "dim", "kvh", "grp", "ctx",
           "jobs", "thr", "us/job", "GB/s", "of roof", "bound");
}

void report_print_result(const struct result *r)
{
    const struct shape *s = &r->shape;

    printf("%-4s %4u %3u %3u %6u %4u %3u  %10.1f %7.1f  %5.0f %%  %s%s\n", shape_type_name(s->type),
           s->width, s->n_kv_heads, s->group, s->context, s->n_jobs, s->n_threads, r->us_per_job,
           r->gbs, 100 * r->share, r->bytes_bind ? "bytes" : "arithmetic",
           r->disturbed ? "  (disturbed)" : "");
}

/* ---- Which results a figure is over ---------------------------------------------------------- */

/* 0 in type or n_threads: any. */
struct selection {
    uint32_t type, n_threads, context_min, context_max;
    bool bytes, arithmetic; /* what may bind */
};

static const struct selection long_bytes = {
    .context_min = LONG_CONTEXT, .context_max = UINT32_MAX, .bytes = true};
static const struct selection long_arithmetic = {
    .context_min = LONG_CONTEXT, .context_max = UINT32_MAX, .arithmetic = true};
static const struct selection at_1k = {
    .context_min = 1024, .context_max = 1024, .bytes = true, .arithmetic = true};
static const struct selection everything = {
    .context_max = UINT32_MAX, .bytes = true, .arithmetic = true};

static bool selected(const struct selection *s, const struct result *r)
{
    return (s->type == 0 || s->type == (uint32_t)r->shape.type) &&
           (s->n_threads == 0 || s->n_threads == r->shape.n_threads) &&
           r->shape.context >= s->context_min && r->shape.context <= s->context_max &&
           (r->bytes_bind ? s->bytes : s->arithmetic);
}

static struct selection narrowed(struct selection s, uint32_t type, uint32_t n_threads)
{
    s.type = type;
    s.n_threads = n_threads;
    return s;
}

/* Smallest share, in percent. */
static double worst_share(const struct report *r, struct selection s)
{
    double worst = -1;

    for (uint32_t i = 0; i < r->n_results; i++) {
        const struct result *one = &r->results[i];

        if (!one->disturbed && selected(&s, one) && (worst < 0 || 100 * one->share < worst))
            worst = 100 * one->share;
    }
    return worst;
}

static uint32_t count(const struct report *r, struct selection s, bool disturbed)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->n_results; i++)
        n += r->results[i].disturbed == disturbed && selected(&s, &r->results[i]);
    return n;
}

/* The undisturbed result of the same shape but for type and threads. */
static const struct result *find(const struct report *r, struct shape s, enum kv_type type,
                                 uint32_t n_threads)
{
    s.type = type;
    s.n_threads = n_threads;
    for (uint32_t i = 0; i < r->n_results; i++)
        if (!r->results[i].disturbed && memcmp(&r->results[i].shape, &s, sizeof s) == 0)
            return &r->results[i];
    return NULL;
}

/* Jobs/s of all threads over one, where the roofline itself grows by 1.8: median, and smallest in
 * *worst.  type 0: any. */
static double scale_threads(const struct report *r, uint32_t type, double *worst)
{
    double *ratios = malloc((r->n_results + 1) * sizeof *ratios), middle = -1;
    uint32_t n = 0;

    *worst = -1;
    for (uint32_t i = 0; ratios != NULL && i < r->n_results; i++) {
        const struct result *one = &r->results[i];
        const struct result *all = find(r, one->shape, one->shape.type, r->bench->n_cpus);

        if (one->shape.n_threads != 1 || r->bench->n_cpus == 1 || all == NULL ||
            (type != 0 && type != (uint32_t)one->shape.type) || one->roof_us < 1.8 * all->roof_us)
            continue;
        ratios[n++] = one->us_per_job / all->us_per_job;
        *worst = n == 1 || ratios[n - 1] < *worst ? ratios[n - 1] : *worst;
    }
    if (n > 0)
        middle = median_of(ratios, n);
    free(ratios);
    return middle;
}

/* Jobs/s of int8 over f16 at 4,096 and more where bytes bind both: the smallest.  n_threads 0: any. */
static double int8_ratio(const struct report *r, uint32_t n_threads)
{
    struct selection s = narrowed(long_bytes, KV_TYPE_I8, n_threads);
    double worst = -1;

    for (uint32_t i = 0; i < r->n_results; i++) {
        const struct result *i8 = &r->results[i];
        const struct result *f16 = find(r, i8->shape, KV_TYPE_F16, i8->shape.n_threads);
        double ratio;

        if (i8->disturbed || !selected(&s, i8) || f16 == NULL || !f16->bytes_bind)
            continue;
        ratio = f16->us_per_job / i8->us_per_job;
        worst = worst < 0 || ratio < worst ? ratio : worst;
    }
    return worst;
}

/* ---- For people ------------------------------------------------------------------------------ */

/* "-" where there is no such shape. */
static void print_figure(const char *format, double x)
{
    char text[32];

    snprintf(text, sizeof text, format, x);
    printf(" %12s", x < 0 ? "-" : text);
}

static void print_row(const struct report *r, enum kv_type type, uint32_t n_threads)
{
    struct selection all = narrowed(everything, type, n_threads);
    double worst, middle = scale_threads(r, type, &worst);

    if (count(r, all, false) + count(r, all, true) == 0)
        return;
    printf("%-4s %3u %6u %9u", shape_type_name(type), n_threads, count(r, all, false),
           count(r, all, true));
    print_figure("%.0f", worst_share(r, narrowed(long_bytes, type, n_threads)));
    print_figure("%.0f", worst_share(r, narrowed(long_arithmetic, type, n_threads)));
    print_figure("%.0f", worst_share(r, narrowed(at_1k, type, n_threads)));
    print_figure("%.2f", n_threads > 1 ? middle : -1);
    print_figure("%.2f", n_threads > 1 ? worst : -1);
    print_figure("%.2f", type == KV_TYPE_I8 ? int8_ratio(r, n_threads) : -1);
    printf("\n");
}

void report_print_table(const struct report *r)
{
    printf("\n%-4s %3s %6s %9s %12s %12s %12s %12s %12s %12s\n", "kv", "thr", "shapes", "disturbed",
           "bytes_min %", "arith_min %", "1k_min %", "scale", "scale_min", "int8_ratio");
    for (uint32_t i = 0; i < N_TYPES; i++) {
        print_row(r, report_types[i], 1);
        if (r->bench->n_cpus > 1)
            print_row(r, report_types[i], r->bench->n_cpus);
    }
    if (r->overhead_us >= 0)
        printf("a job with one token of context, posted to visible: %.2f us; worker asleep: %.1f "
               "us\n",
               r->overhead_us, r->overhead_asleep_us);
}

/* name=value pairs, as the last line and as members of the JSON object. */
static void print_targets(const struct report *r, FILE *f, const char *pair, const char *comma)
{
    double worst, figures[8];
    static const char *const names[] = {"roof_bytes_min", "roof_arith_min", "roof_1k_min",
                                        "vs_ggml_4k",     "vs_ggml_16k_g4", "scale_2t",
                                        "int8_ratio",     "overhead_us"};

    figures[0] = worst_share(r, long_bytes);
    figures[1] = worst_share(r, long_arithmetic);
    figures[2] = worst_share(r, at_1k);
    figures[3] = r->vs_ggml_4k;
    figures[4] = r->vs_ggml_16k_g4;
    figures[5] = scale_threads(r, 0, &worst);
    figures[6] = int8_ratio(r, 0);
    figures[7] = r->overhead_us;
    for (uint32_t i = 0; i < 8; i++) {
        fprintf(f, pair, names[i], i < 3 ? 0 : i < 5 ? 1 : 2, figures[i]);
        fputs(comma, f);
    }
}

void report_print_targets(const struct report *r)
{
    print_targets(r, stdout, "%s=%.*f", " ");
    printf("overhead_asleep_us=%.1f n_shapes=%u n_disturbed=%u\n", r->overhead_asleep_us,
           r->n_results, count(r, everything, true));
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool same_line(const struct shape *a, const struct shape *b)
{
    return a->width == b->width && a->n_kv_heads == b->n_kv_heads && a->group == b->group &&
           a->n_jobs == b->n_jobs && a->n_threads == b->n_threads && a->type == b->type;
}

/* Is result i the first of its line? */
static bool begins_line(const struct report *r, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (same_line(&r->results[i].shape, &r->results[k].shape))
            return false;
    return true;
}

/* Contexts or shares of a line. */
static void write_line(const struct report *r, FILE *f, const struct shape *line, bool shares)
{
    const char *comma = "";

    for (uint32_t k = 0; k < r->n_results; k++) {
        const struct result *one = &r->results[k];

        if (!same_line(line, &one->shape))
            continue;
        fprintf(f, "%s%.1f", comma, shares ? 100 * one->share : one->shape.context);
        comma = ", ";
    }
}

/* What the plot shows: share over context, a line per shape; of a whole grid, f16 and 16 jobs. */
static void write_series(const struct report *r, FILE *f)
{
    const char *comma = "";
    bool grid = r->n_results > 64;

    for (uint32_t i = 0; i < r->n_results; i++) {
        const struct shape *s = &r->results[i].shape;

        if (!begins_line(r, i) || (grid && (s->type != KV_TYPE_F16 || s->n_jobs != 16)))
            continue;
        fprintf(f, "%s{\"name\": \"%s, %u wide, groups of %u, %u jobs, %u threads\", \"x\": [",
                comma, shape_type_name(s->type), s->width, s->group, s->n_jobs, s->n_threads);
        write_line(r, f, s, false);
        fprintf(f, "], \"y\": [");
        write_line(r, f, s, true);
        fprintf(f, "]}");
        comma = ", ";
    }
}

static void write_shapes(const struct report *r, FILE *f)
{
    for (uint32_t i = 0; i < r->n_results; i++) {
        const struct result *one = &r->results[i];
        const struct shape *s = &one->shape;

        fprintf(f,
                "%s\n{\"kv\": \"%s\", \"width\": %u, \"kv_heads\": %u, \"group\": %u, "
                "\"context\": %u, \"jobs\": %u, \"threads\": %u, \"us_per_job\": %.2f, "
                "\"roof_us\": %.2f, \"gbs\": %.2f, \"share\": %.4f, \"bytes_bind\": %s, "
                "\"disturbed\": %s}",
                i == 0 ? "" : ",", shape_type_name(s->type), s->width, s->n_kv_heads, s->group,
                s->context, s->n_jobs, s->n_threads, one->us_per_job, one->roof_us, one->gbs,
                one->share, one->bytes_bind ? "true" : "false", one->disturbed ? "true" : "false");
    }
}

int report_write_json(const struct report *r, const char *path)
{
    FILE *f = fopen(path, "w");

    if (f == NULL)
        return -errno;
    fprintf(f,
            "{\"title\": \"decode attention (%s)\", \"x_label\": \"context\", \"y_label\": "
            "\"%% of the roofline\", \"log_x\": true, \"series\": [",
            isa_name(r->bench->isa));
    write_series(r, f);
    fprintf(f,
            "],\n\"isa\": \"%s\", \"block_tokens\": %u, \"huge_pages\": %s, \"repeat\": %u, "
            "\"cores\": %u,\n",
            isa_name(r->bench->isa), r->bench->block_tokens, r->bench->huge ? "true" : "false",
            r->bench->repeat, r->bench->n_cpus);
    print_targets(r, f, "\"%s\": %.*f", ", ");
    fprintf(f, "\"overhead_asleep_us\": %.1f, \"n_disturbed\": %u,\n\"shapes\": [",
            r->overhead_asleep_us, count(r, everything, true));
    write_shapes(r, f);
    fprintf(f, "]}\n");
    return fclose(f) == 0 ? 0 : -errno;
}
