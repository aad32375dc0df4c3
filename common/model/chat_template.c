#include "common/model/chat_template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IM_START  "<|im_start|>"
#define IM_END    "<|im_end|>"
#define ASSISTANT "assistant\n"

/* A template literal may carry its newline as a character or, inside Jinja quotes, as \n. */
static const char *skip_newline(const char *p, const char *end)
{
    if (p < end && *p == '\n')
        return p + 1;
    if (end - p >= 2 && p[0] == '\\' && p[1] == 'n')
        return p + 2;
    return NULL;
}

/* Copies the literal of [p, end), with \n and \' undone. */
static int copy_literal(struct chat_template *c, const char *p, const char *end)
{
    while (p < end) {
        const bool escaped = *p == '\\' && p + 1 < end;
        const char *byte = escaped ? p + 1 : p;

        p = byte + 1;
        if (c->n_system == sizeof(c->system))
            return -ENOTSUP;
        if (escaped && *byte == 'n')
            c->system[c->n_system++] = '\n';
        else
            c->system[c->n_system++] = *byte;
    }
    return 0;
}

/* The message that the template itself puts in front: a system turn with literal text between the
 * ChatML marks.  Text with a quote or brace before the end mark is a program, not a literal. */
static int find_default_system(struct chat_template *c, struct gguf_string t)
{
    static const char open[] = IM_START "system";
    const char *end = t.data + t.len, *at = t.data;

    while ((at = memmem(at, (size_t)(end - at), open, sizeof(open) - 1)) != NULL) {
        const char *text = skip_newline(at + sizeof(open) - 1, end);
        const char *stop =
            text ? memmem(text, (size_t)(end - text), IM_END, sizeof(IM_END) - 1) : NULL;

        at += sizeof(open) - 1;
        if (!stop || stop == text)
            continue;
        if (!memchr(text, '{', (size_t)(stop - text)) &&
            !memmem(text, (size_t)(stop - text), "' ", 2))
            return copy_literal(c, text, stop);
    }
    return 0;
}

int chat_template_open(const struct gguf *g, struct chat_template *out, struct gguf_error *err)
{
    struct gguf_string t;
    int rc = gguf_get_string(g, "tokenizer.chat_template", &t, err);

    if (rc)
        return rc;
    memset(out, 0, sizeof(*out));
    out->format = CHAT_CHATML;
    rc = -ENOTSUP;
    if (memmem(t.data, t.len, IM_START, sizeof(IM_START) - 1))
        rc = find_default_system(out, t);
    if (rc)
        gguf_error_set(
            err, "tokenizer.chat_template: not known (known: ChatML, with <|im_start|>): %.*s",
            (int)(t.len < 64 ? t.len : 64), t.data);
    return rc;
}

/* Does the template add its own system message to this conversation? */
static bool adds_system(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n_messages)
{
    return c->n_system && n_messages &&
           !(messages[0].role_len == 6 && memcmp(messages[0].role, "system", 6) == 0);
}

static struct chat_message default_system(const struct chat_template *c)
{
    return (struct chat_message){
        .role = "system", .role_len = 6, .content = c->system, .content_len = c->n_system};
}

/* Counts what does not fit, as snprintf does. */
struct text_out {
    char *data;
    size_t cap, n;
};

static void put(struct text_out *o, const char *text, size_t len)
{
    const size_t room = o->n < o->cap ? o->cap - o->n : 0;
    const size_t fits = len < room ? len : room;

    if (fits)
        memcpy(o->data + o->n, text, fits);
    o->n += len;
}

static void put_message(struct text_out *o, const struct chat_message *m)
{
    put(o, IM_START, sizeof(IM_START) - 1);
    put(o, m->role, m->role_len);
    put(o, "\n", 1);
    put(o, m->content, m->content_len);
    put(o, IM_END "\n", sizeof(IM_END));
}

size_t chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                            uint32_t n_messages, bool add_prompt, char *out, size_t cap)
{
    struct text_out o = {.data = out, .cap = cap};

    if (adds_system(c, messages, n_messages)) {
        const struct chat_message m = default_system(c);

        put_message(&o, &m);
    }
    for (uint32_t i = 0; i < n_messages; i++)
        put_message(&o, &messages[i]);
    if (add_prompt)
        put(&o, IM_START ASSISTANT, sizeof(IM_START ASSISTANT) - 1);
    return o.n;
}

size_t chat_template_encode_bound(const struct chat_template *c,
                                  const struct chat_message *messages, uint32_t n_messages)
{
    return tokenizer_encode_bound(chat_template_render(c, messages, n_messages, true, NULL, 0));
}

/* One call of encode. */
struct id_out {
    const struct tokenizer *t;
    uint32_t *ids;
    size_t cap, n;
    uint32_t im_start, im_end;
    char *text; /* room for the longest "role \n content" */
};

static int put_plain(struct id_out *o, const char *text, size_t len)
{
    const int64_t n = tokenizer_encode(o->t, text, len, 0, o->ids + o->n, o->cap - o->n);

    if (n < 0)
        return (int)n;
    o->n += (size_t)n;
    return 0;
}

/* Role and content go through the tokenizer in one piece: the newline between them may merge with
 * the content's first characters, and does in the rendered text. */
static int put_turn(struct id_out *o, const struct chat_message *m)
{
    size_t n = m->role_len;
    int rc;

    memcpy(o->text, m->role, m->role_len);
    o->text[n++] = '\n';
    if (m->content_len)
        memcpy(o->text + n, m->content, m->content_len);
    o->ids[o->n++] = o->im_start;
    rc = put_plain(o, o->text, n + m->content_len);
    if (rc)
        return rc;
    o->ids[o->n++] = o->im_end;
    return put_plain(o, "\n", 1);
}

static int put_all(struct id_out *o, const struct chat_template *c,
                   const struct chat_message *messages, uint32_t n_messages, bool add_prompt)
{
    int rc = 0;

    if (adds_system(c, messages, n_messages)) {
        const struct chat_message m = default_system(c);

        rc = put_turn(o, &m);
    }
    for (uint32_t i = 0; !rc && i < n_messages; i++)
        rc = put_turn(o, &messages[i]);
    if (rc || !add_prompt)
        return rc;
    o->ids[o->n++] = o->im_start;
    return put_plain(o, ASSISTANT, sizeof(ASSISTANT) - 1);
}

int64_t chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                             const struct chat_message *messages, uint32_t n_messages,
                             bool add_prompt, uint32_t *ids, size_t cap)
{
    struct id_out o = {.t = t, .ids = ids, .cap = cap};
    const size_t bound = chat_template_encode_bound(c, messages, n_messages);
    int rc;

    o.im_start = tokenizer_special_id(t, IM_START);
    o.im_end = tokenizer_special_id(t, IM_END);
    if (o.im_start == TOKENIZER_NONE || o.im_end == TOKENIZER_NONE)
        return -ENOTSUP;
    if (cap < bound)
        return -ENOSPC;
    o.text = malloc(bound); /* longer than any one turn */
    if (!o.text)
        return -ENOMEM;
    rc = put_all(&o, c, messages, n_messages, add_prompt);
    free(o.text);
    return rc ? rc : (int64_t)o.n;
}
