#include "gpu-engine/profile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/sched/latency_fit.h"
#include "gpu-engine/profile_file.h"

/* Repetitions of one shape; a wide dense layer of SmolLM2 takes longer and is made once. */
#define SHAPE_BUDGET_NS (40 * NS_PER_MS)
/* All dense shapes of one kind; the largest differences come first, so that what is cut off is
 * the finest. */
#define DENSE_BUDGET_NS (3 * NS_PER_S)

enum { ROWS_STEP = 16 }; /* time(16) - time(1): as close as the dense staircase is looked at */

/* Neighbours that differ by less of their time are close enough whatever time(16) - time(1) is. */
static const double step_share = 0.04;

/* ---- Kinds of layers ------------------------------------------------------------------------- */

static bool same_weight(const struct weight_view *a, const struct weight_view *b)
{
    return a->type == b->type && a->n_rows == b->n_rows && a->n_cols == b->n_cols &&
           a->n_slices == b->n_slices;
}

static bool same_attention(const struct attention_desc *a, const struct attention_desc *b)
{
    return a->kind == b->kind && a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
           a->k_width == b->k_width && a->v_width == b->v_width && a->window == b->window &&
           a->n_sinks == b->n_sinks;
}

static bool same_mlp(const struct mlp_desc *a, const struct mlp_desc *b)
{
    return a->kind == b->kind && a->n_ff == b->n_ff && a->n_experts == b->n_experts &&
           a->n_used == b->n_used;
}

static bool same_cost(const struct model_layer *a, const struct model_layer *b)
{
    return same_attention(&a->attn, &b->attn) && same_mlp(&a->mlp, &b->mlp) &&
           same_weight(&a->attn_q, &b->attn_q) && same_weight(&a->attn_k, &b->attn_k) &&
           same_weight(&a->attn_v, &b->attn_v) && same_weight(&a->attn_output, &b->attn_output) &&
           same_weight(&a->ffn_gate, &b->ffn_gate) && same_weight(&a->ffn_up, &b->ffn_up) &&
           same_weight(&a->ffn_down, &b->ffn_down);
}

static uint32_t first_of_kind(const struct latency_model *m, uint32_t kind)
{
    uint32_t l = 0;

    while (m->kind_of[l] != kind)
        l++;
    return l;
}

int profile_set_kinds(struct latency_model *m, const struct model *model, struct error *err)
{
    if (model->n_layers > LATENCY_LAYERS_MAX)
        return error_set(err, -ENOTSUP, "profile: %u layers, at most %d are supported",
                         model->n_layers, LATENCY_LAYERS_MAX);
    latency_init(m, model->n_layers);
    for (uint32_t l = 0; l < model->n_layers; l++) {
        const struct model_layer *layer = &model->layers[l];
        uint32_t k = 0;

        while (k < m->n_kinds && !same_cost(layer, &model->layers[first_of_kind(m, k)]))
            k++;
        if (k == LATENCY_KINDS_MAX)
            return error_set(err, -ENOTSUP, "profile: more than %d kinds of layers",
                             LATENCY_KINDS_MAX);
        latency_set_kind(m, l, k);
        if (k < m->n_kinds)
            continue;
        m->kind[m->n_kinds++] =
            (struct latency_kind){.window = layer->attn.window, .n_sinks = layer->attn.n_sinks};
    }
    return 0;
}

void profile_key_of(struct profile_key *key, const struct profile_subject *s)
{
    struct device_caps caps;

    s->ops->caps(s->device, &caps);
    *key = (struct profile_key){.model_hash = s->model->hash,
                                .n_threads = caps.n_threads,
                                .kv_type = s->geometry->type,
                                .block_tokens = s->geometry->block_tokens,
                                .rows_max = s->rows_max};
    snprintf(key->device, sizeof key->device, "%s", caps.name);
    snprintf(key->variant, sizeof key->variant, "%s", caps.variant);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

/* The layers of one kind. */
struct subject_kind {
    const struct profile_subject *s;
    struct latency_kind *kind;
    uint32_t layers[LATENCY_LAYERS_MAX];
    uint32_t n_layers;
    struct error *err;
};

int profile_measure(const struct profile_subject *s, const struct device_shape *shape, double *ns,
                    struct error *err)
{
    static const char *const names[DEVICE_SHAPE_KINDS] = {"dense", "decodes", "chunk", "head",
                                                          "embed"};
    struct device_shape timed = *shape;
    uint64_t t = 0;

    timed.budget_ns = SHAPE_BUDGET_NS;
    int rc = s->ops->measure(s->device, &timed, &t);
    *ns = t > 0 ? (double)t : 1;
    return rc == 0
               ? 0
               : error_set(err, rc, "profile: device %s cannot measure %s of n=%u ctx=%u: %s",
                           s->ops->name, names[shape->kind], shape->n, shape->ctx, strerror(-rc));
}

static int measure_layer(const struct subject_kind *k, enum device_shape_kind what, uint32_t n,
                         uint32_t ctx, double *ns)
{
    const struct device_shape shape = {
        .kind = what, .layers = k->layers, .n_layers = k->n_layers, .n = n, .ctx = ctx};

    return profile_measure(k->s, &shape, ns, k->err);
}

/* Measures the staircase at that many rows, unless it would exceed the sweep. */
static int add_step(const struct subject_kind *k, struct latency_stairs *stairs,
                    enum device_shape_kind what, uint32_t rows)
{
    double ns;
    int rc = measure_layer(k, what, rows, 0, &ns);

    if (rc == 0)
        latency_stairs_add(stairs, rows, ns);
    return rc;
}

static int take_dense(const struct subject_kind *k)
{
    struct latency_stairs *stairs = &k->kind->dense;
    uint64_t end = clock_now_ns() + DENSE_BUDGET_NS;
    uint32_t max = k->s->rows_max, next = max < ROWS_STEP ? max : ROWS_STEP;
    int rc = add_step(k, stairs, DEVICE_SHAPE_DENSE, 1);

    if (rc == 0 && max > 1)
        rc = add_step(k, stairs, DEVICE_SHAPE_DENSE, next);
    double tolerance = stairs->ns[stairs->n - 1] - stairs->ns[0];
    if (rc == 0 && max > next)
        rc = add_step(k, stairs, DEVICE_SHAPE_DENSE, max);
    double share = step_share * stairs->ns[stairs->n - 1];
    while (rc == 0 && clock_now_ns() < end && stairs->n + ROWS_STEP < LATENCY_STEPS_MAX &&
           (next = latency_stairs_next(stairs, tolerance > share ? tolerance : share)) != 0)
        rc = add_step(k, stairs, DEVICE_SHAPE_DENSE, next);
    for (next = 2; rc == 0 && next < ROWS_STEP && next < max; next++)
        rc = add_step(k, stairs, DEVICE_SHAPE_DENSE, next); /* decode batches, the common case */
    latency_stairs_smooth(stairs);
    return rc;
}

/* How the dense time divides at the attention, by the weights that are read. */
static double pre_share(const struct model_layer *layer)
{
    double pre = dense_list_cost(layer->pre, layer->n_pre, 1).bytes;
    double post = dense_list_cost(layer->post, layer->n_post, 1).bytes;

    return pre / (pre + post);
}

static const uint32_t contexts[] = {32, 256, 1024, 4096};
enum { N_CONTEXTS = sizeof contexts / sizeof *contexts };

static uint32_t pool_tokens(const struct profile_subject *s)
{
    struct device_caps caps;

    s->ops->caps(s->device, &caps);
    return caps.n_kv_blocks / s->geometry->n_groups * s->geometry->block_tokens;
}

/* Tokens that a query at the end of ctx sees through the kind's window. */
static double visible(const struct latency_kind *k, uint32_t ctx)
{
    struct latency_model one = {.n_kinds = 1, .kind = {*k}};
    struct latency_load load = {.n_rows = 0};

    latency_load_add_decode(&one, &load, ctx, true);
    return load.c_da[0];
}

static int take_decodes(const struct subject_kind *k)
{
    static const uint32_t counts[] = {1, 4, 16};
    struct latency_sample samples[3 * N_CONTEXTS];
    const struct profile_subject *s = k->s;
    double coef[LATENCY_FIT_TERMS];
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < 3 * N_CONTEXTS && rc == 0; i++) {
        uint32_t g = counts[i / N_CONTEXTS], ctx = contexts[i % N_CONTEXTS];
        if (g > s->seqs_max || ctx > s->context_max || (g > 1 && g * ctx > pool_tokens(s)))
            continue;
        samples[n] = (struct latency_sample){.x = {g * visible(k->kind, ctx), g, 1}};
        rc = measure_layer(k, DEVICE_SHAPE_DECODES, g, ctx, &samples[n++].ns);
    }
    latency_fit(samples, n, coef);
    k->kind->da_a = coef[0];
    k->kind->da_h = coef[1];
    k->kind->da_b = coef[2];
    return rc;
}

/* What the model counts for a chunk of n behind `before`. */
static double pairs(const struct latency_kind *k, uint32_t before, uint32_t n)
{
    struct latency_model one = {.n_kinds = 1, .kind = {*k}};
    struct latency_load load = {.n_rows = 0};

    latency_load_add_chunk(&one, &load, before, n, false);
    return load.c_pa[0];
}

static int take_chunks(const struct subject_kind *k)
{
    static const uint32_t sizes[] = {8, 32, 96, 256};
    struct latency_sample samples[4 * (N_CONTEXTS + 1)];
    const struct profile_subject *s = k->s;
    double coef[LATENCY_FIT_TERMS];
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < 4 * N_CONTEXTS && rc == 0; i++) {
        uint32_t size = sizes[i / N_CONTEXTS];
        uint32_t before = i % N_CONTEXTS == 0 ? 0 : contexts[i % N_CONTEXTS - 1];
        if (size > s->rows_max || before + size > s->context_max)
            continue;
        samples[n] = (struct latency_sample){.x = {pairs(k->kind, before, size), size, 1}};
        rc = measure_layer(k, DEVICE_SHAPE_CHUNK, size, before, &samples[n++].ns);
    }
    latency_fit(samples, n, coef);
    k->kind->pa_a = coef[0];
    k->kind->pa_h = coef[1];
    k->kind->pa_b = coef[2];
    return rc;
}

static int take_kind(struct latency_model *m, uint32_t kind, const struct profile_subject *s,
                     struct error *err)
{
    struct subject_kind k = {.s = s, .kind = &m->kind[kind], .err = err};

    for (uint32_t l = 0; l < m->n_layers; l++) {
        if (m->kind_of[l] == kind)
            k.layers[k.n_layers++] = l;
    }
    k.kind->pre_share = pre_share(&s->model->layers[k.layers[0]]);
    int rc = take_dense(&k);
    if (rc == 0)
        rc = take_decodes(&k);
    if (rc == 0)
        rc = take_chunks(&k);
    if (rc == 0)
        log_info("profile_kind", "kind=%u of=%u layers=%u steps=%u row1_us=%.1f rows_max_us=%.1f",
                 kind, m->n_kinds, k.n_layers, k.kind->dense.n, k.kind->dense.ns[0] / 1e3,
                 k.kind->dense.ns[k.kind->dense.n - 1] / 1e3);
    return rc;
}

static int take_head(struct latency_model *m, const struct profile_subject *s, struct error *err)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32}; /* then they repeat */
    struct subject_kind whole = {.s = s, .err = err};
    int rc = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == 0; i++) {
        if (rows[i] <= s->seqs_max && rows[i] <= s->rows_max)
            rc = add_step(&whole, &m->head, DEVICE_SHAPE_HEAD, rows[i]);
    }
    return rc;
}

static int take_embed(struct latency_model *m, const struct profile_subject *s, struct error *err)
{
    struct subject_kind whole = {.s = s, .err = err};
    double one, many;
    int rc = measure_layer(&whole, DEVICE_SHAPE_EMBED, 1, 0, &one);

    if (rc == 0)
        rc = measure_layer(&whole, DEVICE_SHAPE_EMBED, s->rows_max, 0, &many);
    if (rc != 0)
        return rc;
    m->row_ns = s->rows_max > 1 && many > one ? (many - one) / (s->rows_max - 1) : 0;
    m->fixed_ns = one > m->row_ns ? one - m->row_ns : 0;
    return 0;
}

int profile_take(struct profile *p, const struct profile_subject *s, struct error *err)
{
    uint64_t start = clock_now_ns();
    int rc = profile_set_kinds(&p->latency, s->model, err);

    profile_key_of(&p->key, s);
    for (uint32_t k = 0; k < p->latency.n_kinds && rc == 0; k++)
        rc = take_kind(&p->latency, k, s, err);
    if (rc == 0)
        rc = take_head(&p->latency, s, err);
    if (rc == 0)
        rc = take_embed(&p->latency, s, err);
    if (rc == 0)
        log_info("profile_taken", "device=%s variant=%s threads=%u kinds=%u rows_max=%u ms=%llu",
                 p->key.device, p->key.variant, p->key.n_threads, p->latency.n_kinds, s->rows_max,
                 (unsigned long long)((clock_now_ns() - start) / NS_PER_MS));
    return rc;
}

/* ---- From the cache, or anew ----------------------------------------------------------------- */

static int load(struct profile *p, const struct profile_subject *s, const char *path,
                struct error *err)
{
    struct profile_key key;
    struct latency_model layers;
    int rc = profile_file_read(p, path, err);

    profile_key_of(&key, s);
    if (rc == 0)
        rc = profile_set_kinds(&layers, s->model, err);
    return rc == 0 ? profile_file_fits(p, &key, &layers, err) : rc;
}

int profile_obtain(struct profile *p, const struct profile_subject *s, const char *dir, bool fresh,
                   struct error *err)
{
    char path[PROFILE_PATH_MAX];
    struct profile_key key;
    struct error why;

    profile_key_of(&key, s);
    int path_rc = profile_file_path(path, dir, &key);
    int rc = path_rc != 0 || fresh ? -ENOENT : load(p, s, path, &why);
    if (rc == 0) {
        log_info("profile_loaded", "path=%s", path);
        return 0;
    }
    if (rc != -ENOENT)
        log_warn("profile_refused", "measured_anew=yes reason=\"%s\"", why.text);
    log_info("profile_begins", "model=%016llx device=%s", (unsigned long long)s->model->hash,
             s->ops->name);
    rc = profile_take(p, s, err);
    if (rc != 0)
        return rc;
    if (path_rc != 0)
        log_warn("profile_not_kept", "reason=\"no cache folder: %s\"", strerror(-path_rc));
    else if (profile_file_write(p, path, &why) != 0)
        log_warn("profile_not_kept", "reason=\"%s\"", why.text);
    return 0;
}
