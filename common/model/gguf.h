/* gguf.h - a GGUF file (v2, v3), mapped read-only and checked completely when it is opened.
 *
 * The file is hostile until proven otherwise: every count, length, type, alignment and offset is
 * checked against the file's size before it is used, so that after gguf_open no access through this
 * interface can leave the mapping.  Nothing is converted or copied; strings and tensor data point
 * into the mapping and live until gguf_close.  Immutable after open: any thread may read.
 * What it cannot guard against: a file that is truncated while it is mapped (SIGBUS).
 *
 * Getters return 0, -ENOENT (absent; *out is left alone, so that a default may be put there first,
 * and err is filled in for callers to whom the key is needed) or -EINVAL (wrong type or out of
 * range; err names key, expected, found and file offset). */
#ifndef OMNI_COMMON_MODEL_GGUF_H
#define OMNI_COMMON_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line for the user: what is wrong, in which field, at which offset of the file. */
struct gguf_error {
    char text[256];
};

enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
};

/* Some tensor types by their number in the file; gguf_type_name knows more than are named here, and
 * weight.h those that are computed with. */
enum gguf_tensor_type {
    GGUF_TENSOR_F32 = 0,
    GGUF_TENSOR_F16 = 1,
    GGUF_TENSOR_Q4_1 = 3,
    GGUF_TENSOR_Q8_0 = 8
};

#define GGUF_DIMS_MAX 4

/* Not NUL-terminated. */
struct gguf_string {
    const char *data;
    size_t len;
};

struct gguf_array {
    enum gguf_value_type type; /* of the elements; never GGUF_ARRAY */
    uint64_t n;
    const unsigned char *data; /* first element; strings have varying length: use the cursor */
    uint64_t file_off;
};

struct gguf_tensor {
    char name[65]; /* NUL-terminated */
    uint32_t type; /* as in the file; its size is known */
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* dims[0] runs fastest; unused ones are 1 */
    uint64_t bytes;
    const void *data;
    uint64_t file_off; /* of the data */
};

struct gguf;

int gguf_open(const char *path, struct gguf **out, struct gguf_error *err);

/* The same over bytes that the caller owns and keeps until gguf_close (tests, fuzzers). */
int gguf_open_memory(const void *data, size_t size, struct gguf **out, struct gguf_error *err);

/* NULL is allowed. */
void gguf_close(struct gguf *g);

/* Integers of any width are accepted where the value fits. */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct gguf_error *err);
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct gguf_error *err);
int gguf_get_f32(const struct gguf *g, const char *key, float *out, struct gguf_error *err);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct gguf_error *err);
int gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                    struct gguf_error *err);
int gguf_get_array(const struct gguf *g, const char *key, struct gguf_array *out,
                   struct gguf_error *err);

/* Is the key there, and is it an array? */
bool gguf_has(const struct gguf *g, const char *key);
bool gguf_is_array(const struct gguf *g, const char *key);

/* Element i (< n) of an array of integers (bool counts as 0, 1) or floats; -EINVAL if it is not one
 * or does not fit. */
int gguf_array_u64(const struct gguf_array *a, uint64_t i, uint64_t *out);
int gguf_array_f32(const struct gguf_array *a, uint64_t i, float *out);

/* Walks an array of strings: start with a zeroed cursor, ends with false after n strings. */
struct gguf_cursor {
    uint64_t i, off;
};
bool gguf_array_next(const struct gguf_array *a, struct gguf_cursor *c, struct gguf_string *out);

uint64_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i); /* in name order */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* or NULL */

/* Where tensor data lies in the file, for those who read it past the mapping (io_uring): the open
 * file, the gguf's own, and *file_off; -1 where the bytes came from memory. */
int gguf_file(const struct gguf *g, const void *data, uint64_t *file_off);

/* "Q4_1", ...; "type 99" style names are not made up: NULL for a number that is not known. */
const char *gguf_type_name(uint32_t type);

/* Values and bytes of one block of a tensor type; false if the number is not known. */
bool gguf_type_block(uint32_t type, uint32_t *values, uint32_t *bytes);

/* Writes one line into err (which may be NULL). */
void gguf_error_set(struct gguf_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same about the value of a key: "<key> at offset N: ...", or where its default was the matter,
 * "<key> (absent): ...". */
void gguf_error_at_key(struct gguf_error *err, const struct gguf *g, const char *key,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
