/* files.h - a whole file, or stdin, in memory. */
#ifndef OMNI_PROTO_CLI_FILES_H
#define OMNI_PROTO_CLI_FILES_H

#include <stddef.h>

#include "common/base/error.h"

struct file_bytes {
    char *data; /* n bytes and a zero that is not counted */
    size_t n;
};

/* path "-": stdin.  0, -EFBIG (more than bytes_max) or -errno. */
int file_read_all(const char *path, size_t bytes_max, struct file_bytes *out, struct error *error);
/* Drops one newline at the end: an editor's or echo's, which the writer did not mean to say. */
void file_bytes_chomp(struct file_bytes *bytes);

void file_bytes_free(struct file_bytes *bytes);

#endif
