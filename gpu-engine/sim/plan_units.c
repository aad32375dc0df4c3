#include "gpu-engine/sim/plan_units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    double factor;
};

/* What a kind of quantity is called in an error, and its units; {NULL} ends them. */
struct quantity {
    const char *example;
    struct unit units[10];
};

static const struct quantity a_time = {
    "a time with its unit is expected, such as 2s, 200ms or 5min",
    {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}}};
static const struct quantity a_frequency = {
    "a rate with its unit is expected, such as 4/s or 180/min",
    {{"/s", 1}, {"/min", 1.0 / 60}, {"/h", 1.0 / 3600}}};
static const struct quantity a_size = {
    "a size with its unit is expected, such as 512GB or 64GiB",
    {{"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}}};
static const struct quantity a_bandwidth = {
    "a bandwidth with its unit is expected, such as 200GB/s or 100Gbit/s",
    {{"MB/s", 1e-3},
     {"GB/s", 1},
     {"TB/s", 1e3},
     {"MiB/s", 0x1p20 / 1e9},
     {"GiB/s", 0x1p30 / 1e9},
     {"Mbit/s", 1e-3 / 8},
     {"Gbit/s", 1.0 / 8},
     {"Gbps", 1.0 / 8}}};

static const double most_of_all = 1e18;

/* strtod, without what it reads beyond decimal numbers (inf, nan, 0x10). */
static bool read_number(const char *text, const char **rest, double *value)
{
    char *end;

    if (!isdigit((unsigned char)text[0]) || text[1] == 'x' || text[1] == 'X')
        return false;
    *value = strtod(text, &end);
    *rest = end;
    return isfinite(*value) && *value <= most_of_all;
}

static int parse(const struct quantity *q, const char *field, const char *text, double *value,
                 struct error *err)
{
    const char *unit;
    double number;

    if (!read_number(text, &unit, &number))
        return error_set(err, -EINVAL, "%s: '%s': %s", field, text, q->example);
    for (const struct unit *u = q->units; u->name != NULL; u++) {
        if (strcmp(unit, u->name) == 0) {
            *value = number * u->factor;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "%s: '%s' has %s%s%s; %s", field, text,
                     *unit == '\0' ? "no unit" : "the unknown unit '", unit,
                     *unit == '\0' ? "" : "'", q->example);
}

int plan_parse_time(const char *field, const char *text, double *seconds, struct error *err)
{
    return parse(&a_time, field, text, seconds, err);
}

int plan_parse_frequency(const char *field, const char *text, double *per_second, struct error *err)
{
    return parse(&a_frequency, field, text, per_second, err);
}

int plan_parse_bytes(const char *field, const char *text, double *bytes, struct error *err)
{
    return parse(&a_size, field, text, bytes, err);
}

int plan_parse_bandwidth(const char *field, const char *text, double *bytes_per_ns,
                         struct error *err)
{
    return parse(&a_bandwidth, field, text, bytes_per_ns, err);
}

int plan_parse_number(const char *field, const char *text, double least, double most, double *value,
                      struct error *err)
{
    const char *rest;

    if (!read_number(text, &rest, value) || *rest != '\0' || *value < least || *value > most)
        return error_set(err, -EINVAL, "%s: '%s': a number from %g to %g is expected", field, text,
                         least, most);
    return 0;
}

/* ---- Parts ----------------------------------------------------------------------------------- */

/* One item between commas: a size, or a bandwidth. */
static int parse_item(const char *field, const char *item, struct plan_parts *parts,
                      struct error *err)
{
    struct error ignored;

    if (plan_parse_bytes(field, item, &parts->bytes, &ignored) == 0)
        return 0;
    return plan_parse_bandwidth(field, item, &parts->bytes_per_ns, err);
}

int plan_parse_parts(const char *field, const char *text, struct plan_parts *parts,
                     struct error *err)
{
    char copy[128], *item = copy, *saved;
    size_t digits = strspn(text, "0123456789");
    int rc = 0;

    if (strlen(text) >= sizeof copy)
        return error_set(err, -EINVAL, "%s: too long", field);
    memcpy(copy, text, strlen(text) + 1);
    if (digits > 0 && digits < 6 && (text[digits] == 'x' || text[digits] == '\0')) {
        parts->n = (uint32_t)strtoul(text, NULL, 10);
        item += digits + (text[digits] == 'x');
        if (text[digits] == '\0')
            return 0;
    }
    item = strtok_r(item, ",", &saved);
    if (item == NULL)
        return error_set(err, -EINVAL, "%s: '%s': such as 2x400GB/s or 2x400GB/s,512GB", field,
                         text);
    for (; item != NULL && rc == 0; item = strtok_r(NULL, ",", &saved))
        rc = parse_item(field, item, parts, err);
    return rc;
}
