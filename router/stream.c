#include "router/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"

enum { PENDING_BYTES_AT_FIRST = 1024 };

int stream_init(struct stream *s, const struct text *text, const struct str_array *stops,
                uint32_t min_tokens)
{
    struct stop_string strings[STOP_SCANNER_STRINGS_MAX];

    memset(s, 0, sizeof *s);
    if (stops->n > STOP_SCANNER_STRINGS_MAX)
        return -E2BIG;
    for (uint32_t i = 0; i < stops->n; i++)
        strings[i] = (struct stop_string){.text = stops->data[i].data, .len = stops->data[i].n};
    int rc = stop_scanner_init(&s->scanner, strings, stops->n);

    if (rc < 0)
        return rc;
    s->text = text;
    s->min_tokens = min_tokens;
    detokenizer_init(&s->detokenizer, text->tokenizer);
    s->pending = malloc(PENDING_BYTES_AT_FIRST);
    s->cap_pending = PENDING_BYTES_AT_FIRST;
    return s->pending ? 0 : -ENOMEM;
}

void stream_fini(struct stream *s)
{
    stop_scanner_fini(&s->scanner);
    free(s->pending);
    memset(s, 0, sizeof *s);
}

/* Grows by doubling: a client that reads never needs it after the first tokens. */
static bool reserve(struct stream *s, size_t more)
{
    size_t cap = s->cap_pending;

    while (cap - s->n_pending < more)
        cap *= 2;
    if (cap == s->cap_pending)
        return true;
    char *grown = realloc(s->pending, cap);

    if (!grown)
        return false;
    s->pending = grown;
    s->cap_pending = cap;
    return true;
}

static enum stream_result scan(struct stream *s, size_t n, bool wanted)
{
    size_t n_out = 0;

    if (n == 0)
        return STREAM_MORE;
    if (!reserve(s, stop_scanner_push_max(&s->scanner, n)))
        return STREAM_NO_MEMORY;
    enum stop_result found =
        stop_scanner_push(&s->scanner, s->text->piece, n, s->pending + s->n_pending, &n_out);

    if (wanted)
        s->n_pending += n_out;
    return found == STOP_FOUND ? STREAM_STOPPED : STREAM_MORE;
}

/* Given out as it is: no stop string is looked for. */
static enum stream_result pass(struct stream *s, size_t n, bool wanted)
{
    if (!reserve(s, n + 1))
        return STREAM_NO_MEMORY;
    if (wanted) {
        memcpy(s->pending + s->n_pending, s->text->piece, n);
        s->n_pending += n;
    }
    return STREAM_MORE;
}

enum stream_result stream_push(struct stream *s, uint32_t token, bool wanted)
{
    int64_t n = detokenizer_push(&s->detokenizer, token, s->text->piece, s->text->piece_bytes);

    if (n < 0)
        return STREAM_BAD_TOKEN;
    return s->n_tokens++ < s->min_tokens ? pass(s, (size_t)n, wanted) : scan(s, (size_t)n, wanted);
}

enum stream_result stream_end(struct stream *s, bool wanted)
{
    int64_t n = detokenizer_flush(&s->detokenizer, s->text->piece, s->text->piece_bytes);

    invariant(n >= 0);
    enum stream_result result = scan(s, (size_t)n, wanted);

    if (result != STREAM_MORE)
        return result;
    if (!reserve(s, s->scanner.n_held + 1))
        return STREAM_NO_MEMORY;
    size_t n_held = stop_scanner_flush(&s->scanner, s->pending + s->n_pending);

    if (wanted)
        s->n_pending += n_held;
    return STREAM_MORE;
}

void stream_consume(struct stream *s, size_t n)
{
    invariant(n <= s->n_pending);
    s->n_pending -= n;
    memmove(s->pending, s->pending + n, s->n_pending);
}

int stream_restart(struct stream *s)
{
    struct stop_string strings[STOP_SCANNER_STRINGS_MAX];
    struct stop_scanner fresh;
    const uint32_t n_stops = s->scanner.n_stops;

    for (uint32_t i = 0; i < n_stops; i++)
        strings[i] = (struct stop_string){.text = s->scanner.text[i], .len = s->scanner.len[i]};
    int rc = stop_scanner_init(&fresh, strings, n_stops);

    if (rc < 0) {
        stop_scanner_fini(&fresh);
        return rc;
    }
    stop_scanner_fini(&s->scanner);
    s->scanner = fresh;
    detokenizer_init(&s->detokenizer, s->text->tokenizer);
    s->n_pending = 0;
    s->n_tokens = 0;
    return 0;
}
