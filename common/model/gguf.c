/* Opening and checking a GGUF file.
 *
 * Layout: magic, version, tensor count, entry count; entries (key, type, value); tensor
 * descriptions (name, dimensions, type, offset); padding to the alignment; tensor data. One cursor
 * walks the header; each take_* checks that the bytes are there before it reads them, and on
 * failure leaves a message with field and offset.  Memory is bounded by the file's size, because a
 * count is refused when that many of the smallest possible items would not fit into the file. */
#include "common/model/gguf_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/invariant.h"

#define ENTRY_BYTES_MIN   (8 + 4 + 1)
#define TENSOR_BYTES_MIN  (8 + 4 + 8 + 4 + 8)
#define KEY_BYTES_MAX     65535
#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX     (UINT32_C(1) << 20)

struct reader {
    const unsigned char *base;
    size_t size, off; /* off <= size */
    struct gguf_error *err;
};

static int take(struct reader *r, void *out, size_t n, const char *field)
{
    if (n > r->size - r->off) {
        gguf_error_set(r->err, "%s at offset %zu: needs %zu bytes, file ends after %zu", field,
                       r->off, n, r->size - r->off);
        return -EINVAL;
    }
    memcpy(out, r->base + r->off, n);
    r->off += n;
    return 0;
}

static int take_u32(struct reader *r, uint32_t *out, const char *field)
{
    return take(r, out, sizeof(*out), field);
}

static int take_u64(struct reader *r, uint64_t *out, const char *field)
{
    return take(r, out, sizeof(*out), field);
}

static int take_string(struct reader *r, struct gguf_string *out, const char *field)
{
    uint64_t len;
    const size_t at = r->off;
    const int rc = take_u64(r, &len, field);

    if (rc)
        return rc;
    if (len > r->size - r->off) {
        gguf_error_set(r->err, "%s at offset %zu: length %" PRIu64 ", file ends after %zu", field,
                       at, len, r->size - r->off);
        return -EINVAL;
    }
    *out = (struct gguf_string){(const char *)r->base + r->off, (size_t)len};
    r->off += (size_t)len;
    return 0;
}

static int take_count(struct reader *r, uint64_t *out, size_t bytes_min, const char *field)
{
    const size_t at = r->off;
    const int rc = take_u64(r, out, field);

    if (rc)
        return rc;
    if (*out > r->size / bytes_min) {
        gguf_error_set(r->err, "%s at offset %zu: %" PRIu64 " cannot fit into a file of %zu bytes",
                       field, at, *out, r->size);
        return -EINVAL;
    }
    return 0;
}

static int take_value_type(struct reader *r, enum gguf_value_type *out, const char *field)
{
    uint32_t type;
    const size_t at = r->off;
    const int rc = take_u32(r, &type, field);

    if (rc)
        return rc;
    if (type >= GGUF_VALUE_TYPES) {
        gguf_error_set(r->err, "%s at offset %zu: unknown type %" PRIu32, field, at, type);
        return -EINVAL;
    }
    *out = (enum gguf_value_type)type;
    return 0;
}

/* Steps over n values of a type; strings one by one, because each has its own length. */
static int skip_values(struct reader *r, enum gguf_value_type type, uint64_t n, const char *field)
{
    const uint32_t bytes = gguf_value_bytes(type);
    struct gguf_string s;

    if (bytes) {
        if (n > (r->size - r->off) / bytes) {
            gguf_error_set(r->err,
                           "%s at offset %zu: %" PRIu64 " values of %u bytes, file ends after %zu",
                           field, r->off, n, bytes, r->size - r->off);
            return -EINVAL;
        }
        r->off += (size_t)n * bytes;
        return 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        const int rc = take_string(r, &s, field);

        if (rc)
            return rc;
    }
    return 0;
}

static int take_array(struct reader *r, struct gguf_entry *e, const char *field)
{
    const size_t at = r->off;
    int rc = take_value_type(r, &e->element, field);

    if (!rc && e->element == GGUF_ARRAY) {
        gguf_error_set(r->err, "%s at offset %zu: arrays of arrays are not supported", field, at);
        rc = -EINVAL;
    }
    if (!rc)
        rc = take_u64(r, &e->n, field);
    e->data = r->base + r->off;
    return rc ? rc : skip_values(r, e->element, e->n, field);
}

static int take_value(struct reader *r, struct gguf_entry *e, const char *field)
{
    struct gguf_string s;
    int rc;

    e->file_off = r->off;
    if (e->type == GGUF_ARRAY)
        return take_array(r, e, field);
    if (e->type == GGUF_STRING) {
        rc = take_string(r, &s, field);
        if (rc)
            return rc;
        e->data = (const unsigned char *)s.data;
        e->n = s.len;
        return 0;
    }
    e->data = r->base + r->off;
    return skip_values(r, e->type, 1, field);
}

/* A key as part of a message: bounded, NUL-terminated. */
static const char *shown(struct gguf_string s, char out[80])
{
    const size_t n = s.len < 79 ? s.len : 79;

    memcpy(out, s.data, n);
    out[n] = 0;
    return out;
}

static int take_entry(struct reader *r, struct gguf_entry *e)
{
    char field[80];
    const size_t at = r->off;
    int rc = take_string(r, &e->key, "metadata key");

    if (rc)
        return rc;
    if (e->key.len == 0 || e->key.len > KEY_BYTES_MAX || memchr(e->key.data, 0, e->key.len)) {
        gguf_error_set(r->err, "metadata key at offset %zu: bad length %zu or a NUL in it", at,
                       e->key.len);
        return -EINVAL;
    }
    rc = take_value_type(r, &e->type, shown(e->key, field));
    return rc ? rc : take_value(r, e, field);
}

static int compare_strings(const char *a, size_t a_len, const char *b, size_t b_len)
{
    const size_t n = a_len < b_len ? a_len : b_len;
    const int order = n ? memcmp(a, b, n) : 0;

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct gguf_entry *x = a, *y = b;

    return compare_strings(x->key.data, x->key.len, y->key.data, y->key.len);
}

static int take_entries(struct reader *r, struct gguf *g)
{
    char field[80];

    g->entries = calloc((size_t)g->n_entries + 1, sizeof(*g->entries));
    if (!g->entries)
        return -ENOMEM;
    for (uint64_t i = 0; i < g->n_entries; i++) {
        const int rc = take_entry(r, &g->entries[i]);

        if (rc)
            return rc;
    }
    qsort(g->entries, (size_t)g->n_entries, sizeof(*g->entries), compare_entries);
    for (uint64_t i = 1; i < g->n_entries; i++)
        if (compare_entries(&g->entries[i - 1], &g->entries[i]) == 0) {
            gguf_error_set(r->err, "metadata key %s at offset %" PRIu64 ": given twice",
                           shown(g->entries[i].key, field), g->entries[i].file_off);
            return -EINVAL;
        }
    return 0;
}

static int take_tensor_name(struct reader *r, struct gguf_tensor *t)
{
    struct gguf_string name;
    const size_t at = r->off;
    const int rc = take_string(r, &name, "tensor name");

    if (rc)
        return rc;
    if (name.len == 0 || name.len >= sizeof(t->name) || memchr(name.data, 0, name.len)) {
        gguf_error_set(r->err, "tensor name at offset %zu: length %zu (1 to 64) or a NUL in it", at,
                       name.len);
        return -EINVAL;
    }
    memcpy(t->name, name.data, name.len);
    return 0;
}

/* Reads the dimensions; *n_values is their product, checked. */
static int take_dims(struct reader *r, struct gguf_tensor *t, uint64_t *n_values)
{
    const size_t at = r->off;
    int rc = take_u32(r, &t->n_dims, t->name);

    if (!rc && (t->n_dims < 1 || t->n_dims > GGUF_DIMS_MAX)) {
        gguf_error_set(r->err, "tensor %s at offset %zu: %u dimensions (1 to %d)", t->name, at,
                       t->n_dims, GGUF_DIMS_MAX);
        rc = -EINVAL;
    }
    *n_values = 1;
    for (uint32_t i = 0; !rc && i < GGUF_DIMS_MAX; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims)
            rc = take_u64(r, &t->dims[i], t->name);
        if (!rc && (t->dims[i] == 0 || __builtin_mul_overflow(*n_values, t->dims[i], n_values))) {
            gguf_error_set(r->err,
                           "tensor %s at offset %zu: dimension %u is %" PRIu64
                           ", size is 0 or overflows",
                           t->name, at, i, t->dims[i]);
            rc = -EINVAL;
        }
    }
    return rc;
}

static int take_tensor_type(struct reader *r, struct gguf_tensor *t, uint64_t n_values)
{
    uint32_t values, bytes;
    const size_t at = r->off;
    const int rc = take_u32(r, &t->type, t->name);

    if (rc)
        return rc;
    if (!gguf_type_block(t->type, &values, &bytes)) {
        gguf_error_set(r->err, "tensor %s at offset %zu: unknown type %" PRIu32, t->name, at,
                       t->type);
        return -EINVAL;
    }
    if (t->dims[0] % values) {
        gguf_error_set(r->err,
                       "tensor %s at offset %zu: rows of %" PRIu64
                       " values, not a multiple of %u (%s)",
                       t->name, at, t->dims[0], values, gguf_type_name(t->type));
        return -EINVAL;
    }
    if (__builtin_mul_overflow(n_values / values, (uint64_t)bytes, &t->bytes)) {
        gguf_error_set(r->err, "tensor %s at offset %zu: size overflows", t->name, at);
        return -EINVAL;
    }
    return 0;
}

/* file_off holds the offset in the data section until place_tensors knows where that begins. */
static int take_tensor(struct reader *r, struct gguf_tensor *t)
{
    uint64_t n_values = 0;
    int rc = take_tensor_name(r, t);

    if (!rc)
        rc = take_dims(r, t, &n_values);
    if (!rc)
        rc = take_tensor_type(r, t, n_values);
    return rc ? rc : take_u64(r, &t->file_off, t->name);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct gguf_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int take_tensors(struct reader *r, struct gguf *g)
{
    g->tensors = calloc((size_t)g->n_tensors + 1, sizeof(*g->tensors));
    if (!g->tensors)
        return -ENOMEM;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const int rc = take_tensor(r, &g->tensors[i]);

        if (rc)
            return rc;
    }
    qsort(g->tensors, (size_t)g->n_tensors, sizeof(*g->tensors), compare_tensors);
    for (uint64_t i = 1; i < g->n_tensors; i++)
        if (strcmp(g->tensors[i - 1].name, g->tensors[i].name) == 0) {
            gguf_error_set(r->err, "tensor %s: described twice before offset %zu",
                           g->tensors[i].name, r->off);
            return -EINVAL;
        }
    return 0;
}

static int read_alignment(const struct gguf *g, uint32_t *alignment, struct gguf_error *err)
{
    const struct gguf_entry *e = gguf_find_entry(g, "general.alignment");

    *alignment = ALIGNMENT_DEFAULT;
    if (!e)
        return 0;

    const int rc = gguf_get_u32(g, "general.alignment", alignment, err);

    if (rc)
        return rc;
    if (*alignment < 8 || *alignment > ALIGNMENT_MAX || (*alignment & (*alignment - 1))) {
        gguf_error_set(
            err, "general.alignment at offset %" PRIu64 ": %u, expected a power of two, 8 to %u",
            e->file_off, *alignment, ALIGNMENT_MAX);
        return -EINVAL;
    }
    return 0;
}

/* Turns offsets in the data section into places in the file. */
static int place_tensors(struct reader *r, struct gguf *g)
{
    uint32_t alignment;
    const int rc = read_alignment(g, &alignment, r->err);
    const uint64_t start = rc ? 0 : ((uint64_t)r->off + alignment - 1) / alignment * alignment;

    if (rc)
        return rc;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        const uint64_t off = t->file_off;

        if (off % alignment) {
            gguf_error_set(r->err, "tensor %s: data offset %" PRIu64 " is not a multiple of %u",
                           t->name, off, alignment);
            return -EINVAL;
        }
        if (start > r->size || off > r->size - start || t->bytes > r->size - start - off) {
            gguf_error_set(r->err,
                           "tensor %s: %" PRIu64 " bytes at data offset %" PRIu64
                           " (file offset %" PRIu64 " + that) leave the file of %zu bytes",
                           t->name, t->bytes, off, start, r->size);
            return -EINVAL;
        }
        t->file_off = start + off;
        t->data = r->base + t->file_off;
    }
    return 0;
}

static int take_header(struct reader *r, struct gguf *g)
{
    unsigned char magic[4];
    uint32_t version;
    int rc = take(r, magic, sizeof(magic), "magic");

    if (!rc && memcmp(magic, "GGUF", 4) != 0) {
        gguf_error_set(r->err, "magic at offset 0: expected GGUF, found %02x %02x %02x %02x",
                       magic[0], magic[1], magic[2], magic[3]);
        rc = -EINVAL;
    }
    if (!rc)
        rc = take_u32(r, &version, "version");
    if (!rc && version != 2 && version != 3) {
        gguf_error_set(r->err, "version at offset 4: expected 2 or 3, found %" PRIu32 "%s", version,
                       (version & 0xffff) == 0 ? " (a big-endian file?)" : "");
        rc = -ENOTSUP;
    }
    if (!rc)
        rc = take_count(r, &g->n_tensors, TENSOR_BYTES_MIN, "tensor count");
    return rc ? rc : take_count(r, &g->n_entries, ENTRY_BYTES_MIN, "metadata count");
}

static int parse(struct gguf *g, struct gguf_error *err)
{
    struct reader r = {.base = g->base, .size = g->size, .err = err};
    int rc = take_header(&r, g);

    if (!rc)
        rc = take_entries(&r, g);
    if (!rc)
        rc = take_tensors(&r, g);
    return rc ? rc : place_tensors(&r, g);
}

/* mapping, fd: the bytes again and their file if gguf_close, or failure, is to give them back; else
 * NULL and -1. */
static int open_bytes(const void *data, size_t size, void *mapping, int fd, struct gguf **out,
                      struct gguf_error *err)
{
    struct gguf *g = calloc(1, sizeof(*g));
    int rc;

    gguf_error_set(err, "out of memory");
    if (!g) {
        if (mapping)
            munmap(mapping, size);
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    g->base = data;
    g->size = size;
    g->mapping = mapping;
    g->fd = fd;
    rc = parse(g, err);
    if (rc) {
        gguf_close(g);
        return rc;
    }
    gguf_error_set(err, "%s", "");
    *out = g;
    return 0;
}

int gguf_open_memory(const void *data, size_t size, struct gguf **out, struct gguf_error *err)
{
    *out = NULL;
    return open_bytes(data, size, NULL, -1, out, err);
}

/* Maps a regular file.  0, or -errno with a message and nothing left open. */
static int map_file(const char *path, void **base, size_t *size, int *file, struct gguf_error *err)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0 || fstat(fd, &st)) {
        rc = -errno;
    } else if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        rc = -EINVAL;
    } else {
        *size = (size_t)st.st_size;
        *base = mmap(NULL, *size, PROT_READ, MAP_SHARED, fd, 0);
        if (*base == MAP_FAILED)
            rc = -errno;
    }
    if (rc)
        gguf_error_set(err, "%s: %s", path, rc == -EINVAL ? "not a file, or empty" : strerror(-rc));
    if (rc && fd >= 0)
        close(fd);
    *file = fd;
    return rc;
}

int gguf_open(const char *path, struct gguf **out, struct gguf_error *err)
{
    void *base = NULL;
    size_t size = 0;
    int rc, fd;

    *out = NULL;
    rc = map_file(path, &base, &size, &fd, err);
    return rc ? rc : open_bytes(base, size, base, fd, out, err);
}

int gguf_file(const struct gguf *g, const void *data, uint64_t *file_off)
{
    const unsigned char *at = data;

    invariant(at >= g->base && at <= g->base + g->size);
    *file_off = (uint64_t)(at - g->base);
    return g->fd;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    if (g->mapping)
        munmap(g->mapping, g->size);
    if (g->fd >= 0)
        close(g->fd);
    free(g->entries);
    free(g->tensors);
    free(g);
}
