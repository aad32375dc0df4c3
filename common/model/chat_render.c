/* The forms beside ChatML, and text as the place where they go. */
#include "common/model/chat_span.h"

#include <string.h>

/* ---- Inst ------------------------------------------------------------------------------------ */

/* The system message and the content behind it.  Trimming is of both as one: of an empty content
 * it takes the empty line in front. */
static void inst_system(const struct chat_template *c, struct chat_sink *s, struct span content,
                        const struct chat_message *system)
{
    const bool tags = c->system_place == CHAT_SYSTEM_TAGS;

    if (c->trim_user)
        content = span_trim_end(content);
    chat_put_if(s, tags, "<<SYS>>\n");
    chat_put_span(s, chat_content(system, false));
    chat_put_if(s, tags, "\n<</SYS>>");
    chat_put_if(s, !c->trim_user || content.len, "\n\n");
    chat_put_span(s, content);
}

static void inst_user(const struct chat_template *c, struct chat_sink *s,
                      const struct chat_message *m, const struct chat_message *system)
{
    chat_put_if(s, c->space_before, " ");
    s->mark(s, "[INST]", false);
    chat_put_if(s, c->space_inside, " ");
    if (system)
        inst_system(c, s, chat_content(m, false), system);
    else
        chat_put_span(s, chat_content(m, c->trim_user));
    chat_put_if(s, c->space_close, " ");
    s->mark(s, "[/INST]", false);
}

static void inst_answer(const struct chat_template *c, struct chat_sink *s,
                        const struct chat_message *m)
{
    chat_put_if(s, c->space_answer, " ");
    chat_put_span(s, chat_content(m, c->trim_answer));
    chat_put_if(s, c->space_eos, " ");
    chat_put_token(s, c->eos);
    chat_put_if(s, c->space_after, " ");
}

static void render_inst(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n, struct chat_sink *s)
{
    const struct chat_message *system = n && chat_role_is(&messages[0], "system") ? messages : NULL;

    if (c->bos_first && !c->bos_each)
        chat_put_token(s, c->bos);
    for (uint32_t i = system ? 1 : 0, first = i; i < n; i++) {
        const bool here = c->system_place == CHAT_SYSTEM_LAST ? i + 1 == n : i == first;

        if (chat_role_is(&messages[i], "assistant")) {
            inst_answer(c, s, &messages[i]);
            continue;
        }
        if (c->bos_each)
            chat_put_token(s, c->bos);
        inst_user(c, s, &messages[i], here ? system : NULL);
    }
}

/* ---- Llama 3 --------------------------------------------------------------------------------- */

static void llama3_open(struct chat_sink *s, struct span role)
{
    s->mark(s, "<|start_header_id|>", true);
    chat_put_span(s, role);
    s->mark(s, "<|end_header_id|>", true);
    chat_put(s, "\n\n");
}

static void render_llama3(const struct chat_template *c, const struct chat_message *messages,
                          uint32_t n, bool add_prompt, struct chat_sink *s)
{
    uint32_t i = 0;

    if (c->bos_first && (n || c->system.n))
        chat_put_token(s, c->bos);
    if (c->system.n) {
        llama3_open(s, (struct span){"system", 6});
        chat_put_literal(s, &c->system);
        if (n && chat_role_is(&messages[0], "system"))
            chat_put_span(s, chat_content(&messages[i++], true));
        s->mark(s, "<|eot_id|>", true);
    }
    for (; i < n; i++) {
        llama3_open(s, (struct span){messages[i].role, messages[i].role_len});
        chat_put_span(s, chat_content(&messages[i], true));
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
            chat_role_is(m, "system") ? "<|system|>"
            : chat_role_is(m, "user") ? "<|user|>"
                                      : "<|assistant|>",
            true);
    chat_put_if(s, c->newline, "\n");
}

static void render_phi3(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n, bool add_prompt, struct chat_sink *s)
{
    const struct chat_message answer = {.role = "assistant", .role_len = 9};

    if (c->bos_first)
        chat_put_token(s, c->bos);
    for (uint32_t i = 0; i < n; i++) {
        if (c->skips_empty && chat_role_is(&messages[i], "system") && messages[i].content_len == 0)
            continue;
        phi3_open(c, s, &messages[i]);
        chat_put_span(s, chat_content(&messages[i], false));
        s->mark(s, "<|end|>", true);
        chat_put_if(s, c->newline, "\n");
    }
    if (c->in_turn ? n && chat_role_is(&messages[n - 1], "user") : add_prompt)
        phi3_open(c, s, &answer);
    else if (c->eos_last)
        chat_put_token(s, c->eos);
}

void chat_render(const struct chat_template *c, const struct chat_message *messages,
                 uint32_t n_messages, bool add_prompt, struct chat_sink *s)
{
    switch (c->format) {
    case CHAT_CHATML:
        chat_render_chatml(c, messages, n_messages, add_prompt, s);
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
