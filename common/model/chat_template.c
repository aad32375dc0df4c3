/* Which form a template has, and what it forbids. */
#include "common/model/chat_template.h"

#include <errno.h>
#include <string.h>

#define IM_START "<|im_start|>"
#define IM_END   "<|im_end|>"

static bool has(struct gguf_string t, const char *text)
{
    return memmem(t.data, t.len, text, strlen(text)) != NULL;
}

/* ---- ChatML ---------------------------------------------------------------------------------- */

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

/* What follows "assistant\n" in the literal that opens an answer ("<think>\n" for models that always
 * think); nothing if it is no literal, or a long one. */
static void find_opening(struct chat_template *c, struct gguf_string t)
{
    static const char prompt[] = "add_generation_prompt", open[] = IM_START "assistant";
    const char *end = t.data + t.len, *at = t.data, *next, *stop;
    struct chat_template literal = {.n_system = 0};

    while ((next = memmem(at, (size_t)(end - at), prompt, sizeof(prompt) - 1)) != NULL)
        at = next + sizeof(prompt) - 1;
    at = memmem(at, (size_t)(end - at), open, sizeof(open) - 1);
    at = at ? skip_newline(at + sizeof(open) - 1, end) : NULL;
    stop = at ? memchr(at, '\'', (size_t)(end - at)) : NULL;
    if (!stop || stop - at >= CHAT_TOKEN_BYTES_MAX || memchr(at, '"', (size_t)(stop - at)) ||
        copy_literal(&literal, at, stop))
        return;
    memcpy(c->opening, literal.system, literal.n_system);
    c->opening[literal.n_system] = 0;
}

static int open_chatml(struct chat_template *c, struct gguf_string t)
{
    find_opening(c, t);

    c->drops_thoughts = has(t, "split('</think>')[-1]");
    c->thinks_last = has(t, "last_query_index");
    return find_default_system(c, t);
}

/* ---- Llama 3 --------------------------------------------------------------------------------- */

static int copy_text(struct chat_template *c, const char *text)
{
    return copy_literal(c, text, text + strlen(text));
}

/* From 3.1 on every conversation has a system message, which begins with two dates. */
static int open_llama3(struct chat_template *c, struct gguf_string t)
{
    static const char mark[] = "date_string = \"";
    const char *date = memmem(t.data, t.len, mark, sizeof(mark) - 1);
    const char *end;
    int rc;

    if (!has(t, "Cutting Knowledge Date: December 2023"))
        return 0;
    date = date ? date + sizeof(mark) - 1 : NULL;
    end = date ? memchr(date, '"', (size_t)(t.data + t.len - date)) : NULL;
    if (!end)
        return -ENOTSUP;
    rc = copy_text(c, "Cutting Knowledge Date: December 2023\nToday Date: ");
    if (!rc)
        rc = copy_literal(c, date, end);
    return rc ? rc : copy_text(c, "\n\n");
}

/* ---- Inst ------------------------------------------------------------------------------------ */

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

static int open_phi3(struct chat_template *c, struct gguf_string t)
{
    c->newline = has(t, "<|end|>\n") || has(t, "<|end|>\\n") || has(t, "'<|end|>' + '\\n'") ||
                 has(t, "'<|end|>' + '\n'");
    c->system_place = has(t, "'system'") || has(t, "\"system\"") || has(t, "message['role'] + '|>'")
                          ? CHAT_SYSTEM_FIRST
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

/* In this order: a template with the marks of two forms is of the first. */
static int find_form(struct chat_template *c, struct gguf_string t)
{
    static const struct {
        const char *marks[2];
        enum chat_format format;
        int (*open)(struct chat_template *c, struct gguf_string t);
    } forms[] = {{{IM_START, IM_START}, CHAT_CHATML, open_chatml},
                 {{"<|start_header_id|>", "<|eot_id|>"}, CHAT_LLAMA3, open_llama3},
                 {{"<|end|>", "|>"}, CHAT_PHI3, open_phi3},
                 {{"[INST]", "[/INST]"}, CHAT_INST, open_inst}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
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
        gguf_error_set(err,
                       "tokenizer.chat_template: not known (known: ChatML, Llama 2, Llama 3, "
                       "Mistral, Phi-3): %.*s",
                       (int)(t.len < 64 ? t.len : 64), t.data);
    return rc;
}

/* ---- What is forbidden ----------------------------------------------------------------------- */

static bool role_is(const struct chat_message *m, const char *role)
{
    return m->role_len == strlen(role) && memcmp(m->role, role, m->role_len) == 0;
}

static int refuse(uint32_t i, const struct chat_message *m, const char *why, struct gguf_error *err)
{
    gguf_error_set(err, "message %u, role \"%.*s\": %s", i,
                   (int)(m->role_len < 32 ? m->role_len : 32), m->role, why);
    return -EINVAL;
}

/* User and assistant in turn, the user first, behind a system message if there is one. */
static int check_turns(const struct chat_template *c, const struct chat_message *messages,
                       uint32_t n, struct gguf_error *err)
{
    const uint32_t first = n && role_is(&messages[0], "system");

    if (first && c->system_place == CHAT_SYSTEM_REFUSED)
        return refuse(0, &messages[0], "this model's template takes no system message", err);
    if (first && n == 1)
        return refuse(0, &messages[0], "this model's template wants a user message behind it", err);
    for (uint32_t i = first; i < n; i++)
        if (!role_is(&messages[i], (i - first) % 2 ? "assistant" : "user"))
            return refuse(i, &messages[i],
                          "this model's template wants user and assistant in turn, user first",
                          err);
    return 0;
}

static int check_phi3(const struct chat_template *c, const struct chat_message *m, uint32_t i,
                      struct gguf_error *err)
{
    if (role_is(m, "system") && c->system_place == CHAT_SYSTEM_REFUSED)
        return refuse(i, m, "this model's template takes no system message", err);
    if (role_is(m, "system") || role_is(m, "user") || role_is(m, "assistant"))
        return 0;
    return refuse(i, m, "this model's template knows system, user and assistant", err);
}

int chat_template_check(const struct chat_template *c, const struct chat_message *messages,
                        uint32_t n_messages, struct gguf_error *err)
{
    int rc = 0;

    if (c->format == CHAT_INST || c->in_turn)
        return check_turns(c, messages, n_messages, err);
    for (uint32_t i = 0; !rc && i < n_messages; i++) {
        if (c->format == CHAT_PHI3)
            rc = check_phi3(c, &messages[i], i, err);
        else if (c->refuses_tools && role_is(&messages[i], "tool"))
            rc = refuse(i, &messages[i], "messages of tools are not supported", err);
    }
    return rc;
}
