/* A conversation as token ids: texts between marks go through the tokenizer in one piece, because
 * the end of one and the beginning of the next may merge, and do in the rendered text. */
#include "common/model/chat_render.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct id_sink {
    struct chat_sink base;
    const struct tokenizer *t;
    uint32_t *ids;
    size_t cap, n;
    char *text; /* since the last mark; room for all that is rendered */
    size_t n_text;
    uint32_t last; /* the last mark's token, or TOKENIZER_NONE */
    int rc;        /* the first error */
};

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void flush(struct id_sink *o)
{
    const char *text = o->text;
    size_t len = o->n_text;
    int64_t n;

    while (len && tokenizer_strips_after(o->t, o->last) && is_white(*text)) {
        text++;
        len--;
    }
    o->n_text = 0;
    if (o->rc || len == 0)
        return;
    n = tokenizer_encode(o->t, text, len, 0, o->ids + o->n, o->cap - o->n);
    if (n < 0)
        o->rc = (int)n;
    else
        o->n += (size_t)n;
}

static void add_text(struct chat_sink *base, const char *data, size_t len)
{
    struct id_sink *o = (struct id_sink *)base;

    memcpy(o->text + o->n_text, data, len);
    o->n_text += len;
}

static void add_mark(struct chat_sink *base, const char *name, bool needed)
{
    struct id_sink *o = (struct id_sink *)base;
    const uint32_t id = tokenizer_special_id(o->t, name);

    if (id == TOKENIZER_NONE && !needed) {
        add_text(base, name, strlen(name));
        return;
    }
    flush(o);
    if (id == TOKENIZER_NONE && !o->rc)
        o->rc = -ENOTSUP;
    if (o->rc)
        return;
    o->ids[o->n++] = id; /* the bound has room for every mark */
    o->last = id;
}

size_t chat_template_encode_bound(const struct chat_template *c,
                                  const struct chat_message *messages, uint32_t n_messages)
{
    return tokenizer_encode_bound(chat_template_render(c, messages, n_messages, true, NULL, 0) +
                                  CHAT_TOKEN_BYTES_MAX);
}

int64_t chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                             const struct chat_message *messages, uint32_t n_messages,
                             bool add_prompt, uint32_t *ids, size_t cap)
{
    struct id_sink o = {.base = {.text = add_text, .mark = add_mark},
                        .t = t,
                        .ids = ids,
                        .cap = cap,
                        .last = TOKENIZER_NONE};
    const size_t bound = chat_template_encode_bound(c, messages, n_messages);

    if (chat_template_check(c, messages, n_messages, NULL))
        return -EINVAL;
    if (cap < bound)
        return -ENOSPC;
    o.text = malloc(bound);
    if (!o.text)
        return -ENOMEM;
    chat_render(c, messages, n_messages, add_prompt, &o.base);
    flush(&o);
    free(o.text);
    return o.rc ? o.rc : (int64_t)o.n;
}
