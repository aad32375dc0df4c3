/* Pieces of text. */
#include "common/model/chat_span.h"

#include <string.h>

/* Bytes of the white space character at the beginning, as Python's strip() has it; 0: none. */
static size_t white_len(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;

    if (n >= 1 && (u[0] == ' ' || (u[0] >= 9 && u[0] <= 13) || (u[0] >= 28 && u[0] <= 31)))
        return 1;
    if (n >= 2 && u[0] == 0xc2 && (u[1] == 0x85 || u[1] == 0xa0))
        return 2;
    if (n < 3)
        return 0;
    if (u[0] == 0xe2 && u[1] == 0x80 &&
        (u[2] <= 0x8a || u[2] == 0xa8 || u[2] == 0xa9 || u[2] == 0xaf))
        return 3;
    return memcmp(p, "\xe1\x9a\x80", 3) == 0 || memcmp(p, "\xe2\x81\x9f", 3) == 0 ||
                   memcmp(p, "\xe3\x80\x80", 3) == 0
               ? 3
               : 0;
}

struct span span_trim_end(struct span s)
{
    for (size_t n = 1; n <= 3 && n <= s.len;) {
        const bool white = white_len(s.data + s.len - n, n) == n;

        s.len -= white ? n : 0;
        n = white ? 1 : n + 1;
    }
    return s;
}

struct span span_trim(struct span s)
{
    size_t n;

    while ((n = white_len(s.data, s.len)) > 0)
        s = (struct span){s.data + n, s.len - n};
    return span_trim_end(s);
}

struct span span_skip_newlines(struct span s)
{
    while (s.len && *s.data == '\n')
        s = (struct span){s.data + 1, s.len - 1};
    return s;
}

const char *span_find(struct span s, const char *mark)
{
    return s.len ? memmem(s.data, s.len, mark, strlen(mark)) : NULL;
}

const char *span_behind_last(struct span s, const char *mark)
{
    const size_t n = strlen(mark);
    const char *found = NULL, *at = s.data, *end = s.data + s.len;

    while (s.len && (at = memmem(at, (size_t)(end - at), mark, n)) != NULL) {
        at += n;
        found = at;
    }
    return found;
}

struct span chat_content(const struct chat_message *m, bool trimmed)
{
    const struct span s = {m->content, m->content_len};

    return trimmed ? span_trim(s) : s;
}

bool chat_role_is(const struct chat_message *m, const char *role)
{
    return m->role_len == strlen(role) && memcmp(m->role, role, m->role_len) == 0;
}

void chat_put(struct chat_sink *s, const char *text)
{
    s->text(s, text, strlen(text));
}

void chat_put_span(struct chat_sink *s, struct span text)
{
    if (text.len)
        s->text(s, text.data, text.len);
}

void chat_put_if(struct chat_sink *s, bool on, const char *text)
{
    if (on)
        chat_put(s, text);
}

void chat_put_token(struct chat_sink *s, const char *name)
{
    if (*name)
        s->mark(s, name, true);
}

void chat_put_literal(struct chat_sink *s, const struct chat_literal *text)
{
    chat_put_span(s, (struct span){text->bytes, text->n});
}
