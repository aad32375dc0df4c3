/* gguf_private.h - the parsed form of a GGUF file, shared by gguf*.c alone. */
#ifndef OMNI_COMMON_MODEL_GGUF_PRIVATE_H
#define OMNI_COMMON_MODEL_GGUF_PRIVATE_H

#include "common/model/gguf.h"

/* A metadata entry.  data points at the value's first byte; of a string, at its characters; of an
 * array, at its first element. */
struct gguf_entry {
    struct gguf_string key;
    enum gguf_value_type type, element; /* element: of an array */
    uint64_t n;                         /* characters of a string, elements of an array */
    const unsigned char *data;
    uint64_t file_off;
};

struct gguf {
    const unsigned char *base;
    size_t size;
    void *mapping; /* munmap at close; NULL: the bytes are the caller's */
    int fd;        /* of the file that is mapped, closed with it; -1: none */
    uint64_t n_entries, n_tensors;
    struct gguf_entry *entries;  /* sorted by key */
    struct gguf_tensor *tensors; /* sorted by name */
};

/* "u32", "string", ... */
const char *gguf_value_type_name(enum gguf_value_type type);

/* Bytes of a fixed-width value; 0 for strings and arrays. */
uint32_t gguf_value_bytes(enum gguf_value_type type);

const struct gguf_entry *gguf_find_entry(const struct gguf *g, const char *key);

#endif
