#include "common/model/stop_scanner.h"

#include "common/model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int check(const struct stop_string *stops, uint32_t n, size_t *bytes, size_t *longest)
{
    *bytes = *longest = 0;
    if (n > STOP_SCANNER_STRINGS_MAX)
        return -E2BIG;
    for (uint32_t i = 0; i < n; i++) {
        const size_t len = stops[i].len;

        if (len > STOP_SCANNER_BYTES_MAX)
            return -E2BIG;
        if (len == 0 || utf8_valid_prefix(stops[i].text, len) != len)
            return -EINVAL;
        *bytes += len;
        *longest = len > *longest ? len : *longest;
    }
    return 0;
}

/* The longest proper prefix that is also a suffix, for each prefix (Knuth, Morris, Pratt). */
static void fill_fallback(const char *text, uint32_t len, uint16_t *fallback)
{
    uint16_t k = 0;

    fallback[0] = 0;
    for (uint32_t i = 1; i < len; i++) {
        while (k && text[k] != text[i])
            k = fallback[k - 1];
        if (text[k] == text[i])
            k++;
        fallback[i] = k;
    }
}

int stop_scanner_init(struct stop_scanner *s, const struct stop_string *stops, uint32_t n)
{
    size_t bytes, longest;
    uint16_t *fallback;
    char *text;
    const int rc = check(stops, n, &bytes, &longest);

    memset(s, 0, sizeof(*s));
    if (rc || n == 0)
        return rc;
    s->storage = malloc(bytes * sizeof(uint16_t) + bytes + longest);
    if (!s->storage)
        return -ENOMEM;
    fallback = s->storage;
    text = (char *)(fallback + bytes);
    s->held = text + bytes;
    s->n_stops = n;
    for (uint32_t i = 0; i < n; i++) {
        s->len[i] = (uint32_t)stops[i].len;
        s->text[i] = memcpy(text, stops[i].text, stops[i].len);
        s->fallback[i] = fallback;
        fill_fallback(text, s->len[i], fallback);
        text += s->len[i];
        fallback += s->len[i];
    }
    return 0;
}

void stop_scanner_fini(struct stop_scanner *s)
{
    free(s->storage);
    memset(s, 0, sizeof(*s));
}

/* Moves automaton i over a byte; returns the length of its partial match. */
static uint32_t step(struct stop_scanner *s, uint32_t i, char byte)
{
    uint32_t k = s->matched[i];

    while (k && s->text[i][k] != byte)
        k = s->fallback[i][k - 1];
    if (s->text[i][k] == byte)
        k++;
    s->matched[i] = k;
    return k;
}

/* Takes one byte.  *keep: how many of the last bytes (held and this one) are a partial match.
 * Returns the length of the longest stop string that ends here, or 0. */
static uint32_t step_all(struct stop_scanner *s, char byte, uint32_t *keep)
{
    uint32_t found = 0;

    *keep = 0;
    for (uint32_t i = 0; i < s->n_stops; i++) {
        const uint32_t k = step(s, i, byte);

        if (k == s->len[i] && k > found)
            found = k;
        if (k > *keep)
            *keep = k;
    }
    return found;
}

/* Gives out the first n of held bytes. */
static size_t release(struct stop_scanner *s, uint32_t n, char *out)
{
    if (n == 0)
        return 0;
    memcpy(out, s->held, n);
    s->n_held -= n;
    memmove(s->held, s->held + n, s->n_held);
    return n;
}

/* What leaves when one more byte has come and the last `keep` bytes must stay: either the byte
 * joins the held ones, or nothing stays. */
static size_t shift(struct stop_scanner *s, char byte, uint32_t keep, char *out)
{
    size_t n = release(s, keep ? s->n_held + 1 - keep : s->n_held, out);

    if (keep)
        s->held[s->n_held++] = byte;
    else
        out[n++] = byte;
    return n;
}

enum stop_result stop_scanner_push(struct stop_scanner *s, const char *text, size_t len, char *out,
                                   size_t *n_out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        uint32_t keep;
        const uint32_t found = step_all(s, text[i], &keep);

        if (found) {
            n += release(s, s->n_held + 1 - found, out + n);
            s->n_held = 0;
            *n_out = n;
            return STOP_FOUND;
        }
        n += shift(s, text[i], keep, out + n);
    }
    *n_out = n;
    return STOP_NONE;
}

size_t stop_scanner_flush(struct stop_scanner *s, char *out)
{
    return release(s, s->n_held, out);
}
