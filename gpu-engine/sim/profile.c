/* omni profile: takes or shows a profile, and holds it against fresh measurements of shapes that it
 * was not fitted to. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "gpu-engine/profile_file.h"
#include "gpu-engine/sim/bare_device.h"
#include "gpu-engine/sim/commands.h"
#include "gpu-engine/sim/plot.h"
#include "gpu-engine/sim/profile_report.h"

struct options {
    struct omni_config config;
    const char *check; /* --check FILE */
    const char *plot;  /* --plot FILE */
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
    "  --json                  as one object (panels: what tests/bench/plot.py draws)\n"
    "  --plot FILE.png         and draws measured beside predicted, module by module\n";

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
    case 'p':
        o->plot = optarg;
        return 0;
    default:
        return error_set(err, -EINVAL, "see omni profile --help");
    }
}

/* The file first, wherever it is named, then the rest over it. */
static int read_options(struct options *o, int argc, char **argv, struct error *err)
{
    static const struct option all[] = {
        {"config", required_argument, NULL, 'c'}, {"model", required_argument, NULL, 'm'},
        {"set", required_argument, NULL, 's'},    {"fresh", no_argument, NULL, 'f'},
        {"check", required_argument, NULL, 'k'},  {"json", no_argument, NULL, 'j'},
        {"plot", required_argument, NULL, 'p'},   {NULL, 0, NULL, 0}};
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

static int measure(const struct latency_model *m, const struct profile_subject *s, uint32_t kind,
                   const struct shape *shape, struct profile_row *row, struct error *err)
{
    uint32_t layers[LATENCY_LAYERS_MAX] = {0}, n = 0;

    for (uint32_t l = 0; l < m->n_layers; l++) {
        if (m->kind_of[l] == kind)
            layers[n++] = l;
    }
    const struct device_shape asked = {
        .kind = shape->kind, .layers = layers, .n_layers = n, .n = shape->n, .ctx = shape->ctx};
    *row = (struct profile_row){.module = shape->kind,
                                .kind = kind,
                                .n = shape->n,
                                .ctx = shape->ctx,
                                .predicted_ns = predict(m, layers[0], shape)};
    return profile_measure(s, &asked, &row->measured_ns, err);
}

/* Every shape that fits, for every kind of layer (the head once).  rows: [LATENCY_KINDS_MAX *
 * N_SHAPES]. */
static int measure_all(const struct latency_model *m, const struct profile_subject *s,
                       struct profile_row *rows, uint32_t *n, struct error *err)
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
    static struct profile_row rows[LATENCY_KINDS_MAX * N_SHAPES];
    struct profile p;
    struct profile_report report = {.profile = &p, .rows = rows};
    int rc = profile_obtain(&p, s, o->config.engine_profile_dir,
                            o->fresh || o->config.engine_profile == CONFIG_PROFILE_FRESH, err);

    if (rc == 0)
        rc = measure_all(&p.latency, s, rows, &report.n, err);
    if (rc == 0 && o->json)
        profile_report_json(stdout, &report);
    else if (rc == 0)
        profile_report_table(stdout, &report);
    if (rc == 0 && o->plot != NULL)
        rc = plot_draw(profile_report_json, &report, o->plot, err);
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
