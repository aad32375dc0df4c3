/* omni profile: takes or shows a profile, and holds it against fresh measurements of shapes that it
 * was not fitted to. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "gpu-engine/profile_file.h"
#include "gpu-engine/sim/bare_device.h"
#include "gpu-engine/sim/commands.h"

struct options {
    struct omni_config config;
    const char *check; /* --check FILE */
    bool fresh, json;
};

static const char usage[] =
    "usage: omni profile [options]\n\n"
    "Shows the latency model's profile of the configured model and device: taken from the cache, "
    "or\n"
    "measured and kept there.  Then measures shapes between those it was fitted to, and prints "
    "both.\n\n"
    "  --config FILE           the group's configuration\n"
    "  --model FILE            short for --set model.path=FILE\n"
    "  --set SECTION.KEY=VALUE any option of it\n"
    "  --fresh                 measure, even if a profile is kept\n"
    "  --check FILE            only say whether FILE is a profile of this model and device\n"
    "  --json                  as one object (series: what tests/bench/plot.py draws)\n";

/* ---- Options --------------------------------------------------------------------------------- */

static int set_model(struct options *o, const char *path, struct error *err)
{
    char text[CONFIG_STRING_MAX + 16];

    snprintf(text, sizeof text, "model.path=%s", path);
    return config_set(&o->config, text, err);
}

static int take_option(struct options *o, int option, struct error *err)
{
    switch (option) {
    case 'c':
        return config_load(&o->config, optarg, err);
    case 'm':
        return set_model(o, optarg, err);
    case 's':
        return config_set(&o->config, optarg, err);
    case 'f':
        o->fresh = true;
        return 0;
    case 'k':
        o->check = optarg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    default:
        return error_set(err, -EINVAL, "see omni profile --help");
    }
}

/* The file first, wherever it is named, then the rest over it. */
static int read_options(struct options *o, int argc, char **argv, struct error *err)
{
    static const struct option all[] = {{"config", required_argument, NULL, 'c'},
                                        {"model", required_argument, NULL, 'm'},
                                        {"set", required_argument, NULL, 's'},
                                        {"fresh", no_argument, NULL, 'f'},
                                        {"check", required_argument, NULL, 'k'},
                                        {"json", no_argument, NULL, 'j'},
                                        {NULL, 0, NULL, 0}};
    int option, rc = 0;

    memset(o, 0, sizeof *o);
    config_defaults(&o->config);
    while (rc == 0 && (option = getopt_long(argc, argv, "", all, NULL)) != -1)
        rc = option == 'c' || option == '?' ? take_option(o, option, err) : 0;
    optind = 0;
    while (rc == 0 && (option = getopt_long(argc, argv, "", all, NULL)) != -1)
        rc = option != 'c' ? take_option(o, option, err) : 0;
    if (rc == 0 && optind < argc)
        rc = error_set(err, -EINVAL, "unexpected argument '%s'", argv[optind]);
    return rc == 0 ? config_check(&o->config, err) : rc;
}

/* ---- Shapes between the fitted ones ---------------------------------------------------------- */

struct shape {
    enum device_shape_kind kind;
    uint32_t n, ctx;
};

static const struct shape shapes[] = {
    {DEVICE_SHAPE_DENSE, 1, 0},      {DEVICE_SHAPE_DENSE, 3, 0},
    {DEVICE_SHAPE_DENSE, 6, 0},      {DEVICE_SHAPE_DENSE, 12, 0},
    {DEVICE_SHAPE_DENSE, 24, 0},     {DEVICE_SHAPE_DENSE, 48, 0},
    {DEVICE_SHAPE_DENSE, 100, 0},    {DEVICE_SHAPE_DENSE, 200, 0},
    {DEVICE_SHAPE_DENSE, 270, 0},    {DEVICE_SHAPE_DENSE, 400, 0},
    {DEVICE_SHAPE_DECODES, 1, 100},  {DEVICE_SHAPE_DECODES, 1, 600},
    {DEVICE_SHAPE_DECODES, 2, 2000}, {DEVICE_SHAPE_DECODES, 6, 200},
    {DEVICE_SHAPE_DECODES, 6, 700},  {DEVICE_SHAPE_DECODES, 12, 500},
    {DEVICE_SHAPE_CHUNK, 50, 0},     {DEVICE_SHAPE_CHUNK, 64, 500},
    {DEVICE_SHAPE_CHUNK, 128, 0},    {DEVICE_SHAPE_CHUNK, 160, 700},
    {DEVICE_SHAPE_CHUNK, 200, 1500}, {DEVICE_SHAPE_HEAD, 1, 0},
    {DEVICE_SHAPE_HEAD, 3, 0},       {DEVICE_SHAPE_HEAD, 6, 0},
    {DEVICE_SHAPE_HEAD, 12, 0},      {DEVICE_SHAPE_HEAD, 24, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static const char *const names[DEVICE_SHAPE_KINDS] = {"dense", "decodes", "chunk", "head", "embed"};

static bool fits(const struct profile_subject *s, const struct shape *shape)
{
    bool rows = shape->kind == DEVICE_SHAPE_DENSE || shape->kind == DEVICE_SHAPE_CHUNK;
    uint32_t tokens = shape->ctx + (shape->kind == DEVICE_SHAPE_CHUNK ? shape->n : 0);

    return shape->n <= (rows ? s->rows_max : s->seqs_max) && tokens <= s->context_max;
}

static double predict(const struct latency_model *m, uint32_t layer, const struct shape *shape)
{
    struct latency_load load = {.n_rows = 0};

    switch (shape->kind) {
    case DEVICE_SHAPE_DENSE:
        return latency_dense_ns(m, layer, shape->n);
    case DEVICE_SHAPE_DECODES:
        for (uint32_t i = 0; i < shape->n; i++)
            latency_load_add_decode(m, &load, shape->ctx, true);
        return latency_attention_ns(m, layer, &load);
    case DEVICE_SHAPE_CHUNK:
        latency_load_add_chunk(m, &load, shape->ctx, shape->n, false);
        return latency_attention_ns(m, layer, &load);
    case DEVICE_SHAPE_HEAD:
        return latency_stairs_at(&m->head, shape->n);
    case DEVICE_SHAPE_EMBED:
    case DEVICE_SHAPE_KINDS:
        break;
    }
    return 0;
}

struct row {
    const struct shape *shape;
    uint32_t kind; /* of layer */
    double measured_ns, predicted_ns;
};

static int measure(const struct latency_model *m, const struct profile_subject *s, uint32_t kind,
                   const struct shape *shape, struct row *row, struct error *err)
{
    uint32_t layers[LATENCY_LAYERS_MAX] = {0}, n = 0;

    for (uint32_t l = 0; l < m->n_layers; l++) {
        if (m->kind_of[l] == kind)
            layers[n++] = l;
    }
    const struct device_shape asked = {
        .kind = shape->kind, .layers = layers, .n_layers = n, .n = shape->n, .ctx = shape->ctx};
    *row = (struct row){.shape = shape, .kind = kind, .predicted_ns = predict(m, layers[0], shape)};
    return profile_measure(s, &asked, &row->measured_ns, err);
}

/* Every shape that fits, for every kind of layer (the head once).  rows: [LATENCY_KINDS_MAX *
 * N_SHAPES]. */
static int measure_all(const struct latency_model *m, const struct profile_subject *s,
                       struct row *rows, uint32_t *n, struct error *err)
{
    int rc = 0;

    for (uint32_t k = 0; k < m->n_kinds; k++) {
        for (uint32_t i = 0; i < N_SHAPES && rc == 0; i++) {
            if (fits(s, &shapes[i]) && (k == 0 || shapes[i].kind != DEVICE_SHAPE_HEAD))
                rc = measure(m, s, k, &shapes[i], &rows[(*n)++], err);
        }
    }
    return rc;
}

/* ---- Output ---------------------------------------------------------------------------------- */

static double accuracy(const struct row *r)
{
    return 100 * latency_accuracy(r->predicted_ns, r->measured_ns);
}

static void print_table(const struct profile *p, const struct row *rows, uint32_t n)
{
    double sum = 0;

    printf("model %016" PRIx64 " on %s (%s), %u thread%s: %u layers of %u kind%s\n\n",
           p->key.model_hash, p->key.device, p->key.variant, p->key.n_threads,
           p->key.n_threads == 1 ? "" : "s", p->latency.n_layers, p->latency.n_kinds,
           p->latency.n_kinds == 1 ? "" : "s");
    printf("%-9s %5s %6s %7s %12s %12s %9s\n", "module", "kind", "n", "context", "measured us",
           "predicted us", "accuracy");
    for (uint32_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        printf("%-9s %5u %6u %7u %12.1f %12.1f %8.1f%%\n", names[r->shape->kind], r->kind,
               r->shape->n, r->shape->ctx, r->measured_ns / 1e3, r->predicted_ns / 1e3,
               accuracy(r));
        sum += accuracy(r);
    }
    printf("\nper layer; the head once.  mean accuracy %.1f%% over %u shapes\n",
           n > 0 ? sum / n : 0, n);
}

/* Dense time over rows, which is what a plot shows best. */
static void print_series(const struct row *rows, uint32_t n, bool predicted)
{
    printf("{\"name\": \"%s\", \"x\": [", predicted ? "predicted" : "measured");
    for (uint32_t pass = 0; pass < 2; pass++) {
        const char *comma = "";
        for (uint32_t i = 0; i < n; i++) {
            const struct row *r = &rows[i];
            if (r->shape->kind != DEVICE_SHAPE_DENSE || r->kind != 0)
                continue;
            if (pass == 0)
                printf("%s%u", comma, r->shape->n);
            else
                printf("%s%.2f", comma, (predicted ? r->predicted_ns : r->measured_ns) / 1e3);
            comma = ", ";
        }
        printf(pass == 0 ? "], \"y\": [" : "]}");
    }
}

static void print_json(const struct profile *p, const struct row *rows, uint32_t n)
{
    printf(
        "{\"title\": \"Dense time of one layer on %s (%s), %u thread(s)\", \"x_label\": \"rows\", "
        "\"y_label\": \"us\", \"log_x\": true, \"log_y\": true, \"series\": [",
        p->key.device, p->key.variant, p->key.n_threads);
    print_series(rows, n, false);
    printf(", ");
    print_series(rows, n, true);
    printf("], \"model_hash\": \"%016" PRIx64 "\", \"shapes\": [", p->key.model_hash);
    for (uint32_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        printf("%s{\"module\": \"%s\", \"kind\": %u, \"n\": %u, \"context\": %u, "
               "\"measured_us\": %.3f, \"predicted_us\": %.3f, \"accuracy_pct\": %.2f}",
               i > 0 ? ", " : "", names[r->shape->kind], r->kind, r->shape->n, r->shape->ctx,
               r->measured_ns / 1e3, r->predicted_ns / 1e3, accuracy(r));
    }
    printf("]}\n");
}

/* ---- The command ----------------------------------------------------------------------------- */

static int check(const struct options *o, const struct profile_subject *s, struct error *err)
{
    struct latency_model layers;
    struct profile_key key;
    struct profile p;
    int rc = profile_file_read(&p, o->check, err);

    profile_key_of(&key, s);
    if (rc == 0)
        rc = profile_set_kinds(&layers, s->model, err);
    if (rc == 0)
        rc = profile_file_fits(&p, &key, &layers, err);
    if (rc == 0)
        printf("%s: a profile of this model and device\n", o->check);
    return rc;
}

static int show(const struct options *o, const struct profile_subject *s, struct error *err)
{
    static struct row rows[LATENCY_KINDS_MAX * N_SHAPES];
    struct profile p;
    uint32_t n = 0;
    int rc = profile_obtain(&p, s, o->config.engine_profile_dir,
                            o->fresh || o->config.engine_profile == CONFIG_PROFILE_FRESH, err);

    if (rc == 0)
        rc = measure_all(&p.latency, s, rows, &n, err);
    if (rc == 0 && o->json)
        print_json(&p, rows, n);
    else if (rc == 0)
        print_table(&p, rows, n);
    return rc;
}

int command_profile(int argc, char **argv)
{
    struct bare_device bare;
    struct options o;
    struct error err;

    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return COMMAND_DONE;
    }
    if (read_options(&o, argc, argv, &err) != 0) {
        fprintf(stderr, "omni profile: %s\n", err.text);
        return COMMAND_USAGE;
    }
    int rc = bare_device_open(&bare, &o.config, &err);
    if (rc == 0)
        rc = o.check != NULL ? check(&o, &bare.subject, &err) : show(&o, &bare.subject, &err);
    bare_device_close(&bare);
    if (rc != 0)
        fprintf(stderr, "omni profile: %s\n", err.text);
    return rc == 0 ? COMMAND_DONE : COMMAND_FAILED;
}
