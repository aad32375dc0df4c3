#include "common/model/utf8.h"

/* Number of bytes that a first byte announces; 0: it cannot be first. */
static size_t announced(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef)
        return 3;
    if (c >= 0xf0 && c <= 0xf4)
        return 4;
    return 0;
}

/* The second byte's range depends on the first: that is what rules out overlong forms, surrogates
 * and values above U+10FFFF. */
static int second_fits(unsigned char first, unsigned char second)
{
    unsigned char low = 0x80, high = 0xbf;

    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    return second >= low && second <= high;
}

enum utf8_state utf8_next(const char *s, size_t n, size_t *len)
{
    const unsigned char *p = (const unsigned char *)s;
    const size_t need = announced(p[0]);
    size_t i;

    *len = 1;
    if (need == 0)
        return UTF8_BROKEN;
    for (i = 1; i < need && i < n; i++)
        if (i == 1 ? !second_fits(p[0], p[1]) : (p[i] & 0xc0) != 0x80) {
            *len = i;
            return UTF8_BROKEN;
        }
    *len = i;
    return i == need ? UTF8_COMPLETE : UTF8_INCOMPLETE;
}

size_t utf8_valid_prefix(const char *s, size_t n)
{
    size_t off = 0, len;

    while (off < n && utf8_next(s + off, n - off, &len) == UTF8_COMPLETE)
        off += len;
    return off;
}
