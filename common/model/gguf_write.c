#include "common/model/gguf_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITE_ALIGNMENT 32

struct bytes {
    unsigned char *data;
    size_t len, cap;
};

struct written_tensor {
    void *data; /* NULL: a hole */
    uint64_t bytes;
};

struct gguf_writer {
    int rc; /* the first error */
    uint64_t n_entries, n_tensors, data_bytes;
    struct bytes entries, infos; /* encoded metadata and tensor descriptions */
    struct written_tensor *tensors;
};

static void put(struct gguf_writer *w, struct bytes *b, const void *data, size_t n)
{
    if (w->rc)
        return;
    if (n > b->cap - b->len) {
        const size_t cap = (b->cap + n) * 2;
        unsigned char *grown = realloc(b->data, cap);

        if (!grown) {
            w->rc = -ENOMEM;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
}

static void put_u32(struct gguf_writer *w, struct bytes *b, uint32_t value)
{
    put(w, b, &value, sizeof(value));
}

static void put_u64(struct gguf_writer *w, struct bytes *b, uint64_t value)
{
    put(w, b, &value, sizeof(value));
}

static void put_string(struct gguf_writer *w, struct bytes *b, const char *data, size_t len)
{
    put_u64(w, b, len);
    put(w, b, data, len);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_value_type type)
{
    put_string(w, &w->entries, key, strlen(key));
    put_u32(w, &w->entries, type);
    w->n_entries++;
}

static void put_array(struct gguf_writer *w, const char *key, enum gguf_value_type type, uint64_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_u32(w, &w->entries, type);
    put_u64(w, &w->entries, n);
}

struct gguf_writer *gguf_writer_create(void)
{
    return calloc(1, sizeof(struct gguf_writer));
}

void gguf_writer_destroy(struct gguf_writer *w)
{
    if (!w)
        return;
    for (uint64_t i = 0; i < w->n_tensors; i++)
        free(w->tensors[i].data);
    free(w->tensors);
    free(w->entries.data);
    free(w->infos.data);
    free(w);
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, GGUF_U32);
    put_u32(w, &w->entries, value);
}

void gguf_writer_f32(struct gguf_writer *w, const char *key, float value)
{
    put_key(w, key, GGUF_F32);
    put(w, &w->entries, &value, sizeof(value));
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value)
{
    const unsigned char byte = value;

    put_key(w, key, GGUF_BOOL);
    put(w, &w->entries, &byte, 1);
}

void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, GGUF_STRING);
    put_string(w, &w->entries, value, strlen(value));
}

void gguf_writer_u32s(struct gguf_writer *w, const char *key, const uint32_t *values, uint64_t n)
{
    put_array(w, key, GGUF_U32, n);
    put(w, &w->entries, values, (size_t)n * sizeof(*values));
}

void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *values, uint64_t n)
{
    put_array(w, key, GGUF_I32, n);
    put(w, &w->entries, values, (size_t)n * sizeof(*values));
}

void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *values, uint64_t n)
{
    put_array(w, key, GGUF_F32, n);
    put(w, &w->entries, values, (size_t)n * sizeof(*values));
}

void gguf_writer_strings(struct gguf_writer *w, const char *key, const struct gguf_string *values,
                         uint64_t n)
{
    put_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++)
        put_string(w, &w->entries, values[i].data, values[i].len);
}

/* Bytes of a tensor, or 0 if the dimensions do not fit the type. */
static uint64_t tensor_bytes(uint32_t type, const uint64_t *dims, uint32_t n_dims)
{
    uint32_t values, bytes;
    uint64_t n = 1;

    if (n_dims < 1 || n_dims > GGUF_DIMS_MAX || !gguf_type_block(type, &values, &bytes))
        return 0;
    for (uint32_t i = 0; i < n_dims; i++)
        if (dims[i] == 0 || __builtin_mul_overflow(n, dims[i], &n))
            return 0;
    if (dims[0] % values || __builtin_mul_overflow(n / values, (uint64_t)bytes, &n))
        return 0;
    return n;
}

static void *add_tensor_data(struct gguf_writer *w, uint64_t bytes, bool hole)
{
    struct written_tensor *grown =
        realloc(w->tensors, (size_t)(w->n_tensors + 1) * sizeof(*w->tensors));
    void *data = hole ? NULL : calloc(1, (size_t)bytes);

    if (grown)
        w->tensors = grown;
    if (!grown || (!data && !hole)) {
        free(data);
        w->rc = -ENOMEM;
        return NULL;
    }
    w->tensors[w->n_tensors++] = (struct written_tensor){data, bytes};
    return data;
}

static uint64_t padded(uint64_t n)
{
    return (n + WRITE_ALIGNMENT - 1) / WRITE_ALIGNMENT * WRITE_ALIGNMENT;
}

static void *add_tensor(struct gguf_writer *w, const char *name, uint32_t type,
                        const uint64_t *dims, uint32_t n_dims, uint64_t *bytes, bool hole)
{
    *bytes = tensor_bytes(type, dims, n_dims);
    if (!w->rc && (*bytes == 0 || strlen(name) > 64))
        w->rc = -EINVAL;
    if (w->rc)
        return NULL;
    put_string(w, &w->infos, name, strlen(name));
    put_u32(w, &w->infos, n_dims);
    put(w, &w->infos, dims, n_dims * sizeof(*dims));
    put_u32(w, &w->infos, type);
    put_u64(w, &w->infos, w->data_bytes);
    w->data_bytes += padded(*bytes);
    return w->rc ? NULL : add_tensor_data(w, *bytes, hole);
}

void *gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type,
                         const uint64_t *dims, uint32_t n_dims, uint64_t *bytes)
{
    return add_tensor(w, name, type, dims, n_dims, bytes, false);
}

void gguf_writer_hole(struct gguf_writer *w, const char *name, uint32_t type, const uint64_t *dims,
                      uint32_t n_dims)
{
    uint64_t bytes;

    (void)add_tensor(w, name, type, dims, n_dims, &bytes, true);
}

/* fwrite that remembers nothing: the caller asks ferror once at the end. */
static void write_padded(FILE *f, const void *data, uint64_t n)
{
    static const unsigned char zeros[WRITE_ALIGNMENT];

    (void)fwrite(data, 1, (size_t)n, f);
    (void)fwrite(zeros, 1, (size_t)(padded(n) - n), f);
}

/* All but the last piece, which is written, so that the file is as long as it says. */
static void write_hole(FILE *f, uint64_t n)
{
    static const unsigned char zeros[WRITE_ALIGNMENT];

    (void)fseeko(f, (off_t)(padded(n) - WRITE_ALIGNMENT), SEEK_CUR);
    (void)fwrite(zeros, 1, WRITE_ALIGNMENT, f);
}

static void write_all(const struct gguf_writer *w, FILE *f)
{
    static const unsigned char zeros[WRITE_ALIGNMENT];
    const uint32_t version = 3;
    const uint64_t header = 4 + 4 + 8 + 8 + w->entries.len + w->infos.len;

    (void)fwrite("GGUF", 1, 4, f);
    (void)fwrite(&version, sizeof(version), 1, f);
    (void)fwrite(&w->n_tensors, sizeof(w->n_tensors), 1, f);
    (void)fwrite(&w->n_entries, sizeof(w->n_entries), 1, f);
    if (w->n_entries)
        (void)fwrite(w->entries.data, 1, w->entries.len, f);
    if (w->n_tensors)
        (void)fwrite(w->infos.data, 1, w->infos.len, f);
    (void)fwrite(zeros, 1, (size_t)(padded(header) - header), f);
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        if (w->tensors[i].data)
            write_padded(f, w->tensors[i].data, w->tensors[i].bytes);
        else
            write_hole(f, w->tensors[i].bytes);
    }
}

int gguf_writer_save(struct gguf_writer *w, const char *path)
{
    char temporary[4096];
    FILE *f;
    int rc = w->rc;

    if (rc)
        return rc;
    if (snprintf(temporary, sizeof(temporary), "%s.%d.tmp", path, (int)getpid()) >=
        (int)sizeof(temporary))
        return -ENAMETOOLONG;
    f = fopen(temporary, "wb");
    if (!f)
        return -errno;
    write_all(w, f);
    rc = ferror(f) ? -EIO : 0;
    if (fclose(f) && !rc)
        rc = -errno;
    if (!rc && rename(temporary, path))
        rc = -errno;
    if (rc)
        unlink(temporary);
    return rc;
}
