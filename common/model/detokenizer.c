#include "common/model/detokenizer.h"

#include "common/model/utf8.h"

#include <errno.h>
#include <string.h>

static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t)
{
    *d = (struct detokenizer){.tokenizer = t};
}

static size_t put_replacement(char *out)
{
    memcpy(out, replacement, sizeof(replacement));
    return sizeof(replacement);
}

/* Takes one byte: the tail grows until it is a character, or can no longer become one. */
static size_t push_byte(struct detokenizer *d, char byte, char *out)
{
    size_t len, n = 0;

    d->tail[d->n_tail++] = byte;
    while (d->n_tail) {
        const enum utf8_state state = utf8_next(d->tail, d->n_tail, &len);

        if (state == UTF8_INCOMPLETE)
            break;
        if (state == UTF8_COMPLETE)
            memcpy(out + n, d->tail, len);
        else
            put_replacement(out + n);
        n += state == UTF8_COMPLETE ? len : sizeof(replacement);
        d->n_tail -= (unsigned)len;
        memmove(d->tail, d->tail + len, d->n_tail);
    }
    return n;
}

int64_t detokenizer_push(struct detokenizer *d, uint32_t id, char *out, size_t cap)
{
    const char *bytes;
    size_t len, n = 0;
    const int rc = tokenizer_piece(d->tokenizer, id, &bytes, &len);

    if (rc)
        return rc;
    if (cap < detokenizer_push_max(d))
        return -ENOSPC;
    if (tokenizer_is_control(d->tokenizer, id))
        return 0;
    for (size_t i = 0; i < len; i++)
        n += push_byte(d, bytes[i], out + n);
    return (int64_t)n;
}

int64_t detokenizer_flush(struct detokenizer *d, char *out, size_t cap)
{
    if (d->n_tail == 0)
        return 0;
    if (cap < sizeof(replacement))
        return -ENOSPC;
    d->n_tail = 0;
    return (int64_t)put_replacement(out);
}
