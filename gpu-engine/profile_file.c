#include "gpu-engine/profile_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static const char *const kv_names[] = {"", "f16", "bf16", "f32", "i8"};

/* ---- Where ----------------------------------------------------------------------------------- */

static int default_dir(char *out, size_t cap)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;

    if (cache != NULL && cache[0] == '/')
        n = snprintf(out, cap, "%s/omniserve/profiles", cache);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, cap, "%s/.cache/omniserve/profiles", home);
    else
        return -ENOENT;
    return n < (int)cap ? 0 : -ENAMETOOLONG;
}

int profile_file_path(char path[PROFILE_PATH_MAX], const char *dir, const struct profile_key *key)
{
    char place[PROFILE_PATH_MAX];
    int rc = 0;

    if (dir[0] == '\0')
        rc = default_dir(place, sizeof place);
    else if (snprintf(place, sizeof place, "%s", dir) >= (int)sizeof place)
        rc = -ENAMETOOLONG;
    if (rc != 0)
        return rc;
    int n = snprintf(path, PROFILE_PATH_MAX, "%s/%016" PRIx64 "-%s-%s-t%u-%s-b%u.profile", place,
                     key->model_hash, key->device, key->variant, key->n_threads,
                     kv_names[key->kv_type], key->block_tokens);
    return n < PROFILE_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* ---- The fields: one list for writing and reading -------------------------------------------- */

/* Writes to a file, or takes values out of its text: the same walk over the same fields, so that
 * they cannot drift apart. */
struct walk {
    FILE *out; /* writing; else reading: */
    FILE *in;
    const char *path;
    uint32_t line;
    struct error *err;
    int rc; /* of the first failure; later fields are passed over */
};

static void refuse(struct walk *w, const char *field, const char *why, const char *found)
{
    if (w->rc == 0)
        w->rc = error_set(w->err, -EINVAL, "profile %s, line %u: %s %s%s%.40s%s", w->path, w->line,
                          field, why, found != NULL ? ", found '" : "", found != NULL ? found : "",
                          found != NULL ? "'" : "");
}

/* Reads "field=..." and returns what is behind '='; NULL: refused. */
static char *next_value(struct walk *w, const char *field, char line[LINE_MAX_BYTES])
{
    size_t n = strlen(field);

    w->line++;
    if (w->rc != 0)
        return NULL;
    if (fgets(line, LINE_MAX_BYTES, w->in) == NULL) {
        refuse(w, field, "is missing: the file ends", NULL);
        return NULL;
    }
    char *end = strchr(line, '\n');
    if (end == NULL) {
        refuse(w, field, "has no end of line", NULL);
        return NULL;
    }
    *end = '\0';
    if (strncmp(line, field, n) != 0 || line[n] != '=') {
        refuse(w, field, "is expected here", line);
        return NULL;
    }
    return line + n + 1;
}

static void walk_u64(struct walk *w, const char *field, uint64_t *value, int base, uint64_t max)
{
    char line[LINE_MAX_BYTES], *text, *end;

    if (w->out != NULL) {
        fprintf(w->out, base == 16 ? "%s=%016" PRIx64 "\n" : "%s=%" PRIu64 "\n", field, *value);
        return;
    }
    text = next_value(w, field, line);
    if (text == NULL)
        return;
    errno = 0;
    *value = strtoull(text, &end, base);
    if (*text == '\0' || *text == '-' || *end != '\0' || errno != 0 || *value > max)
        refuse(w, field, "is no number within its bounds", text);
}

static void walk_u32(struct walk *w, const char *field, uint32_t *value, uint32_t max)
{
    uint64_t wide = *value;

    walk_u64(w, field, &wide, 10, max);
    *value = (uint32_t)wide;
}

static void walk_word(struct walk *w, const char *field, char *value, size_t cap)
{
    char line[LINE_MAX_BYTES], *text;

    if (w->out != NULL) {
        fprintf(w->out, "%s=%s\n", field, value);
        return;
    }
    text = next_value(w, field, line);
    if (text == NULL)
        return;
    if (strlen(text) >= cap)
        refuse(w, field, "is too long", text);
    else
        memcpy(value, text, strlen(text) + 1);
}

/* A number of the model; advances *text past it. */
static bool parse_ns(char **text, double *value)
{
    char *end;

    *value = strtod(*text, &end);
    if (end == *text || !isfinite(*value) || *value < 0)
        return false;
    *text = end;
    return true;
}

static void walk_ns(struct walk *w, const char *field, double *value)
{
    char line[LINE_MAX_BYTES], *text;

    if (w->out != NULL) {
        fprintf(w->out, "%s=%.9g\n", field, *value);
        return;
    }
    text = next_value(w, field, line);
    if (text != NULL && (!parse_ns(&text, value) || *text != '\0'))
        refuse(w, field, "is no number >= 0", text);
}

static void print_stairs(FILE *out, const char *field, const struct latency_stairs *s)
{
    fprintf(out, "%s=", field);
    for (uint32_t i = 0; i < s->n; i++)
        fprintf(out, "%s%u:%.9g", i > 0 ? " " : "", s->rows[i], s->ns[i]);
    fputc('\n', out);
}

/* "rows:ns rows:ns ...", ascending in rows, and in time if it must; false: it is not. */
static bool parse_stairs(char *text, struct latency_stairs *s, bool must_ascend)
{
    char *end;

    for (s->n = 0; *text != '\0'; s->n++) {
        if (s->n == LATENCY_STEPS_MAX)
            return false;
        unsigned long rows = strtoul(text, &end, 10);
        if (end == text || *text == '-' || *end != ':' || rows == 0 || rows > UINT32_MAX ||
            (s->n > 0 && rows <= s->rows[s->n - 1]))
            return false;
        s->rows[s->n] = (uint32_t)rows;
        text = end + 1;
        if (!parse_ns(&text, &s->ns[s->n]) ||
            (must_ascend && s->n > 0 && s->ns[s->n] < s->ns[s->n - 1]))
            return false;
        if (*text == ' ')
            text++;
        else if (*text != '\0')
            return false;
    }
    return s->n > 0;
}

static void walk_stairs(struct walk *w, const char *field, struct latency_stairs *s,
                        bool must_ascend)
{
    char line[LINE_MAX_BYTES], *text;

    if (w->out != NULL) {
        print_stairs(w->out, field, s);
        return;
    }
    text = next_value(w, field, line);
    if (text != NULL && !parse_stairs(text, s, must_ascend))
        refuse(w, field, "is no ascending list of rows:ns", text);
}

/* "0,0,1,...": the kind of each layer. */
static void walk_kinds(struct walk *w, struct latency_model *m)
{
    char line[LINE_MAX_BYTES], *text, *end;

    if (w->out != NULL) {
        fprintf(w->out, "kind_of=");
        for (uint32_t l = 0; l < m->n_layers; l++)
            fprintf(w->out, "%s%u", l > 0 ? "," : "", m->kind_of[l]);
        fputc('\n', w->out);
        return;
    }
    text = next_value(w, "kind_of", line);
    m->n_of[0] = m->n_layers; /* as latency_init has it, before n_layers was known */
    for (uint32_t l = 0; text != NULL && l < m->n_layers; l++) {
        unsigned long kind = strtoul(text, &end, 10);
        if (end == text || kind >= m->n_kinds || *end != (l + 1 < m->n_layers ? ',' : '\0')) {
            refuse(w, "kind_of", "is no list of a kind per layer", line);
            return;
        }
        latency_set_kind(m, l, (uint32_t)kind);
        text = end + 1;
    }
}

static void walk_kind(struct walk *w, uint32_t i, struct latency_kind *k)
{
    struct {
        const char *name;
        double *value;
    } numbers[] = {
        {"pre_share", &k->pre_share}, {"pa_a", &k->pa_a}, {"pa_h", &k->pa_h}, {"pa_b", &k->pa_b},
        {"da_a", &k->da_a},           {"da_h", &k->da_h}, {"da_b", &k->da_b}};
    char field[32];

    snprintf(field, sizeof field, "kind.%u.window", i);
    walk_u32(w, field, &k->window, UINT32_MAX);
    snprintf(field, sizeof field, "kind.%u.n_sinks", i);
    walk_u32(w, field, &k->n_sinks, UINT32_MAX);
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
        snprintf(field, sizeof field, "kind.%u.%s", i, numbers[n].name);
        walk_ns(w, field, numbers[n].value);
    }
    snprintf(field, sizeof field, "kind.%u.dense", i);
    walk_stairs(w, field, &k->dense, true);
}

static void walk_kv_type(struct walk *w, uint32_t *type)
{
    char name[8] = "";
    uint32_t i = 1;

    snprintf(name, sizeof name, "%s", w->out != NULL ? kv_names[*type] : "");
    walk_word(w, "kv_type", name, sizeof name);
    while (i < sizeof kv_names / sizeof *kv_names && strcmp(name, kv_names[i]) != 0)
        i++;
    if (i == sizeof kv_names / sizeof *kv_names)
        refuse(w, "kv_type", "is unknown", name);
    *type = i;
}

static void walk_profile(struct walk *w, struct profile *p)
{
    struct latency_model *m = &p->latency;
    uint32_t version = PROFILE_VERSION;

    walk_u32(w, "omniserve_profile", &version, UINT32_MAX);
    if (w->rc == 0 && version != PROFILE_VERSION)
        refuse(w, "omniserve_profile", "is a version that this program does not know", NULL);
    walk_u64(w, "model_hash", &p->key.model_hash, 16, UINT64_MAX);
    walk_word(w, "device", p->key.device, sizeof p->key.device);
    walk_word(w, "variant", p->key.variant, sizeof p->key.variant);
    walk_u32(w, "threads", &p->key.n_threads, UINT32_MAX);
    walk_kv_type(w, &p->key.kv_type);
    walk_u32(w, "block_tokens", &p->key.block_tokens, UINT32_MAX);
    walk_u32(w, "rows_max", &p->key.rows_max, UINT32_MAX);
    walk_u32(w, "n_layers", &m->n_layers, LATENCY_LAYERS_MAX);
    walk_u32(w, "n_kinds", &m->n_kinds, LATENCY_KINDS_MAX);
    walk_kinds(w, m);
    walk_ns(w, "fixed_ns", &m->fixed_ns);
    walk_ns(w, "row_ns", &m->row_ns);
    walk_stairs(w, "head", &m->head, false); /* few rows: one can cost more than two */
    for (uint32_t k = 0; k < m->n_kinds && w->rc == 0; k++)
        walk_kind(w, k, &m->kind[k]);
}

/* ---- Reading --------------------------------------------------------------------------------- */

int profile_file_read(struct profile *p, const char *path, struct error *err)
{
    struct walk w = {.in = fopen(path, "re"), .path = path, .err = err};

    if (w.in == NULL)
        return error_set(err, -errno, "profile %s: %s", path, strerror(errno));
    memset(p, 0, sizeof *p);
    latency_init(&p->latency, 0);
    walk_profile(&w, p);
    w.line++;
    if (w.rc == 0 && fgetc(w.in) != EOF)
        refuse(&w, "the end", "is expected here", NULL);
    fclose(w.in);
    return w.rc;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static int make_folders(const char *path)
{
    char part[PROFILE_PATH_MAX];

    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

int profile_file_write(const struct profile *p, const char *path, struct error *err)
{
    char temporary[PROFILE_PATH_MAX + 16];
    struct profile copy = *p;
    struct walk w = {.path = path, .err = err};
    int rc = make_folders(path);

    snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
    if (rc != 0 || (w.out = fopen(temporary, "we")) == NULL)
        return error_set(err, rc != 0 ? rc : -errno, "profile %s: %s", path, strerror(errno));
    walk_profile(&w, &copy);
    bool ok = !ferror(w.out);
    ok = fclose(w.out) == 0 && ok;
    if (!ok || rename(temporary, path) != 0) {
        rc = error_set(err, errno != 0 ? -errno : -EIO, "profile %s: %s", path, strerror(errno));
        unlink(temporary);
    }
    return rc;
}

/* ---- Whose is it? ---------------------------------------------------------------------------- */

static int differs(struct error *err, const char *field, uint64_t found, uint64_t expected)
{
    return error_set(err, -EINVAL, "profile: %s is %" PRIu64 ", expected %" PRIu64, field, found,
                     expected);
}

static int layers_fit(const struct latency_model *a, const struct latency_model *b,
                      struct error *err)
{
    if (a->n_layers != b->n_layers)
        return differs(err, "n_layers", a->n_layers, b->n_layers);
    if (a->n_kinds != b->n_kinds)
        return differs(err, "n_kinds", a->n_kinds, b->n_kinds);
    for (uint32_t l = 0; l < a->n_layers; l++) {
        if (a->kind_of[l] != b->kind_of[l])
            return differs(err, "kind_of", a->kind_of[l], b->kind_of[l]);
    }
    for (uint32_t k = 0; k < a->n_kinds; k++) {
        if (a->kind[k].window != b->kind[k].window)
            return differs(err, "kind.window", a->kind[k].window, b->kind[k].window);
        if (a->kind[k].n_sinks != b->kind[k].n_sinks)
            return differs(err, "kind.n_sinks", a->kind[k].n_sinks, b->kind[k].n_sinks);
    }
    return 0;
}

int profile_file_fits(const struct profile *p, const struct profile_key *key,
                      const struct latency_model *layers, struct error *err)
{
    if (p->key.model_hash != key->model_hash)
        return error_set(err, -EINVAL,
                         "profile: model_hash is %016" PRIx64 ", expected %016" PRIx64,
                         p->key.model_hash, key->model_hash);
    if (strcmp(p->key.device, key->device) != 0)
        return error_set(err, -EINVAL, "profile: device is %s, expected %s", p->key.device,
                         key->device);
    if (strcmp(p->key.variant, key->variant) != 0)
        return error_set(err, -EINVAL, "profile: variant is %s, expected %s", p->key.variant,
                         key->variant);
    if (p->key.n_threads != key->n_threads)
        return differs(err, "threads", p->key.n_threads, key->n_threads);
    if (p->key.kv_type != key->kv_type)
        return error_set(err, -EINVAL, "profile: kv_type is %s, expected %s",
                         kv_names[p->key.kv_type], kv_names[key->kv_type]);
    if (p->key.block_tokens != key->block_tokens)
        return differs(err, "block_tokens", p->key.block_tokens, key->block_tokens);
    if (p->key.rows_max < key->rows_max)
        return error_set(err, -EINVAL, "profile: rows_max is %u, at least %u are needed",
                         p->key.rows_max, key->rows_max);
    return layers_fit(&p->latency, layers, err);
}
