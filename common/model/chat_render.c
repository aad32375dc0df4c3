/* The forms. */
#include "common/model/chat_render.h"

#include <string.h>

/* ---- Pieces of text -------------------------------------------------------------------------- */

struct span {
    const char *data;
    size_t len;
};

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

static struct span trim_end(struct span s)
{
    for (size_t n = 1; n <= 3 && n <= s.len;) {
        const bool white = white_len(s.data + s.len - n, n) == n;

        s.len -= white ? n : 0;
        n = white ? 1 : n + 1;
    }
    return s;
}

static struct span trim(struct span s)
{
    size_t n;

    while ((n = white_len(s.data, s.len)) > 0)
        s = (struct span){s.data + n, s.len - n};
    return trim_end(s);
}

static struct span skip_newlines(struct span s)
{
    while (s.len && *s.data == '\n')
        s = (struct span){s.data + 1, s.len - 1};
    return s;
}

static struct span content_of(const struct chat_message *m, bool trimmed)
{
    const struct span s = {m->content, m->content_len};

    return trimmed ? trim(s) : s;
}

static bool role_is(const struct chat_message *m, const char *role)
{
    return m->role_len == strlen(role) && memcmp(m->role, role, m->role_len) == 0;
}

static void put(struct chat_sink *s, const char *text)
{
    s->text(s, text, strlen(text));
}

static void put_span(struct chat_sink *s, struct span text)
{
    if (text.len)
        s->text(s, text.data, text.len);
}

static void put_if(struct chat_sink *s, bool on, const char *text)
{
    if (on)
        put(s, text);
}

static void put_token(struct chat_sink *s, const char *name)
{
    if (*name)
        s->mark(s, name, true);
}

/* ---- ChatML ---------------------------------------------------------------------------------- */

static void chatml_open(struct chat_sink *s, struct span role)
{
    s->mark(s, "<|im_start|>", true);
    put_span(s, role);
    put(s, "\n");
}

static void chatml_close(struct chat_sink *s)
{
    s->mark(s, "<|im_end|>", true);
    put(s, "\n");
}

/* The last place of a mark in a text, behind it; NULL: not there. */
static const char *behind_last(struct span s, const char *mark)
{
    const size_t n = strlen(mark);
    const char *found = NULL, *at = s.data, *end = s.data + s.len;

    while (s.len && (at = memmem(at, (size_t)(end - at), mark, n)) != NULL) {
        at += n;
        found = at;
    }
    return found;
}

/* An answer without what was thought before it. */
static struct span without_thoughts(struct span content)
{
    const char *answer = behind_last(content, "</think>");

    if (!answer)
        return content;
    return skip_newlines((struct span){answer, (size_t)(content.data + content.len - answer)});
}

/* What stands between the marks, without empty lines around. */
static struct span thoughts_of(struct span content)
{
    const char *end = content.len ? memmem(content.data, content.len, "</think>", 8) : NULL;
    struct span s = {content.data, end ? (size_t)(end - content.data) : 0};
    const char *start = behind_last(s, "<think>");

    if (start)
        s = (struct span){start, (size_t)(end - start)};
    s = skip_newlines(s);
    while (s.len && s.data[s.len - 1] == '\n')
        s.len--;
    return s;
}

static void chatml_answer(const struct chat_template *c, struct chat_sink *s,
                          const struct chat_message *m, bool last)
{
    const struct span content = content_of(m, false);

    if (c->thinks_last && last) {
        put(s, "<think>\n");
        put_span(s, thoughts_of(content));
        put(s, "\n</think>\n\n");
        put_span(s, skip_newlines(without_thoughts(content)));
        return;
    }
    put_span(s, c->drops_thoughts ? without_thoughts(content) : content);
}

static void render_chatml(const struct chat_template *c, const struct chat_message *messages,
                          uint32_t n, bool add_prompt, struct chat_sink *s)
{
    if (c->n_system && n && !role_is(&messages[0], "system")) {
        chatml_open(s, (struct span){"system", 6});
        put_span(s, (struct span){c->system, c->n_system});
        chatml_close(s);
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct chat_message *m = &messages[i];

        chatml_open(s, (struct span){m->role, m->role_len});
        if (role_is(m, "assistant"))
            chatml_answer(c, s, m, i + 1 == n);
        else
            put_span(s, content_of(m, false));
        chatml_close(s);
    }
    if (!add_prompt)
        return;
    chatml_open(s, (struct span){"assistant", 9});
    put(s, c->opening);
}

/* ---- Inst ------------------------------------------------------------------------------------ */

/* The system message and the content behind it.  Trimming is of both as one: of an empty content
 * it takes the empty line in front. */
static void inst_system(const struct chat_template *c, struct chat_sink *s, struct span content,
                        const struct chat_message *system)
{
    const bool tags = c->system_place == CHAT_SYSTEM_TAGS;

    if (c->trim_user)
        content = trim_end(content);
    put_if(s, tags, "<<SYS>>\n");
    put_span(s, content_of(system, false));
    put_if(s, tags, "\n<</SYS>>");
    put_if(s, !c->trim_user || content.len, "\n\n");
    put_span(s, content);
}

static void inst_user(const struct chat_template *c, struct chat_sink *s,
                      const struct chat_message *m, const struct chat_message *system)
{
    put_if(s, c->space_before, " ");
    s->mark(s, "[INST]", false);
    put_if(s, c->space_inside, " ");
    if (system)
        inst_system(c, s, content_of(m, false), system);
    else
        put_span(s, content_of(m, c->trim_user));
    put_if(s, c->space_close, " ");
    s->mark(s, "[/INST]", false);
}

static void inst_answer(const struct chat_template *c, struct chat_sink *s,
                        const struct chat_message *m)
{
    put_if(s, c->space_answer, " ");
    put_span(s, content_of(m, c->trim_answer));
    put_if(s, c->space_eos, " ");
    put_token(s, c->eos);
    put_if(s, c->space_after, " ");
}

static void render_inst(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n, struct chat_sink *s)
{
    const struct chat_message *system = n && role_is(&messages[0], "system") ? messages : NULL;

    if (c->bos_first && !c->bos_each)
        put_token(s, c->bos);
    for (uint32_t i = system ? 1 : 0, first = i; i < n; i++) {
        const bool here = c->system_place == CHAT_SYSTEM_LAST ? i + 1 == n : i == first;

        if (role_is(&messages[i], "assistant")) {
            inst_answer(c, s, &messages[i]);
            continue;
        }
        if (c->bos_each)
            put_token(s, c->bos);
        inst_user(c, s, &messages[i], here ? system : NULL);
    }
}

/* ---- Llama 3 --------------------------------------------------------------------------------- */

static void llama3_open(struct chat_sink *s, struct span role)
{
    s->mark(s, "<|start_header_id|>", true);
    put_span(s, role);
    s->mark(s, "<|end_header_id|>", true);
    put(s, "\n\n");
}

static void render_llama3(const struct chat_template *c, const struct chat_message *messages,
                          uint32_t n, bool add_prompt, struct chat_sink *s)
{
    uint32_t i = 0;

    if (c->bos_first && (n || c->n_system))
        put_token(s, c->bos);
    if (c->n_system) {
        llama3_open(s, (struct span){"system", 6});
        put_span(s, (struct span){c->system, c->n_system});
        if (n && role_is(&messages[0], "system"))
            put_span(s, content_of(&messages[i++], true));
        s->mark(s, "<|eot_id|>", true);
    }
    for (; i < n; i++) {
        llama3_open(s, (struct span){messages[i].role, messages[i].role_len});
        put_span(s, content_of(&messages[i], true));
        s->mark(s, "<|eot_id|>", true);
    }
    if (add_prompt)
        llama3_open(s, (struct span){"assistant", 9});
}

/* ---- Phi-3 ----------------------------------------------------------------------------------- */

static void phi3_open(const struct chat_template *c, struct chat_sink *s,
                      const struct chat_message *m)
{
    s->mark(s,
            role_is(m, "system") ? "<|system|>"
            : role_is(m, "user") ? "<|user|>"
                                 : "<|assistant|>",
            true);
    put_if(s, c->newline, "\n");
}

static void render_phi3(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n, bool add_prompt, struct chat_sink *s)
{
    const struct chat_message answer = {.role = "assistant", .role_len = 9};

    if (c->bos_first)
        put_token(s, c->bos);
    for (uint32_t i = 0; i < n; i++) {
        if (c->skips_empty && role_is(&messages[i], "system") && messages[i].content_len == 0)
            continue;
        phi3_open(c, s, &messages[i]);
        put_span(s, content_of(&messages[i], false));
        s->mark(s, "<|end|>", true);
        put_if(s, c->newline, "\n");
    }
    if (add_prompt)
        phi3_open(c, s, &answer);
    else if (c->eos_last)
        put_token(s, c->eos);
}

void chat_render(const struct chat_template *c, const struct chat_message *messages,
                 uint32_t n_messages, bool add_prompt, struct chat_sink *s)
{
    switch (c->format) {
    case CHAT_CHATML:
        render_chatml(c, messages, n_messages, add_prompt, s);
        break;
    case CHAT_INST:
        render_inst(c, messages, n_messages, s);
        break;
    case CHAT_LLAMA3:
        render_llama3(c, messages, n_messages, add_prompt, s);
        break;
    case CHAT_PHI3:
        render_phi3(c, messages, n_messages, add_prompt, s);
        break;
    }
}

/* ---- As text --------------------------------------------------------------------------------- */

/* Counts what does not fit, as snprintf does. */
struct text_sink {
    struct chat_sink base;
    char *data;
    size_t cap, n;
};

static void add_text(struct chat_sink *base, const char *data, size_t len)
{
    struct text_sink *o = (struct text_sink *)base;
    const size_t room = o->n < o->cap ? o->cap - o->n : 0;
    const size_t fits = len < room ? len : room;

    if (fits)
        memcpy(o->data + o->n, data, fits);
    o->n += len;
}

static void add_mark(struct chat_sink *base, const char *name, bool needed)
{
    (void)needed;
    add_text(base, name, strlen(name));
}

size_t chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                            uint32_t n_messages, bool add_prompt, char *out, size_t cap)
{
    struct text_sink o = {.base = {.text = add_text, .mark = add_mark}, .data = out, .cap = cap};

    chat_render(c, messages, n_messages, add_prompt, &o.base);
    return o.n;
}
