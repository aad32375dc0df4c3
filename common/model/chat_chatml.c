/* ChatML and what models made of it. */
#include "common/model/chat_span.h"

#include <string.h>

static void open_turn(const struct chat_template *c, struct chat_sink *s, struct span role)
{
    s->mark(s, "<|im_start|>", true);
    chat_put_span(s, role);
    if (c->separator)
        s->mark(s, "<|im_sep|>", true);
    else
        chat_put(s, "\n");
}

static void close_turn(const struct chat_template *c, struct chat_sink *s)
{
    s->mark(s, "<|im_end|>", true);
    chat_put_if(s, !c->separator, "\n");
}

static void open_answer(const struct chat_template *c, struct chat_sink *s)
{
    open_turn(c, s, (struct span){"assistant", 9});
}

/* ---- Thoughts -------------------------------------------------------------------------------- */

/* An answer without what was thought before it. */
static struct span without_thoughts(struct span content)
{
    const char *answer = span_behind_last(content, "</think>");

    if (!answer)
        return content;
    return span_skip_newlines((struct span){answer, (size_t)(content.data + content.len - answer)});
}

/* What stands between the marks, without empty lines around. */
static struct span thoughts_of(struct span content)
{
    const char *end = span_find(content, "</think>");
    struct span s = {content.data, end ? (size_t)(end - content.data) : 0};
    const char *start = span_behind_last(s, "<think>");

    if (start)
        s = (struct span){start, (size_t)(end - start)};
    s = span_skip_newlines(s);
    while (s.len && s.data[s.len - 1] == '\n')
        s.len--;
    return s;
}

/* The last user's message; where there is none, the last of all. */
static uint32_t last_query(const struct chat_message *messages, uint32_t n)
{
    for (uint32_t i = n; i > 0; i--)
        if (chat_role_is(&messages[i - 1], "user"))
            return i - 1;
    return n - 1;
}

/* Behind the last question an answer keeps its thoughts; the last of all shows them, be they empty. */
static bool shows_thoughts(const struct chat_template *c, const struct chat_message *messages,
                           uint32_t n, uint32_t i)
{
    return c->thinks_last && i > last_query(messages, n) &&
           (i + 1 == n || thoughts_of(chat_content(&messages[i], false)).len > 0);
}

static void put_answer(const struct chat_template *c, struct chat_sink *s,
                       const struct chat_message *m, bool thoughts)
{
    const struct span content = chat_content(m, false);

    if (thoughts) {
        chat_put(s, "<think>\n");
        chat_put_span(s, thoughts_of(content));
        chat_put(s, "\n</think>\n\n");
        chat_put_span(s, span_skip_newlines(without_thoughts(content)));
        return;
    }
    chat_put_span(s, c->drops_thoughts ? without_thoughts(content) : content);
}

/* ---- SmolLM3 --------------------------------------------------------------------------------- */

/* Words in a system message that are switches; the template takes them out. */
enum { SWITCH_NO_THINK, SWITCH_THINK, SWITCH_OVERRIDE, N_SWITCHES };

static const char *const switches[N_SWITCHES] = {"/no_think", "/think", "/system_override"};

static bool knows_switch(const struct chat_template *c, size_t i)
{
    return i != SWITCH_OVERRIDE || c->overrides;
}

/* Bytes of the switch at the end of a text; 0: none. */
static size_t switch_at_end(const struct chat_template *c, struct span s)
{
    for (size_t i = 0; i < N_SWITCHES; i++) {
        const size_t n = strlen(switches[i]);

        if (knows_switch(c, i) && s.len >= n && memcmp(s.data + s.len - n, switches[i], n) == 0)
            return n;
    }
    return 0;
}

/* Without switches and white space at the end. */
static struct span instructions_of(const struct chat_template *c, struct span s)
{
    size_t n;

    do {
        s = span_trim_end(s);
        n = switch_at_end(c, s);
        s.len -= n;
    } while (n);
    return s;
}

/* The first switch in a text, and its length; NULL: none. */
static const char *find_switch(const struct chat_template *c, struct span s, size_t *n)
{
    const char *first = NULL;

    for (size_t i = 0; i < N_SWITCHES; i++) {
        const char *at = knows_switch(c, i) ? span_find(s, switches[i]) : NULL;

        if (!at || (first && at >= first))
            continue;
        first = at;
        *n = strlen(switches[i]);
    }
    return first;
}

static void put_instructions(const struct chat_template *c, struct chat_sink *s, struct span text)
{
    const char *at, *end = text.data + text.len;
    size_t n;

    while ((at = find_switch(c, text, &n)) != NULL) {
        chat_put_span(s, (struct span){text.data, (size_t)(at - text.data)});
        text = (struct span){at + n, (size_t)(end - at) - n};
    }
    chat_put_span(s, text);
}

/* Today's date, which the template has behind the cutoff, is left out (chat_template.h). */
static void put_system(const struct chat_template *c, struct chat_sink *s, struct span message,
                       bool thinks)
{
    const struct span instructions = instructions_of(c, message);
    const bool alone = c->overrides && span_find(message, switches[SWITCH_OVERRIDE]) != NULL;

    open_turn(c, s, (struct span){"system", 6});
    if (!alone) {
        chat_put(s, "## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: ");
        chat_put(s, thinks ? "/think" : "/no_think");
        chat_put(s, "\n\n## Custom Instructions\n\n");
    }
    put_instructions(c, s, instructions);
    if (instructions.len)
        chat_put_if(s, !alone, "\n\n");
    else if (!alone)
        chat_put_literal(s, thinks ? &c->system : &c->unthinking);
    close_turn(c, s);
}

static void render_two_modes(const struct chat_template *c, const struct chat_message *messages,
                             uint32_t n, bool add_prompt, struct chat_sink *s)
{
    const bool system = n && chat_role_is(&messages[0], "system");
    const struct span message = system ? chat_content(&messages[0], false) : (struct span){"", 0};
    const bool thinks = span_find(message, switches[SWITCH_NO_THINK]) == NULL;

    put_system(c, s, message, thinks);
    for (uint32_t i = system; i < n; i++) {
        const bool answer = chat_role_is(&messages[i], "assistant");
        const struct span content = chat_content(&messages[i], false);

        open_turn(c, s, (struct span){messages[i].role, messages[i].role_len});
        chat_put_if(s, answer && !thinks, "<think>\n\n</think>\n");
        chat_put_span(s, answer ? span_skip_newlines(content) : content);
        close_turn(c, s);
    }
    if (!add_prompt)
        return;
    open_answer(c, s);
    chat_put_if(s, !thinks, "<think>\n\n</think>\n");
}

/* ---- The form -------------------------------------------------------------------------------- */

/* What comes before the turns; returns the first message that is one. */
static uint32_t put_front(const struct chat_template *c, const struct chat_message *messages,
                          uint32_t n, struct chat_sink *s)
{
    const bool system = n && chat_role_is(&messages[0], "system");

    if (c->bos_first)
        chat_put_token(s, c->bos);
    if (system && c->system_place == CHAT_SYSTEM_BARE) {
        chat_put_span(s, chat_content(&messages[0], false));
        return 1;
    }
    if (c->system.n && n && !system) {
        open_turn(c, s, (struct span){"system", 6});
        chat_put_literal(s, &c->system);
        close_turn(c, s);
    }
    return 0;
}

void chat_render_chatml(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n, bool add_prompt, struct chat_sink *s)
{
    if (c->two_modes) {
        render_two_modes(c, messages, n, add_prompt, s);
        return;
    }
    for (uint32_t i = put_front(c, messages, n, s); i < n; i++) {
        const struct chat_message *m = &messages[i];

        open_turn(c, s, (struct span){m->role, m->role_len});
        if (chat_role_is(m, "assistant"))
            put_answer(c, s, m, shows_thoughts(c, messages, n, i));
        else
            chat_put_span(s, chat_content(m, false));
        close_turn(c, s);
    }
    if (c->in_turn ? n && chat_role_is(&messages[n - 1], "user") : add_prompt) {
        open_answer(c, s);
        chat_put(s, c->opening);
    }
}
