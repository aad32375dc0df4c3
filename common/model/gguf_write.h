/* gguf_write.h - builds a GGUF v3 file in memory and saves it.
 *
 * For tests and generated models.  Metadata and tensors are added in file order; errors (no memory)
 * are remembered and returned by save, so that callers need not check each call.
 * One thread per writer. */
#ifndef OMNI_COMMON_MODEL_GGUF_WRITE_H
#define OMNI_COMMON_MODEL_GGUF_WRITE_H

#include "common/model/gguf.h"

struct gguf_writer;

/* NULL if there is no memory. */
struct gguf_writer *gguf_writer_create(void);
void gguf_writer_destroy(struct gguf_writer *w);

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_f32(struct gguf_writer *w, const char *key, float value);
void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value);
void gguf_writer_u32s(struct gguf_writer *w, const char *key, const uint32_t *values, uint64_t n);
void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *values, uint64_t n);
void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *values, uint64_t n);
void gguf_writer_strings(struct gguf_writer *w, const char *key, const struct gguf_string *values,
                         uint64_t n);

/* Adds a tensor and returns its zeroed data (bytes long, owned by the writer) to be filled in, or
 * NULL.  dims[0] runs fastest and must fill whole blocks of the type; the name has 64 bytes at
 * most. */
void *gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type,
                         const uint64_t *dims, uint32_t n_dims, uint64_t *bytes);

/* Adds a tensor without data: a hole of the file, which reads as zeros and takes no room on disk. */
void gguf_writer_hole(struct gguf_writer *w, const char *name, uint32_t type, const uint64_t *dims,
                      uint32_t n_dims);

/* Writes under a temporary name beside path, then renames.  0 or -errno. */
int gguf_writer_save(struct gguf_writer *w, const char *path);

#endif
