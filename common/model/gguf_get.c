/* Typed access to a checked file: nothing here can leave the mapping. */
#include "common/base/invariant.h"
#include "common/model/gguf_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_key(const void *key, const void *entry)
{
    const struct gguf_string *k = key;
    const struct gguf_string *e = &((const struct gguf_entry *)entry)->key;
    const size_t n = k->len < e->len ? k->len : e->len;
    const int order = memcmp(k->data, e->data, n);

    return order ? order : (k->len > e->len) - (k->len < e->len);
}

const struct gguf_entry *gguf_find_entry(const struct gguf *g, const char *key)
{
    const struct gguf_string k = {key, strlen(key)};

    return bsearch(&k, g->entries, (size_t)g->n_entries, sizeof(*g->entries), compare_key);
}

void gguf_error_at_key(struct gguf_error *err, const struct gguf *g, const char *key,
                       const char *format, ...)
{
    const struct gguf_entry *e = gguf_find_entry(g, key);
    char text[sizeof(err->text)];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (e)
        gguf_error_set(err, "%s at offset %" PRIu64 ": %s", key, e->file_off, text);
    else
        gguf_error_set(err, "%s (absent): %s", key, text);
}

static int find(const struct gguf *g, const char *key, const struct gguf_entry **out,
                struct gguf_error *err)
{
    *out = gguf_find_entry(g, key);
    if (*out)
        return 0;
    gguf_error_set(err, "metadata key %s: missing", key);
    return -ENOENT;
}

static int wrong_type(const struct gguf_entry *e, const char *key, const char *expected,
                      struct gguf_error *err)
{
    gguf_error_set(err, "%s at offset %" PRIu64 ": expected %s, found %s", key, e->file_off,
                   expected, gguf_value_type_name(e->type));
    return -EINVAL;
}

static uint64_t load_unsigned(const unsigned char *p, uint32_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, p, bytes);
    return value;
}

/* A fixed-width value as an unsigned integer; false if it is negative or no integer. */
static bool value_u64(enum gguf_value_type type, const unsigned char *p, uint64_t *out)
{
    const uint32_t bytes = gguf_value_bytes(type);

    switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        *out = load_unsigned(p, bytes);
        return true;
    case GGUF_BOOL:
        *out = *p != 0;
        return true;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        *out = load_unsigned(p, bytes);
        return (*out >> (bytes * 8 - 1)) == 0;
    default:
        return false;
    }
}

static bool value_f32(enum gguf_value_type type, const unsigned char *p, float *out)
{
    double d;

    if (type == GGUF_F32) {
        memcpy(out, p, sizeof(*out));
        return true;
    }
    if (type == GGUF_F64) {
        memcpy(&d, p, sizeof(d));
        *out = (float)d;
        return true;
    }
    return false;
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct gguf_error *err)
{
    const struct gguf_entry *e;
    uint64_t value;
    const int rc = find(g, key, &e, err);

    if (rc)
        return rc;
    if (e->type == GGUF_BOOL || !value_u64(e->type, e->data, &value))
        return wrong_type(e, key, "an integer >= 0", err);
    *out = value;
    return 0;
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct gguf_error *err)
{
    uint64_t value;
    const int rc = gguf_get_u64(g, key, &value, err);

    if (rc)
        return rc;
    if (value > UINT32_MAX) {
        gguf_error_set(err, "%s at offset %" PRIu64 ": %" PRIu64 " does not fit into 32 bits", key,
                       gguf_find_entry(g, key)->file_off, value);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *out, struct gguf_error *err)
{
    const struct gguf_entry *e;
    const int rc = find(g, key, &e, err);

    if (rc)
        return rc;
    if (!value_f32(e->type, e->data, out))
        return wrong_type(e, key, "f32", err);
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct gguf_error *err)
{
    const struct gguf_entry *e;
    const int rc = find(g, key, &e, err);

    if (rc)
        return rc;
    if (e->type != GGUF_BOOL)
        return wrong_type(e, key, "bool", err);
    *out = *e->data != 0;
    return 0;
}

int gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                    struct gguf_error *err)
{
    const struct gguf_entry *e;
    const int rc = find(g, key, &e, err);

    if (rc)
        return rc;
    if (e->type != GGUF_STRING)
        return wrong_type(e, key, "string", err);
    *out = (struct gguf_string){(const char *)e->data, (size_t)e->n};
    return 0;
}

int gguf_get_array(const struct gguf *g, const char *key, struct gguf_array *out,
                   struct gguf_error *err)
{
    const struct gguf_entry *e;
    const int rc = find(g, key, &e, err);

    if (rc)
        return rc;
    if (e->type != GGUF_ARRAY)
        return wrong_type(e, key, "array", err);
    *out = (struct gguf_array){
        .type = e->element, .n = e->n, .data = e->data, .file_off = e->file_off};
    return 0;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return gguf_find_entry(g, key) != NULL;
}

bool gguf_is_array(const struct gguf *g, const char *key)
{
    const struct gguf_entry *e = gguf_find_entry(g, key);

    return e && e->type == GGUF_ARRAY;
}

int gguf_array_u64(const struct gguf_array *a, uint64_t i, uint64_t *out)
{
    invariant(i < a->n);
    return value_u64(a->type, a->data + i * gguf_value_bytes(a->type), out) ? 0 : -EINVAL;
}

int gguf_array_f32(const struct gguf_array *a, uint64_t i, float *out)
{
    invariant(i < a->n);
    return value_f32(a->type, a->data + i * gguf_value_bytes(a->type), out) ? 0 : -EINVAL;
}

bool gguf_array_next(const struct gguf_array *a, struct gguf_cursor *c, struct gguf_string *out)
{
    uint64_t len;

    invariant(a->type == GGUF_STRING);
    if (c->i >= a->n)
        return false;
    memcpy(&len, a->data + c->off, sizeof(len));
    *out = (struct gguf_string){(const char *)a->data + c->off + sizeof(len), (size_t)len};
    c->off += sizeof(len) + len;
    c->i++;
    return true;
}

uint64_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i)
{
    invariant(i < g->n_tensors);
    return &g->tensors[i];
}

static int compare_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct gguf_tensor *)tensor)->name);
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    return bsearch(name, g->tensors, (size_t)g->n_tensors, sizeof(*g->tensors), compare_name);
}
