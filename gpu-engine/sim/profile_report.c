#include "gpu-engine/sim/profile_report.h"

#include <inttypes.h>
#include <stdbool.h>

/* What a plot of a module has as x. */
static const struct {
    const char *name, *title, *x_label;
} modules[DEVICE_SHAPE_KINDS] = {
    [DEVICE_SHAPE_DENSE] = {"dense", "Dense products of a layer", "rows"},
    [DEVICE_SHAPE_DECODES] = {"decodes", "Decode attention of a layer", "tokens read"},
    [DEVICE_SHAPE_CHUNK] = {"chunk", "Prefill attention of a layer", "causal pairs"},
    [DEVICE_SHAPE_HEAD] = {"head", "Head of a sweep", "rows"},
    [DEVICE_SHAPE_EMBED] = {"embed", "Before the first layer", "rows"},
};

static double accuracy(const struct profile_row *r)
{
    return 100 * latency_accuracy(r->predicted_ns, r->measured_ns);
}

/* Mean accuracy of a module's rows; DEVICE_SHAPE_KINDS: of all.  *n: how many there are. */
static double mean_accuracy(const struct profile_report *r, enum device_shape_kind module,
                            uint32_t *n)
{
    double sum = 0;

    *n = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        if (module != DEVICE_SHAPE_KINDS && r->rows[i].module != module)
            continue;
        sum += accuracy(&r->rows[i]);
        ++*n;
    }
    return *n > 0 ? sum / *n : 0;
}

/* ---- The table ------------------------------------------------------------------------------- */

static void print_means(FILE *out, const struct profile_report *r)
{
    uint32_t n;

    fprintf(out, "\nper layer; the head once.  accuracy:");
    for (uint32_t module = 0; module < DEVICE_SHAPE_KINDS; module++) {
        double mean = mean_accuracy(r, (enum device_shape_kind)module, &n);
        if (n > 0)
            fprintf(out, " %s %.1f%%,", modules[module].name, mean);
    }
    double mean = mean_accuracy(r, DEVICE_SHAPE_KINDS, &n);
    fprintf(out, " mean accuracy %.1f%% over %u shapes\n", mean, n);
}

void profile_report_table(FILE *out, const struct profile_report *report)
{
    const struct profile *p = report->profile;

    fprintf(out, "model %016" PRIx64 " on %s (%s), %u thread%s: %u layers of %u kind%s\n\n",
            p->key.model_hash, p->key.device, p->key.variant, p->key.n_threads,
            p->key.n_threads == 1 ? "" : "s", p->latency.n_layers, p->latency.n_kinds,
            p->latency.n_kinds == 1 ? "" : "s");
    fprintf(out, "%-9s %5s %6s %7s %12s %12s %9s\n", "module", "kind", "n", "context",
            "measured us", "predicted us", "accuracy");
    for (uint32_t i = 0; i < report->n; i++) {
        const struct profile_row *r = &report->rows[i];
        fprintf(out, "%-9s %5u %6u %7u %12.1f %12.1f %8.1f%%\n", modules[r->module].name, r->kind,
                r->n, r->ctx, r->measured_ns / 1e3, r->predicted_ns / 1e3, accuracy(r));
    }
    print_means(out, report);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static double work_of(const struct profile_row *r)
{
    switch (r->module) {
    case DEVICE_SHAPE_DECODES:
        return (double)r->n * r->ctx;
    case DEVICE_SHAPE_CHUNK:
        return (double)r->n * r->ctx + (double)r->n * (r->n + 1) / 2;
    case DEVICE_SHAPE_DENSE:
    case DEVICE_SHAPE_HEAD:
    case DEVICE_SHAPE_EMBED:
    case DEVICE_SHAPE_KINDS:
        break;
    }
    return r->n;
}

/* The least work of a module's rows of the first kind above `above`; NULL: there is none. */
static const struct profile_row *next_row(const struct profile_report *r,
                                          enum device_shape_kind module, double above)
{
    const struct profile_row *best = NULL;

    for (uint32_t i = 0; i < r->n; i++) {
        const struct profile_row *row = &r->rows[i];
        if (row->module == module && row->kind == 0 && work_of(row) > above &&
            (best == NULL || work_of(row) < work_of(best)))
            best = row;
    }
    return best;
}

static void print_axis(FILE *out, const struct profile_report *r, enum device_shape_kind module,
                       double (*of)(const struct profile_row *))
{
    const char *comma = "";
    const struct profile_row *row;

    for (double above = -1; (row = next_row(r, module, above)) != NULL; above = work_of(row)) {
        fprintf(out, "%s%.3f", comma, of(row));
        comma = ", ";
    }
}

static double measured_us(const struct profile_row *r)
{
    return r->measured_ns / 1e3;
}

static double predicted_us(const struct profile_row *r)
{
    return r->predicted_ns / 1e3;
}

static void print_series(FILE *out, const struct profile_report *r, enum device_shape_kind module,
                         bool predicted)
{
    fprintf(out, "{\"name\": \"%s\", \"x\": [", predicted ? "predicted" : "measured");
    print_axis(out, r, module, work_of);
    fprintf(out, "], \"y\": [");
    print_axis(out, r, module, predicted ? predicted_us : measured_us);
    fprintf(out, "]}");
}

static void print_panels(FILE *out, const struct profile_report *r)
{
    const char *comma = "";

    fprintf(out, "\"panels\": [");
    for (uint32_t module = 0; module < DEVICE_SHAPE_KINDS; module++) {
        enum device_shape_kind kind = (enum device_shape_kind)module;
        uint32_t n;
        double mean = mean_accuracy(r, kind, &n);

        if (n == 0)
            continue;
        fprintf(out,
                "%s{\"title\": \"%s (%.1f %%)\", \"x_label\": \"%s\", \"y_label\": \"us\", "
                "\"log_x\": true, \"log_y\": true, \"series\": [",
                comma, modules[module].title, mean, modules[module].x_label);
        print_series(out, r, kind, false);
        fprintf(out, ", ");
        print_series(out, r, kind, true);
        fprintf(out, "]}");
        comma = ", ";
    }
    fprintf(out, "]");
}

int profile_report_json(FILE *out, const void *report)
{
    const struct profile_report *r = report;
    const struct profile_key *key = &r->profile->key;

    fprintf(out, "{\"title\": \"Profile against measurement: %s (%s), %u thread(s)\", ",
            key->device, key->variant, key->n_threads);
    print_panels(out, r);
    fprintf(out, ", \"model_hash\": \"%016" PRIx64 "\", \"shapes\": [", key->model_hash);
    for (uint32_t i = 0; i < r->n; i++) {
        const struct profile_row *row = &r->rows[i];
        fprintf(out,
                "%s{\"module\": \"%s\", \"kind\": %u, \"n\": %u, \"context\": %u, "
                "\"measured_us\": %.3f, \"predicted_us\": %.3f, \"accuracy_pct\": %.2f}",
                i > 0 ? ", " : "", modules[row->module].name, row->kind, row->n, row->ctx,
                measured_us(row), predicted_us(row), accuracy(row));
    }
    fprintf(out, "]}\n");
    return ferror(out);
}
