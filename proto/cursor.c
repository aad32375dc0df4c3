#include "proto/cursor.h"

#include <errno.h>
#include <string.h>

/* First bytes of the msgpack formats (github.com/msgpack/msgpack, spec.md). */
enum {
    MP_FIXMAP = 0x80,
    MP_FIXARRAY = 0x90,
    MP_FIXSTR = 0xa0,
    MP_FALSE = 0xc2,
    MP_TRUE = 0xc3,
    MP_BIN8 = 0xc4,
    MP_FLOAT32 = 0xca,
    MP_FLOAT64 = 0xcb,
    MP_UINT8 = 0xcc,
    MP_INT8 = 0xd0,
    MP_STR8 = 0xd9,
    MP_ARRAY16 = 0xdc,
    MP_MAP16 = 0xde,
    MP_NEGATIVE_FIXINT = 0xe0,
};

static uint64_t load_big_endian(const uint8_t *p, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v = v << 8 | p[i];
    return v;
}

/* Reads the big-endian number of width bytes that follows the first byte. */
static int take_number(struct cursor *c, size_t width, uint64_t *out)
{
    if (cursor_left(c) < 1 + width)
        return -ENODATA;
    *out = load_big_endian(c->at + 1, width);
    c->at += 1 + width;
    return 0;
}

/* A count in the first byte (fix, mask), or in 1, 2 or 4 bytes after the formats wide, wide + 1,
 * ... where the first of them has first_width bytes. */
static int take_count(struct cursor *c, uint8_t fix, uint8_t mask, uint8_t wide, size_t first_width,
                      uint32_t *n)
{
    uint64_t count;

    if (cursor_left(c) == 0)
        return -ENODATA;
    uint8_t first = c->at[0];

    if (fix != 0 && (first & ~mask) == fix) {
        *n = first & mask;
        c->at++;
        return 0;
    }
    for (size_t width = first_width; width <= 4; width *= 2, wide++) {
        if (first != wide)
            continue;
        int err = take_number(c, width, &count);
        *n = err == 0 ? (uint32_t)count : 0;
        return err;
    }
    return -EBADMSG;
}

int cursor_map(struct cursor *c, uint32_t *n_pairs)
{
    return take_count(c, MP_FIXMAP, 0x0f, MP_MAP16, 2, n_pairs);
}

int cursor_array(struct cursor *c, uint32_t *n)
{
    return take_count(c, MP_FIXARRAY, 0x0f, MP_ARRAY16, 2, n);
}

static int take_body(struct cursor *c, const uint8_t *start, uint32_t n, const uint8_t **data)
{
    if (cursor_left(c) < n) {
        c->at = start;
        return -ENODATA;
    }
    *data = c->at;
    c->at += n;
    return 0;
}

int cursor_str(struct cursor *c, const char **data, uint32_t *n)
{
    const uint8_t *start = c->at, *body;
    int err = take_count(c, MP_FIXSTR, 0x1f, MP_STR8, 1, n);

    if (err == 0)
        err = take_body(c, start, *n, &body);
    if (err == 0)
        *data = (const char *)body;
    return err;
}

int cursor_bin(struct cursor *c, const uint8_t **data, uint32_t *n)
{
    const uint8_t *start = c->at;
    int err = take_count(c, 0, 0, MP_BIN8, 1, n);

    return err != 0 ? err : take_body(c, start, *n, data);
}

int cursor_bool(struct cursor *c, bool *out)
{
    if (cursor_left(c) == 0)
        return -ENODATA;
    if (c->at[0] != MP_FALSE && c->at[0] != MP_TRUE)
        return -EBADMSG;
    *out = *c->at++ == MP_TRUE;
    return 0;
}

/* Any integer, as its two's complement in 64 bits and its sign. */
static int take_integer(struct cursor *c, uint64_t *bits, bool *negative)
{
    if (cursor_left(c) == 0)
        return -ENODATA;
    uint8_t first = c->at[0];

    *negative = false;
    if (first < MP_FIXMAP || first >= MP_NEGATIVE_FIXINT) {
        *negative = first >= MP_NEGATIVE_FIXINT;
        *bits = (uint64_t)(int64_t)(int8_t)first;
        c->at++;
        return 0;
    }
    if (first < MP_UINT8 || first > MP_INT8 + 3)
        return -EBADMSG;
    bool is_signed = first >= MP_INT8;
    size_t width = (size_t)1 << (first - (is_signed ? MP_INT8 : MP_UINT8));
    int err = take_number(c, width, bits);

    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinary*): width is 1, 2, 4 or 8 */
    if (err == 0 && is_signed && (*bits >> (8 * width - 1)) != 0) {
        *negative = true;
        *bits |= width < 8 ? UINT64_MAX << (8 * width) : 0;
    }
    return err;
}

int cursor_uint(struct cursor *c, uint64_t *out)
{
    const uint8_t *start = c->at;
    bool negative;
    int err = take_integer(c, out, &negative);

    if (err == 0 && negative) {
        c->at = start;
        return -EBADMSG;
    }
    return err;
}

static int take_float(struct cursor *c, double *out)
{
    bool wide = c->at[0] == MP_FLOAT64;
    uint64_t bits = 0;
    int err = take_number(c, wide ? 8 : 4, &bits);

    if (err == 0 && wide)
        memcpy(out, &bits, sizeof *out);
    if (err == 0 && !wide) {
        uint32_t narrow_bits = (uint32_t)bits;
        float narrow;

        memcpy(&narrow, &narrow_bits, sizeof narrow);
        *out = (double)narrow;
    }
    return err;
}

int cursor_double(struct cursor *c, double *out)
{
    uint64_t bits;
    bool negative;

    if (cursor_left(c) != 0 && (c->at[0] == MP_FLOAT32 || c->at[0] == MP_FLOAT64))
        return take_float(c, out);
    int err = take_integer(c, &bits, &negative);

    if (err == 0)
        *out = negative ? (double)(int64_t)bits : (double)bits;
    return err;
}

/* Length of the sequence that starts with first, and the bounds of its second byte (Unicode
 * standard, table 3-7); 0 if no sequence starts so. */
static size_t utf8_sequence(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    if (first < 0xe0)
        return 2;
    if (first == 0xe0)
        *low = 0xa0;
    if (first == 0xed)
        *high = 0x9f;
    if (first == 0xf0)
        *low = 0x90;
    if (first == 0xf4)
        *high = 0x8f;
    return first < 0xf0 ? 3 : 4;
}

bool utf8_valid(const char *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data, *end = p + n;
    uint8_t low, high;

    while (p < end) {
        size_t width = utf8_sequence(*p, &low, &high);

        if (width == 0 || width > (size_t)(end - p))
            return false;
        if (width > 1 && (p[1] < low || p[1] > high))
            return false;
        for (size_t i = 2; i < width; i++)
            if ((p[i] & 0xc0) != 0x80)
                return false;
        p += width;
    }
    return true;
}
