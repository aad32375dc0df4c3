#include "proto/cli/files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 1 << 16 };

/* Room for at least one more byte, and the zero. */
static int grow(struct file_bytes *b, size_t *cap)
{
    if (b->n + 1 < *cap)
        return 0;
    size_t larger = *cap != 0 ? *cap * 2 : FIRST_BYTES;
    char *data = realloc(b->data, larger);

    if (data == NULL)
        return -ENOMEM;
    b->data = data;
    *cap = larger;
    return 0;
}

static int read_stream(FILE *in, size_t bytes_max, struct file_bytes *b)
{
    size_t cap = 0;

    do {
        int err = grow(b, &cap);

        if (err != 0)
            return err;
        b->n += fread(b->data + b->n, 1, cap - b->n - 1, in);
        if (b->n > bytes_max)
            return -EFBIG;
    } while (!feof(in) && !ferror(in));
    b->data[b->n] = '\0';
    return ferror(in) ? -EIO : 0;
}

int file_read_all(const char *path, size_t bytes_max, struct file_bytes *out, struct error *error)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(path, "rb");

    *out = (struct file_bytes){0};
    if (in == NULL)
        return error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
    int err = read_stream(in, bytes_max, out);

    if (!is_stdin)
        fclose(in);
    if (err == 0)
        return 0;
    file_bytes_free(out);
    return error_set(error, err, "cannot read %s: %s", is_stdin ? "stdin" : path, strerror(-err));
}

void file_bytes_chomp(struct file_bytes *bytes)
{
    if (bytes->n > 0 && bytes->data[bytes->n - 1] == '\n')
        bytes->data[--bytes->n] = '\0';
}

void file_bytes_free(struct file_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct file_bytes){0};
}
