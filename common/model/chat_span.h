/* chat_span.h - pieces of text on their way into a rendered conversation; private to chat_*.c. */
#ifndef OMNI_COMMON_MODEL_CHAT_SPAN_H
#define OMNI_COMMON_MODEL_CHAT_SPAN_H

#include "common/model/chat_render.h"

/* Bytes of somebody else's; not NUL-terminated. */
struct span {
    const char *data;
    size_t len;
};

/* White space is what Python's strip() takes it for. */
struct span span_trim(struct span s);
struct span span_trim_end(struct span s);
struct span span_skip_newlines(struct span s);

/* The first place of a mark, or NULL; behind the last one, or NULL. */
const char *span_find(struct span s, const char *mark);
const char *span_behind_last(struct span s, const char *mark);

struct span chat_content(const struct chat_message *m, bool trimmed);
bool chat_role_is(const struct chat_message *m, const char *role);

/* Into the sink: a string, a piece of text, a string if `on`, a control token by its name ("": none). */
void chat_put(struct chat_sink *s, const char *text);
void chat_put_span(struct chat_sink *s, struct span text);
void chat_put_if(struct chat_sink *s, bool on, const char *text);
void chat_put_token(struct chat_sink *s, const char *name);
void chat_put_literal(struct chat_sink *s, const struct chat_literal *text);

#endif
