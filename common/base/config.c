#include "common/base/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config_options.h"
#include "common/base/invariant.h"

#define OPTION_ROW(section_, key_, type_, default_, min_, max_, unit_, doc_)                       \
    {.section = #section_,                                                                         \
     .key = #key_,                                                                                 \
     .type = CONFIG_TYPE_##type_,                                                                  \
     .default_text = default_,                                                                     \
     .min = min_,                                                                                  \
     .max = max_,                                                                                  \
     .unit = unit_,                                                                                \
     .doc = doc_,                                                                                  \
     .offset = offsetof(struct omni_config, section_##_##key_)},

static const struct config_option options[] = {CONFIG_TABLE(OPTION_ROW)};

enum { N_OPTIONS = sizeof options / sizeof *options, DISTANCE_MAX = 80 };

const struct config_option *config_options(uint32_t *n)
{
    *n = N_OPTIONS;
    return options;
}

/* ---- names ----------------------------------------------------------------------------------- */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance; longer names are cut to DISTANCE_MAX. */
static uint32_t edit_distance(const char *a, const char *b)
{
    uint32_t row[DISTANCE_MAX + 1];
    uint32_t n = (uint32_t)strnlen(b, DISTANCE_MAX);

    for (uint32_t j = 0; j <= n; j++)
        row[j] = j;
    for (uint32_t i = 1; a[i - 1] != '\0' && i <= DISTANCE_MAX; i++) {
        uint32_t diagonal = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= n; j++) {
            uint32_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min_u32(change, min_u32(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

static void full_name(const struct config_option *o, char out[DISTANCE_MAX])
{
    snprintf(out, DISTANCE_MAX, "%s.%s", o->section, o->key);
}

static const struct config_option *find(const char *section, const char *key)
{
    for (uint32_t i = 0; i < N_OPTIONS; i++) {
        if (strcmp(options[i].section, section) == 0 && strcmp(options[i].key, key) == 0)
            return &options[i];
    }
    return NULL;
}

static uint32_t common_prefix(const char *a, const char *b)
{
    uint32_t n = 0;

    while (a[n] != '\0' && a[n] == b[n])
        n++;
    return n;
}

static int unknown_option(const char *section, const char *key, struct error *err)
{
    char wanted[DISTANCE_MAX], name[DISTANCE_MAX], best[DISTANCE_MAX] = "";
    uint32_t best_distance = UINT32_MAX;

    snprintf(wanted, sizeof wanted, "%s.%s", section, key);
    for (uint32_t i = 0; i < N_OPTIONS; i++) {
        uint32_t distance;
        full_name(&options[i], name);
        distance = edit_distance(wanted, name);
        if (distance < best_distance ||
            (distance == best_distance &&
             common_prefix(wanted, name) > common_prefix(wanted, best))) {
            best_distance = distance;
            memcpy(best, name, sizeof best);
        }
    }
    return error_set(err, -ENOENT, "%s: unknown option; the nearest is %s", wanted, best);
}

/* ---- values ---------------------------------------------------------------------------------- */

static int bad_value(const struct config_option *o, const char *value, const char *expected,
                     struct error *err)
{
    return error_set(err, -EINVAL, "%s.%s: expected %s, found \"%s\"", o->section, o->key, expected,
                     value);
}

static uint64_t suffix_factor(char c)
{
    switch (tolower((unsigned char)c)) {
    case 'k':
        return UINT64_C(1) << 10;
    case 'm':
        return UINT64_C(1) << 20;
    case 'g':
        return UINT64_C(1) << 30;
    default:
        return 0;
    }
}

static int set_u32(uint32_t *out, const struct config_option *o, const char *value,
                   struct error *err)
{
    char expected[96];
    char *end;
    uint64_t n = strtoull(value, &end, 10);
    uint64_t factor = 1;

    snprintf(expected, sizeof expected, "a number from %llu to %llu%s%s",
             (unsigned long long)o->min, (unsigned long long)o->max, o->unit[0] != '\0' ? " " : "",
             o->unit);
    if (*end != '\0') {
        factor = suffix_factor(*end);
        end++;
    }
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || factor == 0 || n > UINT32_MAX ||
        n * factor < o->min || n * factor > o->max)
        return bad_value(o, value, expected, err);
    *out = (uint32_t)(n * factor);
    return 0;
}

static int set_bool(bool *out, const struct config_option *o, const char *value, struct error *err)
{
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};

    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
            *out = strcasecmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return bad_value(o, value, "yes or no", err);
}

static int set_string(char *out, const struct config_option *o, const char *value,
                      struct error *err)
{
    char expected[64];
    size_t n = strlen(value);

    snprintf(expected, sizeof expected, "%llu to %llu characters", (unsigned long long)o->min,
             (unsigned long long)o->max);
    if (n < o->min || n > o->max)
        return bad_value(o, value, expected, err);
    memcpy(out, value, n + 1);
    return 0;
}

const char *config_enum_name(const struct config_option *o, uint32_t i, size_t *len)
{
    const char *p = o->unit;

    for (; i > 0 && p != NULL; i--) {
        p = strchr(p, '|');
        p = p != NULL ? p + 1 : NULL;
    }
    *len = p != NULL ? strcspn(p, "|") : 0;
    return p;
}

static int set_enum(uint32_t *out, const struct config_option *o, const char *value,
                    struct error *err)
{
    char expected[64];

    for (uint32_t i = 0; i <= o->max; i++) {
        size_t len;
        const char *name = config_enum_name(o, i, &len);
        if (name != NULL && strlen(value) == len && memcmp(name, value, len) == 0) {
            *out = i;
            return 0;
        }
    }
    snprintf(expected, sizeof expected, "%s", o->unit);
    return bad_value(o, value, expected, err);
}

static int set_option(struct omni_config *c, const struct config_option *o, const char *value,
                      struct error *err)
{
    void *field = (uint8_t *)c + o->offset;

    switch (o->type) {
    case CONFIG_TYPE_U32:
    case CONFIG_TYPE_MS:
        return set_u32(field, o, value, err);
    case CONFIG_TYPE_BOOL:
        return set_bool(field, o, value, err);
    case CONFIG_TYPE_STRING:
        return set_string(field, o, value, err);
    case CONFIG_TYPE_ENUM:
        return set_enum(field, o, value, err);
    }
    return -EINVAL;
}

void config_defaults(struct omni_config *c)
{
    memset(c, 0, sizeof *c);
    for (uint32_t i = 0; i < N_OPTIONS; i++) {
        int rc = set_option(c, &options[i], options[i].default_text, NULL);
        invariant(rc == 0);
    }
}

int config_set(struct omni_config *c, const char *assignment, struct error *err)
{
    const char *dot = strchr(assignment, '.');
    const char *equals = strchr(assignment, '=');
    const struct config_option *o;
    char section[DISTANCE_MAX], key[DISTANCE_MAX];

    if (dot == NULL || equals == NULL || dot > equals)
        return error_set(err, -EINVAL, "expected section.key=value, found \"%s\"", assignment);
    snprintf(section, sizeof section, "%.*s", (int)(dot - assignment), assignment);
    snprintf(key, sizeof key, "%.*s", (int)(equals - dot - 1), dot + 1);
    o = find(section, key);
    return o == NULL ? unknown_option(section, key, err) : set_option(c, o, equals + 1, err);
}

/* ---- file ------------------------------------------------------------------------------------ */

struct loading {
    struct omni_config *config;
    FILE *file;
    uint32_t line;
    int rc; /* of the first bad line */
    uint32_t bad_line;
    struct error error;
};

static void note_fault(struct loading *l, int rc)
{
    if (l->rc == 0) {
        l->rc = rc;
        l->bad_line = l->line;
    }
}

/* inih cuts long lines in two and takes indented ones as continuations: neither is wanted. */
static char *read_line(char *text, int size, void *arg)
{
    struct loading *l = arg;
    size_t n, blanks;

    if (l->rc != 0 || fgets(text, size, l->file) == NULL)
        return NULL;
    l->line++;
    n = strlen(text);
    if (n > 0 && text[n - 1] != '\n' && !feof(l->file)) {
        note_fault(l, error_set(&l->error, -EINVAL, "line longer than %d characters", size - 2));
        return NULL;
    }
    blanks = strspn(text, " \t");
    memmove(text, text + blanks, n + 1 - blanks);
    return text;
}

static int on_value(void *arg, const char *section, const char *key, const char *value)
{
    struct loading *l = arg;
    const struct config_option *o = find(section, key);
    struct error error;
    int rc;

    rc = o == NULL ? unknown_option(section, key, &error) : set_option(l->config, o, value, &error);
    if (rc != 0 && l->rc == 0) {
        l->error = error;
        note_fault(l, rc);
    }
    return rc == 0;
}

int config_load(struct omni_config *c, const char *path, struct error *err)
{
    struct loading l = {.config = c, .file = fopen(path, "re")};
    int syntax_line;

    if (l.file == NULL) {
        int code = errno;
        return error_set(err, -code, "%s: %s", path, strerror(code));
    }
    syntax_line = ini_parse_stream(read_line, &l, on_value, &l);
    fclose(l.file);
    if (l.rc != 0)
        return error_set(err, l.rc, "%s:%u: %.300s", path, l.bad_line, l.error.text);
    if (syntax_line != 0)
        return error_set(err, -EINVAL, "%s:%d: expected [section] or key = value", path,
                         syntax_line);
    return 0;
}

/* ---- lists ----------------------------------------------------------------------------------- */

bool config_list_item(const char *list, uint32_t i, char *out, size_t out_size)
{
    size_t n;

    for (; i > 0 && list != NULL; i--) {
        list = strchr(list, ',');
        list = list != NULL ? list + 1 : NULL;
    }
    if (list == NULL)
        return false;
    list += strspn(list, " \t");
    n = strcspn(list, ",");
    while (n > 0 && isblank((unsigned char)list[n - 1]))
        n--;
    if (n == 0 || n >= out_size)
        return false;
    memcpy(out, list, n);
    out[n] = '\0';
    return true;
}

uint32_t config_classes(const struct omni_config *c,
                        char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX])
{
    uint32_t n = 0;

    while (n < CONFIG_CLASSES_MAX &&
           config_list_item(c->group_classes, n, names[n], CONFIG_CLASS_NAME_MAX))
        n++;
    return n;
}
