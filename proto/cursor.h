/* cursor.h - a bounded reader of msgpack values; internal to proto.
 *
 * Each function reads one value of the type it names, in whatever width the sender chose, and moves
 * on.  0; -ENODATA: the bytes end inside the value; -EBADMSG: a value of another type (the cursor
 * stays).  Never reads beyond end, never allocates; counts of arrays and maps come as sent, and the
 * caller bounds them before it uses them. */
#ifndef OMNI_PROTO_CURSOR_H
#define OMNI_PROTO_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

int cursor_map(struct cursor *c, uint32_t *n_pairs);
int cursor_array(struct cursor *c, uint32_t *n);
int cursor_str(struct cursor *c, const char **data, uint32_t *n);
int cursor_bin(struct cursor *c, const uint8_t **data, uint32_t *n);
int cursor_bool(struct cursor *c, bool *out);

/* Non-negative integers, also when sent in a signed format; negative ones are -EBADMSG. */
int cursor_uint(struct cursor *c, uint64_t *out);

/* Floats of both widths and any integer. */
int cursor_double(struct cursor *c, double *out);

/* Well-formed UTF-8: shortest forms, no surrogates, up to U+10FFFF; zero bytes are allowed. */
bool utf8_valid(const char *data, size_t n);

#endif
