/* Which form a template has. */
#include "common/model/chat_template.h"

#include <errno.h>
#include <string.h>

#include "common/model/chat_span.h"

#define IM_START "<|im_start|>"
#define IM_END   "<|im_end|>"
#define IM_SEP   "<|im_sep|>"

static bool has(struct gguf_string t, const char *text)
{
    return memmem(t.data, t.len, text, strlen(text)) != NULL;
}

/* ---- Expressions ---------------------------------------------------------------------------- */

/* The expression {{ ... }} around a place of the template. */
static struct gguf_string expression_at(struct gguf_string t, const char *at)
{
    const char *from = at, *to = memmem(at, (size_t)(t.data + t.len - at), "}}", 2);

    while (from > t.data && memcmp(from, "{{", 2) != 0)
        from--;
    to = to ? to : t.data + t.len;
    return (struct gguf_string){from, (size_t)(to - from)};
}

/* The first expression with both words in it; len 0: none. */
static struct gguf_string find_expression(struct gguf_string t, const char *word, const char *other)
{
    const char *at = t.data, *end = t.data + t.len;

    while ((at = memmem(at, (size_t)(end - at), word, strlen(word))) != NULL) {
        const struct gguf_string e = expression_at(t, at);

        if (has(e, other))
            return e;
        at += strlen(word);
    }
    return (struct gguf_string){"", 0};
}

/* ---- Literals -------------------------------------------------------------------------------- */

static const char *find(struct gguf_string t, const char *from, const char *text)
{
    return memmem(from, (size_t)(t.data + t.len - from), text, strlen(text));
}

/* A template literal may carry its newline as a character or, inside Jinja quotes, as \n. */
static const char *skip_newline(const char *p, const char *end)
{
    if (p < end && *p == '\n')
        return p + 1;
    if (end - p >= 2 && p[0] == '\\' && p[1] == 'n')
        return p + 2;
    return NULL;
}

/* Appends the literal of [p, end), with \n and \' undone. */
static int copy_literal(struct chat_literal *out, const char *p, const char *end)
{
    while (p < end) {
        const bool escaped = *p == '\\' && p + 1 < end;
        const char *byte = escaped ? p + 1 : p;

        p = byte + 1;
        if (out->n == sizeof(out->bytes))
            return -ENOTSUP;
        out->bytes[out->n++] = escaped && *byte == 'n' ? '\n' : *byte;
    }
    return 0;
}

static int copy_text(struct chat_literal *out, const char *text)
{
    return copy_literal(out, text, text + strlen(text));
}

/* The same of a quoted string that begins at p; *after: behind it. */
static int copy_quoted(struct chat_literal *out, const char *p, const char *end, const char **after)
{
    const char *stop = p + 1;

    if (p >= end || (*p != '\'' && *p != '"'))
        return -ENOTSUP;
    while (stop < end && *stop != *p)
        stop += *stop == '\\' ? 2 : 1;
    if (stop >= end)
        return -ENOTSUP;
    *after = stop + 1;
    return copy_literal(out, p + 1, stop);
}

/* ---- ChatML ---------------------------------------------------------------------------------- */

/* Behind "<|im_start|>system", is it the text itself?  With a quote or a brace before the end mark
 * it is a program. */
static bool is_text(const char *text, const char *stop)
{
    const size_t n = (size_t)(stop - text);

    return n && !memchr(text, '{', n) && !memmem(text, n, "' ", 2) && !memmem(text, n, "\" ", 2);
}

/* The message that the template itself puts in front: a system turn with literal text between the
 * ChatML marks, or the value that a variable has until a message gives it another. */
static int find_default_system(struct chat_template *c, struct gguf_string t)
{
    static const char open[] = IM_START "system", variable[] = "set system_message = ";
    const char *end = t.data + t.len;

    for (const char *at = t.data; (at = find(t, at, open)) != NULL;) {
        const char *text;

        at += sizeof(open) - 1;
        text = c->separator && find(t, at, IM_SEP) == at ? at + sizeof(IM_SEP) - 1
                                                         : skip_newline(at, end);
        const char *stop = text ? find(t, text, IM_END) : NULL;

        if (stop && is_text(text, stop))
            return copy_literal(&c->system, text, stop);
    }
    for (const char *at = t.data; (at = find(t, at, variable)) != NULL;) {
        at += sizeof(variable) - 1;
        if (at < end && (*at == '\'' || *at == '"'))
            return copy_quoted(&c->system, at, end, &at);
    }
    return 0;
}

/* What follows "assistant\n" in the literal that opens an answer ("<think>\n" for models that always
 * think); nothing if it is no literal, or a long one. */
static void find_opening(struct chat_template *c, struct gguf_string t)
{
    static const char prompt[] = "add_generation_prompt", open[] = IM_START "assistant";
    const char *end = t.data + t.len, *at = t.data, *next, *stop;
    struct chat_literal literal = {.n = 0};

    while ((next = find(t, at, prompt)) != NULL)
        at = next + sizeof(prompt) - 1;
    at = find(t, at, open);
    at = at ? skip_newline(at + sizeof(open) - 1, end) : NULL;
    stop = at ? memchr(at, '\'', (size_t)(end - at)) : NULL;
    if (!stop || stop - at >= CHAT_TOKEN_BYTES_MAX || memchr(at, '"', (size_t)(stop - at)) ||
        copy_literal(&literal, at, stop))
        return;
    memcpy(c->opening, literal.bytes, literal.n);
    c->opening[literal.n] = 0;
}

/* SmolLM3: what its system turn says where no message does, with thoughts and without. */
static int open_two_modes(struct chat_template *c, struct gguf_string t)
{
    static const char mode[] = "elif reasoning_mode == \"/think\"", other[] = "else",
                      put[] = "{{- ";
    const char *at = find(t, t.data, mode), *end = t.data + t.len;
    int rc;

    c->two_modes = true;
    c->overrides = has(t, "/system_override");
    at = at ? find(t, at, put) : NULL;
    if (!at || !has(t, "Knowledge Cutoff Date: June 2025\\n"))
        return -ENOTSUP;
    rc = copy_quoted(&c->system, at + sizeof(put) - 1, end, &at);
    at = rc ? NULL : find(t, at, other);
    at = at ? find(t, at, put) : NULL;
    return at ? copy_quoted(&c->unthinking, at + sizeof(put) - 1, end, &at) : -ENOTSUP;
}

static enum chat_system chatml_system_place(const struct chat_template *c, struct gguf_string t)
{
    if (c->names_roles && !has(t, "'system'") && !has(t, "\"system\""))
        return CHAT_SYSTEM_REFUSED;
    if (c->in_turn && !has(t, IM_START "system"))
        return has(t, "{{ system_message }}") ? CHAT_SYSTEM_BARE : CHAT_SYSTEM_REFUSED;
    return CHAT_SYSTEM_TURN;
}

static int open_chatml(struct chat_template *c, struct gguf_string t)
{
    c->separator = has(t, IM_SEP);
    c->names_roles = has(t, "== 'user'") || has(t, "== \"user\"");
    c->in_turn = find_expression(t, IM_START "user", IM_START "assistant").len > 0;
    c->system_place = chatml_system_place(c, t);
    if (has(t, "## Custom Instructions"))
        return open_two_modes(c, t);
    find_opening(c, t);
    c->drops_thoughts = has(t, "split('</think>')[-1]");
    c->thinks_last = has(t, "last_query_index") && has(t, "loop.last or ");
    return find_default_system(c, t);
}

/* ---- Llama 3 --------------------------------------------------------------------------------- */

/* From 3.1 on every conversation has a system message, which begins with two dates. */
static int open_llama3(struct chat_template *c, struct gguf_string t)
{
    static const char mark[] = "date_string = \"";
    const char *date = memmem(t.data, t.len, mark, sizeof(mark) - 1);
    const char *end;
    int rc;

    c->system_place = CHAT_SYSTEM_TURN;
    if (!has(t, "Cutting Knowledge Date: December 2023"))
        return has(t, "<|start_header_id|>system") ? -ENOTSUP : 0; /* a message of its own */
    date = date ? date + sizeof(mark) - 1 : NULL;
    end = date ? memchr(date, '"', (size_t)(t.data + t.len - date)) : NULL;
    if (!end)
        return -ENOTSUP;
    rc = copy_text(&c->system, "Cutting Knowledge Date: December 2023\nToday Date: ");
    if (!rc)
        rc = copy_literal(&c->system, date, end);
    return rc ? rc : copy_text(&c->system, "\n\n");
}

/* ---- Inst ------------------------------------------------------------------------------------ */

/* Does the expression begin with the literal of one space? */
static bool begins_with_space(struct gguf_string e)
{
    size_t i = 2;

    while (i < e.len && (e.data[i] == '-' || e.data[i] == ' '))
        i++;
    return e.len >= i + 3 &&
           (memcmp(e.data + i, "' '", 3) == 0 || memcmp(e.data + i, "\" \"", 3) == 0);
}

static bool trims(struct gguf_string e)
{
    return has(e, "strip()") || has(e, "|trim") || has(e, "| trim");
}

static void read_answer(struct chat_template *c, struct gguf_string t)
{
    const struct gguf_string e = find_expression(t, "eos_token", "content");

    c->space_answer = begins_with_space(e);
    c->space_eos = has(e, "' ' + eos_token") || has(e, "\" \" + eos_token");
    c->space_after = has(e, "eos_token + ' '") || has(e, "eos_token + \" \"");
    c->trim_answer = trims(e);
    if (!has(e, "eos_token"))
        c->eos[0] = 0;
}

static enum chat_system system_place_of(struct gguf_string t)
{
    if (has(t, "<<SYS>>"))
        return CHAT_SYSTEM_TAGS;
    if (has(t, "loop.last and system_message"))
        return CHAT_SYSTEM_LAST;
    if (has(t, "loop.first and system_message") || has(t, "loop.index0 == 0 and system_message"))
        return CHAT_SYSTEM_FIRST;
    return CHAT_SYSTEM_REFUSED;
}

/* Forms with marks of their own for the system message or for tools in the middle are others. */
static int open_inst(struct chat_template *c, struct gguf_string t)
{
    const char *open = memmem(t.data, t.len, "[INST]", 6);
    const char *close = memmem(t.data, t.len, "[/INST]", 7);

    if (!open || !close || open == t.data || close == t.data || has(t, "[SYSTEM_PROMPT]") ||
        !has(find_expression(t, "[INST]", "content"), "[INST]"))
        return -ENOTSUP;
    c->space_before = open[-1] == ' ';
    c->space_inside = open + 6 < t.data + t.len && open[6] == ' ';
    c->space_close = close[-1] == ' ';
    c->trim_user = trims(find_expression(t, "[/INST]", "content"));
    c->bos_each = has(t, "bos_token + '[INST]") || has(t, "bos_token + \"[INST]");
    c->system_place = system_place_of(t);
    read_answer(c, t);
    return 0;
}

/* ---- Phi-3 ----------------------------------------------------------------------------------- */

/* Does the template begin a system message with text of its own? */
static bool phi3_says_something(struct gguf_string t)
{
    static const char open[] = "<|system|>";
    const char *end = t.data + t.len;

    for (const char *at = t.data; (at = find(t, at, open)) != NULL;) {
        const char *text = skip_newline(at + sizeof(open) - 1, end);

        at = text ? text : at + sizeof(open) - 1;
        if (at < end && *at != '\'' && *at != '"')
            return true;
    }
    return false;
}

static int open_phi3(struct chat_template *c, struct gguf_string t)
{
    if (phi3_says_something(t) || (!has(t, "<|user|>") && !has(t, "'<|' + message['role'] + '|>'")))
        return -ENOTSUP;
    c->names_roles = true;
    c->newline = has(t, "<|end|>\n") || has(t, "<|end|>\\n") || has(t, "'<|end|>' + '\\n'") ||
                 has(t, "'<|end|>' + '\n'");
    c->system_place = has(t, "'system'") || has(t, "\"system\"") || has(t, "message['role'] + '|>'")
                          ? CHAT_SYSTEM_TURN
                          : CHAT_SYSTEM_REFUSED;
    c->in_turn = find_expression(t, "<|user|>", "<|assistant|>").len > 0;
    c->skips_empty = has(t, "'system' and message['content']");
    c->eos_last = has(t, "else %}{{ eos_token }}") || has(t, "else %}{{eos_token}}");
    return 0;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* The text of the token that a key names; "" if there is none, or a very long one. */
static void read_token(const struct gguf *g, const char *key, char out[CHAT_TOKEN_BYTES_MAX])
{
    struct gguf_array tokens;
    struct gguf_cursor cursor = {0};
    struct gguf_string text = {"", 0};
    uint32_t id;

    out[0] = 0;
    if (gguf_get_u32(g, key, &id, NULL) ||
        gguf_get_array(g, "tokenizer.ggml.tokens", &tokens, NULL) || tokens.type != GGUF_STRING)
        return;
    for (uint64_t i = 0; i <= id; i++)
        if (!gguf_array_next(&tokens, &cursor, &text))
            return;
    if (text.len >= CHAT_TOKEN_BYTES_MAX)
        return;
    memcpy(out, text.data, text.len);
    out[text.len] = 0;
}

/* Signs of a template that has the marks of a form and does something else with them: a system
 * message of its own around what is given, trimmed answers, thoughts that end before they begin. */
static bool is_other(struct gguf_string t)
{
    static const char *const signs[] = {
        "You are a function calling AI model", /* Hermes, with tools or without */
        "'<|start_header_id|>' + 'system'",    /* Firefunction */
        "content.lstrip()",                    /* Bielik */
        "if not enable_thinking",              /* QwQ, as some have changed it */
        "'\\n<|end|>",                         /* Apriel */
    };

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (has(t, signs[i]))
            return true;
    return has(t, "last_query_index") && !has(t, "loop.last or ");
}

/* In this order: a template with the marks of two forms is of the first. */
static int find_form(struct chat_template *c, struct gguf_string t)
{
    static const struct {
        const char *marks[2];
        enum chat_format format;
        int (*open)(struct chat_template *c, struct gguf_string t);
    } forms[] = {{{IM_START, IM_END}, CHAT_CHATML, open_chatml},
                 {{"<|start_header_id|>", "<|eot_id|>"}, CHAT_LLAMA3, open_llama3},
                 {{"<|end|>", "|>"}, CHAT_PHI3, open_phi3},
                 {{"[INST]", "[/INST]"}, CHAT_INST, open_inst}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]) && !is_other(t); i++)
        if (has(t, forms[i].marks[0]) && has(t, forms[i].marks[1])) {
            c->format = forms[i].format;
            return forms[i].open(c, t);
        }
    return -ENOTSUP;
}

int chat_template_open(const struct gguf *g, struct chat_template *out, struct gguf_error *err)
{
    struct gguf_string t;
    int rc = gguf_get_string(g, "tokenizer.chat_template", &t, err);

    if (rc)
        return rc;
    memset(out, 0, sizeof(*out));
    read_token(g, "tokenizer.ggml.bos_token_id", out->bos);
    read_token(g, "tokenizer.ggml.eos_token_id", out->eos);
    out->bos_first = has(t, "bos_token");
    out->refuses_tools = has(t, "\"tool\"") || has(t, "'tool'");
    rc = find_form(out, t);
    if (rc)
        gguf_error_at_key(err, g, "tokenizer.chat_template",
                          "not known (known: ChatML, Llama 2, Llama 3, "
                          "Mistral, Phi-3): %.*s",
                          (int)(t.len < 64 ? t.len : 64), t.data);
    return rc;
}
