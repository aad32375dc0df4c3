#include "proto/cli/status_print.h"

#include <inttypes.h>
#include <stdbool.h>

enum { INDENT = 2, DEPTH_MAX = 16 };

static void print_scalar(const json_t *value, FILE *out)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        fprintf(out, "%s", json_string_value(value));
        break;
    case JSON_INTEGER:
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        fprintf(out, "%.3f", json_real_value(value));
        break;
    case JSON_TRUE:
        fprintf(out, "yes");
        break;
    case JSON_FALSE:
        fprintf(out, "no");
        break;
    default:
        fprintf(out, "-");
    }
}

static bool is_scalar(const json_t *value)
{
    return !json_is_object(value) && !json_is_array(value);
}

/* "name key=value key=value", then its objects and arrays, each below it and further in. */
static void print_object(const char *name, const json_t *object, int depth, FILE *out);

static void print_array(const char *name, const json_t *array, int depth, FILE *out)
{
    size_t i;
    json_t *item;
    char label[64];

    json_array_foreach(array, i, item)
    {
        snprintf(label, sizeof label, "%s[%zu]", name, i);
        if (json_is_object(item)) {
            print_object(label, item, depth, out);
        } else if (is_scalar(item)) {
            fprintf(out, "%*s%s=", depth * INDENT, "", label);
            print_scalar(item, out);
            fputc('\n', out);
        }
    }
}

static void print_object(const char *name, const json_t *object, int depth, FILE *out)
{
    const char *key, *gap = name[0] != '\0' ? " " : "";
    json_t *value;

    if (depth > DEPTH_MAX)
        return;
    fprintf(out, "%*s%s", depth * INDENT, "", name);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!is_scalar(value))
            continue;
        fprintf(out, "%s%s=", gap, key);
        print_scalar(value, out);
        gap = " ";
    }
    fputc('\n', out);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (json_is_object(value))
            print_object(key, value, depth + 1, out);
        if (json_is_array(value))
            print_array(key, value, depth + 1, out);
    }
}

void status_print(const json_t *state, FILE *out)
{
    print_object("", state, 0, out);
}
