#include "gpu-engine/sim/plan_trace.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { COLUMN_TIME, COLUMN_IN, COLUMN_OUT, N_COLUMNS, COLUMNS_MAX = 32 };
enum { TOKENS_MAX = 1000000, CAP_FIRST = 1024 };

static const char *const column_names[N_COLUMNS][8] = {
    {"TIMESTAMP", "timestamp", "arrival_s", "issue_s", "time"},
    {"ContextTokens", "input_length", "input_tokens", "num_prefill_tokens", "prompt_len"},
    {"GeneratedTokens", "output_length", "output_tokens", "num_decode_tokens", "output_len"}};
static const char *const column_docs[N_COLUMNS] = {
    ("arrival times (TIMESTAMP, arrival_s, issue_s, time); lengths alone go with "
     "--trace poisson:RATE:LENGTHS"),
    "prompt tokens (ContextTokens, input_length, input_tokens, num_prefill_tokens)",
    "output tokens (GeneratedTokens, output_length, output_tokens, num_decode_tokens)"};

struct reader {
    struct plan_trace *trace;
    FILE *file;
    const char *name;
    uint32_t line;
    int column[N_COLUMNS]; /* of a CSV */
    bool dated;            /* times are dates */
    struct error *err;
};

/* ---- Arrivals -------------------------------------------------------------------------------- */

static int add(struct reader *r, double at_s, double n_in, double n_out)
{
    struct plan_trace *t = r->trace;

    if (!isfinite(at_s) || !(n_in >= 0 && n_in <= TOKENS_MAX) ||
        !(n_out >= 0 && n_out <= TOKENS_MAX))
        return error_set(r->err, -EINVAL, "%s: line %u: time or lengths are out of bounds", r->name,
                         r->line);
    if (n_in < 1 || n_out < 1) {
        t->n_left_out++;
        return 0;
    }
    if (t->n == t->cap) {
        uint32_t cap = t->cap == 0 ? CAP_FIRST : 2 * t->cap;
        struct plan_arrival *grown = realloc(t->arrivals, (size_t)cap * sizeof *grown);
        if (grown == NULL)
            return error_set(r->err, -ENOMEM, "%s: no memory for %u arrivals", r->name, cap);
        t->arrivals = grown;
        t->cap = cap;
    }
    t->arrivals[t->n++] = (struct plan_arrival){
        .at_s = at_s, .lengths = {.n_in = (uint32_t)n_in, .n_out = (uint32_t)n_out}};
    return 0;
}

static int compare_arrivals(const void *a, const void *b)
{
    double x = ((const struct plan_arrival *)a)->at_s, y = ((const struct plan_arrival *)b)->at_s;

    return (x > y) - (x < y);
}

static int finish(struct reader *r)
{
    struct plan_trace *t = r->trace;

    if (t->n < 2)
        return error_set(r->err, -EINVAL, "%s: %u arrivals; a trace has two at least", r->name,
                         t->n);
    qsort(t->arrivals, t->n, sizeof *t->arrivals, compare_arrivals);
    double first_s = t->arrivals[0].at_s;
    for (uint32_t i = 0; i < t->n; i++)
        t->arrivals[i].at_s -= first_s;
    t->begin_s = r->dated ? 0 : first_s;
    double last_s = t->arrivals[t->n - 1].at_s;
    if (last_s <= 0)
        return error_set(r->err, -EINVAL, "%s: all arrivals have the same time", r->name);
    t->span_s = last_s * t->n / (t->n - 1);
    return 0;
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static int split(char *line, char *fields[COLUMNS_MAX])
{
    int n = 0;

    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; n < COLUMNS_MAX; at++) {
        fields[n++] = at;
        at += strcspn(at, ",");
        if (*at == '\0')
            break;
        *at = '\0';
    }
    return n;
}

static int find_column(int which, char *const *fields, int n)
{
    for (int i = 0; i < n; i++) {
        for (const char *const *name = column_names[which]; *name != NULL; name++) {
            if (strcmp(fields[i], *name) == 0)
                return i;
        }
    }
    return -1;
}

static int read_heading(struct reader *r, char *line)
{
    char *fields[COLUMNS_MAX];
    int n = split(line, fields);

    for (int which = 0; which < N_COLUMNS; which++) {
        r->column[which] = find_column(which, fields, n);
        if (r->column[which] < 0)
            return error_set(r->err, -EINVAL, "%s: line 1 names no column of %s", r->name,
                             column_docs[which]);
    }
    return 0;
}

/* Seconds, or a date and a time of day with any fraction. */
static bool parse_moment(struct reader *r, const char *text, double *at_s)
{
    struct tm tm = {.tm_isdst = 0};
    char *end;

    *at_s = strtod(text, &end);
    if (end != text && *end == '\0')
        return true;
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (rest == NULL || (*rest != ' ' && *rest != 'T'))
        return false;
    rest = strptime(rest + 1, "%H:%M:%S", &tm);
    if (rest == NULL)
        return false;
    r->dated = true;
    *at_s = (double)timegm(&tm);
    if (*rest == '.')
        *at_s += strtod(rest, &end);
    return true;
}

static bool parse_count(const char *text, double *value)
{
    char *end;

    *value = strtod(text, &end);
    return end != text && *end == '\0';
}

static int read_row(struct reader *r, char *line)
{
    char *fields[COLUMNS_MAX];
    int n = split(line, fields);
    double value[N_COLUMNS];

    for (int which = 0; which < N_COLUMNS; which++) {
        int at = r->column[which];
        if (at >= n)
            return error_set(r->err, -EINVAL, "%s: line %u has %d columns, column %d is missing",
                             r->name, r->line, n, at + 1);
        if (!(which == COLUMN_TIME ? parse_moment(r, fields[at], &value[which])
                                   : parse_count(fields[at], &value[which])))
            return error_set(r->err, -EINVAL, "%s: line %u, column %d: '%s' is no %s", r->name,
                             r->line, at + 1, fields[at],
                             which == COLUMN_TIME ? "time" : "number of tokens");
    }
    return add(r, value[COLUMN_TIME], value[COLUMN_IN], value[COLUMN_OUT]);
}

/* ---- JSON lines ------------------------------------------------------------------------------ */

static int read_json(struct reader *r, const char *line)
{
    static const char *const keys[N_COLUMNS] = {"timestamp", "input_length", "output_length"};
    json_error_t problem;
    json_t *object = json_loads(line, 0, &problem);
    double value[N_COLUMNS];
    int rc = 0;

    if (object == NULL)
        return error_set(r->err, -EINVAL, "%s: line %u: %s", r->name, r->line, problem.text);
    for (int which = 0; which < N_COLUMNS && rc == 0; which++) {
        const json_t *field = json_object_get(object, keys[which]);
        value[which] = json_number_value(field);
        if (!json_is_number(field))
            rc = error_set(r->err, -EINVAL, "%s: line %u: %s is missing or no number", r->name,
                           r->line, keys[which]);
    }
    json_decref(object);
    return rc == 0 ? add(r, value[COLUMN_TIME] / 1e3, value[COLUMN_IN], value[COLUMN_OUT]) : rc;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int read_line(struct reader *r, char *line, bool json)
{
    r->line++;
    if (line[strspn(line, " \t\r\n")] == '\0')
        return 0;
    if (json)
        return read_json(r, line);
    return r->line == 1 ? read_heading(r, line) : read_row(r, line);
}

int plan_trace_parse(struct plan_trace *t, FILE *f, const char *name, struct error *err)
{
    struct reader r = {.trace = t, .file = f, .name = name, .err = err};
    size_t cap = 0;
    char *line = NULL;
    int first = getc(f), rc = 0;

    memset(t, 0, sizeof *t);
    ungetc(first, f);
    if (first == 0x1f)
        return error_set(err, -EINVAL, "%s is compressed: zcat it into --trace -", name);
    while (rc == 0 && getline(&line, &cap, f) >= 0)
        rc = read_line(&r, line, first == '{');
    if (rc == 0 && ferror(f))
        rc = error_set(err, -EIO, "%s cannot be read", name);
    free(line);
    if (rc == 0)
        rc = finish(&r);
    if (rc != 0)
        plan_trace_fini(t);
    return rc;
}

int plan_trace_read(struct plan_trace *t, const char *path, struct error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");

    memset(t, 0, sizeof *t);
    if (f == NULL)
        return error_set(err, -errno, "--trace %s: %s", path, strerror(errno));
    int rc = plan_trace_parse(t, f, f == stdin ? "standard input" : path, err);
    if (f != stdin)
        fclose(f);
    return rc;
}

void plan_trace_fini(struct plan_trace *t)
{
    free(t->arrivals);
    memset(t, 0, sizeof *t);
}

struct plan_arrival plan_trace_at(const struct plan_trace *t, uint64_t i, double scale)
{
    struct plan_arrival a = t->arrivals[i % t->n];
    uint64_t n_rounds = i / t->n;

    a.at_s = (a.at_s + (double)n_rounds * t->span_s) / scale;
    return a;
}

double plan_trace_rate(const struct plan_trace *t)
{
    return t->n / t->span_s;
}
